"""Slack's signed requests: admitted by the raw body's signature, once, and only while they are new.

Invariants (docs.slack.dev/authentication/verifying-requests-from-slack): nothing of a request is
read before its signature holds; one that is older or newer than five minutes, or that was here
before, on whatever replica, is refused; a refusal says nothing about why.
"""

import hashlib
import hmac
import re
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final

import structlog
from slack_bolt.async_app import AsyncApp
from slack_bolt.request.async_request import AsyncBoltRequest
from sqlalchemy import delete, insert
from sqlalchemy.exc import IntegrityError
from starlette.requests import Request
from starlette.responses import Response

from tiphys.policies.model import Instant
from tiphys.service.database import AWAY, Database, stamp, why_away
from tiphys.service.tables import slack_requests

PATH: Final = "/slack/events"
WINDOW: Final = timedelta(minutes=5)
MAX_BODY: Final = 256 * 1024
"""Bytes; Slack's own payloads with a whole card in them stay far below."""
_STAMP: Final = re.compile(r"[0-9]{1,12}")
_SIGNATURE: Final = re.compile(r"v0=[0-9a-f]{64}")

log = structlog.get_logger()


class SignedRequests:
    """The route that Slack posts to, where there is no Socket Mode."""

    def __init__(
        self, app: AsyncApp, secret: str, database: Database, clock: Callable[[], Instant]
    ) -> None:
        self._app = app
        self._secret = secret.encode()
        self._database = database
        self._clock = clock
        self._seen: dict[str, Instant] = {}

    async def __call__(self, request: Request) -> Response:
        """Answer one post."""
        body = await _body(request)
        if body is None:
            return Response(status_code=413)
        stamped = request.headers.get("x-slack-request-timestamp", "")
        signature = request.headers.get("x-slack-signature", "")
        why = self._refusal(stamped, signature, body) or await self._again(signature)
        if why:
            log.warning("a request that calls itself Slack's was refused", why=why)
            return Response(status_code=401)
        headers: dict[str, str | Sequence[str]] = {
            name: [value] for name, value in request.headers.items()
        }
        answer = await self._app.async_dispatch(
            AsyncBoltRequest(body=body.decode(), query={}, headers=headers)
        )
        kind = (answer.headers or {}).get("content-type", ["text/plain"])[0]
        return Response(answer.body or "", answer.status, media_type=kind)

    def _refusal(self, stamped: str, signature: str, body: bytes) -> str:
        """Say why a request is none of Slack's; empty: it is."""
        if not _STAMP.fullmatch(stamped) or not _SIGNATURE.fullmatch(signature):
            return "it is not signed"
        if abs(self._clock().timestamp() - int(stamped)) > WINDOW.total_seconds():
            return "it is not of these minutes"
        made = hmac.new(self._secret, b"v0:" + stamped.encode() + b":" + body, hashlib.sha256)
        if not hmac.compare_digest(f"v0={made.hexdigest()}", signature):
            return "its signature does not hold"
        try:
            body.decode()
        except UnicodeDecodeError:
            return "it is not UTF-8 text"
        return ""

    async def _again(self, signature: str) -> str:
        """Say whether it was here before, and remember that it is now."""
        now = self._clock()
        self._seen = {known: at for known, at in self._seen.items() if now - at <= 2 * WINDOW}
        if signature in self._seen:
            return "it was here before"
        self._seen[signature] = now
        try:
            async with self._database.transaction() as tx:
                old = slack_requests.c.at < stamp(now - 2 * WINDOW)
                await tx.execute(delete(slack_requests).where(old))
                row = {"signature": signature, "at": stamp(now)}
                await tx.execute(insert(slack_requests).values(**row))
        except IntegrityError:
            return "it was on another replica before"
        except AWAY as error:
            # Without the database nothing but the stop can be done, and a second stop does no harm.
            log.warning("a request is remembered here alone", error=why_away(error))
        return ""


async def _body(request: Request) -> bytes | None:
    """Read the raw body; None: it is too long."""
    kept = bytearray()
    async for part in request.stream():
        kept += part
        if len(kept) > MAX_BODY:
            return None
    return bytes(kept)
