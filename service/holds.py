"""Tripped breakers and frozen targets: what keeps Tiphys away until a person lets it back.

Invariant: nothing in the service removes one; a person does, with a reason, and it is recorded.
"""

from collections.abc import Callable
from typing import Literal

from sqlalchemy import delete, insert, select, update

from tiphys.policies.model import Instant, Noun
from tiphys.service.audit import Audit
from tiphys.service.database import Database, Transaction, stamp
from tiphys.service.errors import NoSuchHoldError
from tiphys.service.ledger import utc_now
from tiphys.service.records import AuditEvent
from tiphys.service.tables import breaker_resets, breakers, freezes


class Hold(Noun):
    """One of them."""

    scope: str
    """`namespace:CLUSTER/NAME` or `cluster:NAME` for a breaker, `target:UID` for a freeze."""
    kind: Literal["breaker", "freeze"]
    what: str
    reason: str
    at: str
    incident_id: str | None = None


class Holds:
    """Lists them and lets go of one."""

    def __init__(
        self, database: Database, audit: Audit, clock: Callable[[], Instant] = utc_now
    ) -> None:
        self._database = database
        self._audit = audit
        self._clock = clock

    async def all(self) -> list[Hold]:
        """List them, the oldest first."""
        async with self._database.reading() as tx:
            return await self._all(tx)

    async def _all(self, tx: Transaction) -> list[Hold]:
        tripped = [
            Hold(scope=r.scope, kind="breaker", what=r.scope, reason=r.reason, at=r.at)
            for r in await tx.execute(select(breakers))
        ]
        frozen = [
            Hold(
                scope=f"target:{r.target_uid}",
                kind="freeze",
                what=r.target,
                reason=r.reason,
                at=r.at,
                incident_id=r.incident_id,
            )
            for r in await tx.execute(select(freezes))
        ]
        return sorted([*tripped, *frozen], key=lambda hold: hold.at)

    async def release(self, scope: str, *, by: str, reason: str) -> Hold:
        """Let go of one; raises `NoSuchHoldError`."""
        async with self._database.transaction() as tx:
            await self._database.lock(tx, "audit")  # two people at once: the second finds nothing
            hold = next((hold for hold in await self._all(tx) if hold.scope == scope), None)
            if hold is None:
                raise NoSuchHoldError(scope)
            freeze = hold.kind == "freeze"
            event = AuditEvent.TARGET_UNFROZEN if freeze else AuditEvent.BREAKER_RESET
            body = {"scope": scope, "what": hold.what, "reason": reason}
            await self._audit.append(tx, event, actor=by, incident_id=hold.incident_id, body=body)
            if freeze:
                uid = scope.removeprefix("target:")
                await tx.execute(delete(freezes).where(freezes.c.target_uid == uid))
            else:
                await tx.execute(delete(breakers).where(breakers.c.scope == scope))
                await self._count_anew(tx, scope, by)
        return hold

    async def _count_anew(self, tx: Transaction, scope: str, by: str) -> None:
        """Let nothing that happened until now trip this breaker again."""
        values = {"by": by, "at": stamp(self._clock())}
        known = breaker_resets.c.scope == scope
        if (await tx.execute(update(breaker_resets).where(known).values(values))).rowcount == 0:
            await tx.execute(insert(breaker_resets).values(scope=scope, **values))
