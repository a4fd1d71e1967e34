"""What Slack sends over a socket, each envelope done once, however often it comes.

An acknowledgement that is late or lost makes Slack send the envelope again, under its id. It gets
the answer that the first one got; to another replica it is a second try, which is decided there.
"""

import asyncio
import time
from typing import Any, Final

from slack_bolt.adapter.socket_mode.async_handler import AsyncSocketModeHandler
from slack_bolt.adapter.socket_mode.async_internals import run_async_bolt_app, send_async_response
from slack_bolt.response import BoltResponse
from slack_sdk.socket_mode.aiohttp import SocketModeClient
from slack_sdk.socket_mode.request import SocketModeRequest

KEPT: Final = 1_000
"""Envelopes that are remembered."""


class OnceHandler(AsyncSocketModeHandler):
    """The library's, which remembers."""

    def __init__(self, *given: Any, **named: Any) -> None:
        """As the library's."""
        super().__init__(*given, **named)
        self._answers: dict[str, asyncio.Task[BoltResponse]] = {}

    async def handle(self, client: SocketModeClient, req: SocketModeRequest) -> None:
        """Do it, unless that is done or under way, and acknowledge it."""
        start, name = time.time(), req.envelope_id
        if name not in self._answers:
            self._answers[name] = asyncio.create_task(run_async_bolt_app(self.app, req))
            while len(self._answers) > KEPT:
                del self._answers[next(iter(self._answers))]
        answer = await asyncio.shield(self._answers[name])
        await send_async_response(client, req, answer, start)
