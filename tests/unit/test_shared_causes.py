"""One investigation for each cause, none on a repeat, and what a storm costs."""

import asyncio
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from model_bench import NOW, InProcess, act, asking, escalate, nothing

from tiphys.agents.pictures import likeness
from tiphys.agents.playbooks import Playbooks
from tiphys.agents.ports import Answer, Attempt, Case, Choice, Findings, ReasonerFailedError
from tiphys.agents.shared_causes import SharedCauses
from tiphys.agents.two_opinions import TwoOpinions
from tiphys.policies.model import Alert, Evidence, Json, Outcome, Source, Target

CLUSTERS = 1_400
UNDO = act("rollout-undo", "workload")
PLAYBOOKS = Playbooks.load()


@dataclass
class Clock:
    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now


def incident(number: int, **changes: Any) -> Findings:
    """Give the findings of a bad release that crashes, under names and numbers of its own."""
    rng = random.Random(number)
    name, place = f"app{rng.randrange(10**6)}", f"team-{rng.choice('abcdefgh')}{number}"
    pod = f"{name}-{rng.randbytes(4).hex()}-x{number % 1000:04d}"
    log: list[Json] = [
        f"2026-01-02T11:{rng.randrange(60):02d}:07Z {name} starting on 10.0.{number % 250}.7:8080",
        f"FATAL cannot read /etc/{name}/config-{number}.yaml: key 'pool_{number}' is unknown",
    ]
    facts: dict[str, Json] = {
        "alert": {"name": "KubePodCrashLooping", "minutes": rng.randrange(5, 90), "count": 1},
        "attempts": {"count": 0, "last_action": "", "last_outcome": ""},
        "workload": {"kind": "Deployment", "name": name, "replicas": rng.randrange(2, 40)},
        "rollout": {
            "minutes": float(rng.randrange(5, 50)),
            "recent": True,
            "stuck": False,
            "revision": rng.randrange(2, 90),
            "changed": ["image"],
            "images": [f"registry.{place}/x/{name}:{number}"],
            "previous_healthy": True,
        },
        "pods": {"total": rng.randrange(2, 40), "crash": rng.randrange(1, 40), "image": 0},
        "pod": {
            "name": pod,
            "trouble": "crash",
            "waiting_reason": "CrashLoopBackOff",
            "restarts": rng.randrange(3, 90),
            "log_tail": log,
            "waiting_message": f"back-off {rng.randrange(10, 300)}s restarting {name} in {pod}",
        },
        "node": {"name": f"ip-10-1-{number}", "ready": True},
    }
    for group, items in changes.items():
        facts[group] = {**facts.get(group, {}), **items}  # type: ignore[dict-item]
    raised = Alert(
        id=f"a{number}",
        cluster=f"c-{number}",
        fingerprint=f"f{number}",
        status="firing",  # type: ignore[arg-type]
        starts_at=NOW - timedelta(minutes=9),
        received_at=NOW,
        labels={
            "alertname": "KubePodCrashLooping",
            "namespace": place,
            "pod": pod,
            "severity": "warning",
        },
    )
    piece = Evidence(
        id=f"ev-{number:016x}",
        source=Source.KUBERNETES,
        question=f"get {pod}",
        asked_at=NOW,
        ok=True,
        answer=None,
        summary=f"{pod} crashes",
    )
    target = Target(
        cluster=f"c-{number}",
        api_version="apps/v1",
        kind="Deployment",
        namespace=place,
        name=name,
        uid=f"u{number}",
    )
    case = Case(f"inc-{number}", 1, f"c-{number}", True, f"deployment {name}", [raised])
    return Findings(case, facts, {"workload": target}, (piece,))


@asynccontextmanager
async def shared(
    wire: httpx2.AsyncBaseTransport, clock: Clock | None = None
) -> AsyncIterator[SharedCauses]:
    async with asking(wire, clock=clock or Clock()) as model:
        shared = SharedCauses(model, timedelta(minutes=60))
        yield shared
        await shared.close()


async def storm(wire: InProcess, findings: list[Findings], at_once: int = 16) -> list[Choice]:
    """Let both decide, as many at once as the service works on."""
    turn = asyncio.Semaphore(at_once)
    async with shared(wire) as model:
        both = TwoOpinions(PLAYBOOKS, model, alone=True)

        async def one(found: Findings) -> Choice:
            async with turn:
                return await both.decide(found)

        return await asyncio.gather(*(one(found) for found in findings))


async def test_a_storm_of_one_fault_in_1400_clusters_makes_one_call() -> None:
    wire = InProcess(lambda _: escalate(reason="the new release cannot read its settings"))
    found = await storm(wire, [incident(n) for n in range(CLUSTERS)])
    assert len(wire.requests) == 1
    assert {choice.answer for choice in found} == {Answer.ESCALATE}
    heard = [c for c in found if "cannot read its settings" in c.reason]
    assert len(heard) == CLUSTERS, "each is told what was found out for all"


@pytest.mark.parametrize("kind", ["malformed", "away", "busy"])
async def test_a_storm_costs_five_calls_at_most_where_the_model_fails(kind: str) -> None:
    said: dict[str, object] = {
        "malformed": "no answer",
        "away": httpx2.ConnectError("gone"),
        "busy": httpx2.Response(429),
    }
    wire = InProcess(lambda _: said[kind])
    found = await storm(wire, [incident(n) for n in range(CLUSTERS)])
    assert 1 <= len(wire.requests) <= 5
    assert all(choice.decided_by.note for choice in found), "the playbook decided, and says why"


async def test_a_storm_whose_every_log_is_another_costs_five_calls_at_most() -> None:
    words = ["alpha", "beta", "gamma", "delta", "kappa", "sigma", "theta", "omega", "lambda"]

    def odd(number: int) -> Findings:
        said = " ".join(random.Random(number).sample(words, 6))
        return incident(number, pod={"log_tail": [f"FATAL error {said}"]})

    wire = InProcess(lambda _: nothing())
    await storm(wire, [odd(n) for n in range(CLUSTERS)])
    assert len(wire.requests) == 5


async def test_an_action_is_used_again_only_where_every_fact_is_the_same() -> None:
    wire = InProcess(lambda _: UNDO)
    async with shared(wire) as model:
        first = await model.decide(incident(1))
        assert (first.action, first.shared_from) == ("rollout-undo", "")
        second = await model.decide(incident(2))
        assert (second.action, second.shared_from) == ("rollout-undo", "inc-1")
        assert second.evidence == (), "what was seen elsewhere is not evidence here"
        others: list[dict[str, dict[str, Any]]] = [
            {"rollout": {"changed": ["resources"]}},
            {"rollout": {"previous_healthy": False}},
            {"node": {"ready": False}},
            {"autoscaler": {"present": True}},
        ]
        for changes in others:
            with pytest.raises(ReasonerFailedError, match="incident inc-1 has the same cause"):
                await model.decide(incident(3, **changes))
        fewer = replace(incident(4), targets={})
        with pytest.raises(ReasonerFailedError, match="not all of its facts are the same"):
            await model.decide(fewer)
    assert len(wire.requests) == 1


async def test_parameters_are_never_used_again() -> None:
    wire = InProcess(lambda _: act("scale-workload", "workload", parameters={"replicas": 7}))
    async with shared(wire) as model:
        assert (await model.decide(incident(1))).parameters == {"replicas": 7}
        second = await model.decide(incident(2))
        assert (second.parameters, second.shared_from) == ({}, "inc-1")
        both = TwoOpinions(PLAYBOOKS, model, alone=True)
        uncovered = incident(3)
        odd = uncovered.case.alerts[0].model_copy(
            update={"labels": {**uncovered.case.alerts[0].labels, "alertname": "Ours"}}
        )
        case = replace(uncovered.case, alerts=[odd])
        await both.decide(replace(uncovered, case=case))
        again = replace(uncovered, case=replace(case, incident="inc-9"))
        choice = await both.decide(again)
        assert choice.answer is Answer.ESCALATE
        assert "its parameters are for that one alone" in choice.reason


async def test_a_repeat_makes_no_call_and_another_attempt_does() -> None:
    clock = Clock()
    wire = InProcess(lambda _: UNDO)
    async with shared(wire, clock) as model:
        await model.decide(incident(1))
        clock.now += timedelta(minutes=30)
        again = await model.decide(incident(1, alert={"minutes": 40}))
        assert (again.action, again.shared_from) == ("rollout-undo", "")
        assert len(wire.requests) == 1
        tried = Attempt(1, "rollout-undo", incident(1).targets["workload"], Outcome.ROLLED_BACK, "")
        after = incident(
            1, attempts={"count": 1, "last_action": "rollout-undo", "last_outcome": "rolled_back"}
        )
        await model.decide(replace(after, case=replace(after.case, attempts=[tried])))
        assert len(wire.requests) == 2, "what was tried is news"
        clock.now += timedelta(minutes=61)
        await model.decide(incident(1))
        assert len(wire.requests) == 3, "an answer does not hold for ever"


def test_a_crash_loop_looks_the_same_in_each_of_its_turns() -> None:
    waits = incident(7)
    runs = incident(7, pod={"running": True, "waiting_reason": "", "waiting_message": ""})
    assert likeness(waits, []) == likeness(runs, [])
    stuck = {"trouble": "image", "waiting_reason": "ErrImagePull"}
    denied = incident(7, pod={**stuck, "waiting_message": "pull access denied"})
    assert likeness(incident(7, pod=stuck), []).cause != likeness(denied, []).cause


async def test_causes_that_differ_are_asked_about_each() -> None:
    wire = InProcess(lambda _: nothing())
    async with shared(wire) as model:
        await model.decide(incident(1))
        await model.decide(incident(2, pod={"log_tail": ["FATAL the disk refused the write"]}))
        await model.decide(incident(3, pods={"crash": 0, "image": 3}, pod={"trouble": "image"}))
    assert len(wire.requests) == 3


async def test_one_that_gives_up_does_not_take_the_answer_from_the_others() -> None:
    asked, answer = asyncio.Event(), asyncio.Event()

    class Slow(InProcess):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            asked.set()
            await answer.wait()
            return await super().handle_async_request(request)

    wire = Slow(lambda _: nothing())
    async with shared(wire) as model:
        first = asyncio.create_task(model.decide(incident(1)))
        await asked.wait()
        second = asyncio.create_task(model.decide(incident(2)))
        await asyncio.sleep(0)
        first.cancel()
        answer.set()
        assert (await second).answer is Answer.NOTHING
    assert len(wire.requests) == 1
