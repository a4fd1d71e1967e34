"""A person's wish that a run stops: written by the gateway, carried out by the launcher.

Invariants: the wish is in the record before the Workflow hears of it; a stopped Workflow still
rolls back, which nobody can skip; one that is wanted stopped before it exists is not created.
"""

import contextlib
from dataclasses import dataclass

from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from tiphys.policies.lifecycle import State
from tiphys.policies.model import Incident
from tiphys.service.database import Transaction, stamp
from tiphys.service.errors import NothingRunsError
from tiphys.service.ledger import Ledger
from tiphys.service.records import AuditEvent
from tiphys.service.runs import Runs
from tiphys.service.tables import run_stops, runs

_OPEN = {State.LAUNCHING, State.RUNNING}


@dataclass(frozen=True)
class RunStop:
    """Who wants a run stopped, and why."""

    by: str
    reason: str

    def __str__(self) -> str:
        return f"stopped by {self.by}" + (f": {self.reason}" if self.reason else "")


class RunStops:
    """Takes wishes and gives them."""

    def __init__(self, ledger: Ledger, runs: Runs) -> None:
        self._ledger = ledger
        self._runs = runs

    async def ask(self, incident_id: str, *, by: str, reason: str) -> Incident:
        """Ask that the incident's run stops; raises `NothingRunsError`. The first wish counts."""
        async with self._ledger.person(incident_id) as entry:
            run = await self._runs.of(entry.tx, entry.incident)
            if entry.incident.state not in _OPEN or run is None:
                raise NothingRunsError(f"{entry.incident.id} is {entry.incident.state}")
            body = {"workflow": run.name, "by": by, "reason": reason}
            await entry.record(AuditEvent.RUN_STOP_ASKED, body, actor=by)
            values = {"run": run.name, "by": by, "reason": reason, "at": stamp(entry.now)}
            try:
                await entry.tx.execute(insert(run_stops).values(values))
            except IntegrityError as error:
                raise NothingRunsError("it is being stopped already") from error
            await entry.look_again(entry.now)
            await self._ledger.database.announce(entry.tx, entry.incident.state)
            return entry.incident

    async def ask_all(self, *, by: str, reason: str) -> list[Incident]:
        """Ask that every open run stops; gives the incidents whose run was not asked before."""
        asked: list[Incident] = []
        async with self._ledger.database.reading() as tx:
            found = (
                (await tx.execute(select(runs.c.incident_id).where(runs.c.open))).scalars().all()
            )
        for incident_id in found:
            with contextlib.suppress(NothingRunsError):  # it has ended, or is being stopped
                asked.append(await self.ask(incident_id, by=by, reason=reason))
        return asked


async def stop_of(tx: Transaction, run: str) -> RunStop | None:
    """Give the wish about a run, by its Workflow's name."""
    row = (await tx.execute(select(run_stops).where(run_stops.c.run == run))).first()
    return RunStop(row.by, row.reason) if row else None
