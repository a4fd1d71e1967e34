"""`POST /webhooks/alertmanager`: the way in for alerts, as a bare ASGI application.

Invariants: 200 means that every alert of the post is on the broker's disk; our own trouble is
always 503 (Alertmanager repeats 5xx and drops 4xx, 429 included); what we cannot read is 4xx.
"""

import asyncio
import hashlib
import hmac
import ipaddress
import json
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import structlog
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram

from tiphys.service.errors import BadInputError, StreamFullError, WorldRefusedError
from tiphys.service.flights import Message
from tiphys.service.settings import Settings
from tiphys.service.webhook_post import MAX_BODY, Origin, Post, TooLargeError, read

RETRY_AFTER_SECONDS = 5
BODY_SECONDS = 30.0
"""A sender slower than this has gone away."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

log = structlog.get_logger()


class Publisher(Protocol):
    """Where the alerts go; `bus.Bus` is the real one."""

    async def publish(self, messages: Sequence[Message]) -> None:
        """Return when all are durable; raises `WorldRefusedError` within its time limit."""
        ...


class WebhookMetrics:
    """What the webhook counts; one object for each registry."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.posts = Counter(
            "tiphys_webhook_posts", "Posts by HTTP status.", ["status"], registry=registry
        )
        self.alerts = Counter(
            "tiphys_webhook_alerts", "Alerts acknowledged.", ["status"], registry=registry
        )
        self.refused = Counter(
            "tiphys_webhook_refused", "Posts refused, by reason.", ["reason"], registry=registry
        )
        self.truncated = Counter(
            "tiphys_webhook_truncated_alerts",
            "Alerts that Alertmanager's max_alerts kept from us.",
            registry=registry,
        )
        self.seconds = Histogram(
            "tiphys_webhook_seconds",
            "From the post's last byte to our answer.",
            registry=registry,
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 3),
        )


class Deliveries:
    """Gives each post a mark that its retries share.

    A message's id is `<alert id>.<mark>`. The alert's id alone would not do: a real Alertmanager
    sends firing, resolved, firing with the same startsAt, and within the duplicate window the
    stream would swallow the third. A fresh mark for each post lets every post in; a post that we
    answered with 503 may have reached the disk all the same, so for a minute a post with the same
    bytes gets its mark again and what is stored already is not stored twice. Repeats that slip
    through, such as a retry after a restart of ours, are ended by intake's episodes.
    """

    def __init__(self, *, seconds: float = 60.0, most: int = 1024) -> None:
        self._seconds = seconds
        self._most = most
        self._failed: OrderedDict[bytes, tuple[str, float]] = OrderedDict()

    def mark(self, body: bytes) -> str:
        """Give the mark for a post of these bytes."""
        if self._failed:
            known = self._failed.get(_digest(body))
            if known and time.monotonic() < known[1]:
                return known[0]
        return secrets.token_hex(8)

    def failed(self, body: bytes, mark: str) -> None:
        """Remember a post that will be repeated."""
        key = _digest(body)
        self._failed[key] = (mark, time.monotonic() + self._seconds)
        self._failed.move_to_end(key)
        while len(self._failed) > self._most:
            self._failed.popitem(last=False)

    def accepted(self, body: bytes) -> None:
        """Forget a post that got through: the same bytes again are news (repeat_interval)."""
        if self._failed:
            self._failed.pop(_digest(body), None)


@dataclass(frozen=True)
class _Answer:
    status: int
    message: str
    headers: tuple[tuple[bytes, bytes], ...] = ()
    reason: str = ""
    """For the counter of refusals; empty for 200."""


class Webhook:
    """The ASGI application; mount it at exactly its path."""

    def __init__(
        self,
        settings: Settings,
        publisher: Publisher,
        metrics: WebhookMetrics,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        token = settings.webhook_token
        self._token = token.get_secret_value().encode() if token else b""
        self._local = settings.on_loopback
        self._cluster = settings.cluster
        self._tellers = settings.tellers
        self._publisher = publisher
        self._metrics = metrics
        self._clock = clock
        self._deliveries = Deliveries()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        answer = self._refuse_unread(scope)
        if answer is None:
            try:
                async with asyncio.timeout(BODY_SECONDS):
                    body = await _read_body(receive)
            except TimeoutError:
                body = None
            if body is None:
                return  # the sender has gone; nobody hears an answer
            began = time.perf_counter()
            answer = await self._take(body)
            self._metrics.seconds.observe(time.perf_counter() - began)
        self._metrics.posts.labels(str(answer.status)).inc()
        if answer.reason:
            self._metrics.refused.labels(answer.reason).inc()
            log.warning("post refused", status=answer.status, why=answer.message)
        await _send(send, answer)

    def _refuse_unread(self, scope: Scope) -> _Answer | None:
        """Refuse what needs no look at its body."""
        if scope["method"] != "POST":
            return _Answer(405, "only POST is answered here", ((b"allow", b"POST"),), "method")
        headers: dict[bytes, bytes] = dict(scope["headers"])
        objection = self._objection(scope, headers)
        if objection:
            challenge = ((b"www-authenticate", b"Bearer"),)
            return _Answer(401, objection, challenge, "token")
        length = headers.get(b"content-length", b"")
        return _TOO_LARGE if length.isdigit() and int(length) > MAX_BODY else None

    def _objection(self, scope: Scope, headers: dict[bytes, bytes]) -> str:
        """Say why this sender may not post; empty when it may."""
        if self._token:
            scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
            known = hmac.compare_digest(given.strip(), self._token)
            return "" if known and scheme.lower() == b"bearer" else "a valid bearer token is needed"
        peer = (scope.get("client") or ("",))[0]
        if not (self._local and _is_loopback(peer)):
            return "without a configured token only this machine may post"
        if b"origin" in headers:  # a web page can make the browser of this machine post anything
            return "a browser's request needs a configured token"
        return ""

    async def _take(self, body: bytearray) -> _Answer:
        if len(body) > MAX_BODY:
            return _TOO_LARGE
        raw = bytes(body)
        mark = self._deliveries.mark(raw)
        try:
            post = read(raw, Origin(self._cluster, self._clock(), self._tellers), delivery=mark)
        except TooLargeError as error:
            return _Answer(413, str(error), reason="too_large")
        except BadInputError as error:
            return _Answer(400, error.detail, reason="unreadable")
        try:
            await self._publisher.publish(post.messages)
        except WorldRefusedError as error:
            self._deliveries.failed(raw, mark)
            reason = "full" if isinstance(error, StreamFullError) else "broker"
            return _Answer(503, str(error), _RETRY, reason)
        except Exception as error:  # our own fault, whatever it is: let Alertmanager repeat it
            log.exception("webhook broke")
            self._deliveries.failed(raw, mark)
            return _Answer(503, f"internal error: {type(error).__name__}", _RETRY, "internal")
        self._deliveries.accepted(raw)
        self._count(post)
        return _Answer(200, f"{len(post.messages)} alerts accepted")

    def _count(self, post: Post) -> None:
        self._metrics.alerts.labels("firing").inc(post.firing)
        self._metrics.alerts.labels("resolved").inc(post.resolved)
        if post.truncated > 0:
            self._metrics.truncated.inc(post.truncated)
            log.warning("post was truncated by max_alerts", missing=post.truncated)


_RETRY = ((b"retry-after", str(RETRY_AFTER_SECONDS).encode()),)
_TOO_LARGE = _Answer(413, f"the body is larger than {MAX_BODY >> 20} MiB", reason="too_large")


async def _read_body(receive: Receive) -> bytearray | None:
    """Read to the end, but keep at most one byte more than allowed; None: the sender left."""
    body = bytearray()
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            return None
        if len(body) <= MAX_BODY:
            body += event.get("body", b"")
        if not event.get("more_body", False) or len(body) > MAX_BODY:
            return body


async def _send(send: Send, answer: _Answer) -> None:
    key = "error" if answer.reason else "message"
    body = json.dumps({key: answer.message}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *answer.headers,
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _is_loopback(peer: str) -> bool:
    try:
        return ipaddress.ip_address(peer).is_loopback
    except ValueError:
        return False


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()
