"""Hears, through PostgreSQL's NOTIFY, that another process has left work for this one.

Nothing depends on it: a word that is lost is made up for by the next poll.
"""

import asyncio
from collections.abc import Callable, Collection

import psycopg
import structlog

from tiphys.service.database import CHANNEL, Database

RETRY_SECONDS = 2.0

log = structlog.get_logger()


class Wakeups:
    """One connection that only listens."""

    def __init__(
        self, database: Database, states: Collection[str], wake: Callable[[], None]
    ) -> None:
        """`wake` is called when an incident has come into one of the states."""
        url = database.engine.url.set(drivername="postgresql")
        self._address = url.render_as_string(hide_password=False)
        self._states = frozenset(states)
        self._wake = wake

    async def run(self) -> None:
        """Listen until cancelled; connects again for ever."""
        while True:
            try:
                await self._listen()
            except (psycopg.Error, OSError) as error:
                log.warning("no wake-ups from the database; polling", error=str(error).strip())
            await asyncio.sleep(RETRY_SECONDS)

    async def _listen(self) -> None:
        connection = await psycopg.AsyncConnection.connect(
            self._address, autocommit=True, keepalives_idle=30, connect_timeout=10
        )
        async with connection:
            await connection.execute(f"LISTEN {CHANNEL}".encode())
            self._wake()  # whatever came while nobody listened
            async for notice in connection.notifies():
                if notice.payload in self._states:
                    self._wake()
