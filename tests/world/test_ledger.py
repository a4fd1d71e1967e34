"""Writing under a lease: one fenced transaction with the incident, the clock and the record."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import update

from tiphys.policies.lifecycle import IllegalMoveError, Move, State
from tiphys.policies.model import Incident
from tiphys.service.errors import LeaseLostError, NoSuchIncidentError, UsageError
from tiphys.service.incidents import Step
from tiphys.service.records import AuditEvent
from tiphys.service.tables import incidents


async def test_a_move_its_record_and_its_incident_are_one_commit(bench: Any) -> None:
    incident = await bench.open()
    async with bench.ledger.entry(await bench.job(incident)) as entry:
        await entry.move(Step(Move.INVESTIGATE, "look"))
        assert (await bench.get(incident)).state == State.OPEN, "nothing is seen before the commit"
    assert (await bench.get(incident)).state == State.INVESTIGATING
    last = (await bench.records(incident))[-1]
    assert last.event == AuditEvent.INCIDENT_MOVED
    moved = {"from": "open", "move": "investigate", "to": "investigating"}
    assert last.body == {**moved, "reason": "look", "attempt": 1}


async def test_an_aborted_entry_leaves_neither_the_move_nor_its_record(bench: Any) -> None:
    incident = await bench.open()
    job, before = await bench.job(incident), await bench.records()

    class PowerCutError(Exception):
        pass

    async def cut_short() -> None:
        async with bench.ledger.entry(job) as entry:
            await entry.move(Step(Move.INVESTIGATE, "look"))
            await entry.record(AuditEvent.DECIDED, {"decision": "none"})
            raise PowerCutError

    with pytest.raises(PowerCutError):
        await cut_short()
    assert (await bench.get(incident)).state == State.OPEN
    assert await bench.records() == before
    async with bench.ledger.entry(job) as entry:  # and the next one follows the last good one
        await entry.move(Step(Move.INVESTIGATE, "look"))
    assert (await bench.verify()).problem is None


async def test_an_unlisted_move_changes_nothing(bench: Any) -> None:
    incident = await bench.open()
    job, before = await bench.job(incident), await bench.records()

    async def launch_at_once() -> None:
        async with bench.ledger.entry(job) as entry:
            await entry.record(AuditEvent.DECIDED, {"decision": "none"})
            await entry.move(Step(Move.LAUNCH, "at once"))

    with pytest.raises(IllegalMoveError):
        await launch_at_once()
    assert await bench.get(incident) == incident
    assert await bench.records() == before


async def test_a_lost_lease_cannot_commit(bench: Any) -> None:
    incident = await bench.open()
    job = await bench.job(incident)
    bench.clock.forward(20)
    if not bench.database.sqlite:  # its own clock counts
        await bench.leases.release(job.lease, bench.clock())
    other = bench.replica()
    assert await other.claim(incident.id) is not None
    before = await bench.records()
    with pytest.raises(LeaseLostError):
        async with bench.ledger.entry(job) as entry:
            await entry.move(Step(Move.INVESTIGATE, "the one that was paused"))
    with pytest.raises(LeaseLostError):
        await bench.ledger.escalate(job, "the one that was paused")
    assert (await bench.get(incident)).state == State.OPEN
    assert await bench.records() == before


async def test_a_lease_that_ran_out_but_was_not_taken_still_commits(bench: Any) -> None:
    job = await bench.job(await bench.open())
    bench.clock.forward(3600)
    async with bench.ledger.entry(job) as entry:
        await entry.move(Step(Move.INVESTIGATE, "late, and nobody else did it"))


async def test_what_somebody_else_moved_meanwhile_is_not_moved_again(bench: Any) -> None:
    incident = await bench.open()
    job = await bench.job(incident)
    async with bench.ledger.person(incident.id) as entry:
        await entry.move(Step(Move.ESCALATE, "a person was quicker"))
    with pytest.raises(LeaseLostError, match="is now escalated"):
        async with bench.ledger.entry(job) as entry:
            await entry.move(Step(Move.INVESTIGATE, "look"))
    assert (await bench.get(incident)).reason == "a person was quicker"


async def test_a_new_attempt_makes_the_old_work_stale(bench: Any) -> None:
    incident = await bench.inspected()
    job = await bench.job(incident)
    async with bench.ledger.person(incident.id) as entry:
        again = Step(Move.REINVESTIGATE, "again", next_attempt=True)
        await entry.move(again)
        await entry.move(Step(Move.INVESTIGATE, "look"))
        await entry.move(Step(Move.PROPOSE, "another"))
        await entry.turn(Move.INSPECT)
    assert (await bench.get(incident)).state == job.incident.state
    with pytest.raises(LeaseLostError):
        async with bench.ledger.entry(job):
            pass


async def test_two_people_cannot_both_move_what_one_read(bench: Any) -> None:
    incident = await bench.escalated()

    async def acknowledge(who: str) -> str:
        try:
            async with bench.ledger.person(incident.id) as entry:
                await asyncio.sleep(0)
                await entry.move(Step(Move.ACKNOWLEDGE, who, who, acknowledged_by=who))
        except (IllegalMoveError, UsageError):
            return ""
        return who

    winners = [who for who in await asyncio.gather(acknowledge("ann"), acknowledge("bob")) if who]
    assert [(await bench.get(incident)).acknowledged_by] == winners


async def test_a_stale_copy_cannot_be_moved(bench: Any) -> None:
    stale = await bench.open()
    async with bench.ledger.person(stale.id) as entry:
        await entry.move(Step(Move.INVESTIGATE, "look"))
    before = await bench.records()

    async def move_the_copy() -> None:
        async with bench.database.transaction() as tx:
            now = bench.clock()
            await bench.incidents.move(tx, stale, Step(Move.ESCALATE, "stale"), now=now)

    with pytest.raises(UsageError, match="changed in the meantime"):
        await move_the_copy()
    assert await bench.records() == before


async def test_escalating_what_a_human_has_already_changes_nothing(bench: Any) -> None:
    incident = await bench.escalated()
    await bench.ledger.escalate(await bench.job(incident), "again")
    assert (await bench.get(incident)).reason == "a human must look"


async def test_an_incident_is_found_by_an_unambiguous_beginning(bench: Any) -> None:
    incident = await bench.open("a")
    for wanted in (incident.id, incident.id[:8], incident.id.removeprefix("inc-")[:5]):
        assert (await bench.get(wanted)).id == incident.id
    for wrong in ("", "inc-", "inc-%", "inc-0000", "i"):
        with pytest.raises(NoSuchIncidentError):
            await bench.get(wrong)
    await bench.open("b")
    async with bench.database.transaction() as tx:
        twin = incident.id[:8] + "zzzz"
        await tx.execute(update(incidents).where(incidents.c.subject == "b").values(id=twin))
    with pytest.raises(NoSuchIncidentError, match="several"):
        await bench.get(incident.id[:8])
    assert (await bench.get(incident.id)).id == incident.id


async def test_one_open_incident_a_subject_and_a_graver_alert_makes_it_graver(
    bench: Any,
) -> None:
    async def open_by(severity: str, subject: str) -> tuple[Incident, bool]:
        alert = bench.alert(subject)
        alert = alert.model_copy(update={"labels": {**alert.labels, "severity": severity}})
        async with bench.database.transaction() as tx:
            now = bench.clock()
            return await bench.incidents.open(tx, alert=alert, subject=subject, now=now)

    first, is_new = await open_by("warning", "s")
    assert is_new
    assert [e.event for e in await bench.records(first)] == [AuditEvent.INCIDENT_OPENED]
    for severity in ("critical", "info"):
        same, is_new = await open_by(severity, "s")
        assert (same.id, is_new) == (first.id, False)
        assert (await bench.get(first)).severity == "critical"
    other, is_new = await open_by("warning", "t")
    assert is_new
    assert other.id != first.id
