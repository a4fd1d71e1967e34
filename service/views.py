"""What people are shown of an incident: everything in the record, in the order it happened."""

import json
from collections.abc import AsyncIterator
from typing import Any

from sqlalchemy import select

from tiphys.agents.repair import Repair, repair_of
from tiphys.policies.lifecycle import State
from tiphys.policies.model import Alert, Evidence, Incident, Noun, Plan
from tiphys.policies.plan import digest, workflow_name
from tiphys.service.audit import Audit
from tiphys.service.cases import Cases
from tiphys.service.database import Database, Transaction
from tiphys.service.following import followers
from tiphys.service.incidents import Incidents
from tiphys.service.records import Record
from tiphys.service.replay import line_of
from tiphys.service.runs import Runs, StoredRun
from tiphys.service.tables import dead_letters, proposals
from tiphys.workflow_templates import catalogue


class AttemptView(Noun):
    """One attempt: what was decided, on which facts, judged how."""

    attempt: int
    at: str
    decision: dict[str, Any]
    notes: tuple[str, ...]
    facts: dict[str, Any] | None
    judgement: dict[str, Any] | None
    plan: Plan | None
    plan_digest: str | None
    workflow: str | None
    run: dict[str, Any] | None


class IncidentView(Noun):
    """One incident, whole."""

    incident: Incident
    alerts: tuple[Alert, ...]
    evidence: tuple[Evidence, ...]
    attempts: tuple[AttemptView, ...]
    timeline: tuple[Record, ...]
    repair: Repair | None = None
    """How to put right by hand what its run has left; None where nothing is frozen."""
    followers: tuple[Incident, ...] = ()
    """Those that stand by because this one carries their cause, the oldest first."""


class DeadLetter(Noun):
    """A message that could not be understood, kept."""

    id: int
    at: str
    reason: str
    payload: str


class Views:
    """Reads for the API and the command line; never writes."""

    def __init__(
        self, database: Database, audit: Audit, incidents: Incidents, cases: Cases, runs: Runs
    ) -> None:
        self._database = database
        self._audit = audit
        self._incidents = incidents
        self._cases = cases
        self._runs = runs

    async def incidents(self, states: list[str], limit: int) -> list[Incident]:
        """List incidents, the newest first."""
        async with self._database.reading() as tx:
            return await self._incidents.find(tx, states=states, limit=limit)

    async def one(self, incident_id: str) -> Incident:
        """Read one without what belongs to it; raises `NoSuchIncidentError`."""
        async with self._database.reading() as tx:
            return await self._incidents.get(tx, incident_id)

    async def waiting(self) -> list[IncidentView]:
        """List incidents whose plan waits for an approval."""
        found = await self.incidents([State.AWAITING_APPROVAL], 200)
        return [await self.incident(incident.id) for incident in found]

    async def incident(self, incident_id: str) -> IncidentView:
        """Read one whole; raises `NoSuchIncidentError`."""
        async with self._database.reading() as tx:
            incident = await self._incidents.get(tx, incident_id)
            evidence = await self._cases.evidence(tx, incident.id)
            view = IncidentView(
                incident=incident,
                alerts=tuple(await self._incidents.alerts(tx, incident.id)),
                evidence=tuple(evidence),
                attempts=tuple(await self._attempts(tx, incident.id)),
                timeline=(),
                repair=await self._repair(tx, incident, evidence),
                followers=tuple(await followers(tx, incident)),
            )
        timeline = [record async for record in self._audit.read(incident_id=incident.id)]
        return view.model_copy(update={"timeline": tuple(timeline)})

    async def _repair(
        self, tx: Transaction, incident: Incident, evidence: list[Evidence]
    ) -> Repair | None:
        plan, run = await self._runs.plan(tx, incident), await self._runs.of(tx, incident)
        return repair_of(plan, evidence, run.owner_uid) if plan and run else None

    async def _attempts(self, tx: Transaction, incident_id: str) -> list[AttemptView]:
        plans = {plan.attempt: plan for plan in await self._runs.plans_of(tx, incident_id)}
        runs = {run.attempt: run for run in await self._runs.all_of(tx, incident_id)}
        query = select(proposals).where(proposals.c.incident_id == incident_id)
        rows = await tx.execute(query.order_by(proposals.c.attempt))
        return [
            AttemptView(
                attempt=row.attempt,
                at=row.at,
                decision=json.loads(row.decision),
                notes=tuple(row.notes.splitlines()),
                facts=json.loads(row.facts) if row.facts else None,
                judgement=json.loads(row.judgement) if row.judgement else None,
                plan=plans.get(row.attempt),
                plan_digest=digest(plans[row.attempt]) if row.attempt in plans else None,
                workflow=workflow_name(plans[row.attempt]) if row.attempt in plans else None,
                run=_run(runs.get(row.attempt)),
            )
            for row in rows
        ]

    async def decisions(self) -> AsyncIterator[str]:
        """Yield every decision that was judged, the oldest first, each as one line of JSON."""
        judged = select(proposals).where(proposals.c.judgement.is_not(None))
        order = (proposals.c.at, proposals.c.incident_id, proposals.c.attempt)
        async with self._database.reading() as tx:
            async for row in await tx.stream(judged.order_by(*order)):
                action = json.loads(row.decision).get("action", "")
                yield line_of(row, catalogue.always_ask(action))

    async def dead_letters(self, limit: int) -> list[DeadLetter]:
        """List what could not be understood, the newest first."""
        query = select(dead_letters).order_by(dead_letters.c.id.desc()).limit(limit)
        async with self._database.reading() as tx:
            rows = await tx.execute(query)
            return [DeadLetter(id=r.id, at=r.at, reason=r.reason, payload=r.payload) for r in rows]


def _run(run: StoredRun | None) -> dict[str, Any] | None:
    if run is None:
        return None
    return {
        "workflow": run.name,
        "action": run.action,
        "open": run.open,
        "created": run.created,
        "outcome": run.outcome,
        "intended_at": run.intended_at.isoformat(),
        "not_after": run.not_after.isoformat(),
        "ended_at": run.ended_at.isoformat() if run.ended_at else None,
        "steps": run.steps,
    }
