"""Stage: the agents look at an open incident and answer with one decision."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Protocol

from sqlalchemy import insert, update

from tiphys.agents.graph import Investigation
from tiphys.agents.ports import Case
from tiphys.policies.lifecycle import Move, State
from tiphys.policies.model import Decision, Escalate, NoAction, Proposal
from tiphys.service import following
from tiphys.service.cases import Cases
from tiphys.service.database import stamp
from tiphys.service.incidents import Step, dump
from tiphys.service.ledger import Entry, Job, Ledger
from tiphys.service.records import AuditEvent
from tiphys.service.tables import proposals


class Investigator(Protocol):
    """The agents' graph."""

    async def investigate(self, case: Case) -> Investigation:
        """Answer for a case; resumes where an earlier process stopped."""
        ...

    async def forget(self, incident: str) -> None:
        """Drop what was kept to resume the incident's investigations."""
        ...


class Investigate:
    """From OPEN to a proposal, to watching, or to a human."""

    def __init__(
        self,
        ledger: Ledger,
        cases: Cases,
        agents: Investigator,
        *,
        seconds: float,
        watch: timedelta,
    ) -> None:
        self._ledger = ledger
        self._cases = cases
        self._agents = agents
        self._seconds = seconds
        self._watch = watch

    async def run(self, job: Job) -> None:
        """Investigate; an answer that does not come in time is an escalation."""
        if job.incident.state == State.OPEN:
            async with self._ledger.entry(job) as entry:
                deadline = entry.now + timedelta(seconds=2 * self._seconds)
                step = Step(Move.INVESTIGATE, "the agents look at it", deadline_at=deadline)
                await entry.move(step)
                job = replace(job, incident=entry.incident)
        case = await self._cases.case(job.incident, self._ledger.clock(), remembering=True)
        try:
            async with asyncio.timeout(self._seconds):
                found = await self._agents.investigate(case)
        except TimeoutError:
            await self._ledger.escalate(
                job, f"the agents found no answer within {self._seconds:.0f} s"
            )
            return
        async with self._ledger.entry(job) as entry:
            await self._keep(entry, found)
            step = await self._standing_by(entry, found.decision)
            await entry.move(step or self._step(entry, found.decision))
            await following.wake_followers(entry.tx, entry.incident, entry.now)
        await self._agents.forget(job.incident.id)

    async def _keep(self, entry: Entry, found: Investigation) -> None:
        incident = entry.incident
        await self._cases.keep(entry, found.evidence)
        body = found.decision.model_dump(mode="json")
        await entry.record(
            AuditEvent.DECIDED, {"decision": body, "notes": list(found.notes)}, actor="agents"
        )
        values = {
            "at": stamp(entry.now),
            "decision": dump(found.decision),
            "notes": "\n".join(found.notes),
        }
        again = await entry.tx.execute(
            update(proposals)
            .where(proposals.c.incident_id == incident.id, proposals.c.attempt == incident.attempt)
            .values(values)
        )
        if again.rowcount == 0:
            key = {"incident_id": incident.id, "attempt": incident.attempt}
            await entry.tx.execute(insert(proposals).values(**key, **values))

    async def _standing_by(self, entry: Entry, decision: Decision) -> Step | None:
        if isinstance(decision, Proposal):
            return None
        return await following.step_for(entry, self._ledger.database, decision, self._watch)

    def _step(self, entry: Entry, decision: Decision) -> Step:
        match decision:
            case Proposal():
                return Step(
                    Move.PROPOSE,
                    decision.reason,
                    "agents",
                    deadline_at=entry.now + timedelta(seconds=2 * self._seconds),
                    target=decision.target,
                    decision=decision.answer,
                )
            case NoAction():
                return Step(
                    Move.STAND_BY,
                    decision.reason,
                    "agents",
                    deadline_at=entry.now + self._watch,
                    decision=decision.answer,
                )
            case Escalate():
                return Step(Move.ESCALATE, decision.reason, "agents", decision=decision.answer)
