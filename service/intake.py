"""From the stream to incidents: each alert once, correlated, committed before it is acknowledged.

Invariants: what is acknowledged is committed; what cannot be read is kept as a dead letter; a
message that comes twice changes nothing; our own alerts never become incidents.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

import structlog
from prometheus_client import REGISTRY, CollectorRegistry, Counter
from pydantic import ValidationError
from sqlalchemy import insert, or_, select, tuple_
from sqlalchemy.exc import ProgrammingError

from tiphys.policies.correlation import OWN_LABEL, subject
from tiphys.policies.lifecycle import State
from tiphys.policies.model import Alert
from tiphys.service import episodes
from tiphys.service.bus import Bus, Received
from tiphys.service.database import AWAY, Transaction, stamp
from tiphys.service.episodes import Arrival, Course, Episode, Key
from tiphys.service.errors import BrokerUnavailableError
from tiphys.service.ledger import Ledger
from tiphys.service.records import AuditEvent
from tiphys.service.tables import dead_letters, incidents

BATCH = 200
"""Alerts in one transaction: it holds the one writer of SQLite for some 0.3 s."""
WAIT_SECONDS = 5.0
RETRY_SECONDS = 2.0
MAX_DELIVERIES = 5
"""After so many failures of an alert alone, with the database well, it is a dead letter."""

_AWAY = (*AWAY, ProgrammingError, OSError, TimeoutError)
"""The database's trouble, such as a right that is not granted yet; not the alert's."""

log = structlog.get_logger()


class IntakeMetrics:
    """What intake counts; one object for each registry."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.alerts = Counter(
            "tiphys_intake_alerts", "Alerts taken in, by meaning.", ["course"], registry=registry
        )
        self.dead = Counter(
            "tiphys_intake_dead_letters", "Messages kept unread.", registry=registry
        )
        self.failures = Counter(
            "tiphys_intake_failures", "Batches put back into the stream.", registry=registry
        )


class Intake:
    """Takes batches from the stream; `admit` serves reconciliation too."""

    def __init__(
        self,
        bus: Bus,
        ledger: Ledger,
        metrics: IntakeMetrics,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_change` is called after each commit, such as `Pipeline.wake`."""
        self._bus = bus
        self._ledger = ledger
        self._metrics = metrics
        self.on_change = on_change

    async def run(self) -> None:
        """Consume until cancelled."""
        connected = True
        while True:
            try:
                received = await self._bus.fetch(BATCH, WAIT_SECONDS)
                connected = True
            except BrokerUnavailableError as error:
                if connected:
                    log.warning("intake waits for the broker", error=str(error))
                connected = False
                await asyncio.sleep(0.5)
                continue
            if received:
                await self.take(received)

    async def take(self, received: Sequence[Received]) -> None:
        """Commit a batch, then acknowledge it; what fails comes again later."""
        try:
            await self._commit(received)
        except _AWAY as error:
            self._metrics.failures.inc()
            log.error("alerts wait for the database", count=len(received), error=str(error))
            for message in received:
                await message.later(RETRY_SECONDS)
            return
        except Exception as error:  # one bad alert must not keep the others out
            self._metrics.failures.inc()
            if len(received) > 1:
                for message in received:
                    await self.take([message])
            elif received[0].deliveries < MAX_DELIVERIES:
                log.exception("alert failed", sequence=received[0].sequence)
                await received[0].later(RETRY_SECONDS)
            else:
                await self._bury(received[0], f"{type(error).__name__}: {error}")
            return
        for message in received:
            await message.done()
        self.on_change()

    async def _commit(self, received: Sequence[Received]) -> None:
        arrivals: list[Arrival] = []
        async with self._ledger.database.transaction() as tx:
            for message in received:
                try:
                    alert = Alert.model_validate_json(message.body)
                except ValidationError as error:
                    await self._keep(tx, message, str(error))
                else:
                    arrivals.append(Arrival(alert, message.position))
            await self.admit(tx, arrivals)

    async def admit(self, tx: Transaction, arrivals: Sequence[Arrival]) -> None:
        """Take alerts in within the caller's transaction; call `on_change` after its commit."""
        ordered = fair(arrivals)
        await self._ledger.database.lock(tx, "incidents")
        known = await episodes.latest(tx, {arrival.key for arrival in ordered})
        await self._lock_incidents(tx, ordered, known.values())
        now = self._ledger.clock()
        joined: set[str] = set()
        ended: set[str] = set()
        for arrival in ordered:
            before = known.get(arrival.key)
            course = episodes.judge(before, arrival)
            self._metrics.alerts.labels(course.value).inc()
            if course in {Course.STALE, Course.OTHER_END}:
                continue
            after = await self._follow(tx, course, arrival, before, now)
            known[arrival.key] = after
            if course in {Course.BEGIN, Course.ANEW} and after.incident_id:
                joined.add(after.incident_id)
            if course in {Course.END, Course.ANEW} and before and before.incident_id:
                ended.add(before.incident_id)
        over = ended - await episodes.still_open(tx, ended)
        for incident_id in sorted(joined | over):
            await self._ledger.incidents.wake(tx, incident_id, now)

    async def _lock_incidents(
        self, tx: Transaction, arrivals: Iterable[Arrival], known: Iterable[Episode]
    ) -> None:
        """Lock every incident we may touch, in one order and before the audit's lock.

        Stages take them in that order too; the other way round is a deadlock on PostgreSQL.
        """
        subjects = {(a.alert.cluster, subject(a.alert.labels)) for a in arrivals}
        ids = {e.incident_id for e in known if e.incident_id}
        query = (
            select(incidents.c.id)
            .where(
                incidents.c.state != State.CLOSED,
                or_(
                    tuple_(incidents.c.cluster, incidents.c.subject).in_(subjects),
                    incidents.c.id.in_(ids),
                ),
            )
            .order_by(incidents.c.id)
        )
        if subjects:
            await tx.execute(self._ledger.database.for_update(query))

    async def _follow(
        self,
        tx: Transaction,
        course: Course,
        arrival: Arrival,
        before: Episode | None,
        now: datetime,
    ) -> Episode:
        if before and course is Course.REPEAT:
            return await episodes.repeat(tx, before, arrival, now)
        if before and course is Course.UNKNOWN_END:
            return await episodes.end(tx, before, now, arrival)
        if before and course is Course.END:
            await self._record(tx, AuditEvent.ALERT_ENDED, arrival.alert, before.incident_id)
            return await episodes.end(tx, before, now, arrival)
        if before and course is Course.ANEW:
            await self._record(tx, AuditEvent.ALERT_ENDED, arrival.alert, before.incident_id)
            await episodes.end(tx, before, now)
        incident_id = None
        if course is not Course.UNKNOWN_END:
            incident_id = await self._incident(tx, arrival.alert, now)
        return await episodes.begin(tx, arrival, incident_id, now)

    async def _incident(self, tx: Transaction, alert: Alert, now: datetime) -> str | None:
        """Give the incident a firing alert belongs to; None for an alert of our own."""
        if OWN_LABEL in alert.labels:
            await self._record(tx, AuditEvent.ALERT_OPENED, alert, None)
            return None
        incident, is_new = await self._ledger.incidents.open(
            tx, alert=alert, subject=subject(alert.labels), now=now
        )
        if not is_new:  # a new incident's first record holds the alert
            await self._record(tx, AuditEvent.ALERT_OPENED, alert, incident.id)
        return incident.id

    async def _record(
        self, tx: Transaction, event: AuditEvent, alert: Alert, incident_id: str | None
    ) -> None:
        """Record an alert's beginning or end; an alert of our own is noted on its incident."""
        own = alert.labels.get(OWN_LABEL)
        if own:
            known = await tx.execute(select(incidents.c.id).where(incidents.c.id == own))
            incident_id = known.scalar()
        body = {"alert": alert.name, "status": alert.status.value, "fingerprint": alert.fingerprint}
        await self._ledger.audit.append(
            tx,
            AuditEvent.ALERT_NOTED if own else event,
            actor="intake",
            incident_id=incident_id,
            body={**body, "cluster": alert.cluster, "labels": alert.labels},
        )

    async def _bury(self, message: Received, why: str) -> None:
        try:
            async with self._ledger.database.transaction() as tx:
                await self._keep(tx, message, why)
        except _AWAY as error:
            log.error("a dead letter waits for the database", error=str(error))
            await message.later(RETRY_SECONDS)
            return
        await message.done()

    async def _keep(self, tx: Transaction, message: Received, why: str) -> None:
        """Keep what cannot be taken in, once, where `dead_letters` shows it."""
        payload = message.body.decode(errors="backslashreplace").replace("\0", "\\x00")
        twice = select(dead_letters.c.id).where(
            dead_letters.c.stream_seq == message.sequence, dead_letters.c.payload == payload
        )
        if (await tx.execute(twice)).first():
            return
        self._metrics.dead.inc()
        log.error("dead letter", sequence=message.sequence, why=why)
        await tx.execute(
            insert(dead_letters).values(
                stream_seq=message.sequence,
                reason=why.replace("\0", "\\x00"),
                payload=payload,
                at=stamp(self._ledger.clock()),
            )
        )


def fair(arrivals: Iterable[Arrival]) -> list[Arrival]:
    """Take turns between namespaces; the order within one, and so of one alert, stays."""
    queues: defaultdict[Key, list[Arrival]] = defaultdict(list)
    for arrival in arrivals:
        queues[arrival.alert.cluster, arrival.alert.labels.get("namespace", "")].append(arrival)
    turns = [(turn, i, a) for i, q in enumerate(queues.values()) for turn, a in enumerate(q)]
    return [arrival for _, _, arrival in sorted(turns, key=lambda t: t[:2])]
