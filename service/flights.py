"""All that waits rides in the next flight: many senders share one acknowledgement from disk.

While one batch is being synced, the messages of other posts gather and share the following sync.
Invariants: every sender is told about exactly its own messages, within its time limit; one post's
fault fails no other post.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from tiphys.service.errors import BrokerUnavailableError, WorldRefusedError

MAX_BATCH = 1000
"""The server refuses larger atomic batches (error 10199)."""
MAX_WAITING = 50_000
"""Messages that may wait for a flight; beyond it the sender is told to come back."""


@dataclass(frozen=True)
class Message:
    """One alert on its way into the stream."""

    id: str
    """Nats-Msg-Id: equal ids within the duplicate window are stored once."""
    subject: str
    body: bytes


Send = Callable[[Sequence[Message]], Awaitable[Mapping[str, WorldRefusedError]]]
"""Stores up to `MAX_BATCH` messages; gives what failed by message id, and never raises."""


@dataclass
class _Parcel:
    messages: Sequence[Message]
    delivered: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def settle(self, error: WorldRefusedError | None) -> None:
        if self.delivered.done():
            return  # the sender has given up waiting
        if error:
            self.delivered.set_exception(error)
        else:
            self.delivered.set_result(None)


class Flights:
    """One flight in the air at a time."""

    def __init__(self, send: Send, *, seconds: float) -> None:
        """`seconds` is how long a sender waits at most."""
        self._send = send
        self._seconds = seconds
        self._waiting: deque[_Parcel] = deque()
        self._waiting_messages = 0
        self._flying: asyncio.Task[None] | None = None

    async def carry(self, messages: Sequence[Message]) -> None:
        """Return when every message is stored; raises what stopped one, or after the time limit."""
        if self._waiting_messages + len(messages) > MAX_WAITING:
            raise BrokerUnavailableError(f"{self._waiting_messages} alerts wait already")
        parcel = _Parcel(_unique(messages))
        self._waiting.append(parcel)
        self._waiting_messages += len(parcel.messages)
        if self._flying is None or self._flying.done():
            self._flying = asyncio.create_task(self._fly())
        try:
            async with asyncio.timeout(self._seconds):
                await parcel.delivered
        except TimeoutError:
            why = f"no acknowledgement within {self._seconds:g} s"
            raise BrokerUnavailableError(why) from None

    async def land(self) -> None:
        """Wait until nothing is in the air."""
        if self._flying:
            await asyncio.gather(self._flying, return_exceptions=True)

    async def _fly(self) -> None:
        while self._waiting:
            aboard = self._board()
            messages = _unique([m for parcel in aboard for m in parcel.messages])
            failed: dict[str, WorldRefusedError] = {}
            for start in range(0, len(messages), MAX_BATCH):
                failed |= await self._send(messages[start : start + MAX_BATCH])
            for parcel in aboard:
                parcel.settle(next((failed[m.id] for m in parcel.messages if m.id in failed), None))

    def _board(self) -> list[_Parcel]:
        """Take as many parcels as one batch holds; a larger one flies alone, in several."""
        aboard: list[_Parcel] = []
        load = 0
        while self._waiting:
            size = len(self._waiting[0].messages)
            if aboard and load + size > MAX_BATCH:
                break
            parcel = self._waiting.popleft()
            self._waiting_messages -= size
            if not parcel.delivered.done():  # else its sender has been told to come back
                aboard.append(parcel)
                load += size
        return aboard


def _unique(messages: Sequence[Message]) -> list[Message]:
    return list({message.id: message for message in messages}.values())
