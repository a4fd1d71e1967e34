"""A cluster of two tenants in memory, for tests that put hostile text into every place of it.

Beside the tests, as `exported`: two folders use it. It keeps to namespaces and selectors, as the
API does, so that what a test reads in another's namespace is really read there.
"""
# ruff: noqa: ARG002 - the ports' signatures

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tiphys.agents.graph import Agents
from tiphys.agents.playbooks import Playbooks
from tiphys.agents.ports import AlertRule, Case, Reasoner, Sample, Series
from tiphys.policies.model import Alert, AlertFacts, Object

NOW = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
PLAYBOOKS = Playbooks.load()
EXPRESSION = "sum by (namespace, pod) (kube_pod_status_ready == 0) > 0"
WEDGED = "cart-abc12-bbbbb"
Obj = dict[str, Any]


def ago(minutes: float) -> str:
    """Give a time before now as Kubernetes writes it."""
    return (NOW - timedelta(minutes=minutes)).isoformat().replace("+00:00", "Z")


def owned(kind: str, name: str, uid: str, api: str = "apps/v1") -> Obj:
    """Give a reference to a controller."""
    return {"apiVersion": api, "kind": kind, "name": name, "uid": uid, "controller": True}


def _meta(namespace: str, name: str, owner: Obj | None = None, **more: Any) -> Obj:
    owners = {"ownerReferences": [owner]} if owner else {}
    place = {"namespace": namespace} if namespace else {}
    uid = f"uid-{namespace}-{name}"
    return {"name": name, "uid": uid, "creationTimestamp": ago(600), **place, **owners, **more}


def pod(namespace: str, name: str, owner: Obj, *, ready: bool) -> Obj:
    """Give a pod that serves, or whose process runs and does not."""
    running = {"name": "app", "ready": ready, "restartCount": 0, "image": "x:1",
               "state": {"running": {"startedAt": ago(600)}}}  # fmt: skip
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": _meta(namespace, name, owner, labels={"app": name.split("-", maxsplit=1)[0]}),
        "spec": {
            "nodeName": "n1" if namespace == "shop" else "n2",
            "containers": [{"name": "app", "image": "x:1"}],
        },
        "status": {
            "phase": "Running",
            "startTime": ago(600),
            "conditions": [{"type": "Ready", "status": str(ready), "lastTransitionTime": ago(30)}],
            "containerStatuses": [running],
        },
    }


def tenant(namespace: str, app: str, *, wedged: bool) -> list[Obj]:
    """Give a namespace with a Deployment of two pods, one of which may be wedged."""
    template = {"spec": {"containers": [{"name": "app", "image": "x:1"}]}}
    replicaset = f"{app}-abc12"
    ready = 2 - wedged
    deployment = _meta(namespace, app, generation=1)
    owner = owned("ReplicaSet", replicaset, f"uid-{namespace}-{replicaset}")
    return [
        {"apiVersion": "v1", "kind": "Namespace",
         "metadata": _meta("", namespace, labels={"tiphys.io/heal": "enabled"})},
        {
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": deployment,
            "spec": {"replicas": 2, "selector": {"matchLabels": {"app": app}},
                     "template": template},
            "status": {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2,
                       "readyReplicas": ready, "availableReplicas": ready,
                       "conditions": [{"type": "Progressing", "status": "True",
                                       "reason": "NewReplicaSetAvailable"}]},
        },
        {
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": _meta(namespace, replicaset,
                              owned("Deployment", app, str(deployment["uid"])),
                              annotations={"deployment.kubernetes.io/revision": "1"}),
            "spec": {"replicas": 2, "template": template}, "status": {"replicas": 2},
        },
        pod(namespace, f"{replicaset}-aaaaa", owner, ready=True),
        pod(namespace, f"{replicaset}-bbbbb", owner, ready=not wedged),
    ]  # fmt: skip


def node(name: str) -> Obj:
    """Give a healthy node that opted in."""
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady"}
    room = {"cpu": "64", "memory": "256Gi", "pods": "110"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": _meta("", name, labels={"tiphys.io/heal": "enabled"}),
        "spec": {},
        "status": {"conditions": [ready], "allocatable": room},
    }


def two_tenants() -> list[Obj]:
    """Give `shop`, one of whose pods is wedged, and `bank`, which is well."""
    shop, bank = tenant("shop", "cart", wedged=True), tenant("bank", "vault", wedged=False)
    return [*shop, *bank, node("n1"), node("n2")]


@dataclass
class Cluster:
    """The reader's port over objects in memory."""

    objects: list[Obj] = field(default_factory=two_tenants)
    log: str = "waiting for the lock"

    def find(self, kind: str, name: str) -> Obj:
        """Give one object, to be changed."""
        return next(o for o in self.objects if o["kind"] == kind and o["metadata"]["name"] == name)

    async def get(self, api_version: str, kind: str, namespace: str, name: str) -> Object | None:
        """Read one object in its namespace."""
        for one in self._of(kind, namespace):
            if one["metadata"]["name"] == name:
                return copy.deepcopy(one)
        return None

    async def list(
        self,
        api_version: str,
        kind: str,
        namespace: str,
        label_selector: str = "",
        field_selector: str = "",
    ) -> Sequence[Object]:
        """List by namespace, labels and fields."""
        labels = dict(term.split("=", 1) for term in label_selector.split(",") if term)
        fields = [term.split("=", 1) for term in field_selector.split(",") if term]
        return [
            copy.deepcopy(one)
            for one in self._of(kind, namespace)
            if labels.items() <= one["metadata"].get("labels", {}).items()
            and all(_at(one, path) == value for path, value in fields)
        ]

    async def logs(
        self, namespace: str, pod: str, container: str, *, previous: bool, tail_lines: int
    ) -> str:
        """Give the log of every pod."""
        return self.log

    def _of(self, kind: str, namespace: str) -> Sequence[Obj]:
        same = (o for o in self.objects if o["kind"] == kind)
        return [o for o in same if namespace in {"", o["metadata"].get("namespace", "")}]


def _at(thing: Any, path: str) -> Any:
    for key in path.split("."):
        thing = thing.get(key) if isinstance(thing, dict) else None
    return thing


@dataclass
class Metrics:
    """One rule for every alert's name; `true` are the labels for which its expression holds."""

    true: Sequence[Mapping[str, str]] = ({"namespace": "shop", "pod": WEDGED},)
    names: Sequence[str] = ("KubePodNotReady",)
    series: Sequence[Series] = ()
    asked: list[str] = field(default_factory=list[str])

    async def instant(self, query: str, at: datetime | None = None) -> Sequence[Sample]:
        """Answer the expression, and that there is data."""
        self.asked.append(query)
        if query == EXPRESSION:
            return [Sample(labels, 0.0, 1.0) for labels in self.true]
        return [Sample({}, 0.0, 1.0)] if query.startswith("count(") else []

    async def range(
        self, query: str, start: datetime, end: datetime, step_seconds: float
    ) -> Sequence[Series]:
        """Answer with the series that were given."""
        self.asked.append(query)
        return self.series

    async def rules(self) -> Sequence[AlertRule]:
        """Give the rules."""
        return [AlertRule(name, EXPRESSION, 900, {}, 15) for name in self.names]


class Loud:
    """An Alertmanager that has every alert."""

    async def facts(self, alerts: Sequence[Alert]) -> AlertFacts:
        """Say so."""
        names = tuple(alert.name for alert in alerts)
        return AlertFacts(firing=True, silenced=False, inhibited=False, names=names, read_at=NOW)


def alert(
    name: str = "KubePodNotReady", annotations: Mapping[str, str] | None = None, **labels: str
) -> Alert:
    """Give a firing alert, of the wedged pod where nothing else is said."""
    given = {"namespace": "shop", "pod": WEDGED, "severity": "warning"} | labels
    return Alert.model_validate(
        {
            "id": "a", "cluster": "c", "fingerprint": "f", "status": "firing",
            "starts_at": NOW - timedelta(minutes=20),
            "labels": {"alertname": name, **{k: v for k, v in given.items() if v}},
            "annotations": dict(annotations or {}), "received_at": NOW,
        }
    )  # fmt: skip


def case(*alerts: Alert) -> Case:
    """Give the case of these alerts."""
    return Case("inc", 1, "c", True, "pod shop/cart", alerts or [alert()], now=NOW)


def agents(cluster: Cluster, metrics: Metrics, reasoner: Reasoner = PLAYBOOKS) -> Agents:
    """Give the agents over this world."""
    return Agents(metrics, cluster, Loud(), reasoner, PLAYBOOKS, None, lambda: NOW)
