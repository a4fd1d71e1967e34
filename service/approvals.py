"""Approvals of one plan's digest by people: single use, expiring, different people, a no ends it.

Invariants: only a person with the role approver in the plan's namespace decides; whoever proposed
the plan does not approve it, unless they break the glass, alone and with a reason that somebody
else reviews; each person counts once; how many are enough the gate says, here and at the launch.
"""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import Row, insert, select
from sqlalchemy.exc import IntegrityError

from tiphys.policies.gate import approvers, lacking, why_void
from tiphys.policies.lifecycle import Move, State
from tiphys.policies.model import Incident, Plan
from tiphys.policies.people import Person, PersonRole, same_person
from tiphys.policies.plan import digest
from tiphys.policies.verdict import ApprovalFact, Judgement
from tiphys.service.database import Transaction, moment, stamp
from tiphys.service.errors import NotAllowedError, NotApprovableError
from tiphys.service.incidents import Step
from tiphys.service.ledger import Entry, Ledger
from tiphys.service.people import demand
from tiphys.service.records import AuditEvent
from tiphys.service.reviews import open_review
from tiphys.service.runs import Runs
from tiphys.service.tables import approvals, proposals

QUESTION = "Proposed: "
"""What the question for an approval begins with."""
SKEW = timedelta(seconds=30)
"""How far two clocks of ours may differ before one of them is taken to have jumped."""


class Verdict(StrEnum):
    """What a row says."""

    APPROVE = "approve"
    BREAK_GLASS = "break_glass"
    DENY = "deny"


_EVENTS = {
    Verdict.APPROVE: AuditEvent.APPROVAL_GIVEN,
    Verdict.BREAK_GLASS: AuditEvent.BREAK_GLASS,
    Verdict.DENY: AuditEvent.APPROVAL_REFUSED,
}


class Approvals:
    """Takes people's decisions."""

    def __init__(self, ledger: Ledger, runs: Runs, validity: timedelta) -> None:
        self._ledger = ledger
        self._runs = runs
        self._validity = validity

    async def approve(
        self,
        incident_id: str,
        *,
        person: Person,
        reason: str,
        expected: str = "",
        break_glass: bool = False,
    ) -> Incident:
        """Approve the waiting plan; `expected` is the digest the person saw, if they say one.

        Where more people are needed the incident goes on waiting and says for whom. Raises
        `NotApprovableError`, `NotAllowedError`, `NoSuchIncidentError`.
        """
        async with self._ledger.person(incident_id) as entry:
            plan = await self._waiting(entry, person, expected)
            await self._may_approve(entry, plan, person, reason if break_glass else None)
            verdict = Verdict.BREAK_GLASS if break_glass else Verdict.APPROVE
            await self._keep(entry, verdict, plan, person, reason)
            if break_glass:
                await open_review(entry, plan, person, reason)
            given = await self.of(entry.tx, entry.incident, digest(plan), entry.now)
            valid = [approval for approval in given if not why_void(approval, entry.now)]
            lack = lacking((await _judgement(entry)).needs, valid)
            if lack:
                await self._wait_on(entry, lack, person)
            else:
                await self._go(entry, valid, person, reason)
            return entry.incident

    async def _wait_on(self, entry: Entry, lack: str, person: Person) -> None:
        incident = entry.incident
        question = incident.reason[max(incident.reason.find(QUESTION), 0) :]
        words, deadline = f"{lack}. {question}", incident.deadline_at
        await entry.move(Step(Move.AGREE, words, person.name, deadline_at=deadline))

    async def _go(
        self, entry: Entry, valid: Sequence[ApprovalFact], person: Person, reason: str
    ) -> None:
        alone = any(approval.break_glass for approval in valid)
        words = f"approved by {approvers(valid)}"
        words += ", who broke the glass" if alone else ""
        words += f": {reason}" if reason else ""
        # What the gate lets wait must not wait for longer than the approvals hold.
        deadline = min(approval.expires_at for approval in valid)
        await entry.move(Step(Move.APPROVE, words, person.name, deadline_at=deadline))

    async def deny(
        self, incident_id: str, *, person: Person, reason: str, expected: str = ""
    ) -> Incident:
        """Refuse the waiting plan, whoever agreed before: the incident is in that person's hands.

        Raises as `approve` does.
        """
        async with self._ledger.person(incident_id) as entry:
            plan = await self._waiting(entry, person, expected)
            await self._keep(entry, Verdict.DENY, plan, person, reason)
            by = person.name
            words = f"denied by {by}" + (f": {reason}" if reason else "")
            await entry.move(Step(Move.REJECT, words, by, acknowledged_by=by))
            return entry.incident

    async def _waiting(self, entry: Entry, person: Person, expected: str) -> Plan:
        """Give the plan that waits, to somebody who may decide on it."""
        incident = entry.incident
        plan = await self._runs.plan(entry.tx, incident)
        if incident.state != State.AWAITING_APPROVAL or plan is None:
            raise NotApprovableError(f"{incident.id} is {incident.state}: {incident.reason}")
        demand(person, PersonRole.APPROVER, plan.target.namespace)
        if expected and not digest(plan).startswith(expected):
            raise NotApprovableError(f"the plan has changed since; {incident.id} has a new one")
        shared = await self._ledger.database.time(entry.tx, entry.now)
        if incident.deadline_at and max(entry.now, shared) >= incident.deadline_at:
            raise NotApprovableError("the question has expired; a human is being told")
        return plan

    async def _may_approve(
        self, entry: Entry, plan: Plan, person: Person, emergency: str | None
    ) -> None:
        """Refuse the proposer, a second yes, a clock gone back; `emergency`: its reason."""
        if emergency is not None and not emergency.strip():
            raise NotApprovableError("breaking the glass needs a reason; somebody will review it")
        if emergency is None and same_person(person.name, entry.incident.proposer):
            raise NotAllowedError(
                f"{person.name} proposed this plan; somebody else must approve it"
            )
        shared = await self._ledger.database.time(entry.tx, entry.now)
        if shared < entry.incident.changed_at - SKEW:
            raise NotApprovableError(
                "a clock was set back since this was asked: nobody can tell how old the question is"
            )
        verdict = Verdict.APPROVE if emergency is None else Verdict.BREAK_GLASS
        known = await _rows(entry.tx, digest(plan))
        if any(row.verdict == verdict and same_person(row.by, person.name) for row in known):
            raise NotApprovableError(f"{person.name} has approved this plan already")

    async def _keep(
        self, entry: Entry, verdict: Verdict, plan: Plan, person: Person, reason: str
    ) -> None:
        """Record and store a decision."""
        body = {"digest": digest(plan), "by": person.name, "reason": reason}
        await entry.record(_EVENTS[verdict], body, actor=person.name)
        shared = await self._ledger.database.time(entry.tx, entry.now)
        values = {
            "incident_id": entry.incident.id,
            "plan_digest": digest(plan),
            "verdict": verdict,
            "by": person.name,
            "teams": json.dumps(person.teams),
            "reason": reason,
            "at": stamp(shared),
            "expires_at": stamp(shared + self._validity),
        }
        try:
            await entry.tx.execute(insert(approvals).values(values))
        except IntegrityError as error:
            raise NotApprovableError(f"{person.name} has decided on this plan already") from error

    async def of(
        self, tx: Transaction, incident: Incident, plan_digest: str, now: datetime
    ) -> tuple[ApprovalFact, ...]:
        """Give the approvals of this attempt, to be held against the plan that would be launched.

        Their expiry is by our clock, `now`, or by the database's, whichever is over first. One no
        leaves none of them.
        """
        plan = await self._runs.plan(tx, incident)
        rows = await _rows(tx, digest(plan)) if plan else []
        if any(row.verdict == Verdict.DENY for row in rows):
            return ()
        shared = await self._ledger.database.time(tx, now)
        return tuple(
            ApprovalFact(
                approved_digest=row.plan_digest,
                plan_digest=plan_digest,
                by=row.by,
                teams=tuple(json.loads(row.teams)),
                proposer=incident.proposer,
                break_glass=row.verdict == Verdict.BREAK_GLASS,
                expires_at=_expiry(moment(row.at), moment(row.expires_at), now, shared),
            )
            for row in rows
        )

    async def earlier(self, tx: Transaction, incident: Incident) -> list[str]:
        """Name those who approved an earlier plan of this incident, which was not launched."""
        plan = await self._runs.plan(tx, incident)
        over = {run.plan_digest for run in await self._runs.all_of(tx, incident.id)}
        over |= {digest(plan)} if plan else set()
        query = select(approvals).where(
            approvals.c.incident_id == incident.id, approvals.c.verdict != Verdict.DENY
        )
        rows = (await tx.execute(query.order_by(approvals.c.id))).all()
        return [*dict.fromkeys(row.by for row in rows if row.plan_digest not in over)]


def _expiry(at: datetime, expires: datetime, now: datetime, shared: datetime) -> datetime:
    """Give an approval's end on our clock; at once where the clock it knew has gone back."""
    left = expires - shared if shared >= at - SKEW else timedelta()
    return min(expires, now + left)


async def _rows(tx: Transaction, plan_digest: str) -> Sequence[Row[Any]]:
    query = select(approvals).where(approvals.c.plan_digest == plan_digest)
    return (await tx.execute(query.order_by(approvals.c.id))).all()


async def _judgement(entry: Entry) -> Judgement:
    """Give what the gate said of the plan that waits."""
    query = select(proposals.c.judgement).where(
        proposals.c.incident_id == entry.incident.id,
        proposals.c.attempt == entry.incident.attempt,
    )
    body = (await entry.tx.execute(query)).scalar_one()
    return Judgement.model_validate_json(body)
