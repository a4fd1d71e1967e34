"""Samples in memory, as the head of a Prometheus database holds them, for one simulated world.

Invariants: the times of a series only rise; a reader in another thread sees whole samples only
(a value is stored before its time, and trimming replaces both columns at once).
"""

import re
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

Labels = Mapping[str, str]
Reading = tuple[str, Labels, float]
"""One sample of a scrape: metric name, labels without the name, value."""

NAME = "__name__"


class MatchKind(StrEnum):
    """How a matcher compares."""

    EQUAL = "="
    NOT_EQUAL = "!="
    REGEX = "=~"
    NOT_REGEX = "!~"


@dataclass(frozen=True)
class Matcher:
    """One condition on a label; a label that is missing counts as empty, a regex is anchored."""

    name: str
    kind: MatchKind
    value: str

    def holds(self, labels: Labels) -> bool:
        """Say whether these labels satisfy the condition."""
        given = labels.get(self.name, "")
        if self.kind is MatchKind.EQUAL:
            return given == self.value
        if self.kind is MatchKind.NOT_EQUAL:
            return given != self.value
        found = re.fullmatch(self.value, given, re.DOTALL) is not None
        return found is (self.kind is MatchKind.REGEX)


class TimeSeries:
    """One series: its labels (the name among them) and its samples, in order of time."""

    __slots__ = ("columns", "labels", "stale")

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        self.columns = (array("d"), array("d"))
        """Times in unix seconds, and values; read both from one access to this attribute."""
        self.stale: set[float] = set()
        """The times at which the series was said to have ended."""

    @property
    def newest(self) -> float:
        """The time of the last sample; minus infinity when there is none."""
        times = self.columns[0]
        return times[-1] if times else float("-inf")

    def append(self, at: float, value: float, *, stale: bool = False) -> bool:
        """Add a sample; False when it is not newer than the last one (it is then dropped)."""
        if at <= self.newest:
            return False
        times, values = self.columns
        if stale:
            self.stale.add(at)
        values.append(value)
        times.append(at)
        return True

    def trim(self, oldest: float) -> None:
        """Forget the samples before `oldest`."""
        times, values = self.columns
        count = next((i for i, at in enumerate(times) if at >= oldest), len(times))
        self.columns = (times[count:], values[count:])
        self.stale = {at for at in self.stale if at >= oldest}

    def present(self) -> tuple[Sequence[float], Sequence[float]]:
        """Times and values without the markers of staleness."""
        times, values = self.columns
        if not self.stale:
            return times, values
        kept = [i for i, at in enumerate(times) if at not in self.stale]
        return [times[i] for i in kept], [values[i] for i in kept]


class Tsdb:
    """All series of a simulated world; times are unix seconds, kept to the millisecond."""

    def __init__(self, retention_seconds: float = 7200.0) -> None:
        self.retention_seconds = retention_seconds
        self._by_name: dict[str, dict[tuple[tuple[str, str], ...], TimeSeries]] = {}
        self._scraped: dict[str, set[TimeSeries]] = {}
        self._swept = float("-inf")

    def append(self, name: str, labels: Labels, at: float, value: float) -> bool:
        """Add one sample; False when the series already has a sample as new as this one."""
        return self._series(name, labels).append(round(at, 3), value)

    def extend(
        self, name: str, labels: Labels, start: float, step: float, values: Sequence[float]
    ) -> None:
        """Backfill a series: one value each `step` seconds from `start` on."""
        series = self._series(name, labels)
        for i, value in enumerate(values):
            series.append(round(start + i * step, 3), value)

    def mark_stale(self, name: str, labels: Labels, at: float) -> None:
        """Say that the series ended at this time; a later sample revives it."""
        self._series(name, labels).append(round(at, 3), float("nan"), stale=True)

    def ingest(self, source: str, readings: Iterable[Reading], at: float) -> None:
        """Store one scrape; series that this source gave before and no longer gives go stale."""
        at = round(at, 3)
        seen: set[TimeSeries] = set()
        for name, labels, value in readings:
            series = self._series(name, labels)
            series.append(at, value)
            seen.add(series)
        for gone in self._scraped.get(source, set()) - seen:
            gone.append(at, float("nan"), stale=True)
        self._scraped[source] = seen
        self._sweep(at)

    def select(self, matchers: Sequence[Matcher]) -> list[TimeSeries]:
        """The series that satisfy every matcher, those of one metric together."""
        named = next((m for m in matchers if m.name == NAME and m.kind is MatchKind.EQUAL), None)
        groups = [self._by_name.get(named.value, {})] if named else list(self._by_name.values())
        rest = [m for m in matchers if m is not named]
        return [
            series
            for group in groups
            for series in list(group.values())
            if all(m.holds(series.labels) for m in rest)
        ]

    def _series(self, name: str, labels: Labels) -> TimeSeries:
        group = self._by_name.setdefault(name, {})
        key = tuple(sorted(item for item in labels.items() if item[1]))
        found = group.get(key)
        if found is None:
            found = group[key] = TimeSeries({NAME: name, **dict(key)})
        return found

    def _sweep(self, at: float) -> None:
        if at < self._swept + self.retention_seconds / 10:
            return
        self._swept, oldest = at, at - self.retention_seconds
        for group in self._by_name.values():
            for key, series in list(group.items()):
                series.trim(oldest)
                if not series.columns[0]:
                    del group[key]
        for name in [name for name, group in self._by_name.items() if not group]:
            del self._by_name[name]
