"""Keeps what is known of a policy's calendars as the files are now, while the service runs.

Invariants: a change counts within seconds, and so does that a file cannot be read any more, or that
reading does not end: then what the calendars concern is denied; the files are read in one thread,
never on the event loop; what one judgement judges by is one frozen policy.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

import structlog

from tiphys.policies.freeze import FreezeWindows
from tiphys.policies.policy import Policy
from tiphys.service.calendars import read_again, unread

REREAD_SECONDS: Final = 2.0
"""How old what we know of the files may be, and what it takes to read them."""
PATIENCE_SECONDS: Final = 10.0
"""How long reading them may take until nobody knows any more what they say."""

log = structlog.get_logger()


class CalendarWatch:
    """A policy whose calendars are read again when they have changed."""

    def __init__(
        self,
        policy: Policy,
        folder: Path,
        clock: Callable[[], datetime],
        seconds: float = REREAD_SECONDS,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self.policy = policy
        """With its calendars as they were read last."""
        self._folder = folder
        self._clock = clock
        self._seconds = seconds
        self._patience = patience
        self._reading: asyncio.Task[Policy] | None = None

    async def run(self) -> None:
        """Look again and again."""
        while True:
            await asyncio.sleep(self._seconds)
            await self.look()

    async def look(self) -> None:
        """Read what has changed; what an earlier look began to read is waited for, not begun."""
        before, now = self.policy, self._clock()
        if self._reading is None:
            reading = asyncio.to_thread(read_again, before, self._folder, now)
            self._reading = asyncio.create_task(reading)
        done, _ = await asyncio.wait([self._reading], timeout=self._patience)
        if not done:
            after = unread(before, f"reading takes longer than {self._patience:g} s", now)
        else:
            reading, self._reading = self._reading, None
            error = reading.exception()  # such as of a thread that cannot be started
            why = f"it cannot be read: {type(error).__name__}"
            after = unread(before, why, now) if error else reading.result()
        if after is not before:
            self.policy = after
            self._tell(before.rule(FreezeWindows), after.rule(FreezeWindows))

    def _tell(self, before: FreezeWindows, after: FreezeWindows) -> None:
        for calendar in after.calendars:
            was, now = before.read.get(calendar.name), after.read[calendar.name]
            if now is was:
                continue
            said = {"calendar": calendar.name, "file": calendar.file}
            if now.problem:
                log.error("a calendar cannot be used: what it concerns is denied",
                          error=now.problem, **said)  # fmt: skip
            elif was is None or was.sha256 != now.sha256:
                log.info("a calendar was read again", sha256=now.sha256, **said)
