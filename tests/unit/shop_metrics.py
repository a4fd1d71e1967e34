"""A shop whose metrics are recorded: three services that call one another, in a real PromQL engine.

The analysis agent asks it as it asks Prometheus; a test says what changed, when, and what is
missing.
"""

import asyncio
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tiphys.agents.analysis import Analysis
from tiphys.agents.ports import AlertRule, Case, Sample, Series, UnansweredError
from tiphys.policies.model import Alert, Object
from tiphys.sandbox.promql import evaluate
from tiphys.sandbox.promql_vectors import Scalar, Vector
from tiphys.sandbox.tsdb import Tsdb

NOW = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
END = NOW.timestamp()
STEP = 30.0
HOURS = 2
SERVICES = ("front", "cart", "stock")
CALLS = (("front", "cart"), ("cart", "stock"))
EXPRESSION = 'shop_slow{namespace="shop"} > 0'
Level = Callable[[float], float]
"""Minutes before now (negative: the past) to a value."""


def ago(minutes: float) -> float:
    return END - 60 * minutes


def stamp(minutes: float) -> str:
    return datetime.fromtimestamp(ago(minutes), UTC).isoformat().replace("+00:00", "Z")


def stepped(before: float, after: float, minutes: float) -> Level:
    """One level until so many minutes ago, then another."""
    return lambda at: after if at >= -minutes else before


def deployment(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "shop", "uid": f"d-{name}"},
        "spec": {"replicas": 2, "template": {"spec": {"containers": [], **spec}}},
        "status": {},
    }


def replicaset(owner: str, revision: int, minutes: float, image: str = "x:1") -> dict[str, Any]:
    return {
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{owner}-{revision}abcdef", "namespace": "shop",
            "uid": f"r-{owner}-{revision}",
            "creationTimestamp": stamp(minutes),
            "annotations": {"deployment.kubernetes.io/revision": str(revision)},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": owner,
                                 "uid": f"d-{owner}", "controller": True}],
        },
        "spec": {"template": {"spec": {"containers": [{"name": "app", "image": image}]}}},
    }  # fmt: skip


def released(owner: str, minutes: float) -> list[dict[str, Any]]:
    """Two revisions, the newer one made so many minutes ago."""
    return [replicaset(owner, 1, 5000), replicaset(owner, 2, minutes, "x:2")]


@dataclass
class Shop:
    """Both ports of the agent; `silent` says which queries are not answered."""

    objects: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    silent: Callable[[str], bool] = lambda _: False
    spoil: Callable[[str, Sequence[Series]], Sequence[Series]] = lambda _, every: every
    tsdb: Tsdb = field(default_factory=lambda: Tsdb(retention_seconds=1e9))
    asked: list[str] = field(default_factory=list[str])
    listed: list[str] = field(default_factory=list[str])
    cluster_silent: bool = False
    slow: Callable[[str], float] = lambda _: 0.0
    """Seconds that the answer to a query takes."""
    seconds: float = 600.0
    """In which everything is to be read; here the engine is Python, and slow."""
    starts: datetime = NOW - timedelta(minutes=5)
    """When the alert began."""

    def record(self, name: str, labels: Mapping[str, str], level: Level, noise: float = 0) -> None:
        """Write two hours of a series."""
        start = END - 3600 * HOURS
        rng = random.Random(f"{name}{sorted(labels.items())}")
        count = int(3600 * HOURS / STEP) + 1
        values = [
            level((start + i * STEP - END) / 60) * (1 + noise * rng.uniform(-1, 1))
            for i in range(count)
        ]
        self.tsdb.extend(name, labels, start, STEP, values)

    def counter(self, name: str, labels: Mapping[str, str], rate: Level) -> None:
        """Write a counter that grows by so much a second."""
        start = END - 3600 * HOURS
        values, total = list[float](), 0.0
        rng = random.Random(f"{name}{sorted(labels.items())}")
        for i in range(int(3600 * HOURS / STEP) + 1):
            values.append(total)
            total += rate((start + i * STEP - END) / 60) * STEP * (1 + 0.02 * rng.uniform(-1, 1))
        self.tsdb.extend(name, labels, start, STEP, values)

    def forget(self, name: str, labels: Mapping[str, str]) -> None:
        """Take away the series of a name that have these labels."""
        group = self.tsdb._by_name.get(name, {})
        for key in [key for key in group if set(labels.items()) <= set(key)]:
            del group[key]

    async def analysed(self, **labels: str) -> tuple[dict[str, Any], list[str]]:
        """Run the agent on an alert; give the facts and the notes."""
        given = {"namespace": "shop", "deployment": "front"} | labels
        alert = Alert.model_validate({
            "id": "a", "cluster": "c", "fingerprint": "f", "status": "firing",
            "starts_at": self.starts, "received_at": NOW,
            "labels": {"alertname": "Slow", **{k: v for k, v in given.items() if v}},
        })  # fmt: skip
        case = Case("i", 1, "c", True, "it", [alert])
        state = await Analysis(self, self, lambda: NOW, self.seconds).look(
            case, {"query": EXPRESSION}
        )
        self.unseen = state.get("unseen", {})
        self.evidence = state.get("evidence", {})
        facts: Any = state.get("facts", {})
        notes: Any = state.get("notes", {})
        return facts, notes["analysis"]

    # --- the ports --------------------------------------------------------------------------------

    async def range(
        self, query: str, start: datetime, end: datetime, step_seconds: float
    ) -> Sequence[Series]:
        self._heard(query)
        await asyncio.sleep(self.slow(query))
        count = math.floor((end - start).total_seconds() / step_seconds + 1e-9) + 1
        times = [round(start.timestamp() + i * step_seconds, 3) for i in range(count)]
        value = evaluate(self.tsdb, query, times)
        assert isinstance(value, Vector | Scalar)
        rows = value.rows if isinstance(value, Vector) else []
        found = [
            Series(
                r.labels, [(t, v) for t, v in zip(times, r.values, strict=True) if v is not None]
            )
            for r in rows
        ]
        return self.spoil(query, [s for s in found if s.points])

    async def instant(self, query: str, at: datetime | None = None) -> Sequence[Sample]:
        self._heard(query)
        when = (at or NOW).timestamp()
        value = evaluate(self.tsdb, query, [when])
        assert isinstance(value, Vector)
        return [Sample(r.labels, when, v) for r in value.rows if (v := r.values[0]) is not None]

    async def rules(self) -> Sequence[AlertRule]:
        return []

    def _heard(self, query: str) -> None:
        self.asked.append(query)
        if self.silent(query):
            raise UnansweredError("Prometheus did not answer: it took too long")

    async def get(self, api_version: str, kind: str, namespace: str, name: str) -> Object | None:
        raise AssertionError(f"get {api_version} {kind} {namespace} {name}: it lists only")

    async def list(
        self,
        api_version: str,
        kind: str,
        namespace: str,
        label_selector: str = "",
        field_selector: str = "",
    ) -> Sequence[Object]:
        assert (api_version, label_selector, field_selector) == ("apps/v1", "", "")
        self.listed.append(f"{kind} {namespace}")
        if self.cluster_silent:
            raise UnansweredError("Kubernetes answered 403")
        return [
            o for o in self.objects
            if o["kind"] == kind and o["metadata"]["namespace"] == namespace
        ]  # fmt: skip

    async def logs(
        self, namespace: str, pod: str, container: str, *, previous: bool, tail_lines: int
    ) -> str:
        raise AssertionError(f"logs {namespace}/{pod} {container} {previous} {tail_lines}")


def shop(
    *, slow: Mapping[str, float] | None = None, mesh: bool = True, replicasets: bool = True
) -> Shop:
    """Build it; `slow`: which services answer slowly since how many minutes ago."""
    late = slow or {}
    found = Shop(objects=[deployment(name) for name in SERVICES])
    found.objects += [replicaset(name, 1, 5000) for name in SERVICES] if replicasets else []
    for name in SERVICES:
        labels = {"namespace": "shop", "deployment": name}
        pod = {"namespace": "shop", "pod": f"{name}-1abcdef-xyz12"}
        found.record(
            "workload:http_request_duration_seconds:p95",
            labels,
            stepped(0.1, 0.9, late[name]) if name in late else lambda _: 0.1,
            0.05,
        )
        found.record(
            "kube_pod_owner",
            {**pod, "owner_kind": "ReplicaSet", "owner_name": f"{name}-1abcdef"},
            lambda _: 1,
        )
        found.record(
            "kube_pod_info",
            {
                **pod,
                "node": "n1",
                "created_by_kind": "ReplicaSet",
                "created_by_name": f"{name}-1abcdef",
            },
            lambda _: 1,
        )
        found.record(
            "kube_pod_container_resource_limits",
            {**pod, "container": "app", "resource": "cpu"},
            lambda _: 1,
        )
        found.counter(
            "container_cpu_usage_seconds_total", {**pod, "container": "app"}, lambda _: 0.3
        )
        for metric, value in (
            ("spec_replicas", 2),
            ("status_replicas_available", 2),
            ("metadata_generation", 7),
        ):
            found.record(f"kube_deployment_{metric}", labels, lambda _, v=value: v)
    for node, status in (("n1", 1), ("n2", 1)):
        found.record(
            "kube_node_status_condition",
            {"node": node, "condition": "Ready", "status": "true"},
            lambda _, v=status: v,
        )
        found.record("kube_node_spec_unschedulable", {"node": node}, lambda _: 0)
    for caller, callee in CALLS if mesh else ():
        ends = {
            "source_workload": caller,
            "source_workload_namespace": "shop",
            "destination_workload": callee,
            "destination_workload_namespace": "shop",
        }
        for reporter in ("source", "destination"):
            found.counter(
                "istio_requests_total",
                {**ends, "reporter": reporter, "response_code": "200"},
                lambda _: 20,
            )
    return found  # fmt: skip
