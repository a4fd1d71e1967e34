"""A scenario's own series: what they are now, and what they were in the hour before.

A counter's value is the integral of its rate, so that `rate()` reads the rate back.
"""

import math
import zlib
from collections.abc import Iterator, Mapping, Sequence

from tiphys.sandbox.circumstances import Circumstances
from tiphys.sandbox.scenario import Series
from tiphys.sandbox.store import Store
from tiphys.sandbox.tsdb import Reading, Tsdb

BACKFILL_SECONDS = 3600.0
BACKFILL_STEP = 15.0
_SWING_SECONDS = 240.0


class ScenarioSeries:
    """A scrape source; each call of `readings` is one scrape."""

    def __init__(
        self, series: Sequence[Series], store: Store, circumstances: Circumstances
    ) -> None:
        self._series = series
        self._store = store
        self._circumstances = circumstances
        self._counters: dict[tuple[int, str], tuple[float, float]] = {}
        """(index, pod) -> (unix seconds, value)."""

    def readings(self, at: float) -> Iterator[Reading]:
        """Give every series' sample."""
        for index, series in enumerate(self._series):
            level = _swung(series, self._level(series), at)
            for labels in self._label_sets(series):
                if not series.counter:
                    yield series.name, labels, level
                    continue
                key = index, labels.get("pod", "")
                before, total = self._counters.get(key, (at, 0.0))
                total += max(0.0, at - before) * level
                self._counters[key] = at, total
                yield series.name, labels, total

    def backfill(self, tsdb: Tsdb, until: float) -> None:
        """Write the hour before `until`; counters begin there and go on from what they reached."""
        start = until - BACKFILL_SECONDS
        times = [start + i * BACKFILL_STEP for i in range(int(BACKFILL_SECONDS / BACKFILL_STEP))]
        for index, series in enumerate(self._series):
            levels = [_swung(series, _past(series, until - at), at) for at in times]
            for labels in self._label_sets(series):
                values = levels
                if series.counter:
                    values = [0.0]
                    for level in levels[:-1]:
                        values.append(values[-1] + level * BACKFILL_STEP)
                    self._counters[index, labels.get("pod", "")] = times[-1], values[-1]
                tsdb.extend(series.name, labels, start, BACKFILL_STEP, values)

    def _level(self, series: Series) -> float:
        for case in series.cases:
            if self._circumstances.hold(case.when):
                return case.value
        return series.value

    def _label_sets(self, series: Series) -> list[Mapping[str, str]]:
        wanted = series.each_pod
        if wanted is None:
            return [series.labels]
        selector = ",".join(f"{key}={value}" for key, value in sorted(wanted.labels.items()))
        return [
            {
                **series.labels,
                "namespace": wanted.namespace,
                "pod": pod["metadata"]["name"],
                "container": pod["spec"]["containers"][0]["name"],
            }
            for pod in self._store.list("Pod", wanted.namespace, selector)
            if pod.get("status", {}).get("phase") == "Running"
        ]


def _past(series: Series, ago: float) -> float:
    for spell in series.history:
        if spell.ago >= ago > spell.ago - spell.lasting:
            return spell.value
    return series.value


def _swung(series: Series, level: float, at: float) -> float:
    """Let a level swing slowly, each series in its own phase, the same in every run."""
    if not series.wobble:
        return level
    phase = zlib.crc32(f"{series.name}{sorted(series.labels.items())}".encode()) % 1000
    slow = math.sin((at / _SWING_SECONDS + phase / 1000) * 2 * math.pi)
    fast = math.sin((at / 47 + phase / 500) * 2 * math.pi)
    return level * (1 + series.wobble * (0.7 * slow + 0.3 * fast))
