"""What the database knows around an incident, gathered for the agents."""

from datetime import datetime, timedelta

from sqlalchemy import func, insert, select

from tiphys.agents.ports import Attempt, Case, Undone
from tiphys.policies.lifecycle import State
from tiphys.policies.model import Evidence, Incident, Instant, Plan, Proposal
from tiphys.policies.plan import digest
from tiphys.service.database import Database, Transaction, stamp
from tiphys.service.experience import experience_of
from tiphys.service.incidents import Incidents, dump
from tiphys.service.ledger import Entry
from tiphys.service.records import AuditEvent
from tiphys.service.runs import Runs, StoredRun
from tiphys.service.tables import evidence, inbox, incidents, proposals

FLAPPING_WINDOW = timedelta(hours=1)


class Cases:
    """Builds the agents' input and keeps their evidence."""

    def __init__(self, database: Database, found: Incidents, runs: Runs, cluster: str) -> None:
        self._database = database
        self._incidents = found
        self._runs = runs
        self._cluster = cluster

    async def case(self, incident: Incident, now: Instant, *, remembering: bool = False) -> Case:
        """Gather alerts, earlier attempts, flapping and whether another incident has the target.

        `remembering`: what was tried for such alerts in other incidents, too.
        """
        async with self._database.reading() as tx:
            alerts = await self._incidents.alerts(tx, incident.id)
            wish, undone = incident.undoes, None
            if wish is not None:
                _, plan = await self._runs.named(tx, wish.run)
                undone = Undone(plan, wish)
            return Case(
                incident=incident.id,
                attempt=incident.attempt,
                cluster=incident.cluster,
                managed=incident.cluster == self._cluster,
                subject=incident.subject,
                alerts=alerts,
                attempts=await self._attempts(tx, incident),
                episodes_last_hour=await self._episodes(tx, incident, now),
                handled_by=await self._handled_by(tx, incident),
                now=now,
                waited=_waited(incident, now),
                undone=undone,
                wanted=incident.wants,
                experience=await experience_of(tx, incident, alerts, now) if remembering else None,
            )

    async def _attempts(self, tx: Transaction, incident: Incident) -> list[Attempt]:
        plans = {plan.attempt: plan for plan in await self._runs.plans_of(tx, incident.id)}
        return [
            Attempt(
                number=run.attempt,
                action=plans[run.attempt].action,
                target=plans[run.attempt].target,
                outcome=run.outcome,
                message=_last_words(run),
            )
            for run in await self._runs.all_of(tx, incident.id)
            if run.outcome is not None and run.attempt < incident.attempt
        ]

    async def _episodes(self, tx: Transaction, incident: Incident, now: datetime) -> int:
        """Count the steadiest firing alert's beginnings in the last hour.

        One alert that flaps does not make others flap which have fired all along.
        """
        mine = select(inbox.c.fingerprint).where(inbox.c.incident_id == incident.id, inbox.c.open)
        query = (
            select(func.count())
            .where(
                inbox.c.cluster == incident.cluster,
                inbox.c.fingerprint.in_(mine),
                inbox.c.began_at >= stamp(now - FLAPPING_WINDOW),
            )
            .group_by(inbox.c.fingerprint)
        )
        begun = list((await tx.execute(query)).scalars())
        firing = len(set((await tx.execute(mine)).scalars()))
        return min(begun, default=1) if len(begun) == firing else 1

    async def _handled_by(self, tx: Transaction, incident: Incident) -> str | None:
        if incident.target is None:
            return None
        query = select(incidents.c.id).where(
            incidents.c.target_uid == incident.target.uid,
            incidents.c.id != incident.id,
            incidents.c.state.in_([State.LAUNCHING, State.RUNNING, State.AWAITING_APPROVAL]),
        )
        return (await tx.execute(query)).scalar()

    async def proposal(self, incident: Incident) -> Proposal | None:
        """Give what was proposed in the incident's present attempt."""
        query = select(proposals.c.decision).where(
            proposals.c.incident_id == incident.id, proposals.c.attempt == incident.attempt
        )
        async with self._database.reading() as tx:
            row = (await tx.execute(query)).first()
        return Proposal.model_validate_json(row.decision) if row else None

    async def plan(self, incident: Incident) -> Plan | None:
        """Give the plan of the incident's present attempt."""
        async with self._database.reading() as tx:
            return await self._runs.plan(tx, incident)

    async def keep_damage(self, entry: Entry, found: Evidence) -> None:
        """Keep what stands on a frozen target where it differs from what was seen there last."""
        known = await self.evidence(entry.tx, entry.incident.id)
        same = [one for one in known if one.question == found.question]
        if not same or same[-1].answer != found.answer:
            await self.keep(entry, [found])

    async def keep(self, entry: Entry, found: list[Evidence]) -> None:
        """Record and store evidence that is new."""
        incident = entry.incident
        query = select(evidence.c.id).where(evidence.c.incident_id == incident.id)
        known = set((await entry.tx.execute(query)).scalars())
        fresh = {item.id: item for item in found if item.id not in known}
        for item in fresh.values():
            body = {
                "evidence": item.id,
                "source": item.source,
                "question": item.question,
                "ok": item.ok,
                "summary": item.summary,
                "sha256": digest(item),
            }
            await entry.record(AuditEvent.EVIDENCE_GATHERED, body, actor="agents")
            await entry.tx.execute(
                insert(evidence).values(
                    incident_id=incident.id,
                    id=item.id,
                    attempt=incident.attempt,
                    asked_at=stamp(item.asked_at),
                    body=dump(item),
                )
            )

    async def evidence(self, tx: Transaction, incident_id: str) -> list[Evidence]:
        """Read an incident's evidence in the order it was asked for."""
        query = select(evidence.c.body).where(evidence.c.incident_id == incident_id)
        rows = await tx.execute(query.order_by(evidence.c.asked_at))
        return [Evidence.model_validate_json(row.body) for row in rows]


def _waited(incident: Incident, now: Instant) -> float:
    """Give the seconds for which it has stood by without an incident to follow."""
    standby = incident.standby
    if standby is None or standby.follows is not None:
        return 0.0
    return (now - standby.since).total_seconds()


def _last_words(run: StoredRun) -> str:
    """Say what the last step that spoke said."""
    steps = [step for step in run.steps if isinstance(step, dict)]
    said = [f"{step['step']}: {step['message']}" for step in steps if step.get("message")]
    return "; ".join(said)[:500]
