"""Reads what Prometheus and the cluster tell of the GPU that an alert is about.

Part of the kubectl agent. An alert of a GPU's exporter names the exporter's own pod, too: what is
resolved further is the node and the pod that used the GPU, never the exporter.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final

from tiphys.agents.gpu_facts import Seen, gpu_facts, pod_in_question, unclear
from tiphys.agents.gpu_labels import NODE_LABELS, about_gpu, device_of, node_of
from tiphys.agents.notebook import Notebook
from tiphys.agents.objects import name_of, text
from tiphys.agents.pod_facts import gpus_of
from tiphys.agents.ports import ClusterReader, Metrics, Series
from tiphys.agents.promql import selector
from tiphys.agents.xid_history import (
    LINE,
    Log,
    Occurrence,
    exporters,
    from_events,
    from_metrics,
    since_boot,
)
from tiphys.policies.model import Alert, Json, Object, Source

GAUGE: Final = "DCGM_FI_DEV_XID_ERRORS"
COUNT: Final = "DCGM_EXP_XID_ERRORS_COUNT"
WINDOW: Final = timedelta(hours=24)
STEP_SECONDS: Final = 60.0
EVENTS_OF_NODES: Final = "default"
"""The namespace of events about what has none."""
_UNTIL_NOW = "now"


@dataclass(frozen=True)
class Sight:
    """What was seen of the alerts' GPU."""

    alerts: Sequence[Alert]
    """The alerts, those of GPUs with the labels of what they are really about."""
    nodes: set[str]
    facts: dict[str, Json]
    """Empty where no alert is about a GPU."""


class Gpu:
    """Asks for a GPU's Xids; `look` raises `UnansweredError`."""

    def __init__(
        self, cluster: ClusterReader, metrics: Metrics | None, clock: Callable[[], datetime]
    ) -> None:
        self._cluster = cluster
        self._metrics = metrics
        self._clock = clock

    async def look(self, alerts: Sequence[Alert], book: Notebook) -> Sight:
        """Give the facts, and the alerts as they are to be resolved."""
        about = [alert for alert in alerts if about_gpu(alert.labels)]
        if not about:
            return Sight(alerts, set(), {})
        nodes = {node_of(alert.labels) for alert in about}
        if len(nodes) != 1 or "" in nodes:
            named = ", ".join(sorted(nodes - {""})) or "none"
            why = f"the alerts do not name one node: {named}"
            return Sight(_resolved(alerts, "", {}), set(), unclear("", why))
        (node,) = nodes
        facts = await self._facts(node, about, book)
        book.note(str(facts["unclear"] or facts["reason"]))
        return Sight(_resolved(alerts, node, pod_in_question(facts)), nodes, facts)

    async def _facts(self, node: str, about: Sequence[Alert], book: Notebook) -> dict[str, Json]:
        (found, series), events, pods = await asyncio.gather(
            self._history(node, about, book), self._events(node, book), self._pods(node, book)
        )
        log = from_events(events, node)
        seen = Seen(
            node=node,
            metrics=since_boot(found, events),
            log=Log(since_boot(log.found, events), log.unclear),
            devices=[*dict.fromkeys(d for s in series if (d := device_of(s.labels)))],
            pods=pods,
            exporters=exporters(series),
        )
        return gpu_facts(about, seen, self._clock())

    async def _history(
        self, node: str, about: Sequence[Alert], book: Notebook
    ) -> tuple[list[Occurrence], Sequence[Series]]:
        if self._metrics is None:
            return [], ()
        end = self._clock()
        uuids = {named.uuid for a in about if (named := device_of(a.labels))} - {""}
        asked = (self._ask(_of_node(metric, node, uuids), end, book) for metric in (GAUGE, COUNT))
        gauge, counts = await asyncio.gather(*asked)
        found = from_metrics(gauge, counts, node, (end - WINDOW).timestamp())
        return found, [*gauge, *counts]

    async def _ask(self, query: str, end: datetime, book: Notebook) -> list[Series]:
        """Read the window; its end apart, since a range ends at a whole second before it."""
        assert self._metrics is not None
        past, present = await asyncio.gather(
            book.ask(
                Source.PROMETHEUS,
                f"{query} over the last {WINDOW // timedelta(hours=1)} h",
                self._metrics.range(query, end - WINDOW, end, STEP_SECONDS),
                _told,
            ),
            book.ask(
                Source.PROMETHEUS,
                query,
                self._metrics.instant(query),
                lambda samples: (
                    [{"labels": dict(s.labels), "value": s.value} for s in samples],
                    f"{len(samples)} series of GPUs {_UNTIL_NOW}",
                ),
            ),
        )
        return [*past, *(Series(s.labels, [(s.at, s.value)]) for s in present)]

    async def _events(self, node: str, book: Notebook) -> Sequence[Object]:
        return await book.ask(
            Source.KUBERNETES,
            f"events of Node {node}",
            self._cluster.list(
                "v1", "Event", EVENTS_OF_NODES,
                field_selector=f"involvedObject.kind=Node,involvedObject.name={node}",
            ),
            _lines,
        )  # fmt: skip

    async def _pods(self, node: str, book: Notebook) -> Sequence[Object]:
        return await book.ask(
            Source.KUBERNETES,
            f"list pods of Node {node}",
            self._cluster.list("v1", "Pod", "", field_selector=f"spec.nodeName={node}"),
            _using,
        )


def _of_node(metric: str, node: str, uuids: set[str]) -> str:
    """Write the query for a node's series, by whichever label names it, and its devices'."""
    by = [selector(metric, {label: node}) for label in NODE_LABELS]
    by += [selector(metric, {"UUID": uuid}) for uuid in sorted(uuids)]
    return " or ".join(by)


def _resolved(alerts: Sequence[Alert], node: str, pod: dict[str, str]) -> list[Alert]:
    """Give a GPU's alerts the labels of the pod that used it instead of the exporter's."""
    found: list[Alert] = []
    for alert in alerts:
        labels = alert.labels
        if about_gpu(labels):
            labels = {"alertname": alert.name, **({"node": node} if node else {}), **pod}
        found.append(alert.model_copy(update={"labels": labels}))
    return found


def _told(found: Sequence[Series]) -> tuple[Json, str]:
    """Keep of each series where it changed."""
    told: list[Json] = []
    for series in found[:50]:
        moved = [b for a, b in pairwise(series.points) if a[1] != b[1]]
        kept: list[Json] = [[round(at), value] for at, value in [*series.points[:1], *moved][:60]]
        told.append({"labels": dict(series.labels), "changes": kept})
    return told, f"{len(found)} series of GPUs"


def _lines(events: Sequence[Object]) -> tuple[Json, str]:
    told: list[Json] = [text(e, "message")[:300] for e in events if LINE.search(text(e, "message"))]
    return told, f"{len(events)} events, {len(told)} of them with an Xid"


def _using(pods: Sequence[Object]) -> tuple[Json, str]:
    told: list[Json] = [
        {"pod": f"{text(p, 'metadata', 'namespace')}/{name_of(p)}", "gpus": gpus_of(p)}
        for p in pods
        if gpus_of(p)
    ]
    return told, f"{len(pods)} pods, {len(told)} of them with GPUs"
