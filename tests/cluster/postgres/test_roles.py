"""Each role in a process of its own, with its own credentials and database user, does its work."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from fleet import Fleet, until

from tiphys.service.playing import Play
from tiphys.service.roles import Role

ASK_FIRST = {"rules": {"risk": {"low": "approve", "medium": "approve", "high": "approve"}}}


async def play(fleet: Fleet) -> Any:
    stage = Play(fleet)  # type: ignore[arg-type]
    await stage.strike()
    return await stage.finish(limit=150)


@pytest.mark.parametrize(
    "name", ["bad-release", "overload", "rollback-cannot-hold", "gpu-training", "silenced"]
)
async def test_three_processes_play_a_scenario_to_its_end(
    name: str, fleet_of: Callable[..., Fleet]
) -> None:
    async with fleet_of(name) as fleet:
        summary = await play(fleet)
        assert summary.complaints == []
        for role in Role:
            words = fleet.one(role).words()
            assert "permission denied" not in words, words
        started = await fleet.records("service_started")
        assert {tuple(record["body"]["roles"]) for record in started} == {(r,) for r in Role}
        for role in Role:
            assert await fleet.one(role).stop() == 0, "it ends when it is told to"


async def test_an_approval_given_at_the_gateway_is_launched_by_the_launcher(
    fleet_of: Callable[..., Fleet],
) -> None:
    async with fleet_of("overload", policy=ASK_FIRST) as fleet:
        await Play(fleet).strike()  # type: ignore[arg-type]

        async def asked() -> Any:
            return await fleet.get("/api/incidents", state="awaiting_approval")

        [incident] = await until(asked, "a question")
        person = {"by": "ada", "reason": "go"}
        await fleet.post(f"/api/incidents/{incident['id']}/approve", person)

        async def intended() -> Any:
            return await fleet.records("launch_intended")

        [intent] = await until(intended, "an intent")
        assert intent["body"]["approved_by"] == "ada"


async def test_each_role_tells_what_it_can_read_and_nothing_else(
    fleet_of: Callable[..., Fleet],
) -> None:
    standing = {"tiphys_holds", "tiphys_run_oldest_age_seconds"}
    lag = {"tiphys_intake_pending_alerts", "tiphys_intake_oldest_age_seconds"}
    told = {Role.GATEWAY: standing, Role.AGENTS: lag, Role.LAUNCHER: set[str]()}
    async with fleet_of("bad-release", replicas=2) as fleet:
        for role, replicas in fleet.replicas.items():
            for replica in replicas:

                async def seen(replica: Any = replica, role: Role = role) -> bool:
                    async with httpx2.AsyncClient(trust_env=False) as http:
                        text = (await http.get(f"{replica.url}/metrics")).text
                    values = {line.partition("{")[0].split(" ")[0] for line in text.splitlines()}
                    return values & (standing | lag) == told[role]

                await until(seen, f"the metrics of {role}")


async def test_word_passes_between_processes_faster_than_they_poll(
    fleet_of: Callable[..., Fleet], monkeypatch: pytest.MonkeyPatch
) -> None:
    import fleet as fleets

    monkeypatch.setitem(fleets.PACE, "TIPHYS_POLL_INTERVAL", "30")
    async with fleet_of("overload") as fleet:
        await Play(fleet).strike()  # type: ignore[arg-type]

        async def events() -> Any:
            found = await fleet.records("decided", "launch_intended")
            return found if len(found) == 2 else None

        decided, intended = await until(events, "an intent")
        await asyncio.sleep(0)
        assert _seconds(intended) - _seconds(decided) < 15, "or the launcher waited for its poll"


def _seconds(record: dict[str, Any]) -> float:
    from datetime import datetime

    return datetime.fromisoformat(record["at"]).timestamp()
