"""How a stage writes: one fenced transaction with the incident, the clock and the audit.

Invariant: nothing is committed for an incident that another replica holds or that has moved since
the stage began.
"""

import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tiphys.policies.lifecycle import Move, State
from tiphys.policies.model import Incident, Instant
from tiphys.service.audit import Audit
from tiphys.service.database import Database, Transaction
from tiphys.service.errors import LeaseLostError, TiphysError
from tiphys.service.incidents import Incidents, Step
from tiphys.service.leases import Lease, Leases
from tiphys.service.records import AuditEvent


@dataclass(frozen=True)
class Job:
    """One incident handed to a stage, with the lease that allows the stage to write."""

    incident: Incident
    lease: Lease


@dataclass
class Entry:
    """An open transaction about one incident."""

    tx: Transaction
    incident: Incident
    now: Instant
    audit: Audit
    incidents: Incidents

    async def record(
        self, event: AuditEvent, body: Mapping[str, Any], *, actor: str = "tiphys"
    ) -> None:
        """Append to the audit in this transaction."""
        await self.audit.append(
            self.tx, event, actor=actor, incident_id=self.incident.id, body=body
        )

    async def move(self, step: Step) -> None:
        """Move the incident in this transaction."""
        self.incident = await self.incidents.move(self.tx, self.incident, step, now=self.now)

    async def turn(self, move: Move, *, due_at: Instant | None = None) -> None:
        """Hand the incident from the agents to the gate, or back, without a word about it."""
        incident = self.incident
        deadline = incident.deadline_at
        await self.move(Step(move, incident.reason, deadline_at=deadline, due_at=due_at))

    async def look_again(self, at: Instant) -> None:
        """Leave the incident as it is until then."""
        await self.incidents.wake(self.tx, self.incident.id, at)


class Ledger:
    """What every stage is given to write with."""

    def __init__(self, database: Database, leases: Leases, clock: Callable[[], Instant]) -> None:
        self.database = database
        self.audit = Audit(database)
        self.incidents = Incidents(database, self.audit)
        self.leases = leases
        self.clock = clock

    @contextlib.asynccontextmanager
    async def entry(self, job: Job) -> AsyncGenerator[Entry]:
        """Open the transaction; raises `LeaseLostError` when this job is no longer ours to do."""
        async with self.database.transaction() as tx:
            await self.leases.check(tx, job.lease)
            fresh = await self.incidents.get(tx, job.incident.id, lock=True)
            if (fresh.state, fresh.attempt) != (job.incident.state, job.incident.attempt):
                was = job.incident.state
                raise LeaseLostError(f"{fresh.id}, worked on as {was}, is now {fresh.state}")
            yield Entry(tx, fresh, self.clock(), self.audit, self.incidents)

    @contextlib.asynccontextmanager
    async def person(self, incident_id: str) -> AsyncGenerator[Entry]:
        """Open a transaction on behalf of a person or an alert, who need no lease."""
        async with self.database.transaction() as tx:
            fresh = await self.incidents.get(tx, incident_id, lock=True)
            yield Entry(tx, fresh, self.clock(), self.audit, self.incidents)

    async def check_parked(self) -> None:
        """Raise an error that names the incidents which cannot be read, where there are any."""
        async with self.database.reading() as tx:
            if parked := await self.leases.parked(tx):
                raise TiphysError(f"cannot be read: {', '.join(parked)}")

    async def escalate(self, job: Job, reason: str) -> None:
        """Hand the incident to a human, whatever stage it is in."""
        async with self.entry(job) as entry:
            if entry.incident.state in {State.ESCALATED, State.ACKNOWLEDGED, State.CLOSED}:
                return
            await entry.move(Step(Move.ESCALATE, reason))


def utc_now() -> datetime:
    """Give the present time in UTC."""
    return datetime.now(UTC)
