"""Asks Prometheus and Kubernetes for the search for causes, within bounds.

Invariants: what is not answered, or not in time, is in `missing` and never an empty answer; an
answer that is too wide to be used is narrowed, and what is left out is said.
"""

import asyncio
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from tiphys.agents.around.place import Place
from tiphys.agents.causes.signals import MAX_HISTORY, Window
from tiphys.agents.charting import downsampled
from tiphys.agents.notebook import Notebook
from tiphys.agents.ports import (
    ClusterReader,
    Metrics,
    Sample,
    Series,
    TooWideError,
    UnansweredError,
)
from tiphys.policies.model import Json, Object, Source

SECONDS: Final = 20.0
"""In which everything is read; what has not come by then was not seen."""
WIDEST: Final = 500
"""Series of one answer from which on it is narrowed to the nearest."""
MAX_QUERIES: Final = 40
KEPT_SERIES: Final = 6
"""Series of one answer that the record keeps for its chart."""


class Asking:
    """The questions of one look at a neighbourhood, over one window and what was before it."""

    def __init__(
        self,
        metrics: Metrics,
        cluster: ClusterReader | None,
        book: Notebook,
        window: Window,
        seconds: float = SECONDS,
    ) -> None:
        self._seconds = seconds
        self._metrics = metrics
        self._cluster = cluster
        self._book = book
        self.window = window
        self.nearest: Sequence[str] = ()
        """The names to which a question that is too wide is narrowed, the affected one first."""
        self.missing: dict[str, str] = {}
        """What was asked and not answered, and why."""
        self.left_out: list[str] = []
        self._too_wide: set[str] = set()
        self._waiting: dict[str, None] = {}
        self._asked = 0

    async def in_time(self, everything: Awaitable[None]) -> None:
        """Wait for it as long as may be; what is still waited for then is missing."""
        waited: list[str] = []
        try:
            async with asyncio.timeout(self._seconds):
                try:
                    await everything
                except asyncio.CancelledError:
                    waited = list(self._waiting)
                    raise
        except TimeoutError:
            self.missing |= dict.fromkeys(
                waited or ["the rest"], f"no answer in {self._seconds:g} s"
            )

    async def range(self, words: str, query: str) -> Sequence[Series] | None:
        """Ask for the window and the history before it; None where that is not answered."""
        start = self.window.start - MAX_HISTORY * self.window.step
        first, last = (datetime.fromtimestamp(at, UTC) for at in (start, self.window.end))
        question = f"{query} from {first:%H:%M:%S} to {last:%H:%M:%S}"
        with self._noting(words):
            self._count()
            call = self._metrics.range(query, first, last, self.window.step)
            return await self._book.ask(Source.PROMETHEUS, question, call, self._charted(words))
        return None

    async def nearest_of(
        self, words: str, write: Callable[[Place], str], place: Place
    ) -> Sequence[Series] | None:
        """Ask of a whole place, and again of the nearest only where that is too much."""
        wide = write(place)
        every = await self.range(words, wide)
        cut = words in self._too_wide
        if not cut and (every is None or len(every) < WIDEST):
            return every
        narrow = write(replace(place, names=tuple(self.nearest)))
        if not self.nearest or narrow == wide:
            self.missing[words] = f"{WIDEST} series or more, too many to read"
            return None
        near = ", ".join(self.nearest[:3])
        self.left_out.append(f"{words}: {WIDEST} series or more, so only those around {near}")
        self.missing.pop(words, None)
        found = await self.range(words, narrow)
        return found[: 4 * WIDEST] if found is not None else None

    async def instant(self, words: str, query: str) -> Sequence[Sample]:
        """Ask as of the window's end."""
        with self._noting(words):
            self._count()
            at = datetime.fromtimestamp(self.window.end, UTC)
            return await self._book.ask(
                Source.PROMETHEUS,
                f"{query} at {at:%H:%M:%S}",
                self._metrics.instant(query, at),
                lambda every: (len(every), f"{words}: {len(every)} series"),
            )
        return ()

    async def listed(self, kind: str, namespace: str) -> Sequence[Object]:
        """List a kind of apps/v1."""
        words = f"{kind}s of {namespace}"
        with self._noting(words):
            if self._cluster is None:
                raise UnansweredError("there is no cluster to ask")
            return await self._book.ask(
                Source.KUBERNETES,
                f"list {words}, for recent changes",
                self._cluster.list("apps/v1", kind, namespace),
                lambda every: (len(every), f"{len(every)} {words}"),
            )
        return ()

    def _count(self) -> None:
        self._asked += 1
        if self._asked > MAX_QUERIES:
            raise UnansweredError(f"not asked: more than {MAX_QUERIES} queries")

    @contextmanager
    def _noting(self, words: str) -> Generator[None]:
        """Remember what is waited for and what is not answered."""
        self._waiting[words] = None
        try:
            yield
        except UnansweredError as error:
            self.missing[words] = str(error)
            if isinstance(error, TooWideError):
                self._too_wide.add(words)
        except asyncio.CancelledError:
            raise  # still waited for
        self._waiting.pop(words, None)

    def _charted(self, words: str) -> Callable[[Sequence[Series]], tuple[Json, str]]:
        def tell(every: Sequence[Series]) -> tuple[Json, str]:
            near = set(self.nearest)
            first = sorted(every, key=lambda s: near.isdisjoint(s.labels.values()))
            told: list[Json] = [
                {"labels": dict(s.labels), "points": downsampled(s)} for s in first[:KEPT_SERIES]
            ]
            return told, f"{words}: {len(every) or 'no'} series"

        return tell
