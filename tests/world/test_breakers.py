"""Breakers trip where an outcome is written, stay tripped, and count anew after a reset."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from tiphys.policies.lifecycle import State
from tiphys.policies.limits import (
    Breaker,
    Budget,
    ClusterConcurrency,
    Cooldown,
    LaunchRate,
    NamespaceConcurrency,
)
from tiphys.policies.model import Incident, Outcome
from tiphys.service.breakers import Breakers
from tiphys.service.database import stamp
from tiphys.service.records import AuditEvent


@pytest.fixture(autouse=True)
def quick(bench: Any) -> None:
    """Nothing but breakers is to be in the way."""
    rules = (
        Breaker(failures=2, ineffective=3, namespaces=2),
        Budget(namespace_limit=500, cluster_limit=500),
        ClusterConcurrency(limit=99),
        NamespaceConcurrency(limit=99),
        Cooldown(seconds=0),
        LaunchRate(limit=99, cluster_limit=99),
    )
    settings = {**bench.policy.settings, **{rule.name: rule for rule in rules}}
    bench.policy = type(bench.policy)(**{**vars(bench.policy), "settings": settings})


async def lost(bench: Any, kube: Any, target: Any, name: str, namespace: str = "shop") -> Incident:
    """A run whose Workflow vanishes: nobody knows how it ended."""
    incident = await bench.launching(f"pod {namespace}/{name}", target=target(name, namespace))
    if incident.state != State.LAUNCHING:
        return incident
    incident = await bench.run(bench.launch(kube.argo, kube.key), incident)
    run = await bench.run_of(incident)
    kube.store.delete("Workflow", "tiphys-actions", run.name)
    return await bench.run(bench.watch(kube.argo), incident)


async def scopes(bench: Any) -> list[str]:
    return sorted(row["scope"] for row in await bench.rows("breakers"))


async def test_failures_trip_the_namespace_in_the_transaction_that_writes_the_end(
    bench: Any, kube: Any, target: Any
) -> None:
    first = await lost(bench, kube, target, "a")
    assert first.outcome is Outcome.UNKNOWN
    assert await scopes(bench) == []
    second = await lost(bench, kube, target, "b")
    assert await scopes(bench) == ["namespace:sandbox/shop"]
    events = await bench.events(second)
    assert events[events.index(AuditEvent.RUN_ENDED) :] == [
        AuditEvent.RUN_ENDED, AuditEvent.TARGET_FROZEN, AuditEvent.BREAKER_TRIPPED,
        AuditEvent.INCIDENT_MOVED,
    ]  # fmt: skip
    third = await bench.launching("pod shop/c", target=target("c"))
    assert third.state == State.ESCALATED
    assert "breaker: namespace:sandbox/shop: 2 runs failed within 3600 s" in third.reason
    elsewhere = await bench.launching("pod research/c", target=target("c", "research"))
    assert elsewhere.state == State.LAUNCHING, "one noisy tenant disarms only itself"


async def test_after_a_reset_only_what_comes_after_counts(
    bench: Any, kube: Any, target: Any
) -> None:
    await lost(bench, kube, target, "a")
    await lost(bench, kube, target, "b")
    await bench.holds.release("namespace:sandbox/shop", by="ann", reason="found it")
    assert (await lost(bench, kube, target, "c")).outcome is Outcome.UNKNOWN
    assert await scopes(bench) == [], "two of three are from before the reset"
    await lost(bench, kube, target, "d")
    assert await scopes(bench) == ["namespace:sandbox/shop"]
    await bench.holds.release("namespace:sandbox/shop", by="ann", reason="again")
    [reset] = await bench.rows("breaker_resets")
    assert (reset["scope"], reset["by"]) == ("namespace:sandbox/shop", "ann")


async def test_the_clusters_breaker_counts_distinct_namespaces(
    bench: Any, kube: Any, target: Any
) -> None:
    for name in ("a", "b"):
        await lost(bench, kube, target, name)
    assert await scopes(bench) == ["namespace:sandbox/shop"]
    for name in ("a", "b"):
        last = await lost(bench, kube, target, name, "research")
    assert await scopes(bench) == [
        "cluster:sandbox", "namespace:sandbox/research", "namespace:sandbox/shop",
    ]  # fmt: skip
    tripped = [r for r in await bench.records(last) if r.event == AuditEvent.BREAKER_TRIPPED]
    assert [r.body["scope"] for r in tripped] == ["namespace:sandbox/research", "cluster:sandbox"]
    assert tripped[1].body["reason"] == "the breakers of 2 namespaces tripped within 3600 s"


async def test_a_namespace_whose_breaker_tripped_long_ago_does_not_count(
    bench: Any, kube: Any, target: Any
) -> None:
    for name in ("a", "b"):
        await lost(bench, kube, target, name)
    async with bench.database.transaction() as tx:
        long_ago = stamp(bench.clock() - timedelta(seconds=3601))
        await tx.execute(text("UPDATE breakers SET at = :at"), {"at": long_ago})
    for name in ("a", "b"):
        await lost(bench, kube, target, name, "research")
    assert await scopes(bench) == ["namespace:sandbox/research", "namespace:sandbox/shop"]


async def test_two_replicas_that_write_an_end_at_once_trip_it_together(
    bench: Any, kube: Any, target: Any
) -> None:
    """Each sees the other's end, or each would count one of two."""
    jobs = []
    for name in ("a", "b"):
        incident = await bench.launching(f"pod shop/{name}", target=target(name))
        incident = await bench.run(bench.launch(kube.argo, kube.key), incident)
        kube.store.delete("Workflow", "tiphys-actions", (await bench.run_of(incident)).name)
        jobs.append(await bench.job(incident))
    watches = [bench.watch(kube.argo), bench.watch(kube.argo)]
    await asyncio.gather(*(watch.run(job) for watch, job in zip(watches, jobs, strict=True)))
    assert await scopes(bench) == ["namespace:sandbox/shop"]


async def test_runs_in_a_row_that_did_not_help_trip_it(bench: Any, target: Any) -> None:
    for at, outcome in enumerate(
        (Outcome.INEFFECTIVE, Outcome.ROLLED_BACK, Outcome.VERIFIED, Outcome.ROLLED_BACK,
         Outcome.INEFFECTIVE, Outcome.REFUSED, Outcome.ROLLED_BACK)
    ):  # fmt: skip
        assert await scopes(bench) == []
        incident = await bench.launching(f"pod shop/p{at}", target=target(f"p{at}"))
        job, run = await bench.job(incident), await bench.run_of(incident)
        panel = Breakers(bench.runs, bench.policy.rule(Breaker))
        async with bench.ledger.entry(job) as entry:
            await bench.runs.created(entry.tx, run.name)
            await bench.runs.end(entry.tx, run.name, outcome, entry.now)
            await entry.record(AuditEvent.RUN_ENDED, {"outcome": outcome})
            await panel.after_end(entry, target(f"p{at}"))
        await bench.leases.release(job.lease, bench.clock())
        bench.clock.forward(60)
    [row] = await bench.rows("breakers")
    assert row["reason"] == "3 runs in a row did not help"
