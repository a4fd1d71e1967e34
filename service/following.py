"""One cause, one incident: which incident carries a cause, and which ones follow it.

Invariants: of incidents with one cause, at most one is handed to a human while it is open, and that
one's page names the others; none follows what follows it, and none follows what is closed.
"""

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import ColumnElement, and_, or_, select, update

from tiphys.policies.lifecycle import Move, State
from tiphys.policies.model import Cause, Escalate, Incident, Instant, NoAction, Severity, Standby
from tiphys.service.database import Database, Transaction, stamp
from tiphys.service.incidents import Step
from tiphys.service.ledger import Entry
from tiphys.service.tables import incidents

FIRST_LOOK = timedelta(minutes=5)
"""How soon a follower is looked at again, twice as long each time: it may have got a cause of its
own."""
LONGEST_LOOK = timedelta(hours=1)
POLL = timedelta(seconds=60)
"""How soon again while no incident is about the cause yet."""
NAMED = 20
"""Followers that a page names; of the rest it says how many there are."""
_HANDS = (State.ESCALATED, State.ACKNOWLEDGED)
_GRAVITY = (Severity.INFO, Severity.WARNING, Severity.CRITICAL)


async def ahead_of(tx: Transaction, incident: Incident, subjects: Sequence[str]) -> Incident | None:
    """Give the open incident that an incident with such a cause has to follow.

    The one that is about the cause itself; else the one that has told a human of it.
    """
    spoke = and_(incidents.c.cause.in_(subjects), incidents.c.state.in_(_HANDS))
    query = select(incidents.c.body).where(
        incidents.c.cluster == incident.cluster,
        incidents.c.id != incident.id,
        incidents.c.state != State.CLOSED,
        or_(incidents.c.subject.in_(subjects), spoke),
    )
    found = [Incident.model_validate_json(row.body) for row in await tx.execute(query)]
    fit = [one for one in found if one.cause is None or one.cause != incident.subject]
    return min(fit, key=lambda one: (one.subject not in subjects, one.opened_at), default=None)


async def followers(tx: Transaction, incident: Incident) -> list[Incident]:
    """Give the open incidents that stand by because this one carries their cause."""
    query = (
        select(incidents.c.body)
        .where(_follow(incident), incidents.c.id != incident.id)
        .order_by(incidents.c.opened_at)
    )
    return [Incident.model_validate_json(row.body) for row in await tx.execute(query)]


async def wake_followers(tx: Transaction, incident: Incident, now: Instant) -> None:
    """Let those be looked at that wait for this incident to open, or to close."""
    waiting = incidents.c.id != incident.id
    await tx.execute(update(incidents).where(_follow(incident), waiting).values(due_at=stamp(now)))


def _follow(incident: Incident) -> ColumnElement[bool]:
    speaks = incident.cause is not None and incident.standby is None
    carried = [incident.subject, *([incident.cause] if speaks else [])]
    return and_(
        incidents.c.cluster == incident.cluster,
        incidents.c.cause.in_(carried),
        incidents.c.state == State.MONITORING,
    )


async def must_look(tx: Transaction, incident: Incident, now: Instant) -> str:
    """Say why an incident that stands by is looked at again now; empty while it need not be."""
    standby = incident.standby
    if standby is None or incident.state != State.MONITORING:
        return ""
    if now >= standby.again_at:
        return "it is time to look again"
    if standby.follows is not None:
        query = select(incidents.c.state).where(incidents.c.id == standby.follows)
        over = (await tx.execute(query)).scalar() == State.CLOSED
        return f"{standby.follows} is closed, and this still fires" if over else ""
    if incident.cause and (first := await ahead_of(tx, incident, [incident.cause])):
        return f"{first.id} is about its cause"
    return ""


async def step_for(
    entry: Entry, database: Database, decision: NoAction | Escalate, watch: timedelta
) -> Step | None:
    """Give the move of a decision that names a cause or a time to look again; None: neither."""
    if decision.cause is not None:
        return await _step_of_cause(entry, database, decision, watch)
    if isinstance(decision, NoAction) and decision.again is not None:
        again = timedelta(seconds=decision.again)
        return _stand_by(entry, decision.reason, again=again, watch=watch)
    return None


async def _step_of_cause(
    entry: Entry, database: Database, decision: NoAction | Escalate, watch: timedelta
) -> Step:
    cause = decision.cause
    assert cause is not None
    # Two that look for the first at once must not both be it. Taken after the incident's own lock,
    # which nobody waits for who holds this one.
    await database.lock(entry.tx, "causes")
    first = await ahead_of(entry.tx, entry.incident, cause.subjects)
    if first is not None:
        return _follow_it(entry, first, cause)
    if isinstance(decision, Escalate):
        return Step(
            Move.ESCALATE,
            decision.reason,
            "agents",
            decision=decision.answer,
            cause=cause.subjects[0],
        )
    return _stand_by(entry, decision.reason, again=POLL, watch=watch, cause=cause.subjects[0])


def _follow_it(entry: Entry, first: Incident, cause: Cause) -> Step:
    """Follow for as long as that one is open; it has deadlines of its own, so this needs none."""
    before = entry.incident.standby
    looks = before.looks + 1 if before and before.follows else 0
    wait = min(FIRST_LOOK * 2 ** min(looks, 10), LONGEST_LOOK)
    shared = first.subject if first.subject in cause.subjects else first.cause
    again = entry.now + wait
    return Step(
        Move.STAND_BY,
        f"follows {first.id} ({cause.words})",
        "agents",
        due_at=again,
        decision="no_action",
        cause=shared,
        standby=Standby(since=entry.now, looks=looks, again_at=again, follows=first.id),
    )


def _stand_by(
    entry: Entry, reason: str, *, again: timedelta, watch: timedelta, cause: str | None = None
) -> Step:
    before = entry.incident.standby
    goes_on = before is not None and before.follows is None
    since = before.since if before and goes_on else entry.now
    looks = before.looks + 1 if before and goes_on else 0
    at = entry.now + again
    return Step(
        Move.STAND_BY,
        reason,
        "agents",
        deadline_at=at + watch,
        due_at=at,
        decision="no_action",
        cause=cause,
        standby=Standby(since=since, looks=looks, again_at=at),
    )


def with_followers(incident: Incident, following: Sequence[Incident]) -> Incident:
    """Say in a page what else follows from it, as grave as the gravest of them all."""
    if not following:
        return incident
    named = ", ".join(f"{one.title} ({one.id})" for one in following[:NAMED])
    more = f" and {len(following) - NAMED} more" if len(following) > NAMED else ""
    count = f"{len(following)} {'incidents follow' if len(following) > 1 else 'incident follows'}"
    words = f"{incident.reason}. {count} from it: {named}{more}"
    gravest = max([incident, *following], key=lambda one: _GRAVITY.index(one.severity))
    return incident.model_copy(update={"reason": words, "severity": gravest.severity})
