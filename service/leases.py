"""Who works on which incident: leases in the database with a fencing token.

Invariants: a stage commits only while its lease is the newest one, so a replica that was paused and
comes back cannot write over the one that took its work; on PostgreSQL terms are measured by the
database's clock, so that replicas whose clocks differ do not rob each other.
"""

import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog
from pydantic import ValidationError
from sqlalchemy import Row, Select, and_, delete, insert, or_, select, update

from tiphys.policies.model import Incident, Instant
from tiphys.service.audit import Audit
from tiphys.service.database import Database, Transaction, stamp
from tiphys.service.errors import LeaseLostError
from tiphys.service.records import AuditEvent
from tiphys.service.tables import incidents, leases

PARKED = "9999-12-31T00:00:00.000000Z"
"""Due at the end of time: what nobody can work on as it is."""

log = structlog.get_logger()


@dataclass(frozen=True)
class Lease:
    """The right to work on one incident until somebody with a higher token has it."""

    incident_id: str
    token: int


class Leases:
    """Claims due incidents for one process."""

    def __init__(self, database: Database, seconds: float) -> None:
        self._database = database
        self._audit = Audit(database)
        self._term = timedelta(seconds=seconds)
        # The host's name is the pod's: people can see who works on what.
        self.holder = f"{socket.gethostname()}-{secrets.token_hex(4)}"

    async def claim_due(
        self, states: list[str], now: Instant, limit: int, again: Instant
    ) -> list[tuple[Incident, Lease]]:
        """Take up to `limit` due incidents that nobody holds; the longest due first.

        Each is due again at `again` unless its stage says otherwise.
        """
        async with self._database.reading() as tx:
            shared = await self._database.time(tx, now)
            query = _claimable(states, now, shared).limit(limit)
            if not (await tx.execute(query)).first():
                return []  # looking takes no lock: most looks find nothing
        claimed: list[tuple[Incident, Lease]] = []
        async with self._database.transaction() as tx:
            await self._database.lock(tx, "incidents")
            for row in (await tx.execute(query)).all():
                incident = await self._read(tx, row)
                if incident is None:
                    continue
                lease = Lease(row.id, (row.token or 0) + 1)
                await self._take(tx, lease, shared, fresh=row.token is None)
                await tx.execute(
                    update(incidents).where(incidents.c.id == row.id).values(due_at=stamp(again))
                )
                claimed.append((incident, lease))
        return claimed

    async def _read(self, tx: Transaction, row: Row[str, str, int]) -> Incident | None:
        """Read an incident; one that cannot be read is parked, or nobody could claim any other."""
        try:
            return Incident.model_validate_json(row.body)
        except ValidationError as error:
            why = str(error.errors()[0]["msg"])
        log.error("an incident cannot be read and is parked", incident=row.id, why=why)
        await self._audit.append(
            tx, AuditEvent.INCIDENT_PARKED, actor="tiphys", incident_id=row.id, body={"reason": why}
        )
        await tx.execute(update(incidents).where(incidents.c.id == row.id).values(due_at=PARKED))
        return None

    async def parked(self, tx: Transaction) -> list[str]:
        """Give the incidents that could not be read; news of their alerts tries them again."""
        query = select(incidents.c.id).where(incidents.c.due_at == PARKED)
        return list((await tx.execute(query.order_by(incidents.c.id))).scalars())

    async def _take(self, tx: Transaction, lease: Lease, now: Instant, *, fresh: bool) -> None:
        values = {
            "holder": self.holder,
            "token": lease.token,
            "expires_at": stamp(now + self._term),
        }
        if fresh:
            await tx.execute(insert(leases).values(resource=lease.incident_id, **values))
        else:
            await tx.execute(
                update(leases).where(leases.c.resource == lease.incident_id).values(**values)
            )

    async def renew(self, lease: Lease, now: Instant) -> None:
        """Extend a lease; raises `LeaseLostError` if somebody else has it."""
        async with self._database.transaction() as tx:
            await self.check(tx, lease)
            until = await self._database.time(tx, now) + self._term
            await tx.execute(
                update(leases)
                .where(leases.c.resource == lease.incident_id)
                .values(expires_at=stamp(until))
            )

    async def check(self, tx: Transaction, lease: Lease) -> None:
        """Raise `LeaseLostError` unless this lease is the newest."""
        query = select(leases).where(leases.c.resource == lease.incident_id)
        row = (await tx.execute(self._database.for_update(query))).first()
        if row is None or row.token != lease.token or row.holder != self.holder:
            raise LeaseLostError(lease.incident_id)

    async def release(self, lease: Lease, now: Instant) -> None:
        """Let others have it at once; the token stays, so an old one never counts again."""
        async with self._database.transaction() as tx:
            await tx.execute(
                update(leases)
                .where(and_(leases.c.resource == lease.incident_id, leases.c.token == lease.token))
                .values(expires_at=stamp(await self._database.time(tx, now)))
            )
            if self._database.sqlite:
                return
            # Whose turn it is now could not have it before.
            query = select(incidents.c.state).where(
                incidents.c.id == lease.incident_id, incidents.c.due_at <= stamp(now)
            )
            if state := (await tx.execute(query)).scalar():
                await self._database.announce(tx, state)

    async def take_turn(self, name: str, now: Instant, seconds: float) -> bool:
        """Whether what all replicas do in turn is ours to do now; not again for `seconds`.

        Nobody gives a turn back: who dies in the middle of one has only delayed the next.
        """
        async with self._database.transaction() as tx:
            await self._database.lock(tx, "incidents")
            shared = await self._database.time(tx, now)
            row = (await tx.execute(select(leases).where(leases.c.resource == name))).first()
            if row and row.expires_at > stamp(shared):
                return False
            until = stamp(shared + timedelta(seconds=seconds))
            values = {"holder": self.holder, "token": row.token + 1 if row else 1}
            if row:
                mine = update(leases).where(leases.c.resource == name)
                await tx.execute(mine.values(**values, expires_at=until))
            else:
                await tx.execute(insert(leases).values(resource=name, **values, expires_at=until))
        return True

    async def expire_all(self) -> None:
        """Free every lease: only for the embedded database, whose directory we hold alone."""
        async with self._database.transaction() as tx:
            await tx.execute(update(leases).values(expires_at=""))

    async def forget(self, tx: Transaction, incident_id: str) -> None:
        """Remove the lease of a closed incident."""
        await tx.execute(delete(leases).where(leases.c.resource == incident_id))


def _claimable(states: Sequence[str], now: Instant, shared: Instant) -> Select[str, str, int]:
    """Ask for incidents that are due by our clock and whose lease is over by the shared one."""
    return (
        select(incidents.c.id, incidents.c.body, leases.c.token)
        .join(leases, leases.c.resource == incidents.c.id, isouter=True)
        .where(
            incidents.c.state.in_(states),
            incidents.c.due_at <= stamp(now),
            or_(leases.c.expires_at.is_(None), leases.c.expires_at <= stamp(shared)),
        )
        .order_by(incidents.c.due_at)
    )
