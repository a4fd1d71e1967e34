"""The analysis agent: what changed first around the alert, what only followed, and why.

It reads the affected object's own series, for their present levels and for charts, and its
neighbourhood, which the search for causes judges. A change counts only where it stands out of its
own noise, and what has no data is said to have none.
"""

import asyncio
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from tiphys.agents.around.standard import symptom_kind
from tiphys.agents.asking import SECONDS, Asking
from tiphys.agents.causes.signals import Scene, Symptom
from tiphys.agents.charting import downsampled
from tiphys.agents.neighbourhood import Neighbourhood, read_around, window_around
from tiphys.agents.notebook import Notebook
from tiphys.agents.on_call import firing
from tiphys.agents.ports import Case, ClusterReader, Metrics, Series, UnansweredError
from tiphys.agents.promql import pods_named_like, quoted, same_series, selector, what_it_reads
from tiphys.agents.state import State, written
from tiphys.policies.model import Alert, Json, Object, Source

WINDOW: Final = timedelta(hours=1)
STEP_SECONDS: Final = 15.0
KEPT_SERIES: Final = 8
ALERT: Final = "alert"
"""The question that is the alert's own expression."""
_POD_NAME = re.compile(r"(.+?)(-[a-f0-9]{6,10})?(-[a-z0-9]{5}|-\d+)")


@dataclass(frozen=True)
class Question:
    """One range query with the words that name it."""

    name: str
    """As in `facts.metrics.<name>_max`."""
    words: str
    query: str


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


class Analysis:
    """Reads from Prometheus and lists from Kubernetes; its `look` is a node of the graph.

    It lists Deployments and ReplicaSets itself, beside the kubectl agent: it needs the neighbours'
    too, and so both go on at the same time.
    """

    def __init__(
        self,
        metrics: Metrics | None,
        cluster: ClusterReader | None,
        clock: Callable[[], datetime],
        seconds: float = SECONDS,
    ) -> None:
        """`seconds`: in which the neighbourhood is read."""
        self._seconds = seconds
        self._metrics = metrics
        self._cluster = cluster
        self._clock = clock

    async def look(self, case: Case, check: Object) -> State:
        """Give the series' levels and the ranked causes as facts, and both as findings."""
        book = Notebook(self._clock)
        facts: dict[str, Json] = {"metrics": {}}
        alerts = firing(case)
        if self._metrics is None:
            book.note("no history was read: Prometheus is not configured")
            facts["analysis"] = _nothing("Prometheus is not configured")
        elif alerts:
            facts = await self._read(self._metrics, alerts, check, book)
        state = State(facts=facts)
        state.update(written("analysis", book))
        return state

    async def _read(
        self, metrics: Metrics, alerts: Sequence[Alert], check: Object, book: Notebook
    ) -> dict[str, Json]:
        labels = alerts[0].labels
        end = self._clock()
        began = min(a.starts_at for a in alerts)
        ask = Asking(metrics, self._cluster, book, window_around(began, end), self._seconds)
        # The affected object's own first: it is what a decision must not do without.
        (levels, true_since), around = await asyncio.gather(
            self._own(metrics, labels, check, book), _around(ask, labels)
        )
        expression = check.get("query")
        symptom = _symptom(around.affected, expression if isinstance(expression, str) else "")
        scene = Scene(ask.window, around.signals, around.calls, symptom)
        latest = min(t for t in (began.timestamp(), end.timestamp(), true_since) if t is not None)
        told, said = await asyncio.to_thread(_judged, scene, around, latest, end)
        for sentence in said:
            book.note(sentence)
        return {"metrics": levels, "analysis": told}

    async def _own(
        self, metrics: Metrics, labels: Mapping[str, str], check: Object, book: Notebook
    ) -> tuple[dict[str, Json], float | None]:
        """Give the present levels, and since when the alert's expression has been true."""
        asked = questions(labels)
        expression = check.get("query")
        if isinstance(expression, str) and expression:
            asked.insert(0, Question(ALERT, "the alert's expression", expression))
        end = self._clock()
        answers = await asyncio.gather(
            *(_ask(metrics, q, labels, end, book) for q in asked), return_exceptions=True
        )
        levels: dict[str, Json] = {}
        silent: list[str] = []
        since: float | None = None
        for question, found in zip(asked, answers, strict=True):
            if isinstance(found, UnansweredError):
                book.miss(f"the history of {question.words}", found)
                continue
            if isinstance(found, BaseException):
                raise found
            levels |= _levels(question.name, found, end)
            silent += [] if found else [question.words]
            since = _true_since(found, end) if question.name == ALERT else since
        if silent:
            book.note(f"Prometheus has no series for: {', '.join(silent)}")
        return levels, since


async def _around(ask: Asking, labels: Mapping[str, str]) -> Neighbourhood:
    # Nodes have no namespace and no calls.
    return await read_around(ask, labels) if labels.get("namespace") else Neighbourhood()


async def _ask(
    metrics: Metrics, question: Question, labels: Mapping[str, str], end: datetime, book: Notebook
) -> Sequence[Series]:
    def mine(series: Series) -> bool:
        return question.name != ALERT or same_series(series.labels, labels)

    found = await book.ask(
        Source.PROMETHEUS,
        f"{question.query} over the last {WINDOW // timedelta(minutes=1)} min",
        metrics.range(question.query, end - WINDOW, end, STEP_SECONDS),
        lambda every: _recorded(question, [s for s in every if mine(s)]),
    )
    return [s for s in found if mine(s)]


def _judged(
    scene: Scene, around: Neighbourhood, latest: float, now: datetime
) -> tuple[dict[str, Json], list[str]]:
    """Search for causes: in a thread, for it may take seconds, and loads numpy at its first use."""
    from tiphys.agents.around.suspects import Known, judge
    from tiphys.agents.around.telling import facts_of, sentences

    known = Known(
        scene, around.affected, latest, around.happenings, around.changes_read, around.unseen
    )
    verdict = judge(known)
    return facts_of(verdict, now), sentences(verdict, now)


def _nothing(why: str) -> dict[str, Json]:
    return {"changes": [], "causes": [], "first": "", "silent": False, "unseen": [why]}


def _symptom(affected: str, expression: str) -> Symptom | None:
    if not affected:
        return None
    try:
        metrics, _ = what_it_reads(expression) if expression else (set[str](), set[str]())
    except ValueError:
        metrics = set()
    return Symptom(affected, symptom_kind(metrics))


def _true_since(found: Sequence[Series], end: datetime) -> float | None:
    """Give since when an expression has been true without a gap; None where it is not true now."""
    began: list[float] = []
    for series in found:
        last = end.timestamp()
        times = sorted(t for t, v in series.points if not math.isnan(v) and t <= last)
        if not times or times[-1] < last - 2 * STEP_SECONDS:
            continue
        for at in reversed(times):
            if last - at > 2 * STEP_SECONDS:
                break
            last = at
        began.append(last)
    return min(began, default=None)


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
    if not now or name == ALERT:
        return {}
    return {f"{name}_min": min(now), f"{name}_max": max(now), f"{name}_series": len(now)}
