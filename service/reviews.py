"""Whoever broke the glass is reviewed: paged about at once, listed until somebody else has looked.

Invariants: the review is opened in the transaction that takes the approval; nobody closes their
own; closing needs a reason and is recorded.
"""

import asyncio
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy import Row, insert, select, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from tiphys.policies.lifecycle import State
from tiphys.policies.model import Noun, Plan
from tiphys.policies.people import Person, PersonRole, same_person
from tiphys.policies.plan import digest
from tiphys.service.database import stamp
from tiphys.service.errors import (
    NoSuchReviewError,
    NotAllowedError,
    NotApprovableError,
    TiphysError,
)
from tiphys.service.ledger import Entry, Ledger
from tiphys.service.people import demand
from tiphys.service.records import AuditEvent
from tiphys.service.settle import Pager
from tiphys.service.tables import reviews

INTERVAL = timedelta(seconds=5)
"""How soon others hear of it."""
RINGS = timedelta(minutes=15)
"""How long the page stands."""

log = structlog.get_logger()


class Review(Noun):
    """One breaking of the glass."""

    plan_digest: str
    incident_id: str
    what: str
    """Such as `restart-pod on Pod shop/cart-1`."""
    namespace: str
    by: str
    reason: str
    at: str
    closed_by: str | None
    closed_reason: str | None
    closed_at: str | None


async def open_review(entry: Entry, plan: Plan, person: Person, reason: str) -> None:
    """Open it, in the transaction of the approval; raises `NotApprovableError` for a second one."""
    values = {
        "plan_digest": digest(plan),
        "incident_id": entry.incident.id,
        "what": f"{plan.action} on {plan.target}",
        "namespace": plan.target.namespace,
        "by": person.name,
        "reason": reason,
        "at": stamp(entry.now),
    }
    try:
        await entry.tx.execute(insert(reviews).values(values))
    except IntegrityError as error:
        raise NotApprovableError("somebody has broken the glass for this plan already") from error


class Reviews:
    """Lists them and closes one."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def all(self, *, closed: bool = False) -> list[Review]:
        """List them, the oldest first; the open ones unless all are wanted."""
        query = select(reviews).order_by(reviews.c.at, reviews.c.plan_digest)
        if not closed:
            query = query.where(reviews.c.closed_at.is_(None))
        async with self._ledger.database.reading() as tx:
            return [_review(row) for row in await tx.execute(query)]

    async def close(self, beginning: str, *, person: Person, reason: str) -> Review:
        """Say that one has looked, and what one thinks; `beginning`: of the plan's digest.

        Raises `NoSuchReviewError`, `NotAllowedError`.
        """
        database = self._ledger.database
        async with database.transaction() as tx:
            query = select(reviews).where(
                reviews.c.plan_digest.startswith(beginning, autoescape=True),
                reviews.c.closed_at.is_(None),
            )
            rows = (await tx.execute(database.for_update(query.limit(2)))).all()
            if len(rows) != 1:
                several = f"{beginning} is the beginning of several digests"
                raise NoSuchReviewError(several if rows else beginning)
            [row] = rows
            demand(person, PersonRole.APPROVER, row.namespace)
            if same_person(person.name, row.by):
                raise NotAllowedError(f"{row.by} broke the glass; somebody else must look at it")
            body = {"digest": row.plan_digest, "broken_by": row.by, "reason": reason}
            await self._ledger.audit.append(
                tx,
                AuditEvent.BREAK_GLASS_REVIEWED,
                actor=person.name,
                incident_id=row.incident_id,
                body=body,
            )
            values = {
                "closed_by": person.name,
                "closed_reason": reason,
                "closed_at": stamp(self._ledger.clock()),
            }
            this = reviews.c.plan_digest == row.plan_digest
            await tx.execute(update(reviews).where(this).values(values))
        return _review(row).model_copy(update=values)


class ReviewPages:
    """Tells people that the glass was broken; for the agents, who can."""

    def __init__(self, ledger: Ledger, pager: Pager) -> None:
        self._ledger = ledger
        self._pager = pager

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self.once()
            except (TiphysError, SQLAlchemyError, OSError) as error:
                log.warning("could not tell that the glass was broken", error=str(error))
            await asyncio.sleep(INTERVAL.total_seconds())

    async def once(self) -> None:
        """Page for each that nobody was told of; what no pager took is tried again."""
        database = self._ledger.database
        async with database.reading() as tx:
            found = (await tx.execute(select(reviews).where(reviews.c.paged_at.is_(None)))).all()
        for row in found:
            async with database.reading() as tx:
                incident = await self._ledger.incidents.get(tx, row.incident_id)
            words = (
                f"{row.by} broke the glass: {row.what}, approved alone: {row.reason}. Somebody "
                f"else must look: tiphys reviews close {row.plan_digest[:12]} --reason ..."
            )
            told = {
                "id": f"{incident.id}-glass",  # a page of its own, which the incident's end leaves
                "state": State.ESCALATED,
                "reason": words,
            }
            how = await self._pager.page(incident.model_copy(update=told), until=RINGS)
            async with self._ledger.person(row.incident_id) as entry:
                body = {"state": "break_glass", "how": how, "reason": words}
                await entry.record(AuditEvent.PAGED, body)
                this = reviews.c.plan_digest == row.plan_digest
                await entry.tx.execute(
                    update(reviews).where(this).values(paged_at=stamp(entry.now))
                )


def _review(row: Row[Any]) -> Review:
    return Review.model_validate({name: getattr(row, name) for name in Review.model_fields})
