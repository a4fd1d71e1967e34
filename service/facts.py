"""What the agents saw just before a decision, laid down in the database for the gate to judge.

Invariant: the time that stands beside it is the database's, so that the launcher can tell how old
it is, whatever the agents' clock says.
"""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, insert, select, update

from tiphys.policies.model import AlertFacts, Incident, Noun, TargetFacts
from tiphys.service.database import Database, Transaction, moment, stamp
from tiphys.service.incidents import dump
from tiphys.service.tables import facts

_UNTIMED = {"alert": {"read_at"}, "target": {"read_at"}}


class Seen(Noun):
    """One look at an alert and its target; None is what could not be read."""

    alert: AlertFacts | None
    target: TargetFacts | None

    def same_as(self, other: "Seen") -> bool:
        """Whether both looks saw the same, at whatever time."""
        return self.model_dump(exclude=_UNTIMED) == other.model_dump(exclude=_UNTIMED)


@dataclass(frozen=True)
class Laid:
    """What lies in the database."""

    seen: Seen
    at: datetime
    """By the database's clock."""


class FactTable:
    """One look for each attempt: the last one."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def lay(self, tx: Transaction, incident: Incident, seen: Seen, now: datetime) -> None:
        """Put a look in place of the one before it; `now` counts where we are alone."""
        values = {"at": stamp(await self._database.time(tx, now)), "body": dump(seen)}
        written = await tx.execute(update(facts).where(*_of(incident)).values(**values))
        if written.rowcount == 0:
            key = {"incident_id": incident.id, "attempt": incident.attempt}
            await tx.execute(insert(facts).values(**key, **values))

    async def last(self, tx: Transaction, incident: Incident) -> Laid | None:
        """Give the last look of the incident's present attempt."""
        row = (await tx.execute(select(facts).where(*_of(incident)))).first()
        return Laid(Seen.model_validate_json(row.body), moment(row.at)) if row else None


def _of(incident: Incident) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return facts.c.incident_id == incident.id, facts.c.attempt == incident.attempt
