"""Looks for incidents that no stage works on any more, so that a role that is away is no silence.

Invariants: what the launcher has not judged long after its deadline goes to a human; a run that the
launcher has not ended by then, and an incident that cannot be read, is paged about until it moves.
"""

import asyncio
from datetime import timedelta

import structlog
from sqlalchemy import RowMapping, select
from sqlalchemy.exc import SQLAlchemyError

from tiphys.policies.lifecycle import Move, State
from tiphys.policies.model import Incident, Instant, Severity
from tiphys.service.database import moment, stamp
from tiphys.service.errors import TiphysError
from tiphys.service.incidents import Step
from tiphys.service.leases import PARKED
from tiphys.service.ledger import Ledger
from tiphys.service.records import AuditEvent
from tiphys.service.settle import Pager
from tiphys.service.tables import incidents

GRACE = timedelta(seconds=60)
"""How long after its deadline the launcher's own hand is waited for."""
INTERVAL = timedelta(seconds=30)
_LAUNCHERS = {
    State.INSPECTED: "the launcher has not judged it in time",
    State.LAUNCHING: "the launcher has not started it, nor given it up, in time",
    State.RUNNING: "the launcher has not said in time how its run ended",
}

log = structlog.get_logger()


class Overlooked:
    """A round every `INTERVAL`; for the agents, who can tell people."""

    def __init__(self, ledger: Ledger, pager: Pager) -> None:
        self._ledger = ledger
        self._pager = pager

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self.once()
            except (TiphysError, SQLAlchemyError, OSError) as error:
                log.warning("could not look for what is overlooked", error=str(error))
            await asyncio.sleep(INTERVAL.total_seconds())

    async def once(self) -> None:
        """Do one round."""
        now = self._ledger.clock()
        late = (incidents.c.state.in_(_LAUNCHERS)) & (incidents.c.deadline_at < stamp(now - GRACE))
        async with self._ledger.database.reading() as tx:
            found = await tx.execute(select(incidents).where(late | (incidents.c.due_at == PARKED)))
            rows = list(found.mappings())
        for row in rows:
            if row["due_at"] == PARKED:
                await self._pager.page(_unreadable(row, now), until=3 * INTERVAL)
            else:
                await self._late(row["id"])

    async def _late(self, incident_id: str) -> None:
        async with self._ledger.person(incident_id) as entry:
            incident, now = entry.incident, entry.now
            why = _LAUNCHERS.get(State(incident.state))
            if why is None or incident.deadline_at is None or now < incident.deadline_at + GRACE:
                return
            if incident.state == State.INSPECTED:
                await entry.move(Step(Move.ESCALATE, f"{why}: {incident.reason}"))
                return
            if incident.paged_at is None:
                body = {"state": incident.state, "how": "overlooked", "reason": why}
                await entry.record(AuditEvent.PAGED, body)
                await entry.incidents.paged(entry.tx, incident, now)
        told = incident.model_copy(update={"state": State.ESCALATED, "reason": why})
        await self._pager.page(told, until=3 * INTERVAL)


def _unreadable(row: RowMapping, now: Instant) -> Incident:
    """Say of an incident what its columns still tell."""
    return Incident(
        id=row["id"],
        cluster=row["cluster"],
        subject=row["subject"],
        title=row["subject"],
        severity=Severity.CRITICAL,
        state=State.ESCALATED,
        attempt=row["attempt"],
        reason="its record in the database cannot be read; see /readyz and `tiphys audit list`",
        opened_at=moment(row["opened_at"]),
        changed_at=moment(row["changed_at"]) if row["changed_at"] else now,
        deadline_at=None,
    )
