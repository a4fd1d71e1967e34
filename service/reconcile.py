"""What the Alertmanagers say is active, compared with our open incidents, every minute.

Invariants: a wiped stream or a lost post costs a minute, not an alert; an alert is called gone only
after three listings that every Alertmanager answered; a silence suspends its incident.
"""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

import structlog
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge
from sqlalchemy import RowMapping, or_, select, update

from tiphys.policies.lifecycle import TABLE, Move, State
from tiphys.policies.model import Alert
from tiphys.service import episodes
from tiphys.service.alertmanager import Alertmanagers, Listing, Presence
from tiphys.service.database import Transaction, stamp
from tiphys.service.episodes import Arrival, Key
from tiphys.service.incidents import Step
from tiphys.service.intake import Intake
from tiphys.service.ledger import Ledger
from tiphys.service.records import AuditEvent
from tiphys.service.tables import inbox, incidents, proposals

GONE_AFTER = 3
"""Successful listings in a row without an alert, before it counts as gone."""

log = structlog.get_logger()


class ReconcileMetrics:
    """What reconciliation counts; one object for each registry."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.listings = Counter(
            "tiphys_reconcile_listings", "Rounds of listings.", ["result"], registry=registry
        )
        self.injected = Counter(
            "tiphys_reconcile_injected_alerts",
            "Alerts that were active but had not come by webhook.",
            registry=registry,
        )
        self.last = Gauge(
            "tiphys_reconcile_last_success_timestamp_seconds",
            "When every Alertmanager last answered.",
            registry=registry,
        )


@dataclass(frozen=True)
class _Known:
    """One row of the inbox that a listing can say something about."""

    id: int
    key: Key
    incident_id: str | None
    state: str | None
    open: bool
    missing: int
    alert: str


class Reconciler:
    """Lists and compares; does nothing where no Alertmanager is configured."""

    def __init__(
        self,
        alertmanagers: Alertmanagers,
        intake: Intake,
        ledger: Ledger,
        metrics: ReconcileMetrics,
        *,
        interval: float,
    ) -> None:
        """`interval` is the seconds between two rounds."""
        self._alertmanagers = alertmanagers
        self._intake = intake
        self._ledger = ledger
        self._metrics = metrics
        self._interval = interval

    async def run(self) -> None:
        """Reconcile until cancelled, in turn with the other replicas.

        Each counting for itself, an alert would be gone from three listings in no time.
        """
        leases, turn = self._ledger.leases, 0.9 * self._interval
        while True:
            try:
                if await leases.take_turn("reconciliation", self._ledger.clock(), turn):
                    await self.once()
            except Exception:  # the next round may fare better; silence would hide it
                log.exception("reconciliation failed")
                self._metrics.listings.labels("error").inc()
            await asyncio.sleep(self._interval)

    async def once(self) -> bool:
        """Do one round; returns whether every Alertmanager answered.

        An incomplete listing still brings in what is active, but calls nothing gone or silenced.
        """
        began = self._ledger.clock()
        listing = await self._alertmanagers.listing()
        for failure in listing.failures:
            log.warning("listing failed", why=failure)
        async with self._ledger.database.transaction() as tx:
            await self._ledger.database.lock(tx, "incidents")
            rows = await self._known(tx, before=began)
            await self._lock(tx, rows)
            await self._inject(tx, listing, began)
            if listing.complete:
                await self._count(tx, rows, listing)
                await self._silences(tx, rows, listing)
        self._intake.on_change()
        self._metrics.listings.labels("complete" if listing.complete else "incomplete").inc()
        if listing.complete:
            self._metrics.last.set(began.timestamp())
        return listing.complete

    async def _known(self, tx: Transaction, *, before: datetime) -> list[_Known]:
        """Read the episodes that are open or whose incident is; not what came since we asked."""
        query = (
            select(inbox, incidents.c.state)
            .join(incidents, incidents.c.id == inbox.c.incident_id, isouter=True)
            .where(
                or_(inbox.c.open, incidents.c.state != State.CLOSED),
                inbox.c.seen_at < stamp(before),
            )
            .order_by(inbox.c.id)
        )
        return [_read(row) for row in (await tx.execute(query)).mappings()]

    async def _lock(self, tx: Transaction, rows: Collection[_Known]) -> None:
        """Lock the incidents before the audit, in one order: see `Intake`."""
        for part in episodes.chunks(sorted({row.incident_id for row in rows if row.incident_id})):
            query = select(incidents.c.id).where(incidents.c.id.in_(part)).order_by(incidents.c.id)
            await tx.execute(self._ledger.database.for_update(query))

    async def _inject(self, tx: Transaction, listing: Listing, began: datetime) -> None:
        """Take in what is active without an open episode, as if it had been posted."""
        active = {k: v for k, v in listing.alerts.items() if v.presence is Presence.ACTIVE}
        known = await episodes.latest(tx, active.keys())
        missed: list[Arrival] = []
        for key, listed in active.items():
            last = known.get(key)
            # What ended since we asked is not missed: the listing is older than that news.
            if last is None or (not last.open and last.seen_at < stamp(began)):
                missed.append(Arrival(listed.alert))
        if missed:
            log.warning("alerts had not come by webhook", count=len(missed))
            self._metrics.injected.inc(len(missed))
            await self._intake.admit(tx, missed)

    async def _count(self, tx: Transaction, rows: Collection[_Known], listing: Listing) -> None:
        """Count the listings each alert is missing from; end what is gone."""
        missing = [row for row in rows if row.key not in listing.alerts]
        present = [row.id for row in rows if row.key in listing.alerts and row.missing]
        for part in episodes.chunks([row.id for row in missing]):
            more = inbox.c.missing_listings + 1
            await tx.execute(
                update(inbox).where(inbox.c.id.in_(part)).values(missing_listings=more)
            )
        for part in episodes.chunks(present):
            await tx.execute(update(inbox).where(inbox.c.id.in_(part)).values(missing_listings=0))
        now = self._ledger.clock()
        gone = [row for row in missing if row.missing + 1 >= GONE_AFTER]
        for row in gone:
            if row.open:
                await self._end(tx, row, now)
        ids = {row.incident_id for row in gone if row.incident_id}
        for incident_id in sorted(ids - await episodes.still_open(tx, ids)):
            await self._ledger.incidents.wake(tx, incident_id, now)

    async def _end(self, tx: Transaction, row: _Known, now: datetime) -> None:
        alert = Alert.model_validate_json(row.alert)
        await self._ledger.audit.append(
            tx,
            AuditEvent.ALERT_ENDED if row.incident_id else AuditEvent.ALERT_NOTED,
            actor="reconcile",
            incident_id=row.incident_id,
            body={
                "alert": alert.name,
                "fingerprint": alert.fingerprint,
                "cluster": alert.cluster,
                "reason": f"missing from every Alertmanager in {GONE_AFTER} listings",
            },
        )
        last = await episodes.latest(tx, {row.key})
        await episodes.end(tx, last[row.key], now)

    async def _silences(self, tx: Transaction, rows: Collection[_Known], listing: Listing) -> None:
        """Suspend incidents all of whose alerts are quiet by somebody's wish; resume the others."""
        presences: dict[str, list[Presence | None]] = {}
        states: dict[str, State] = {}
        for row in rows:
            if row.open and row.incident_id and row.state:
                listed = listing.alerts.get(row.key)
                found = listed.presence if listed else None
                presences.setdefault(row.incident_id, []).append(found)
                states[row.incident_id] = State(row.state)
        for incident_id, found in sorted(presences.items()):
            step = _wanted(states[incident_id], found)
            if step is Move.SUSPEND:
                await self._move(tx, incident_id, step, _suspended(found))
            elif step is Move.REINVESTIGATE:
                await self._move(tx, incident_id, step, "no silence covers it any more")

    async def _move(self, tx: Transaction, incident_id: str, step: Move, reason: str) -> None:
        incident = await self._ledger.incidents.get(tx, incident_id, lock=True)
        decided = select(proposals.c.attempt).where(
            proposals.c.incident_id == incident_id, proposals.c.attempt == incident.attempt
        )
        # An old approval must not cover the plan of a new decision.
        again = step is Move.REINVESTIGATE and (await tx.execute(decided)).first() is not None
        await self._ledger.incidents.move(
            tx,
            incident,
            Step(step, reason, actor="reconcile", next_attempt=again),
            now=self._ledger.clock(),
        )


def _wanted(state: State, found: Collection[Presence | None]) -> Move | None:
    loud = Presence.ACTIVE in found or Presence.UNPROCESSED in found
    quiet = Presence.SILENCED in found or Presence.INHIBITED in found
    if state is State.SUSPENDED:
        return Move.REINVESTIGATE if Presence.ACTIVE in found else None
    may_suspend = (state, Move.SUSPEND) in TABLE
    return Move.SUSPEND if may_suspend and quiet and not loud else None


def _suspended(found: Collection[Presence | None]) -> str:
    how = [str(p) for p in (Presence.SILENCED, Presence.INHIBITED) if p in found]
    return f"every alert of it is {' or '.join(how)}"


def _read(row: RowMapping) -> _Known:
    return _Known(
        id=row["id"],
        key=(row["cluster"], row["fingerprint"]),
        incident_id=row["incident_id"],
        state=row["state"],
        open=row["open"],
        missing=row["missing_listings"],
        alert=row["alert"],
    )
