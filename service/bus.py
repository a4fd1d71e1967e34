"""The alert stream in JetStream: publish durably, consume with explicit acknowledgements.

Invariants: `publish` returns only when the broker has acknowledged every message on disk, and
returns or raises within its time limit; a full stream refuses new alerts and keeps the old ones.
A message's id makes a repeat of the same delivery acknowledge without being stored again.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

import nats
import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)
from nats.js.errors import APIError, NoStreamResponseError, NotFoundError
from nats.js.errors import Error as JetStreamError

from tiphys.service.errors import BrokerUnavailableError, StreamFullError, WorldRefusedError
from tiphys.service.flights import MAX_BATCH, Flights, Message

STREAM = "tiphys-alerts"
SUBJECTS = "tiphys.alerts.>"
CONSUMER = "intake"
MAX_AGE_SECONDS = 72 * 3600
DUPLICATE_WINDOW_SECONDS = 300
ACK_WAIT_SECONDS = 10.0
"""How long a consumer may be silent about a message before another is given it."""
SILENCE_SECONDS = 10.0
"""How long the broker may leave every publish unanswered before it is called silent."""
BATCH_FROM = 12
"""Fewer are faster singly: an atomic batch costs some 3 ms, however small (bench/webhook.py)."""

# Error codes of nats-server (server/errors.json).
_DUPLICATE_IN_BATCH = 10201
_FULL = {10023, 10047, 10077, 10122}  # resources, storage resources, maximum bytes, no space
_NAME_IN_USE = 10058
_NO_STREAM = (NoStreamResponseError, nats.errors.NoRespondersError)
"""Nobody listens on the subject: the stream was deleted."""

log = structlog.get_logger()


@dataclass(frozen=True)
class Received:
    """One alert as the stream gave it to us; ours until acknowledged."""

    body: bytes
    sequence: int
    position: str
    """Sorts by the order in the stream, also after the stream was deleted and made anew."""
    deliveries: int
    _message: Msg

    async def done(self) -> None:
        """Acknowledge: never deliver it again. Lost acknowledgements are harmless to intake."""
        with contextlib.suppress(nats.errors.Error):
            await self._message.ack()

    async def later(self, seconds: float) -> None:
        """Ask for it again after a while."""
        with contextlib.suppress(nats.errors.Error):
            await self._message.nak(delay=seconds)


@dataclass(frozen=True)
class Lag:
    """What intake, all its replicas together, has still to do."""

    pending: int
    """Messages that none of them has been given."""
    unacknowledged: int
    """Messages that one of them was given, such as those put back while the database is away."""
    stored_at: datetime | None
    """When the oldest of both was stored, by the broker's clock; None: there is none."""


class Bus:
    """One connection to JetStream; safe to use from many tasks."""

    def __init__(
        self,
        *,
        max_bytes: int,
        replicas: int = 1,
        publish_seconds: float = 2.0,
        ack_seconds: float = ACK_WAIT_SECONDS,
        on_silence: Callable[[], None] = lambda: None,
    ) -> None:
        """`max_bytes` is the stream's size; the times are the limits of a publish and of intake.

        `on_silence` is called when the broker is connected, but answers no publish any more.
        """
        self._config = StreamConfig(
            name=STREAM,
            subjects=[SUBJECTS],
            retention=RetentionPolicy.LIMITS,
            storage=StorageType.FILE,
            discard=DiscardPolicy.NEW,
            max_bytes=max_bytes,
            max_age=MAX_AGE_SECONDS,
            duplicate_window=DUPLICATE_WINDOW_SECONDS,
            num_replicas=replicas,
            allow_atomic=True,
        )
        self._seconds = publish_seconds
        self._ack_seconds = ack_seconds
        self._client = Client()
        self._stream: JetStreamContext = self._client.jetstream()
        self._created = ""
        self._atomic = False
        self._flights = Flights(self._store, seconds=publish_seconds)
        self._inbox: Subscription | None = None
        self._on_silence = on_silence
        self._silent_since: float | None = None
        self._unanswered_at = -SILENCE_SECONDS
        """When a publish was last left unanswered; forgotten after a while, or none came again."""

    @property
    def ready(self) -> bool:
        """Whether the broker is connected now."""
        return self._client.is_connected

    async def check(self) -> None:
        """Raise `BrokerUnavailableError` unless the broker answers, about the stream and posts."""
        if not self.ready:
            raise BrokerUnavailableError("not connected")
        if time.monotonic() - self._unanswered_at < SILENCE_SECONDS:
            raise BrokerUnavailableError("it is connected and acknowledges nothing")
        try:
            await self._stream.stream_info(STREAM)
        except _NO_STREAM as error:
            raise BrokerUnavailableError(_sentence(error)) from error
        except (OSError, TimeoutError, nats.errors.Error) as error:
            raise BrokerUnavailableError(f"it is silent: {_sentence(error)}") from error

    async def connect(self, url: str) -> None:
        """Connect and make the stream; raises `BrokerUnavailableError`. Reconnects for ever."""
        try:
            await self._client.connect(
                url,
                error_cb=_note_error,
                connect_timeout=2,
                reconnect_time_wait=cast(int, 0.2),
                max_reconnect_attempts=-1,
                ping_interval=20,
            )
            await self.ensure_stream()
        except (OSError, TimeoutError, nats.errors.Error) as error:
            with contextlib.suppress(Exception):
                await self._client.close()
            raise BrokerUnavailableError(_sentence(error)) from error

    async def ensure_stream(self) -> None:
        """Make the stream, or bring it to our configuration; keeps its messages."""
        try:
            info = await self._stream.add_stream(self._config)
        except APIError as error:
            if error.err_code != _NAME_IN_USE:
                raise
            info = await self._stream.update_stream(self._config)
        self._atomic = bool(info.config.allow_atomic)
        self._created = f"{info.created:%Y%m%dT%H%M%S.%f}" if info.created else ""

    async def close(self) -> None:
        """Let the flight land, then disconnect."""
        await self._flights.land()
        if self._client.is_connected:
            with contextlib.suppress(nats.errors.Error, TimeoutError):
                await self._client.flush(2)
        await self._client.close()

    # --- publishing -----------------------------------------------------------------------------

    async def publish(self, messages: Sequence[Message]) -> None:
        """Return when every message is on disk; repeats of one id count once.

        Raises `StreamFullError`, or `BrokerUnavailableError` after at most `publish_seconds`;
        some of the messages may be in the stream then, so repeat with the same ids.
        """
        if not messages:
            return
        if not self._client.is_connected:
            raise BrokerUnavailableError("not connected")
        await self._flights.carry(messages)

    async def _store(self, messages: Sequence[Message]) -> Mapping[str, WorldRefusedError]:
        try:
            failed = await self._send(messages)
        except Exception as error:  # whatever it is, every sender must be told
            failed = {message.id: _translate(error) for message in messages}
        if any(isinstance(why.__cause__, _NO_STREAM) for why in failed.values()):
            with contextlib.suppress(nats.errors.Error, TimeoutError):
                await self.ensure_stream()
        unanswered = [why for why in failed.values() if isinstance(why.__cause__, TimeoutError)]
        self._listen(answered=len(unanswered) < len(messages))
        return failed

    def _listen(self, *, answered: bool) -> None:
        now = time.monotonic()
        self._unanswered_at = -SILENCE_SECONDS if answered else now
        if answered:
            self._silent_since = None
        elif self._silent_since is None:
            self._silent_since = now
        elif now - self._silent_since >= SILENCE_SECONDS:
            self._silent_since = None
            self._on_silence()

    async def _send(self, messages: Sequence[Message]) -> Mapping[str, WorldRefusedError]:
        if self._atomic and len(messages) >= BATCH_FROM:
            try:
                await self._send_batch(messages)
                return {}
            except nats.errors.Error as error:
                # One repeated id refuses the whole batch, and one post's fault must not fail
                # another's; singly each message gets its own answer.
                if isinstance(error, TimeoutError):
                    raise
                if _code(error) not in {_DUPLICATE_IN_BATCH, *_FULL}:
                    log.info("batch refused; publishing singly", reason=_sentence(error))
        answers = await asyncio.gather(*(self._send_one(m) for m in messages))
        return {m.id: answer for m, answer in zip(messages, answers, strict=True) if answer}

    async def _send_batch(self, messages: Sequence[Message]) -> None:
        batch = self._client.new_inbox().rsplit(".", 1)[1]
        for number, message in enumerate(messages[:-1], start=1):
            await self._client.publish(
                message.subject, message.body, headers=_headers(message, batch, number)
            )
        last = messages[-1]
        answer = await self._client.request(
            last.subject,
            last.body,
            timeout=self._seconds,
            headers={**_headers(last, batch, len(messages)), "Nats-Batch-Commit": "1"},
        )
        result: dict[str, Any] = json.loads(answer.data)
        if "error" in result:
            raise APIError(**result["error"])
        if result.get("count") != len(messages):
            raise BrokerUnavailableError(f"{result.get('count')} of {len(messages)} were stored")

    async def _send_one(self, message: Message) -> WorldRefusedError | None:
        try:
            await self._stream.publish(
                message.subject,
                message.body,
                timeout=self._seconds,
                stream=STREAM,
                headers={"Nats-Msg-Id": message.id},
            )
        except Exception as error:
            return _translate(error)
        return None

    # --- consuming ------------------------------------------------------------------------------

    async def fetch(self, count: int, wait: float) -> list[Received]:
        """Give up to `count` messages in stream order, none after `wait` seconds.

        Raises `BrokerUnavailableError`; calling again mends a stream or consumer that is gone.
        Not for two tasks at once.
        """
        try:
            if self._inbox is None:
                await self._ensure_consumer()
            first = await self._pull({"batch": 1, "expires": int(wait * 1e9)}, 1, wait + 1)
            if not first or count == 1:
                return first
            more = {"batch": count - 1, "no_wait": True}
            return first + await self._pull(more, count - 1, 1.0)
        except (OSError, TimeoutError, nats.errors.Error) as error:
            self._inbox = None
            raise BrokerUnavailableError(_sentence(error)) from error

    async def lag(self) -> Lag:
        """Tell how far intake is behind; raises `BrokerUnavailableError`."""
        if not self.ready:
            raise BrokerUnavailableError("not connected")
        try:
            about = await self._stream.consumer_info(STREAM, CONSUMER)
            pending, unacknowledged = about.num_pending or 0, about.num_ack_pending or 0
            first = about.ack_floor.stream_seq + 1 if about.ack_floor else 1
            stored_at = await self._stored_at(first) if pending + unacknowledged else None
        except (OSError, TimeoutError, nats.errors.Error) as error:
            raise BrokerUnavailableError(_sentence(error)) from error
        return Lag(pending, unacknowledged, stored_at)

    async def _stored_at(self, sequence: int) -> datetime | None:
        """Tell when the first message from there on was stored; None when there is none."""
        with contextlib.suppress(NotFoundError):  # taken in, or expired, since we asked
            found = await self._stream.get_msg(STREAM, seq=sequence, subject=SUBJECTS, next=True)
            return found.time
        return None

    async def _ensure_consumer(self) -> None:
        await self.ensure_stream()
        await self._stream.add_consumer(
            STREAM,
            ConsumerConfig(
                durable_name=CONSUMER,
                ack_policy=AckPolicy.EXPLICIT,
                ack_wait=self._ack_seconds,
                # A limit would make the server forget alerts while the database is down; what can
                # never be taken in is moved to the dead letters by intake instead.
                max_deliver=-1,
                max_ack_pending=5 * MAX_BATCH,
            ),
        )
        self._inbox = await self._client.subscribe(self._client.new_inbox())

    async def _pull(self, request: object, count: int, wait: float) -> list[Received]:
        """Ask the consumer; a message with a status header ends the answer.

        nats-py's own `fetch` waits for its whole time-out once a first message has come.
        """
        if self._inbox is None or not self._client.is_connected:
            raise BrokerUnavailableError("not connected")
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{CONSUMER}"
        await self._client.publish(subject, json.dumps(request).encode(), reply=self._inbox.subject)
        got: list[Received] = []
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        while len(got) < count:
            try:
                message = await self._inbox.next_msg(max(deadline - loop.time(), 0.001))
            except nats.errors.TimeoutError:
                break
            status = (message.headers or {}).get("Status")
            if status is None:
                got.append(self._received(message))
            elif status in {"404", "408"}:
                break  # nothing more just now
            elif status != "100":
                raise JetStreamError(f"consumer: {status} {message.headers}")
        return got

    def _received(self, message: Msg) -> Received:
        about = message.metadata
        sequence = about.sequence.stream
        position = f"{self._created}/{sequence:020d}"
        return Received(message.data, sequence, position, about.num_delivered, message)


def _headers(message: Message, batch: str, number: int) -> dict[str, Any]:
    return {
        "Nats-Msg-Id": message.id,
        "Nats-Batch-Id": batch,
        "Nats-Batch-Sequence": str(number),
        "Nats-Expected-Stream": STREAM,
    }


def _translate(error: Exception) -> WorldRefusedError:
    if isinstance(error, WorldRefusedError):
        return error
    if isinstance(error, APIError) and error.err_code in _FULL:
        translated: WorldRefusedError = StreamFullError(error.description or "")
    else:
        translated = BrokerUnavailableError(_sentence(error))
    translated.__cause__ = error
    return translated


def _code(error: Exception) -> int | None:
    return error.err_code if isinstance(error, APIError) else None


def _sentence(error: Exception) -> str:
    if isinstance(error, _NO_STREAM):
        return "there is no such stream"
    if isinstance(error, APIError):
        return f"{error.description} ({error.err_code})"
    return str(error) or type(error).__name__


async def _note_error(error: Exception) -> None:
    log.warning("broker", error=_sentence(error))
