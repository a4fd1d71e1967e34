"""Plans, intents and runs in the database: the intent is committed before a Workflow exists.

Invariants: one open run per target (a unique index says so, not only the gate); a plan belongs to
one attempt for ever; a frozen target stays frozen until a human says otherwise.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError

from tiphys.policies.model import (
    Incident,
    Instant,
    Json,
    Outcome,
    Plan,
    Target,
    TargetFacts,
)
from tiphys.policies.plan import canonical, digest, workflow_name
from tiphys.service.database import Database, Transaction, moment, stamp
from tiphys.service.errors import NoSuchRunError, TargetBusyError
from tiphys.service.tables import breakers, freezes, plans, runs


@dataclass(frozen=True)
class StoredRun:
    """A run as the database knows it."""

    name: str
    incident_id: str
    attempt: int
    plan_digest: str
    action: str
    target_uid: str
    owner_uid: str
    not_after: datetime
    deadline_at: datetime
    open: bool
    created: bool
    outcome: Outcome | None
    steps: list[Json]
    intended_at: datetime
    ended_at: datetime | None


class Runs:
    """Reads and writes plans, runs, freezes and breakers; `history` counts them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def keep_plan(self, tx: Transaction, plan: Plan, now: Instant) -> bool:
        """Store the plan of an attempt; False when the attempt already has another plan."""
        query = select(plans.c.digest).where(
            plans.c.incident_id == plan.incident, plans.c.attempt == plan.attempt
        )
        row = (await tx.execute(query)).first()
        if row:
            return bool(row.digest == digest(plan))
        await tx.execute(
            insert(plans).values(
                digest=digest(plan),
                incident_id=plan.incident,
                attempt=plan.attempt,
                at=stamp(now),
                body=canonical(plan).decode(),
            )
        )
        return True

    async def plan(self, tx: Transaction, incident: Incident) -> Plan | None:
        """Give the plan of the incident's present attempt."""
        query = select(plans.c.body).where(
            plans.c.incident_id == incident.id, plans.c.attempt == incident.attempt
        )
        row = (await tx.execute(query)).first()
        return Plan.model_validate_json(row.body) if row else None

    async def plans_of(self, tx: Transaction, incident_id: str) -> list[Plan]:
        """Give every plan of an incident, in order of the attempts."""
        query = select(plans.c.body).where(plans.c.incident_id == incident_id)
        rows = await tx.execute(query.order_by(plans.c.attempt))
        return [Plan.model_validate_json(row.body) for row in rows]

    async def named(self, tx: Transaction, beginning: str) -> tuple[StoredRun, Plan]:
        """Give a run and its plan by its Workflow's name, or an unambiguous beginning of it.

        Raises `NoSuchRunError`.
        """
        begins = beginning if beginning.startswith("tiphys-") else f"tiphys-{beginning}"
        query = select(runs.c.name).where(runs.c.name.startswith(begins, autoescape=True)).limit(2)
        found = (await tx.execute(query)).scalars().all()
        if len(found) != 1 or begins == "tiphys-":
            several = f"{beginning} is the beginning of several names"
            raise NoSuchRunError(several if len(found) > 1 else beginning)
        run = await self._one(tx, found[0])
        body = await tx.execute(select(plans.c.body).where(plans.c.digest == run.plan_digest))
        return run, Plan.model_validate_json(body.scalar_one())

    async def intend(
        self, tx: Transaction, plan: Plan, facts: TargetFacts, *, now: Instant, times: "RunTimes"
    ) -> StoredRun:
        """Record that the plan's Workflow is about to be created.

        Raises `TargetBusyError`, after which the transaction can only be rolled back.
        """
        values: dict[str, object] = {
            "name": workflow_name(plan),
            "incident_id": plan.incident,
            "attempt": plan.attempt,
            "plan_digest": digest(plan),
            "action": f"{plan.action}-v{plan.version}",
            "cluster": plan.target.cluster,
            "namespace": plan.target.namespace,
            "target_uid": plan.target.uid,
            "owner_uid": root_uid(plan.target, facts),
            "intended_at": stamp(now),
            "not_after": stamp(now + times.not_after),
            "deadline_at": stamp(now + times.not_after + times.deadline),
            "open": True,
            "created": False,
        }
        try:
            await tx.execute(insert(runs).values(**values))
        except IntegrityError as error:
            raise TargetBusyError(str(plan.target)) from error
        return await self._one(tx, str(values["name"]))

    async def of(self, tx: Transaction, incident: Incident) -> StoredRun | None:
        """Give the run of the incident's present attempt."""
        query = select(runs.c.name).where(
            runs.c.incident_id == incident.id, runs.c.attempt == incident.attempt
        )
        row = (await tx.execute(query)).first()
        return await self._one(tx, row.name) if row else None

    async def all_of(self, tx: Transaction, incident_id: str) -> list[StoredRun]:
        """Give every run of an incident, in order."""
        query = select(runs.c.name).where(runs.c.incident_id == incident_id)
        names = (await tx.execute(query.order_by(runs.c.attempt))).scalars().all()
        return [await self._one(tx, name) for name in names]

    async def _one(self, tx: Transaction, name: str) -> StoredRun:
        row = (await tx.execute(select(runs).where(runs.c.name == name))).one()
        return StoredRun(
            name=row.name,
            incident_id=row.incident_id,
            attempt=row.attempt,
            plan_digest=row.plan_digest,
            action=row.action,
            target_uid=row.target_uid,
            owner_uid=row.owner_uid,
            not_after=moment(row.not_after),
            deadline_at=moment(row.deadline_at),
            open=row.open,
            created=row.created,
            outcome=Outcome(row.outcome) if row.outcome else None,
            steps=json.loads(row.steps),
            intended_at=moment(row.intended_at),
            ended_at=moment(row.ended_at) if row.ended_at else None,
        )

    async def created(self, tx: Transaction, name: str) -> None:
        """Note that the API server has the Workflow."""
        await tx.execute(update(runs).where(runs.c.name == name).values(created=True))

    async def steps(self, tx: Transaction, name: str, steps: Sequence[Json]) -> None:
        """Keep the latest view of the run's steps."""
        text = json.dumps(steps, ensure_ascii=False)
        await tx.execute(update(runs).where(runs.c.name == name).values(steps=text))

    async def end(self, tx: Transaction, name: str, outcome: Outcome | None, now: Instant) -> None:
        """Close a run; no outcome means that it never started."""
        values = {"open": False, "outcome": outcome, "ended_at": stamp(now)}
        await tx.execute(update(runs).where(runs.c.name == name).values(**values))

    async def trip(self, tx: Transaction, scope: str, reason: str, now: Instant) -> bool:
        """Trip a breaker until a human resets it; False if it already was."""
        known = await tx.execute(select(breakers.c.scope).where(breakers.c.scope == scope))
        if known.first():
            return False
        await tx.execute(insert(breakers).values(scope=scope, reason=reason, at=stamp(now)))
        return True

    async def freeze(
        self, tx: Transaction, run: StoredRun, target: Target, *, reason: str, now: Instant
    ) -> None:
        """Keep every later action away from the target and from what owns it."""
        uid = run.owner_uid
        values = {
            "incident_id": run.incident_id,
            "target": str(target),
            "reason": reason,
            "at": stamp(now),
        }
        known = await tx.execute(update(freezes).where(freezes.c.target_uid == uid).values(values))
        if known.rowcount == 0:
            await tx.execute(insert(freezes).values(target_uid=uid, **values))


@dataclass(frozen=True)
class RunTimes:
    """How long a run may take to start, and from then to end."""

    not_after: timedelta
    deadline: timedelta


def root_uid(target: Target, facts: TargetFacts) -> str:
    """Give the uid of the topmost owner: what cooldowns and freezes are about."""
    return facts.owners[-1].uid if facts.owners else target.uid


def breaker_scopes(target: Target) -> list[str]:
    """Name the breakers that cover a target, the narrowest first."""
    return [f"namespace:{target.cluster}/{target.namespace}", f"cluster:{target.cluster}"]
