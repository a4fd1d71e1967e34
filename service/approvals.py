"""Approvals of one plan's digest by a person: single use, expiring, the first decision wins."""

from datetime import timedelta

from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from tiphys.policies.lifecycle import Move, State
from tiphys.policies.model import Incident
from tiphys.policies.plan import digest
from tiphys.policies.verdict import ApprovalFact
from tiphys.service.database import Transaction, moment, stamp
from tiphys.service.errors import NotApprovableError
from tiphys.service.incidents import Step
from tiphys.service.ledger import Entry, Ledger
from tiphys.service.records import AuditEvent
from tiphys.service.runs import Runs
from tiphys.service.tables import approvals


class Approvals:
    """Takes people's decisions."""

    def __init__(self, ledger: Ledger, runs: Runs, validity: timedelta) -> None:
        self._ledger = ledger
        self._runs = runs
        self._validity = validity

    async def approve(
        self, incident_id: str, *, by: str, reason: str, expected: str = ""
    ) -> Incident:
        """Approve the waiting plan; `expected` is the digest the person saw, if they say one.

        Raises `NotApprovableError`, `NoSuchIncidentError`.
        """
        async with self._ledger.person(incident_id) as entry:
            await self._decide(entry, "approve", by=by, reason=reason, expected=expected)
            words = f"approved by {by}" + (f": {reason}" if reason else "")
            # What the gate lets wait must not wait for longer than the approval holds.
            deadline = entry.now + self._validity
            await entry.move(Step(Move.APPROVE, words, by, deadline_at=deadline))
            return entry.incident

    async def deny(self, incident_id: str, *, by: str, reason: str, expected: str = "") -> Incident:
        """Refuse the waiting plan: the incident is then in that person's hands."""
        async with self._ledger.person(incident_id) as entry:
            await self._decide(entry, "deny", by=by, reason=reason, expected=expected)
            words = f"denied by {by}" + (f": {reason}" if reason else "")
            await entry.move(Step(Move.REJECT, words, by, acknowledged_by=by))
            return entry.incident

    async def _decide(
        self, entry: Entry, verdict: str, *, by: str, reason: str, expected: str
    ) -> None:
        incident = entry.incident
        plan = await self._runs.plan(entry.tx, incident)
        if incident.state != State.AWAITING_APPROVAL or plan is None:
            raise NotApprovableError(f"{incident.id} is {incident.state}: {incident.reason}")
        if expected and not digest(plan).startswith(expected):
            raise NotApprovableError(f"the plan has changed since; {incident.id} has a new one")
        if incident.deadline_at and entry.now >= incident.deadline_at:
            raise NotApprovableError("the question has expired; a human is being told")
        event = AuditEvent.APPROVAL_GIVEN if verdict == "approve" else AuditEvent.APPROVAL_REFUSED
        await entry.record(event, {"digest": digest(plan), "by": by, "reason": reason}, actor=by)
        try:
            await entry.tx.execute(
                insert(approvals).values(
                    incident_id=incident.id,
                    plan_digest=digest(plan),
                    verdict=verdict,
                    by=by,
                    reason=reason,
                    at=stamp(entry.now),
                    expires_at=stamp(entry.now + self._validity),
                )
            )
        except IntegrityError as error:
            raise NotApprovableError("somebody has already decided on this plan") from error

    async def of(
        self, tx: Transaction, incident: Incident, plan_digest: str
    ) -> ApprovalFact | None:
        """Give the approval of this attempt, to be held against the plan that would be launched."""
        plan = await self._runs.plan(tx, incident)
        if plan is None:
            return None
        query = select(approvals).where(
            approvals.c.plan_digest == digest(plan), approvals.c.verdict == "approve"
        )
        row = (await tx.execute(query)).first()
        if row is None:
            return None
        return ApprovalFact(
            approved_digest=row.plan_digest,
            plan_digest=plan_digest,
            by=row.by,
            expires_at=moment(row.expires_at),
        )
