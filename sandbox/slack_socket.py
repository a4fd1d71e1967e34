"""Socket Mode from Slack's side: tickets, envelopes, acknowledgements, redelivery, refresh.

As documented at docs.slack.dev/apis/events-api/using-socket-mode: each URL is good for one
connection, each envelope goes to one of the app's connections and wants its id back; Slack asks a
connection to renew itself before it closes it.
"""

import asyncio
import json
import secrets
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web


@dataclass
class Sockets:
    """An app's open connections."""

    tickets: set[str] = field(default_factory=set)
    connections: list[web.WebSocketResponse] = field(default_factory=list)
    waiting: dict[str, asyncio.Future[Any]] = field(default_factory=dict)
    delivered: list[dict[str, Any]] = field(default_factory=list)
    """Every envelope that was sent, redeliveries too."""
    deaf: bool = False
    """True: acknowledgements are lost, as on a broken network."""
    here: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while there is a connection."""
    _turn: int = 0

    def ticket(self) -> str:
        """Give the key of a new URL."""
        ticket = secrets.token_hex(12)
        self.tickets.add(ticket)
        return ticket

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Be one connection."""
        ticket = request.query.get("ticket", "")
        if ticket not in self.tickets:
            return web.Response(status=403)
        self.tickets.discard(ticket)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        count = len(self.connections) + 1
        await socket.send_json({"type": "hello", "num_connections": count, "debug_info": {}})
        self.connections.append(socket)
        self.here.set()
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    self._acknowledge(json.loads(message.data))
        finally:
            self._drop([socket])
        return socket

    def _acknowledge(self, answer: dict[str, Any]) -> None:
        waiting = self.waiting.get(answer.get("envelope_id", ""))
        if waiting and not waiting.done() and not self.deaf:
            waiting.set_result(answer.get("payload"))

    async def deliver(self, kind: str, payload: dict[str, Any], patience: float) -> Any:
        """Send an envelope to one connection, and again to the next if it stays unacknowledged.

        Gives what the acknowledgement carried; raises `TimeoutError` after the third.
        """
        name = secrets.token_hex(16)
        envelope = {
            "envelope_id": name,
            "type": kind,
            "payload": payload,
            "accepts_response_payload": True,
        }
        answered = asyncio.get_running_loop().create_future()
        self.waiting[name] = answered
        try:
            for attempt in range(3):
                await self._send({**envelope, "retry_attempt": attempt})
                done, _ = await asyncio.wait([answered], timeout=patience)
                if done:
                    return answered.result()
        finally:
            del self.waiting[name]
        raise TimeoutError("the app acknowledged nothing")

    async def _send(self, envelope: dict[str, Any]) -> None:
        async with asyncio.timeout(10):
            await self.here.wait()
        self._turn += 1
        socket = self.connections[self._turn % len(self.connections)]
        self.delivered.append(envelope)
        await socket.send_json(envelope)

    async def refresh(self) -> None:
        """Ask every connection to renew itself, then close it."""
        old = list(self.connections)
        for socket in old:
            await socket.send_json({"type": "disconnect", "reason": "refresh_requested"})
        self._drop(old)

    def _drop(self, gone: list[web.WebSocketResponse]) -> None:
        self.connections = [socket for socket in self.connections if socket not in gone]
        if not self.connections:
            self.here.clear()

    async def cut(self) -> None:
        """Close every connection without a word."""
        for socket in list(self.connections):
            await socket.close()
