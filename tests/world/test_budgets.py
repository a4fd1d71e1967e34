"""Three replicas that decide at once never exceed what any limit allows; on PostgreSQL too.

On SQLite there is one writer at a time; on PostgreSQL the budget's lock alone keeps them apart.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tiphys.policies.lifecycle import State
from tiphys.policies.limits import (
    Budget,
    ClusterConcurrency,
    Cooldown,
    LaunchRate,
    NamespaceConcurrency,
)
from tiphys.policies.model import Incident, Outcome
from tiphys.policies.rule import Rule
from tiphys.service.ledger import Job

WIDE: dict[str, Rule] = {
    "budget": Budget(namespace_limit=500, cluster_limit=500),
    "cluster": ClusterConcurrency(limit=99),
    "namespace": NamespaceConcurrency(limit=99),
    "cooldown": Cooldown(seconds=0),
    "rate": LaunchRate(limit=99, cluster_limit=99),
}
NARROW: dict[str, tuple[str, Rule, int]] = {
    "open in the cluster": ("cluster", ClusterConcurrency(limit=4), 4),
    "open in a namespace": ("namespace", NamespaceConcurrency(limit=2), 4),
    "launched in a namespace": ("rate", LaunchRate(limit=2, cluster_limit=99), 4),
    "launched in the cluster": ("rate", LaunchRate(limit=99, cluster_limit=4), 4),
    "spent in a namespace": ("budget", Budget(namespace_limit=3, cluster_limit=500), 4),
    "spent in the cluster": ("budget", Budget(namespace_limit=500, cluster_limit=6), 4),
}
"""The only narrow limit, and how many of nine proposals in two namespaces it lets through."""


def limited(bench: Any, which: str) -> int:
    key, rule, launches = NARROW[which]
    rules = {**WIDE, key: rule}.values()
    settings = {**bench.policy.settings, **{one.name: one for one in rules}}
    bench.policy = type(bench.policy)(**{**vars(bench.policy), "settings": settings})
    return launches


async def inspected(bench: Any, target: Callable[..., Any], wave: int) -> list[Incident]:
    """Nine incidents on nine targets, five in one namespace and four in the other."""
    found = []
    for at in range(9):
        space = ("shop", "research")[at % 2]
        name = f"p{wave}-{at}"
        found.append(await bench.inspected(f"pod {space}/{name}", target=target(name, space)))
    return found


async def decide_at_once(bench: Any, incidents: Sequence[Incident], dice: random.Random) -> None:
    """Three replicas take three each and judge them, all at once and in any order."""
    replicas = [bench.replica() for _ in range(3)]
    shuffled = dice.sample(incidents, len(incidents))
    work: list[tuple[Any, Job]] = []
    for at, incident in enumerate(shuffled):
        replica = replicas[at % 3]
        work.append((replica.judge, await replica.job(incident)))

    async def judge(stage: Any, job: Job, after: float) -> None:
        await asyncio.sleep(after)
        await stage.run(job)

    await asyncio.gather(*(judge(stage, job, dice.random() / 200) for stage, job in work))


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("which", NARROW)
async def test_three_replicas_at_once_launch_what_the_limit_allows_and_no_more(
    bench: Any, target: Any, which: str, seed: int
) -> None:
    dice = random.Random(f"{which} {seed}")
    launches = limited(bench, which)
    await decide_at_once(bench, await inspected(bench, target, 0), dice)
    rows = await bench.rows("runs")
    assert len(rows) == launches, which
    assert all(row["open"] for row in rows)


async def test_what_is_open_no_longer_makes_room_for_as_many_again(bench: Any, target: Any) -> None:
    dice = random.Random(7)
    launches = limited(bench, "open in the cluster")
    incidents = await inspected(bench, target, 0)
    await decide_at_once(bench, incidents, dice)
    for row in await bench.rows("runs"):
        async with bench.database.transaction() as tx:
            await bench.runs.end(tx, row["name"], Outcome.VERIFIED, bench.clock())
    waiting = [one for one in incidents if (await bench.get(one)).state == State.PROPOSED]
    assert len(waiting) == 9 - launches
    for replica in (bench, bench.replica()):
        await replica.leases.expire_all()
    again = [await bench.run(bench.recheck, one) for one in waiting]
    await decide_at_once(bench, again, dice)
    assert sum(row["open"] for row in await bench.rows("runs")) == launches
