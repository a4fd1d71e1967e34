"""kill -9 of `tiphys serve`: no alert is lost, no action starts twice, the record stays whole."""

import asyncio
import contextlib
import os
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tiphys.sandbox.store import AdmissionRequest, ApiError
from tiphys.service.narration import Summary
from tiphys.service.rehearsal import ServeFailedError

KILLS = 5
"""In each of two scenarios, so that ten moments are tried."""


async def check_nothing_lost(drama: Any, summary: Summary) -> None:
    """Every alert that Alertmanager could deliver, or still has, belongs to an incident."""
    alertmanager = drama.stage.world.alertmanager
    delivered = {
        alert["fingerprint"]
        for attempt in alertmanager.attempts
        if 200 <= attempt.status < 300
        for alert in attempt.body["alerts"]
        if alert["status"] == "firing"
    }
    now = time.time()
    active = {
        fingerprint
        for fingerprint, alert in alertmanager.alerts.items()
        if not alert.resolved(now) and "tiphys" in alertmanager.receivers_of(alert)
    }
    known = {alert["fingerprint"] for view in summary.views for alert in view["alerts"]}
    assert delivered
    assert delivered | active <= known


async def check_nothing_twice(drama: Any, summary: Summary, action: str) -> None:
    """One attempt, one intent, one Workflow, one write to the target."""
    assert summary.ended.launched == (action,)
    intents = await drama.records("launch_intended")
    per_incident = Counter(record["incident_id"] for record in intents)
    assert list(per_incident.values()) == [1]
    created = await drama.records("workflow_created")
    assert [r["body"]["workflow"] for r in created] == [intents[0]["body"]["workflow"]]
    assert len(drama.workflows) == 1
    assert len(drama.acts) == 1, [(w.operation, w.kind, w.user) for w in drama.acts]


async def kill_while_starting(drama: Any, dice: random.Random) -> None:
    """Kill a second time before the service is ready again."""
    starting = asyncio.create_task(drama.stage.restart_service())
    await asyncio.wait([starting], timeout=dice.uniform(0.5, 5.0))
    drama.stage.kill_service()
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)


@pytest.mark.parametrize(
    ("name", "action"), [("bad-release", "rollout-undo"), ("overload", "scale-workload")]
)
async def test_kills_at_random_moments_lose_nothing_and_repeat_nothing(
    name: str, action: str, on_stage: Callable[..., Any], tmp_path: Path
) -> None:
    seed = int(os.environ.get("TIPHYS_SEED") or random.SystemRandom().randrange(10**6))
    print(f"TIPHYS_SEED={seed}")  # noqa: T201 - a failure must be repeatable
    dice = random.Random(seed)
    async with on_stage(name, tmp_path) as drama:
        await drama.play.strike()
        kills = 0
        while kills < KILLS:
            # The moment is the point: there is no condition to wait for.
            await asyncio.sleep(dice.uniform(0.0, 4.0))
            drama.stage.kill_service()
            kills += 1
            if kills < KILLS and dice.random() < 0.3:
                await kill_while_starting(drama, dice)
                kills += 1
            await drama.stage.restart_service()
        summary = await drama.play.finish(limit=120)
        assert summary.complaints == []
        await drama.check_lawful(summary)
        await check_nothing_lost(drama, summary)
        await check_nothing_twice(drama, summary, action)
        starts = await drama.records("service_started")
        assert KILLS + 1 >= len(starts) > 2


async def test_kills_at_each_step_of_a_launch_start_it_once(
    on_stage: Callable[..., Any], until: Callable[..., Any], tmp_path: Path
) -> None:
    async with on_stage("overload", tmp_path) as drama:
        stage, store = drama.stage, drama.stage.world.store
        killed: list[str] = []

        def die(when: str) -> bool:
            if when in killed:
                return False
            killed.append(when)
            stage.kill_service()
            return True

        def at_admission(request: AdmissionRequest) -> None:
            """The intent is on the disk; the Workflow is not made: the connection broke."""
            if request.kind == "Workflow" and request.operation == "CREATE" and die("intended"):
                raise ApiError(500, "InternalError", "the service is dead, nobody reads this")

        def at_change(event: str, obj: dict[str, Any]) -> None:
            """The Workflow is made; nobody has noted it."""
            if obj["kind"] == "Workflow" and event == "ADDED":
                die("created")

        store.admission.append(at_admission)
        store.subscribe(at_change)
        await drama.play.strike()

        async def restarted(when: str) -> None:
            async def dead() -> bool:
                return when in killed

            await until(dead)
            # It goes on at once, so it may meet its next death before it is ready.
            with contextlib.suppress(ServeFailedError):
                await stage.restart_service()

        await restarted("intended")
        await restarted("created")
        adopted = await drama.until_recorded("workflow_created")
        assert adopted["body"]["adopted"] is True
        assert die("noted")
        await stage.restart_service()

        async def acted() -> bool:
            return bool(drama.acts)

        await until(acted)
        assert die("acted")
        await stage.restart_service()
        await drama.until_recorded("run_ended")
        assert die("ended")
        await stage.restart_service()

        summary = await drama.play.finish()
        assert summary.complaints == []
        await drama.check_lawful(summary)
        await check_nothing_lost(drama, summary)
        await check_nothing_twice(drama, summary, "scale-workload")
