"""Random clicks on three replicas at once, while all three try to launch: what always holds.

An approval launches at most once; nothing is launched without two different people who may, of that
very plan; a no wins over whatever comes after it.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tiphys.policies.approval import RiskLevel
from tiphys.policies.lifecycle import IllegalMoveError, State
from tiphys.policies.model import Change, Incident
from tiphys.policies.people import Person, PersonRole, RoleGrant
from tiphys.policies.plan import digest
from tiphys.policies.rule import RuleName
from tiphys.service.errors import TiphysError
from tiphys.service.records import AuditEvent

ROUNDS = 24
VALID = {"alice", "bob", "carol"}


def person(name: str, role: str = "approver", namespace: str = "*") -> Person:
    return Person(name=name, grants=(RoleGrant(role=PersonRole(role), namespaces=(namespace,)),))


CLICKERS = [
    *(person(name) for name in sorted(VALID)),
    person("alice"),
    person("ALICE"),
    person("olga", "operator"),
    person("ann", namespace="other"),
]


def clicks(chance: random.Random, replicas: list[Any], incident: Incident, seen: str) -> Any:
    """Some clicks, in some order, on some replicas: forged, late and twice ones among them."""

    def click() -> Callable[[], Awaitable[Any]]:
        desk, who = chance.choice(replicas).approvals, chance.choice(CLICKERS)
        expected = chance.choice(["", seen, seen[:12], "0" * 64])
        decide = desk.deny if chance.random() < 0.07 else desk.approve
        return lambda: decide(incident.id, person=who, reason="x", expected=expected)

    return [click() for _ in range(chance.randint(4, 10))]


async def work(replica: Any, incident: Incident, done: asyncio.Event) -> None:
    """Do what the pipeline of a replica does, until the clicking is over, and twice more."""
    last = 0
    while last < 3:
        last += done.is_set()
        job = await replica.claim(incident.id)
        if job is not None:
            stages = {State.PROPOSED: replica.recheck, State.INSPECTED: replica.judge}
            stage = stages.get(State(job.incident.state))
            with contextlib.suppress(TiphysError):
                if stage:
                    await stage.run(job)
            await replica.leases.release(job.lease, replica.clock())
        await asyncio.sleep(0)


async def settle(bench: Any, incident: Incident) -> None:
    """Let what was approved be judged, where the replicas were in each other's way to the end."""
    for _ in range(4):
        state = (await bench.get(incident)).state
        if state in {State.PROPOSED, State.INSPECTED}:
            await bench.run(bench.recheck if state == State.PROPOSED else bench.judge, incident)


async def clicked(chance: random.Random, click: Callable[[], Awaitable[Any]]) -> None:
    await asyncio.sleep(chance.random() / 50)
    with contextlib.suppress(TiphysError, IllegalMoveError):
        await click()


async def check(bench: Any, incident: Incident) -> str:
    """Hold the database and the record to what always holds; says how it ended."""
    runs = await bench.rows("runs")
    given = await bench.rows("approvals")
    intended = [r for r in await bench.records() if r.event == AuditEvent.LAUNCH_INTENDED]
    assert len(runs) == len(intended) <= 1
    assert {row["by"] for row in given} <= VALID | {"ALICE"}, "nobody else decides"
    assert len({(row["plan_digest"], row["by"], row["verdict"]) for row in given}) == len(given)
    noes = [row for row in given if row["verdict"] == "deny"]
    assert len(noes) <= 1
    if noes:
        assert not runs, "a no wins"
        assert max(row["id"] for row in given) == noes[0]["id"], "nothing counts after it"
        assert (await bench.get(incident)).state == State.ACKNOWLEDGED
    for run in runs:
        people = {
            row["by"].casefold()
            for row in given
            if row["plan_digest"] == run["plan_digest"] and row["verdict"] == "approve"
        }
        assert len(people) >= 2, "two different people agreed to exactly this plan"
    assert (await bench.verify()).problem is None
    return "launched" if runs else "denied" if noes else "open"


@pytest.mark.parametrize("seed", range(ROUNDS))
async def test_whatever_is_clicked_wherever(bench: Any, seed: int) -> None:
    chance = random.Random(seed)
    policy = bench.policy
    settings = {**policy.settings, RuleName.RISK: RiskLevel(low="auto", medium="auto")}
    bench.policy = type(policy)(**{**vars(policy), "settings": settings})
    incident = await bench.asked()
    async with bench.database.reading() as tx:
        seen = digest(await bench.runs.plan(tx, incident))
    replicas = [bench, bench.replica(), bench.replica()]
    if chance.random() < 0.25:  # the target moves in the meantime
        moved = (Change(path="", present={"restarts": 8}, intended=None),)
        bench.scout.target = {"changes": moved}
    done = asyncio.Event()
    workers = [asyncio.create_task(work(one, incident, done)) for one in replicas]
    made = clicks(chance, replicas, incident, seen)
    await asyncio.gather(*(clicked(chance, one) for one in made))
    done.set()
    await asyncio.gather(*workers)
    await settle(bench, incident)
    ended = await check(bench, incident)
    if bench.scout.target:
        assert ended != "launched", "what was approved is no longer what would be done"


async def test_the_schedules_end_in_every_way_there_is(bench: Any) -> None:
    """Or the property above would hold of nothing."""
    people = [one for one in CLICKERS if one.name in VALID]
    for noes, state in ((0, State.LAUNCHING), (1, State.ACKNOWLEDGED)):
        bench.scout.target = {}
        name = f"p-{noes}"
        target = bench.scout.proposal.target.model_copy(update={"name": name, "uid": name})
        incident = await bench.launching(f"pod shop/{name}", risk="high", target=target)
        replicas, done = [bench, bench.replica(), bench.replica()], asyncio.Event()
        workers = [asyncio.create_task(work(one, incident, done)) for one in replicas]
        if noes:
            await bench.approvals.deny(incident.id, person=people[0], reason="x")
        for one, who in zip(replicas, people, strict=False):
            with contextlib.suppress(TiphysError):
                await one.approvals.approve(incident.id, person=who, reason="")
        done.set()
        await asyncio.gather(*workers)
        await settle(bench, incident)
        assert (await bench.get(incident)).state == state
