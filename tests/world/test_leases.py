"""Leases: one holder at a time, a dead one's work is taken over, an old one counts for nothing."""

import asyncio
import socket
from datetime import datetime, timedelta
from typing import Any

import pytest

from tiphys.policies.lifecycle import State
from tiphys.service.errors import LeaseLostError

TERM = 15


async def pass_time(bench: Any, seconds: float) -> None:
    """Move the shared clock: ours on SQLite; PostgreSQL's cannot be moved, so its leases are."""
    bench.clock.forward(seconds)
    if not bench.database.sqlite:
        from sqlalchemy import select, update

        from tiphys.service.tables import leases

        async with bench.database.transaction() as tx:
            for row in (await tx.execute(select(leases))).all():
                ends = datetime.fromisoformat(row.expires_at) - timedelta(seconds=seconds)
                stamp = ends.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
                mine = leases.c.resource == row.resource
                await tx.execute(update(leases).where(mine).values(expires_at=stamp))


async def test_what_is_held_cannot_be_claimed(bench: Any) -> None:
    incident = await bench.open()
    assert await bench.claim(incident.id) is not None
    assert await bench.claim(incident.id) is None, "not even by its holder"
    assert await bench.replica().claim(incident.id) is None
    await pass_time(bench, TERM - 1)
    assert await bench.replica().claim(incident.id) is None


async def test_the_holder_says_which_host_it_is_on_and_is_no_other_replica(bench: Any) -> None:
    holders = {bench.ledger.leases.holder, bench.replica().ledger.leases.holder}
    assert len(holders) == 2
    assert all(holder.startswith(f"{socket.gethostname()}-") for holder in holders)


async def test_a_killed_holders_incident_is_taken_over_after_the_lease(bench: Any) -> None:
    incident = await bench.open()
    first = await bench.job(incident)
    await pass_time(bench, TERM + 1)
    second = await bench.replica().claim(incident.id)
    assert second is not None
    assert second.lease.token > first.lease.token
    with pytest.raises(LeaseLostError):
        await bench.leases.renew(first.lease, bench.clock())


async def test_a_renewed_lease_goes_on(bench: Any) -> None:
    incident = await bench.open()
    job = await bench.job(incident)
    for _ in range(3):
        await pass_time(bench, TERM - 1)
        await bench.leases.renew(job.lease, bench.clock())
    assert await bench.replica().claim(incident.id) is None


async def test_a_released_lease_is_free_at_once_and_its_token_is_spent(bench: Any) -> None:
    incident = await bench.open()
    job = await bench.job(incident)
    await bench.leases.release(job.lease, bench.clock())
    other = bench.replica()
    taken = await other.claim(incident.id)
    assert taken is not None
    await bench.leases.release(job.lease, bench.clock())  # an old release frees nothing
    assert await bench.claim(incident.id) is None
    async with bench.database.transaction() as tx:
        await other.leases.check(tx, taken.lease)
        with pytest.raises(LeaseLostError):
            await bench.leases.check(tx, job.lease)


async def test_the_same_token_in_another_process_is_no_lease(bench: Any) -> None:
    job = await bench.job(await bench.open())
    async with bench.database.transaction() as tx:
        with pytest.raises(LeaseLostError):
            await bench.replica().leases.check(tx, job.lease)


async def test_many_claimants_get_each_incident_once(bench: Any) -> None:
    opened = [await bench.open(f"pod shop/p-{i}") for i in range(12)]
    replicas = [bench.replica() for _ in range(6)]
    now = bench.clock()
    found = await asyncio.gather(
        *(r.leases.claim_due([State.OPEN], now, 4, now + timedelta(seconds=1)) for r in replicas)
    )
    taken = [incident.id for claimed in found for incident, _ in claimed]
    assert sorted(taken) == sorted(incident.id for incident in opened)


async def test_only_due_incidents_of_the_wanted_states_the_longest_due_first(bench: Any) -> None:
    late, later, escalated = [
        await bench.open("late"), await bench.open("later"), await bench.escalated("escalated"),
    ]  # fmt: skip
    resting = await bench.open("resting")
    async with bench.database.transaction() as tx:
        now = bench.clock()
        await bench.incidents.wake(tx, late.id, now - timedelta(seconds=9))
        await bench.incidents.wake(tx, later.id, now - timedelta(seconds=5))
        await bench.incidents.wake(tx, resting.id, now + timedelta(seconds=60))
        await bench.incidents.wake(tx, escalated.id, now - timedelta(seconds=60))
    again = now + timedelta(seconds=30)
    claimed = await bench.leases.claim_due([State.OPEN], bench.clock(), 10, again)
    assert [incident.id for incident, _ in claimed] == [late.id, later.id]
    for _, lease in claimed:
        await bench.leases.release(lease, bench.clock())
    assert not await bench.leases.claim_due([State.OPEN], bench.clock(), 10, again)
    bench.clock.forward(31)
    claimed = await bench.leases.claim_due([State.OPEN], bench.clock(), 1, again)
    assert len(claimed) == 1, "a limit holds, and what was claimed is due again"


async def test_a_closed_incidents_lease_is_forgotten(bench: Any) -> None:
    incident = await bench.escalated()
    await bench.end_alerts(incident)
    assert (await bench.run(bench.settle, incident)).state == State.CLOSED
    assert await bench.rows("leases") == []


async def test_whoever_holds_the_data_directory_frees_a_dead_process_leases(bench: Any) -> None:
    incident = await bench.open()
    await bench.job(incident)
    heir = bench.replica()
    await heir.leases.expire_all()
    assert await heir.claim(incident.id) is not None


async def test_replicas_take_turns_and_a_turn_lasts(bench: Any) -> None:
    other = bench.replica()

    async def turns() -> list[bool]:
        now = bench.clock()
        return [await one.leases.take_turn("listing", now, 60) for one in (bench, other, bench)]

    assert await turns() == [True, False, False]
    assert await other.leases.take_turn("another", bench.clock(), 60)
    await pass_time(bench, 61)
    assert await other.leases.take_turn("listing", bench.clock(), 60), "though ours has died"
    assert await turns() == [False, False, False]
