"""What people on call must know of Tiphys itself, as metrics: what is held, what waits, what lags.

Invariants: a scrape reads memory only; what could not be read just now has no value, never an old
one. Every replica of a role reads for itself and says the same, so take the maximum over replicas.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import case, func, literal, select

from tiphys.policies.lifecycle import State
from tiphys.policies.model import Instant, Severity
from tiphys.service.bus import Lag
from tiphys.service.database import Database, moment, why_away
from tiphys.service.ledger import utc_now
from tiphys.service.tables import breakers, freezes, incidents, runs

T = TypeVar("T")
INTERVAL_SECONDS = 15.0
"""Between two looks at a source."""
READ_SECONDS = 5.0
"""A source that is slower than this cannot be read."""
KEPT_SECONDS = 3 * INTERVAL_SECONDS
"""How long a reading is told where no later one has come, good or bad."""

_GRADE = case(
    *(
        (incidents.c.body.contains(f'"severity":"{grade}"', autoescape=True), literal(grade.value))
        for grade in (Severity.INFO, Severity.WARNING)
    ),
    else_=literal(Severity.CRITICAL.value),
).label("grade")
"""An incident's severity, also where its body is no JSON; in a text its quotes would be escaped."""

log = structlog.get_logger()


@dataclass(frozen=True)
class Standing:
    """What stands open in the database."""

    freezes: int
    breakers: int
    escalated_at: Mapping[Severity, Instant]
    """When the oldest incident that nobody has acknowledged was escalated, where there is one."""
    intended_at: Instant | None
    """When the oldest run that has not ended was intended; None: there is none."""


async def read_standing(database: Database) -> Standing:
    """Read it in two small queries; raises what the database raises.

    Needs SELECT on freezes, breakers, incidents and runs, which the gateway's user has.
    """
    counted = select(
        select(func.count()).select_from(freezes).scalar_subquery(),
        select(func.count()).select_from(breakers).scalar_subquery(),
        select(func.min(runs.c.intended_at)).where(runs.c.open).scalar_subquery(),
    )
    escalated = select(_GRADE, func.min(incidents.c.changed_at)).where(
        incidents.c.state == State.ESCALATED
    )
    async with database.reading() as tx:
        frozen, tripped, intended_at = (await tx.execute(counted)).one()
        oldest = (await tx.execute(escalated.group_by("grade"))).all()
    return Standing(
        freezes=frozen,
        breakers=tripped,
        escalated_at={Severity(grade): moment(at) for grade, at in oldest},
        intended_at=moment(intended_at) if intended_at else None,
    )


class Lookout(Generic[T]):
    """Reads one source again and again, for the scrapes between two looks."""

    def __init__(
        self,
        name: str,
        read: Callable[[], Awaitable[T]],
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """`read` raises whatever keeps the source from being read; `seconds` never go back."""
        self._name = name
        self._read = read
        self._seconds = seconds
        self._found: T | None = None
        self._until = 0.0
        self._well = True

    @property
    def last(self) -> T | None:
        """What was read last; None when the source could not be read, or not for a while."""
        return self._found if self._seconds() < self._until else None

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self.once()
            await asyncio.sleep(INTERVAL_SECONDS)

    async def once(self) -> None:
        """Look once."""
        try:
            async with asyncio.timeout(READ_SECONDS):
                self._found = await self._read()
        except Exception as error:  # whatever it is, the metrics must not tell what they knew
            self._found = None
            if self._well:
                log.warning("metrics have no source", source=self._name, error=why_away(error))
        self._well = self._found is not None
        self._until = self._seconds() + KEPT_SECONDS


class _Told(Collector, Generic[T]):
    """Metrics of what was read last; none where that is None."""

    def __init__(
        self,
        registry: CollectorRegistry = REGISTRY,
        last: Callable[[], T | None] = lambda: None,
        clock: Callable[[], Instant] = utc_now,
    ) -> None:
        self._last = last
        self._clock = clock
        registry.register(self)


class StandingMetrics(_Told[Standing]):
    """Holds, escalations and runs; ages grow between two looks."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Give every family, with values where there are any."""
        found, now = self._last(), self._clock()
        holds = GaugeMetricFamily(
            "tiphys_holds",
            "Frozen targets and tripped breakers that nobody has released.",
            labels=["kind"],
        )
        escalation = GaugeMetricFamily(
            "tiphys_escalation_oldest_age_seconds",
            "Since the oldest escalation that nobody has acknowledged; 0 where there is none.",
            labels=["severity"],
        )
        run = GaugeMetricFamily(
            "tiphys_run_oldest_age_seconds",
            "Since the oldest run that has not ended was intended; 0 where there is none.",
        )
        if found is not None:
            holds.add_metric(["freeze"], found.freezes)
            holds.add_metric(["breaker"], found.breakers)
            for grade in Severity:
                escalation.add_metric([grade], _age(found.escalated_at.get(grade), now))
            run.add_metric([], _age(found.intended_at, now))
        yield from (holds, escalation, run)


class LagMetrics(_Told[Lag]):
    """How far intake is behind the stream."""

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Give every family, with values where there are any."""
        found, now = self._last(), self._clock()
        pending = GaugeMetricFamily(
            "tiphys_intake_pending_alerts", "Alerts in the stream that no replica has been given."
        )
        in_hand = GaugeMetricFamily(
            "tiphys_intake_unacknowledged_alerts", "Alerts that a replica was given, not committed."
        )
        oldest = GaugeMetricFamily(
            "tiphys_intake_oldest_age_seconds",
            "Since the oldest alert that is not taken in was stored; 0 where there is none.",
        )
        if found is not None:
            pending.add_metric([], found.pending)
            in_hand.add_metric([], found.unacknowledged)
            oldest.add_metric([], _age(found.stored_at, now))
        yield from (pending, in_hand, oldest)


def _age(since: Instant | None, now: Instant) -> float:
    """Give seconds; the clocks of two hosts may differ, and nothing is younger than now."""
    return max((now - since).total_seconds(), 0.0) if since else 0.0
