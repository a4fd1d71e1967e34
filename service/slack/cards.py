"""Where each incident's card is, and who may touch it now: one replica at a time.

Invariants: a claim is a row of the database with an end, so a replica that dies delays a card and
keeps nobody from it; what is saved under a claim that has been lost counts for nothing.
"""

import secrets
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from tiphys.policies.lifecycle import State
from tiphys.policies.model import Instant
from tiphys.service.database import Database, Transaction, moment, stamp
from tiphys.service.tables import audit, cards, incidents

CLAIM: Final = timedelta(seconds=90)
"""Longer than the calls that are made under one claim may take together."""


@dataclass(frozen=True)
class Held:
    """A card that is ours until `CLAIM` is over."""

    incident_id: str
    holder: str
    channel: str
    ts: str | None
    posting_at: Instant | None
    """When a post was begun of which nobody heard again."""
    shown: str
    told: int


class Cards:
    """The table of cards, for one process."""

    def __init__(self, database: Database, channel: str) -> None:
        self._database = database
        self._channel = channel

    async def unfinished(self) -> tuple[set[str], int]:
        """Give the incidents whose card may have to change, and the record's end by now."""
        async with self._database.reading() as tx:
            end = await _end(tx)
            going = select(incidents.c.id).where(incidents.c.state != State.CLOSED)
            posted = select(cards.c.incident_id).where(cards.c.over.is_(False))
            found = {row[0] for row in await tx.execute(going.union(posted))}
        return found, end

    async def moved(self, after: int) -> tuple[set[str], int]:
        """Give the incidents that the record speaks of after one of its numbers, and its end."""
        async with self._database.reading() as tx:
            end = await _end(tx)
            query = select(audit.c.incident_id).where(
                audit.c.seq > after, audit.c.incident_id.is_not(None)
            )
            return {row[0] for row in await tx.execute(query.distinct())}, end

    async def exists(self, incident_id: str) -> bool:
        """Whether an incident has a card, or is about to."""
        query = select(cards.c.incident_id).where(cards.c.incident_id == incident_id)
        async with self._database.reading() as tx:
            return (await tx.execute(query)).first() is not None

    async def claim(self, incident_id: str, now: Instant) -> Held | None:
        """Take an incident's card; None while another replica has it."""
        holder = secrets.token_hex(8)
        try:
            async with self._database.transaction() as tx:
                shared = await self._database.time(tx, now)
                values = {"holder": holder, "held_until": stamp(shared + CLAIM)}
                taken = await tx.execute(
                    update(cards)
                    .where(
                        cards.c.incident_id == incident_id,
                        or_(cards.c.held_until == "", cards.c.held_until <= stamp(shared)),
                    )
                    .values(values)
                )
                query = select(cards).where(cards.c.incident_id == incident_id)
                row = (await tx.execute(query)).first()
                if row is None:
                    fresh = {"incident_id": incident_id, "channel": self._channel, "over": False}
                    await tx.execute(insert(cards).values(**fresh, **values))
                    return Held(incident_id, holder, self._channel, None, None, "", 0)
        except IntegrityError:
            return None  # two replicas at once; the other has it
        if taken.rowcount != 1:
            return None
        posting = moment(row.posting_at) if row.posting_at else None
        return Held(incident_id, holder, row.channel, row.ts, posting, row.shown, row.told)

    async def posting(self, held: Held, at: Instant | None) -> Held | None:
        """Note that a post begins, or that it came to nothing; None: the claim was lost."""
        kept = await self._write(held, {"posting_at": stamp(at) if at else None})
        return replace(held, posting_at=at) if kept else None

    async def save(self, held: Held, *, over: bool) -> bool:
        """Keep what became of a card; False: the claim was lost, and others must look again."""
        values = {"ts": held.ts, "shown": held.shown, "told": held.told, "over": over}
        if held.ts:
            values["posting_at"] = None
        if await self._write(held, values):
            return True
        async with self._database.transaction() as tx:
            await tx.execute(
                update(cards).where(cards.c.incident_id == held.incident_id).values(shown="")
            )
        return False

    async def release(self, held: Held) -> None:
        """Let others have it."""
        await self._write(held, {"holder": "", "held_until": ""})

    async def _write(self, held: Held, values: dict[str, Any]) -> bool:
        mine = (cards.c.incident_id == held.incident_id) & (cards.c.holder == held.holder)
        async with self._database.transaction() as tx:
            done = await tx.execute(update(cards).where(mine).values(values))
        return done.rowcount == 1


async def _end(tx: Transaction) -> int:
    query = select(audit.c.seq).order_by(audit.c.seq.desc()).limit(1)
    return (await tx.execute(query)).scalar() or 0
