"""The analysis agent: which series around the alert changed, when, and which changed first.

A shift counts only where it stands out of the series' own noise, and what has no data is said to
have none. Better statistics can replace `largest_shift` alone.
"""

import asyncio
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Final

from tiphys.agents.notebook import Notebook
from tiphys.agents.on_call import firing
from tiphys.agents.ports import Case, Metrics, Series, UnansweredError
from tiphys.agents.promql import pods_named_like, quoted, same_series, selector
from tiphys.agents.state import State, written
from tiphys.policies.model import Json, Object, Source

WINDOW: Final = timedelta(hours=1)
STEP_SECONDS: Final = 15.0
KEPT_POINTS: Final = 60
"""Points of one series that the record keeps for its chart."""
KEPT_SERIES: Final = 8
MIN_POINTS: Final = 8
MIN_SIDE: Final = 3
"""Points needed on each side of a shift."""
STANDS_OUT: Final = 5.0
"""How many times its own noise a shift must be."""
_POD_NAME = re.compile(r"(.+?)(-[a-f0-9]{6,10})?(-[a-z0-9]{5}|-\d+)")


@dataclass(frozen=True)
class Question:
    """One range query with the words that name it."""

    name: str
    """As in `facts.metrics.<name>_max`."""
    words: str
    query: str


@dataclass(frozen=True)
class Shift:
    """The largest change of one series: means before and after, and how it stands out."""

    words: str
    at: float
    """Unix seconds."""
    before: float
    after: float
    score: float
    """Difference over noise."""


def questions(labels: Mapping[str, str]) -> list[Question]:
    """Give what to ask around the object that an alert's labels name."""
    namespace = labels.get("namespace", "")
    if not namespace:
        node = labels.get("node", "")
        ready = {"condition": "Ready", "status": "true", "node": node}
        asked = selector("kube_node_status_condition", ready)
        return [Question("node_ready", "node readiness", asked)] if node else []
    found: list[Question] = []
    kind = next((k for k in ("deployment", "statefulset") if labels.get(k)), "")
    prefix = labels.get(kind, "") if kind else ""
    if not prefix and (made := _POD_NAME.fullmatch(labels.get("pod", ""))):
        prefix = made[1]
    if kind:
        one = {"namespace": namespace, kind: prefix}
        status = "available" if kind == "deployment" else "ready"
        wanted = "kube_deployment_spec_replicas" if kind == "deployment" else (
            "kube_statefulset_replicas"
        )  # fmt: skip
        found += [
            Question("replicas", "replicas wanted", selector(wanted, one)),
            Question("available", f"replicas {status}",
                     selector(f"kube_{kind}_status_replicas_{status}", one)),
            Question("generation", "generation of the spec",
                     selector(f"kube_{kind}_metadata_generation", one)),
        ]  # fmt: skip
    if prefix:
        found += _of_pods(namespace, prefix)
    return found


def _of_pods(namespace: str, prefix: str) -> list[Question]:
    here = f"namespace={quoted(namespace)},pod=~{pods_named_like(prefix)}"
    limit = "sum by (pod) (kube_pod_container_resource_limits{resource=%s," + here + "})"
    cpu = f'sum by (pod) (rate(container_cpu_usage_seconds_total{{container!="",{here}}}[2m]))'
    memory = f'sum by (pod) (container_memory_working_set_bytes{{container!="",{here}}})'
    ready = f'kube_pod_status_ready{{condition="true",{here}}}'
    return [
        Question("ready_pods", "ready pods", f"sum({ready})"),
        Question("restarts", "container restarts",
                 f"sum(kube_pod_container_status_restarts_total{{{here}}})"),
        Question("cpu_of_limit", "CPU used of its limit", f"{cpu} / {limit % quoted('cpu')}"),
        Question("memory_of_limit", "memory used of its limit",
                 f"{memory} / {limit % quoted('memory')}"),
    ]  # fmt: skip


def largest_shift(series: Series, words: str) -> Shift | None:
    """Find where the means before and after differ most; None where nothing stands out."""
    points = [(t, v) for t, v in series.points if math.isfinite(v)]
    if len(points) < MIN_POINTS:
        return None
    values = [v for _, v in points]
    steps = sorted(abs(b - a) for a, b in pairwise(values))
    scale = max(abs(v) for v in values)
    # The median step is the noise; a floor keeps a series of constants from dividing by nothing.
    noise = max(steps[len(steps) // 2], 0.02 * scale, 1e-9)
    total, head, best = sum(values), 0.0, (0.0, 0)
    for i in range(1, len(values)):
        head += values[i - 1]
        if MIN_SIDE <= i <= len(values) - MIN_SIDE:
            difference = abs(head / i - (total - head) / (len(values) - i))
            best = max(best, (difference, i))
    difference, split = best
    if split == 0 or difference / noise < STANDS_OUT:
        return None
    before, after = sum(values[:split]) / split, sum(values[split:]) / (len(values) - split)
    return Shift(words, points[split][0], before, after, difference / noise)


def downsampled(series: Series) -> list[Json]:
    """Give at most `KEPT_POINTS` points, evenly chosen, the last included."""
    points = list(series.points)
    stride = max(1, math.ceil(len(points) / KEPT_POINTS))
    kept = points[::-1][::stride][::-1]
    return [[round(t), v if math.isfinite(v) else None] for t, v in kept]


class Analysis:
    """Reads the last hour from Prometheus; its `look` is a node of the graph."""

    def __init__(self, metrics: Metrics | None, clock: Callable[[], datetime]) -> None:
        self._metrics = metrics
        self._clock = clock

    async def look(self, case: Case, check: Object) -> State:
        """Give the series' levels as facts, and what changed first as findings."""
        book = Notebook(self._clock)
        facts: dict[str, Json] = {"metrics": {}, "analysis": {"changes": []}}
        alerts = firing(case)
        if self._metrics is None:
            book.note("no history was read: Prometheus is not configured")
        elif alerts:
            try:
                facts = await self._read(alerts[0].labels, check, book)
            except UnansweredError as error:
                book.miss("the history of the metrics", error)
        state = State(facts=facts)
        state.update(written("analysis", book))
        return state

    async def _read(
        self, labels: Mapping[str, str], check: Object, book: Notebook
    ) -> dict[str, Json]:
        asked = questions(labels)
        expression = check.get("query")
        if isinstance(expression, str) and expression:
            asked.insert(0, Question("alert", "the alert's expression", expression))
        end = self._clock()
        answers = await asyncio.gather(*(self._ask(q, labels, end, book) for q in asked))
        levels: dict[str, Json] = {}
        shifts: list[Shift] = []
        silent = [q.words for q, found in zip(asked, answers, strict=True) if not found]
        for question, found in zip(asked, answers, strict=True):
            levels |= _levels(question.name, found, end)
            if question.name != "alert":
                each = (largest_shift(series, question.words) for series in found)
                shifts += sorted((s for s in each if s), key=lambda s: -s.score)[:1]
        if silent:
            book.note(f"Prometheus has no series for: {', '.join(silent)}")
        shifts.sort(key=lambda s: s.at)
        for sentence in _ranked(shifts, end):
            book.note(sentence)
        return {"metrics": levels, "analysis": {"changes": [_told(s) for s in shifts]}}

    async def _ask(
        self, question: Question, labels: Mapping[str, str], end: datetime, book: Notebook
    ) -> Sequence[Series]:
        assert self._metrics is not None

        def mine(series: Series) -> bool:
            return question.name != "alert" or same_series(series.labels, labels)

        found = await book.ask(
            Source.PROMETHEUS,
            f"{question.query} over the last {WINDOW // timedelta(minutes=1)} min",
            self._metrics.range(question.query, end - WINDOW, end, STEP_SECONDS),
            lambda every: _recorded(question, [s for s in every if mine(s)]),
        )
        return [s for s in found if mine(s)]


def _recorded(question: Question, found: Sequence[Series]) -> tuple[Json, str]:
    told: list[Json] = [
        {"labels": dict(s.labels), "points": downsampled(s)} for s in found[:KEPT_SERIES]
    ]
    last = [s.points[-1][1] for s in found if s.points]
    if not last:
        return told, f"{question.words}: no data"
    least, most = f"{min(last):.3g}", f"{max(last):.3g}"
    now = least if least == most else f"{least} to {most}"
    return told, f"{question.words}: {len(found)} series, now {now}"


def _levels(name: str, found: Sequence[Series], end: datetime) -> dict[str, Json]:
    """Give the least and the greatest present value; nothing where there is no data by now."""
    since = end.timestamp() - 2 * STEP_SECONDS
    points = [s.points[-1] for s in found if s.points]
    now = [value for at, value in points if at >= since and math.isfinite(value)]
    if not now or name == "alert":
        return {}
    return {f"{name}_min": min(now), f"{name}_max": max(now), f"{name}_series": len(now)}


def _told(shift: Shift) -> Json:
    return {
        "what": shift.words,
        "at": datetime.fromtimestamp(shift.at, UTC).isoformat(),
        "before": round(shift.before, 6),
        "after": round(shift.after, 6),
        "score": round(shift.score, 2),
    }


def _ranked(shifts: Sequence[Shift], now: datetime) -> list[str]:
    """Write the shifts in order of time: what came first may have caused what came later."""
    said: list[str] = []
    for place, shift in enumerate(shifts[:5]):
        ago = (now.timestamp() - shift.at) / 60
        lead = "changed first" if place == 0 and len(shifts) > 1 else "changed"
        said.append(
            f"{shift.words} {lead}: from {shift.before:.3g} to {shift.after:.3g} {ago:.0f} min ago "
            f"({shift.score:.0f} times its noise)"
        )
    return said or ["no series around the alert stands out of its own noise"]
