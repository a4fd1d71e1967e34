"""How far the events out have been told, and which replica goes on: one row of the database.

Invariants: one replica at a time has the turn, for a limited time, by the database's clock; one
that was paused and comes back writes nothing over its successor, whose token is higher. An
installation that has never told anything begins with what comes next, not with its whole past.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta

from sqlalchemy import func, insert, select, update

from tiphys.policies.model import Instant
from tiphys.service.database import Database, Transaction, stamp
from tiphys.service.tables import audit, event_positions

NAME = "events"
TERM = timedelta(seconds=30)
"""How long a turn is at most; longer than one post may take."""


@dataclass(frozen=True)
class Turn:
    """The right to tell what comes after `seq`."""

    seq: int
    tries: int
    token: int
    wait: timedelta = timedelta()
    """How long nobody may try again."""

    def at(self, seq: int) -> "Turn":
        """Go on after this record, at once."""
        return replace(self, seq=seq, tries=0)

    def later(self, tries: int, wait: timedelta) -> "Turn":
        """Try the same again, not before then."""
        return replace(self, tries=tries, wait=wait)


_MINE = event_positions.c.name == NAME


class Position:
    """Takes turns for one replica."""

    def __init__(self, database: Database, holder: str, clock: Callable[[], Instant]) -> None:
        self._database = database
        self._holder = holder
        self._clock = clock

    async def take(self) -> Turn | None:
        """Take the turn if it is free, due, and there is something new; the first look of all only
        notes where the record ends.
        """
        query = select(event_positions).where(_MINE)
        async with self._database.reading() as tx:  # most looks find nothing, and take no lock
            row = (await tx.execute(query)).first()
            if row is not None and (await _newest(tx)) <= row.seq:
                return None
        async with self._database.transaction() as tx:
            if row is None:
                await self._begin(tx)
                return None
            row = (await tx.execute(self._database.for_update(query))).one()
            now = await self._database.time(tx, self._clock())
            if max(row.expires_at, row.due_at) > stamp(now):
                return None
            values = {"holder": self._holder, "token": row.token + 1}
            until = stamp(now + TERM)
            await tx.execute(
                update(event_positions).where(_MINE).values(**values, expires_at=until)
            )
            return Turn(row.seq, row.tries, row.token + 1)

    async def give_back(self, turn: Turn) -> None:
        """Write how far it came and let anybody go on; nothing if somebody else already does."""
        held = (event_positions.c.holder == self._holder) & (event_positions.c.token == turn.token)
        async with self._database.transaction() as tx:
            due = await self._database.time(tx, self._clock()) + turn.wait
            values = {"seq": turn.seq, "tries": turn.tries, "due_at": stamp(due), "expires_at": ""}
            await tx.execute(update(event_positions).where(_MINE, held).values(**values))

    async def _begin(self, tx: Transaction) -> None:
        await self._database.lock(tx, "audit")  # several replicas at once: the second finds it
        if (await tx.execute(select(event_positions.c.seq).where(_MINE))).first() is None:
            nobody = {"holder": "", "token": 0, "expires_at": "", "due_at": "", "tries": 0}
            await tx.execute(
                insert(event_positions).values(name=NAME, seq=await _newest(tx), **nobody)
            )


async def _newest(tx: Transaction) -> int:
    found = await tx.execute(select(func.coalesce(func.max(audit.c.seq), 0)))
    return int(found.scalar_one())
