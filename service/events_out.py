"""Tells the outside what is recorded: CloudEvents 1.0, signed as Standard Webhooks 1.0.0 says.

Invariants: a record is told after it was committed, at least once and in the order of the record,
by one replica at a time; how far it was told is in the database; one that nobody takes is given up,
alone, counted and logged, so that it cannot keep the others for ever; no redirect is followed;
neither the secret nor the address' path is ever logged.
"""

import asyncio
import random
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import timedelta
from itertools import takewhile

import httpx2
import structlog
from prometheus_client import REGISTRY, CollectorRegistry, Counter

from tiphys.service.cloud_event import SecretUnusableError, Signer, source_of
from tiphys.service.database import AWAY, moment, why_away
from tiphys.service.errors import BadInputError
from tiphys.service.event_batch import Parcel, batch, single
from tiphys.service.event_position import Position, Turn
from tiphys.service.ledger import Ledger
from tiphys.service.records import AuditEvent, Record
from tiphys.service.settings import Settings, is_loopback

REQUEST_SECONDS = 15.0
"""For one post; Standard Webhooks recommends 15 to 30."""
LOOK_SECONDS = 1.0
"""Between two looks for what is new."""
GIVE_UP = timedelta(hours=24)
"""A record that is older is not tried again once it has failed."""
REFUSALS = 5
"""How often an event is tried whose content the receiver refuses, and a batch as a whole."""
FIRST_WAIT = timedelta(seconds=1)
LONGEST_WAIT = timedelta(minutes=5)
PAGE = 200
"""Records read at once."""

DEFAULT_TYPES = frozenset(
    {
        AuditEvent.APPROVAL_GIVEN,
        AuditEvent.APPROVAL_REFUSED,
        AuditEvent.APPROVAL_VOID,
        AuditEvent.BREAKER_RESET,
        AuditEvent.BREAKER_TRIPPED,
        AuditEvent.INCIDENT_MOVED,
        AuditEvent.INCIDENT_OPENED,
        AuditEvent.PAUSED,
        AuditEvent.PLANNED,
        AuditEvent.RESUMED,
        AuditEvent.RUN_ASKED,
        AuditEvent.RUN_ENDED,
        AuditEvent.RUN_STOP_ASKED,
        AuditEvent.STOP_ENGAGED,
        AuditEvent.TARGET_FROZEN,
        AuditEvent.TARGET_UNFROZEN,
        AuditEvent.UNDO_ASKED,
        AuditEvent.WORKFLOW_CREATED,
    }
)
"""What is told where the settings name no types."""

_REFUSED = {400, 413, 415, 422}
"""Answers that speak of this one event, which asking again seldom changes."""
_GONE = 410
"""The receiver wants no more: it is asked as seldom as can be, until a person changes that."""

log = structlog.get_logger()


class EventMetrics:
    """What the events out count."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.delivered = Counter(
            "tiphys_events_delivered", "Events that the receiver took.", registry=registry
        )
        self.failures = Counter(
            "tiphys_events_failures", "Posts of an event that failed.", registry=registry
        )
        self.undelivered = Counter(
            "tiphys_events_undelivered", "Events given up, which nobody took.", registry=registry
        )


@dataclass(frozen=True)
class Receiver:
    """Where events go, which, and as whose."""

    url: str
    signer: Signer
    types: Collection[str]
    source: str
    """The CloudEvents attribute: this installation."""
    batch: int = 1
    """Events in one post at most; 1: each is posted as itself, in no batch."""

    @property
    def host(self) -> str:
        """What may be logged of the address."""
        return httpx2.URL(self.url).host


@dataclass(frozen=True)
class Answer:
    """What became of one post."""

    taken: bool
    refused: bool = False
    """Whether the receiver objects to this event, not to the moment."""
    wait: timedelta | None = None
    """How long the receiver asks to be left alone."""
    why: str = ""


class EventsOut:
    """Posts what is new in the record, one post after the other."""

    def __init__(
        self,
        ledger: Ledger,
        receiver: Receiver,
        metrics: EventMetrics,
        http: httpx2.AsyncClient,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`http` follows no redirects: see `open_http`."""
        self._audit = ledger.audit
        self._clock = ledger.clock
        self._receiver = receiver
        self._metrics = metrics
        self._http = http
        self._jitter = jitter
        self._position = Position(ledger.database, ledger.leases.holder, ledger.clock)

    async def run(self) -> None:
        """Tell until cancelled."""
        while True:
            more = False
            try:
                more = await self.once()
            except AWAY as error:
                log.warning("events wait for the database", error=why_away(error))
            except Exception as error:  # the next look may go better; the record loses nothing
                log.error("events could not be told", error=type(error).__name__)
            if not more:
                await asyncio.sleep(LOOK_SECONDS)

    async def once(self) -> bool:
        """Make the next post, if it is our turn; gives whether there may be more at once."""
        turn = await self._position.take()
        if turn is None:
            return False
        wanted, passed = await self._next(turn)
        if not wanted:
            await self._position.give_back(turn.at(passed))
            return passed > turn.seq
        parcel = self._packed(wanted)
        told = self._judge(turn, parcel, await self._post(parcel))
        await self._position.give_back(told)
        return told.seq > turn.seq

    async def _next(self, turn: Turn) -> tuple[list[Record], int]:
        """Give the next records of a wanted type, and up to where there is none before them.

        A batch that has failed often goes no more as a whole, but its first event alone: what
        stands in the way of all is one that the receiver does not take, or its size.
        """
        most = self._receiver.batch if turn.tries < REFUSALS else 1
        found, passed = list[Record](), turn.seq
        async for record in self._audit.read(after=turn.seq, limit=PAGE):
            if record.event in self._receiver.types:
                found.append(record)
            if len(found) == most:
                break
            passed = passed if found else record.seq
        return found, passed

    def _packed(self, wanted: list[Record]) -> Parcel:
        receiver = self._receiver
        if receiver.batch == 1:
            return single(wanted[0], receiver.source)
        return batch(wanted, receiver.source)

    async def _post(self, parcel: Parcel) -> Answer:
        url, signer = self._receiver.url, self._receiver.signer
        body, headers = parcel.body, signer.headers(parcel.id, self._clock(), parcel.body)
        headers["content-type"] = parcel.content_type
        try:
            async with (
                asyncio.timeout(REQUEST_SECONDS),
                self._http.stream("POST", url, content=body, headers=headers) as answer,
            ):
                return _read(answer.status_code, answer.headers.get("retry-after", ""))
        except TimeoutError:
            return Answer(taken=False, why=f"no answer within {REQUEST_SECONDS:.0f} s")
        except (httpx2.HTTPError, OSError) as error:
            return Answer(taken=False, why=type(error).__name__)

    def _judge(self, turn: Turn, parcel: Parcel, answer: Answer) -> Turn:
        """Say where to go on, and when."""
        records = parcel.records
        if answer.taken:
            self._metrics.delivered.inc(len(records))
            return turn.at(records[-1].seq)
        self._metrics.failures.inc()
        tries, host = turn.tries + 1, self._receiver.host
        if lost := self._given_up(parcel, tries, answer):
            self._metrics.undelivered.inc(len(lost))
            for record in lost:
                words = {"type": record.event, "number": record.seq, "host": host}
                log.error("an event was given up", **words, tries=tries, why=answer.why)
            return turn.at(lost[-1].seq)
        wait = max(self._pause(tries), min(answer.wait or timedelta(), LONGEST_WAIT))
        words = {"type": records[0].event, "number": records[0].seq, "host": host}
        log.warning(
            "events were not taken", **words, posted=len(records), tries=tries, why=answer.why
        )
        return turn.later(tries, wait)

    def _given_up(self, parcel: Parcel, tries: int, answer: Answer) -> list[Record]:
        """Name those, from the first on, that are not tried again."""
        records, now = parcel.records, self._clock()
        if answer.refused and tries >= REFUSALS and len(records) == 1:
            return [*records]
        return [*takewhile(lambda record: now - moment(record.at) >= GIVE_UP, records)]

    def _pause(self, tries: int) -> timedelta:
        """Twice as long each time, and between half of it and all, so that none come together."""
        longest = min(FIRST_WAIT * 2 ** min(tries - 1, 20), LONGEST_WAIT)
        return longest * (0.5 + self._jitter() / 2)


def open_http() -> httpx2.AsyncClient:
    """Open a client that goes where it was told and nowhere else."""
    return httpx2.AsyncClient(follow_redirects=False, trust_env=False, timeout=REQUEST_SECONDS)


def receiver_of(settings: Settings) -> Receiver | None:
    """Read where events go; None: nowhere. Raises `BadInputError`, which names no secret."""
    if settings.events_url is None and settings.events_secret is None:
        return None
    if settings.events_url is None or settings.events_secret is None:
        raise BadInputError("TIPHYS_EVENTS_URL and TIPHYS_EVENTS_SECRET go together")
    try:
        signer = Signer(settings.events_secret.get_secret_value())
    except SecretUnusableError as error:
        raise BadInputError(f"TIPHYS_EVENTS_SECRET: {(error.__doc__ or '').strip()}") from error
    url = settings.events_url
    if why := _unsafe(url):
        raise BadInputError(f"TIPHYS_EVENTS_URL: {why}")
    wrong = sorted(set(settings.events_types) - {event.value for event in AuditEvent})
    if wrong:
        raise BadInputError(f"TIPHYS_EVENTS_TYPES: nothing is recorded as {', '.join(wrong)}")
    types = frozenset(settings.events_types or DEFAULT_TYPES)
    return Receiver(url, signer, types, source_of(settings.cluster), settings.events_batch)


def _unsafe(text: str) -> str:
    """Say why events may not go to an address; empty when they may."""
    try:
        url = httpx2.URL(text)
    except httpx2.InvalidURL:
        return "is no URL"
    if not url.host or url.userinfo or url.fragment:
        return "expected https://HOST/PATH, without a user or a fragment"
    if url.scheme == "https" or (url.scheme == "http" and is_loopback(url.host)):
        return ""
    return "expected https; http goes to this machine alone"


def _read(status: int, retry_after: str) -> Answer:
    if 200 <= status < 300:
        return Answer(taken=True)
    wait = timedelta(seconds=int(retry_after)) if _is_seconds(retry_after) else None
    if status == _GONE:
        wait = LONGEST_WAIT
    return Answer(taken=False, refused=status in _REFUSED, wait=wait, why=f"answered {status}")


def _is_seconds(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 6
