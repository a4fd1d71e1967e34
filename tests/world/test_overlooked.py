"""What no stage works on: rows that cannot be read, and incidents whose role is away."""

from typing import Any

import pytest
from sqlalchemy import text

from tiphys.policies.lifecycle import Move, State
from tiphys.service.errors import TiphysError
from tiphys.service.incidents import Step
from tiphys.service.records import AuditEvent


async def spoil(bench: Any, incident: Any) -> None:
    async with bench.database.transaction() as tx:
        spoilt = text("UPDATE incidents SET body = '{\"id\": 7}' WHERE id = :id")
        await tx.execute(spoilt, {"id": incident.id})


async def test_one_incident_that_cannot_be_read_keeps_no_other_from_being_claimed(
    bench: Any,
) -> None:
    bad, good = await bench.open("pod shop/bad"), await bench.open("pod shop/good")
    await spoil(bench, bad)
    now = bench.clock()
    claimed = await bench.leases.claim_due([*State], now, 10, now)
    assert [incident.id for incident, _ in claimed] == [good.id]
    assert await bench.leases.claim_due([*State], now, 10, now) == [], "it is parked, not retried"
    parked = [r for r in await bench.records() if r.event == AuditEvent.INCIDENT_PARKED]
    assert [r.incident_id for r in parked] == [bad.id]


async def test_a_parked_incident_is_named_and_paged_about(bench: Any) -> None:
    bad = await bench.open("pod shop/bad")
    await bench.ledger.check_parked()
    await spoil(bench, bad)
    await bench.leases.claim_due([*State], bench.clock(), 10, bench.clock())
    with pytest.raises(TiphysError, match=bad.id):
        await bench.ledger.check_parked()
    await bench.overlooked.once()
    [(incident, reason)] = bench.bell.rung
    assert incident == bad.id
    assert "cannot be read" in reason


async def test_what_the_launcher_does_not_judge_goes_to_a_human(bench: Any) -> None:
    incident = await bench.inspected()
    bench.clock.forward(120 + 30)
    await bench.overlooked.once()
    assert (await bench.get(incident)).state == State.INSPECTED, "the launcher's own hand is quick"
    bench.clock.forward(60)
    await bench.overlooked.once()
    escalated = await bench.get(incident)
    assert escalated.state == State.ESCALATED
    assert "the launcher has not judged it in time" in escalated.reason


@pytest.mark.parametrize("state", [State.LAUNCHING, State.RUNNING])
async def test_a_run_that_the_launcher_does_not_end_is_paged_about_and_left_to_it(
    bench: Any, state: State
) -> None:
    incident = await bench.launching()
    if state is State.RUNNING:
        async with bench.ledger.person(incident.id) as entry:
            deadline = entry.incident.deadline_at
            await entry.move(Step(Move.START, "runs", deadline_at=deadline))
    await bench.overlooked.once()
    assert bench.bell.rung == []
    bench.clock.forward(3600)
    for _ in range(2):
        await bench.overlooked.once()
    assert (await bench.get(incident)).state == state, "its end is the launcher's to tell"
    assert [who for who, _ in bench.bell.rung] == [incident.id] * 2
    assert (await bench.events(incident)).count(AuditEvent.PAGED) == 1


async def test_what_goes_its_way_is_not_overlooked(bench: Any) -> None:
    for incident in (await bench.inspected(), await bench.escalated("pod shop/other")):
        await bench.overlooked.once()
        assert (await bench.get(incident)).state == incident.state
    assert bench.bell.rung == []
