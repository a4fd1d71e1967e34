"""Waiting incidents: closed when they are over, escalated when late, paged until acknowledged."""

from typing import Any

import pytest

from tiphys.policies.lifecycle import Move, State
from tiphys.policies.model import AlertStatus, Incident, Outcome
from tiphys.service import episodes
from tiphys.service.episodes import Arrival
from tiphys.service.incidents import Step
from tiphys.service.records import AuditEvent


async def again(bench: Any, incident: Incident) -> Incident:
    return await bench.run(bench.settle, incident)


async def acknowledge(bench: Any, incident: Incident, who: str = "ann") -> None:
    async with bench.ledger.person(incident.id) as entry:
        await entry.move(Step(Move.ACKNOWLEDGE, f"in the hands of {who}", who, acknowledged_by=who))


async def frozen(bench: Any) -> Incident:
    """An incident whose rollback did not hold."""
    incident = await bench.escalated()
    async with bench.ledger.person(incident.id) as entry:
        told = entry.incident.model_copy(update={"outcome": Outcome.ROLLBACK_FAILED})
        await bench.incidents.paged(entry.tx, told, bench.clock())
    return await bench.get(incident)


async def healed(bench: Any) -> Incident:
    incident = await bench.launching()
    async with bench.ledger.person(incident.id) as entry:
        await entry.move(Step(Move.START, "runs"))
        await entry.move(Step(Move.VERIFY, "helped", outcome=Outcome.VERIFIED))
        return entry.incident


# --- closing --------------------------------------------------------------------------------------


async def test_what_still_fires_does_not_close(bench: Any) -> None:
    for incident in (await bench.watched(), await bench.escalated("other")):
        assert (await again(bench, incident)).state == incident.state


async def test_it_closes_when_every_alert_has_ended(bench: Any) -> None:
    incident = await bench.watched()
    async with bench.database.transaction() as tx:
        more = bench.alert("a second one")
        await episodes.begin(tx, Arrival(more), incident.id, incident.changed_at)
    async with bench.database.transaction() as tx:
        known = await episodes.latest(tx, {(more.cluster, more.fingerprint)})
        [episode] = known.values()
        await episodes.end(tx, episode, bench.clock())
    assert (await again(bench, incident)).state == State.MONITORING, "the first still fires"
    await bench.end_alerts(incident)
    closed = await again(bench, incident)
    assert (closed.state, closed.reason) == (State.CLOSED, "every alert has ended")
    assert bench.scout.forgotten[-1] == incident.id


async def test_a_healed_incident_says_so(bench: Any) -> None:
    incident = await healed(bench)
    await bench.end_alerts(incident)
    assert (await again(bench, incident)).reason == "healed: every alert has ended"


async def test_a_page_that_was_sent_is_taken_back_before_the_end(bench: Any) -> None:
    incident = await again(bench, await bench.escalated())
    assert incident.paged_at is not None
    await bench.end_alerts(incident)
    bench.bell.broken = True
    assert (await again(bench, incident)).state == State.ESCALATED, "asked again at the next look"
    bench.bell.broken = False
    assert (await again(bench, incident)).state == State.CLOSED
    assert bench.bell.hushed == [incident.id]


@pytest.mark.parametrize("expression", [True, None])
async def test_an_expression_that_is_true_or_unknown_keeps_it_open(
    bench: Any, expression: bool | None
) -> None:
    incident = await bench.watched()
    await bench.end_alerts(incident)
    bench.scout.expression = expression
    assert (await again(bench, incident)).state == State.MONITORING
    bench.clock.forward(3601)
    late = await again(bench, incident)
    assert late.state == State.ESCALATED, "doubt does not stop the clock"
    paged = await again(bench, late)
    assert bench.bell.rung, "nor the pager"
    bench.scout.expression = False
    assert (await again(bench, paged)).state == State.CLOSED


# --- frozen targets -------------------------------------------------------------------------------


async def test_a_frozen_target_keeps_its_incident_open_until_somebody_has_read_it(
    bench: Any,
) -> None:
    incident = await frozen(bench)
    await bench.end_alerts(incident)
    for _ in range(2):
        assert (await again(bench, incident)).state == State.ESCALATED
    assert bench.bell.rung
    await acknowledge(bench, incident)
    assert (await again(bench, incident)).state == State.CLOSED


# --- an alert comes back --------------------------------------------------------------------------


async def fires_anew(bench: Any, incident: Incident) -> None:
    bench.clock.forward(1)
    async with bench.database.transaction() as tx:
        alert = bench.alert("another", AlertStatus.FIRING)
        await episodes.begin(tx, Arrival(alert), incident.id, bench.clock())


async def test_an_alert_that_joins_is_looked_into_under_a_new_attempt(bench: Any) -> None:
    incident = await bench.watched()
    await fires_anew(bench, incident)
    anew = await again(bench, incident)
    assert (anew.state, anew.attempt) == (State.OPEN, 2)


async def test_what_fires_again_after_the_last_attempt_goes_to_a_human(bench: Any) -> None:
    incident = await healed(bench)
    async with bench.ledger.person(incident.id) as entry:
        last = entry.incident.model_copy(update={"attempt": 3})
        await bench.incidents.paged(entry.tx, last, bench.clock())
    await fires_anew(bench, incident)
    late = await again(bench, await bench.get(incident))
    assert late.state == State.ESCALATED
    assert "after 3 attempts" in late.reason


# --- deadlines and pages --------------------------------------------------------------------------


async def test_an_alert_that_should_have_ended_escalates(bench: Any) -> None:
    incident = await bench.watched()
    bench.clock.forward(3601)
    late = await again(bench, incident)
    assert late.state == State.ESCALATED
    assert "still fires" in late.reason


async def test_a_question_that_nobody_answers_escalates(bench: Any) -> None:
    incident = await again(bench, await bench.asked())
    assert bench.bell.rung, "people are told that it waits"
    bench.clock.forward(901)
    late = await again(bench, incident)
    assert (late.state, late.reason) == (State.ESCALATED, "nobody approved in time")
    await again(bench, late)
    assert len(bench.bell.rung) == 2


async def test_a_page_is_repeated_until_somebody_acknowledges(bench: Any) -> None:
    incident = await bench.escalated()
    for _ in range(7):
        incident = await again(bench, incident)
        assert await bench.due_at(incident) > bench.clock().isoformat()[:19]
        bench.clock.forward(60)
    assert len(bench.bell.rung) == 7, "at every look: Alertmanager forgets what is not repeated"
    paged = [r for r in await bench.records(incident) if r.event == AuditEvent.PAGED]
    assert len(paged) == 2, "recorded at first, and when the time to acknowledge has passed"
    assert paged[0].body["how"] == "bell"
    await acknowledge(bench, incident)
    await again(bench, await bench.get(incident))
    assert len(bench.bell.rung) == 7


async def test_a_pager_that_fails_is_tried_again_and_nothing_claims_that_it_rang(
    bench: Any,
) -> None:
    incident = await bench.escalated()
    bench.bell.broken = True
    for _ in range(3):
        incident = await again(bench, incident)
        assert incident.paged_at is None
    assert AuditEvent.PAGED not in await bench.events(incident)
    bench.bell.broken = False
    incident = await again(bench, incident)
    assert incident.paged_at is not None
    assert AuditEvent.PAGED in await bench.events(incident)


async def test_a_suspended_incident_waits_in_silence(bench: Any) -> None:
    incident = await bench.open()
    async with bench.ledger.person(incident.id) as entry:
        await entry.move(Step(Move.SUSPEND, "every alert of it is silenced"))
    waiting = await again(bench, await bench.get(incident))
    assert (waiting.state, bench.bell.rung) == (State.SUSPENDED, [])
