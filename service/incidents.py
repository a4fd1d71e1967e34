"""Incidents in the database: opened once per subject, moved only along the lifecycle's table.

Invariant: a move, its audit record and whatever the caller adds to the transaction are one commit.
Turns (`lifecycle.TURNS`) decide nothing and have no record of their own: what the agents saw and
what the gate said of it is recorded.
"""

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select, update

from tiphys.policies.correlation import shown
from tiphys.policies.lifecycle import TURNS, Move, State, next_state
from tiphys.policies.model import Alert, Incident, Noun, Outcome, Severity, Standby, Target
from tiphys.service.audit import Audit
from tiphys.service.database import Database, Transaction, moment, stamp
from tiphys.service.errors import AskedAlreadyError, NoSuchIncidentError, UsageError
from tiphys.service.records import AuditEvent
from tiphys.service.tables import inbox, incidents

_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # no 0/o, 1/i/l: ids are read aloud at night
_GRAVITY = {Severity.INFO: 0, Severity.WARNING: 1, Severity.CRITICAL: 2}


def new_incident_id() -> str:
    """Give an id such as `inc-7kq2x9dm`: 40 bits, easy to say."""
    return "inc-" + "".join(secrets.choice(_ALPHABET) for _ in range(8))


@dataclass(frozen=True)
class Step:
    """One move of an incident and what it changes; None leaves a field as it is."""

    move: Move
    reason: str
    actor: str = "tiphys"
    deadline_at: datetime | None = None
    """When silence becomes an escalation; None: no deadline of its own."""
    due_at: datetime | None = None
    """When the pipeline should look next; None: at once."""
    target: Target | None = None
    outcome: Outcome | None = None
    decision: str | None = None
    next_attempt: bool = False
    acknowledged_by: str | None = None
    cause: str | None = None
    """What the agents say that it follows from; theirs alone to say, as is `standby`."""
    standby: Standby | None = None


@dataclass(frozen=True)
class Asked:
    """What a person wants, as an incident of its own; one that is open is enough."""

    cluster: str
    subject: str
    title: str
    severity: Severity
    reason: str
    what: str
    """In a sentence such as `inc-7kq2x9dm is about ... already`."""
    wish: Mapping[str, Noun]
    """The wish itself, under the field of `Incident` that is for it."""


class Incidents:
    """Opens, finds and moves incidents."""

    def __init__(self, database: Database, audit: Audit) -> None:
        self._database = database
        self._audit = audit

    async def open(
        self, tx: Transaction, *, alert: Alert, subject: str, now: datetime
    ) -> tuple[Incident, bool]:
        """Give the open incident of (cluster, subject), made from this alert if there is none.

        Returns the incident and whether it is new; a graver alert raises its severity.
        """
        await self._database.lock(tx, "incidents")
        row = (
            await tx.execute(
                select(incidents.c.body).where(
                    incidents.c.cluster == alert.cluster,
                    incidents.c.subject == subject,
                    incidents.c.state != State.CLOSED,
                )
            )
        ).first()
        if row:
            incident = Incident.model_validate_json(row.body)
            if _GRAVITY[alert.severity] > _GRAVITY[incident.severity]:
                incident = incident.model_copy(update={"severity": alert.severity})
                await self._write(tx, incident)
            return incident, False
        incident = _new(
            now,
            cluster=alert.cluster,
            subject=subject,
            title=_title(alert),
            severity=alert.severity,
            reason=f"{alert.name} fires",
        )
        cause = {"alert": alert.model_dump(mode="json")}
        await self._insert(tx, incident, cause, actor="intake")
        return incident, True

    async def open_wish(
        self, tx: Transaction, asked: Asked, cause: Mapping[str, object], now: datetime
    ) -> Incident:
        """Open an incident for what a person wants; raises `AskedAlreadyError`."""
        await self._database.lock(tx, "incidents")
        query = select(incidents.c.id).where(
            incidents.c.cluster == asked.cluster,
            incidents.c.subject == asked.subject,
            incidents.c.state != State.CLOSED,
        )
        if known := (await tx.execute(query)).scalar():
            raise AskedAlreadyError(f"{known} is about {asked.what} already")
        incident = _new(
            now,
            cluster=asked.cluster,
            subject=asked.subject,
            title=asked.title,
            severity=asked.severity,
            reason=asked.reason,
            **asked.wish,
        )
        wish = {name: one.model_dump(mode="json") for name, one in asked.wish.items()}
        await self._insert(tx, incident, {**wish, **cause}, actor=incident.proposer)
        await self._database.announce(tx, incident.state)
        return incident

    async def _insert(
        self, tx: Transaction, incident: Incident, cause: Mapping[str, object], *, actor: str
    ) -> None:
        body = {"title": incident.title, "subject": incident.subject, **cause}
        await self._audit.append(
            tx, AuditEvent.INCIDENT_OPENED, actor=actor, incident_id=incident.id, body=body
        )
        due = stamp(incident.opened_at)
        await tx.execute(insert(incidents).values(**_whole(incident), due_at=due))

    async def get(self, tx: Transaction, incident_id: str, *, lock: bool = False) -> Incident:
        """Read one by its id or by an unambiguous beginning of it."""
        query = select(incidents.c.body).where(incidents.c.id == incident_id)
        row = (await tx.execute(self._database.for_update(query) if lock else query)).first()
        if row:
            return Incident.model_validate_json(row.body)
        begins = incident_id if incident_id.startswith("inc-") else f"inc-{incident_id}"
        query = select(incidents.c.id).where(incidents.c.id.startswith(begins, autoescape=True))
        found = (await tx.execute(query.limit(2))).scalars().all()
        if len(found) == 1 and len(begins) > len("inc-"):
            return await self.get(tx, found[0], lock=lock)
        raise NoSuchIncidentError(
            f"{incident_id} is the beginning of several ids" if len(found) > 1 else incident_id
        )

    async def find(
        self, tx: Transaction, *, states: Sequence[str] = (), limit: int = 200
    ) -> list[Incident]:
        """List incidents, the newest first."""
        query = select(incidents.c.body).order_by(incidents.c.opened_at.desc()).limit(limit)
        if states:
            query = query.where(incidents.c.state.in_(states))
        return [Incident.model_validate_json(r.body) for r in await tx.execute(query)]

    async def move(
        self, tx: Transaction, incident: Incident, step: Step, *, now: datetime
    ) -> Incident:
        """Move an incident; raises `IllegalMoveError` and changes nothing when it cannot.

        `incident` must be what this transaction read; if the row has moved on since, the caller
        worked on a stale copy and `UsageError` says so.
        """
        state = next_state(State(incident.state), step.move)
        moved = incident.model_copy(
            update={
                "state": state,
                "reason": step.reason,
                "changed_at": now,
                "deadline_at": step.deadline_at,
                "paged_at": None,
                "attempt": incident.attempt + (1 if step.next_attempt else 0),
                **_given(step),
                **_said(incident, step),
            }
        )
        if step.move not in TURNS:
            await self._record(tx, incident, step, moved)
        result = await tx.execute(
            update(incidents)
            .where(
                incidents.c.id == incident.id,
                incidents.c.changed_at == stamp(incident.changed_at),
                incidents.c.state == incident.state,
            )
            .values(**_changes(moved), due_at=stamp(step.due_at or now))
        )
        if result.rowcount != 1:
            raise UsageError(f"{incident.id} has changed in the meantime; look again")
        await self._database.announce(tx, state)
        return moved

    async def _record(
        self, tx: Transaction, incident: Incident, step: Step, moved: Incident
    ) -> None:
        await self._audit.append(
            tx,
            AuditEvent.INCIDENT_MOVED,
            actor=step.actor,
            incident_id=incident.id,
            body={
                "from": incident.state,
                "move": step.move,
                "to": moved.state,
                "reason": step.reason,
                "attempt": moved.attempt,
            },
        )

    async def wake(self, tx: Transaction, incident_id: str, at: datetime) -> None:
        """Let the pipeline look at this incident at the given time."""
        await tx.execute(
            update(incidents).where(incidents.c.id == incident_id).values(due_at=stamp(at))
        )

    async def paged(self, tx: Transaction, incident: Incident, at: datetime) -> Incident:
        """Note that a human was told."""
        told = incident.model_copy(update={"paged_at": at})
        await self._write(tx, told)
        return told

    async def alerts(
        self, tx: Transaction, incident_id: str, *, only_open: bool = False
    ) -> list[Alert]:
        """Give the incident's alerts, one for each episode, the oldest first."""
        query = select(inbox.c.alert).where(inbox.c.incident_id == incident_id).order_by(inbox.c.id)
        if only_open:
            query = query.where(inbox.c.open)
        return [Alert.model_validate_json(row.alert) for row in await tx.execute(query)]

    async def _write(self, tx: Transaction, incident: Incident) -> None:
        await tx.execute(
            update(incidents).where(incidents.c.id == incident.id).values(**_changes(incident))
        )


def _new(now: datetime, **given: Any) -> Incident:
    return Incident(
        id=new_incident_id(),
        state=State.OPEN,
        attempt=1,
        opened_at=now,
        changed_at=now,
        deadline_at=None,
        **given,
    )


def _title(alert: Alert) -> str:
    where = shown(alert.labels)
    return alert.name if where == alert.name else f"{alert.name} on {where}"


def _given(step: Step) -> dict[str, object]:
    values = {
        "target": step.target,
        "outcome": step.outcome,
        "decision": step.decision,
        "acknowledged_by": step.acknowledged_by,
    }
    return {name: value for name, value in values.items() if value is not None}


def _said(incident: Incident, step: Step) -> dict[str, object]:
    """Give what the end of an investigation says of the cause; it holds until the next one's."""
    if incident.state != State.INVESTIGATING or step.move in {Move.SUSPEND, Move.RESOLVE}:
        return {}
    return {"cause": step.cause, "standby": step.standby}


def _whole(incident: Incident) -> dict[str, object]:
    return {
        **_changes(incident),
        "id": incident.id,
        "cluster": incident.cluster,
        "subject": incident.subject,
        "opened_at": stamp(incident.opened_at),
    }


def _changes(incident: Incident) -> dict[str, object]:
    """Give the columns that a move may change; each role's user has a right to these alone."""
    return {
        "state": incident.state,
        "attempt": incident.attempt,
        "changed_at": stamp(incident.changed_at),
        "deadline_at": stamp(incident.deadline_at) if incident.deadline_at else None,
        "target_uid": incident.target.uid if incident.target else None,
        "cause": incident.cause,
        "body": dump(incident),
    }


def dump(noun: Noun) -> str:
    """Write a noun as the database stores it."""
    return json.dumps(noun.model_dump(mode="json"), ensure_ascii=False, separators=(",", ":"))


def read_moment(text: str | None) -> datetime | None:
    """Read a stored time that may be missing."""
    return moment(text) if text else None
