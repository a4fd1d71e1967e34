"""The series that the sandbox gives for a cluster, and the alerts that follow from them."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tiphys.sandbox.alert_rules import Rule, load_rules
from tiphys.sandbox.kube_metrics import samples
from tiphys.sandbox.promql import instant_vector
from tiphys.sandbox.store import Store
from tiphys.sandbox.tsdb import Tsdb

ALERTS = Path(__file__).parents[1] / "data" / "rules" / "prometheus_alerts.yaml"
RULES = {
    rule.alert: rule.expr
    for rule in load_rules(yaml.load(ALERTS.read_text(), yaml.CSafeLoader))
    if isinstance(rule, Rule)
}


def a_pod(name: str = "cart-1", **status: Any) -> dict[str, Any]:
    gpu = {"requests": {"cpu": "250m", "memory": "1Gi", "nvidia.com/gpu": "2"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "shop",
            "ownerReferences": [
                {
                    "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "cart-5d", "uid": "u1",
                    "controller": True,
                }
            ],
        },
        "spec": {
            "nodeName": "n1",
            "containers": [{"name": "app", "image": "cart:2", "resources": gpu}],
        },
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "False"}],
            **status,
        },
    }  # fmt: skip


CRASHING: dict[str, Any] = {
    "containerStatuses": [
        {
            "name": "app", "image": "cart:2", "ready": False, "restartCount": 4,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137}},
        }
    ]
}  # fmt: skip


def a_workload(kind: str, spec: dict[str, Any], status: dict[str, Any]) -> dict[str, Any]:
    group = {"Job": "batch/v1", "HorizontalPodAutoscaler": "autoscaling/v2"}
    template = {
        "metadata": {"labels": {"app": "x"}},
        "spec": {"containers": [{"name": "app", "image": "x"}]},
    }
    return {
        "apiVersion": group.get(kind, "apps/v1"),
        "kind": kind,
        "metadata": {"name": "cart", "namespace": "shop"},
        "spec": {"selector": {"matchLabels": {"app": "x"}}, "template": template, **spec},
        "status": status,
    }


def a_node(ready: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "n1", "labels": {"node-role.kubernetes.io/worker": ""}},
        "spec": spec,
        "status": {
            "conditions": [{"type": "Ready", "status": ready}],
            "allocatable": {"cpu": "4", "nvidia.com/gpu": "8"},
        },
    }


def world(*objects: dict[str, Any]) -> Tsdb:
    """Two scrapes, ten minutes and no time ago, of a cluster with these objects; now is 600."""
    store = Store()
    store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    for obj in objects:
        store.create(obj)
        if "status" in obj:
            store.update({**obj, "metadata": dict(obj["metadata"])}, subresource="status")
    tsdb = Tsdb()
    for at in range(0, 601, 15):
        tsdb.ingest("kube-state-metrics", samples(store), at)
    return tsdb


def ask(tsdb: Tsdb, query: str) -> list[float]:
    return [value for _, value in instant_vector(tsdb, query, 600)]


@pytest.mark.parametrize(
    ("query", "values"),
    [
        ('kube_pod_container_status_waiting_reason{reason="CrashLoopBackOff"}', [1]),
        ('kube_pod_container_status_restarts_total{container="app"}', [4]),
        ('kube_pod_container_status_last_terminated_reason{reason="OOMKilled"}', [1]),
        ("kube_pod_container_status_last_terminated_exitcode", [137]),
        ('kube_pod_status_phase{phase="Running"}', [1]),
        ('kube_pod_status_phase{phase="Pending"}', [0]),
        ('kube_pod_status_ready{condition="true"}', [0]),
        ('kube_pod_status_ready{condition="false"}', [1]),
        ('kube_pod_owner{owner_kind="ReplicaSet",owner_name="cart-5d"}', [1]),
        ('kube_pod_info{node="n1",created_by_kind="ReplicaSet"}', [1]),
        ('kube_pod_container_resource_requests{resource="nvidia_com_gpu",unit="integer"}', [2]),
        ('kube_pod_container_resource_requests{resource="cpu",unit="core"}', [0.25]),
        ('kube_pod_container_resource_requests{resource="memory"}', [2**30]),
        ('{__name__=~".+",job!="kube-state-metrics"}', []),
    ],
)
def test_series_of_a_pod(query: str, values: list[float]) -> None:
    assert ask(world(a_pod(**CRASHING)), query) == values


@pytest.mark.parametrize(
    ("query", "values"),
    [
        ('kube_node_status_condition{condition="Ready",status="true"}', [0]),
        ('kube_node_status_condition{condition="Ready",status="unknown"}', [1]),
        ("kube_node_spec_unschedulable", [1]),
        ('kube_node_role{role="worker"}', [1]),
        ('kube_node_status_allocatable{resource="nvidia_com_gpu"}', [8]),
    ],
)
def test_series_of_a_node(query: str, values: list[float]) -> None:
    assert ask(world(a_node("Unknown", unschedulable=True)), query) == values


HPA = {"minReplicas": 2, "maxReplicas": 5, "scaleTargetRef": {"kind": "Deployment", "name": "c"}}
FAILED = {"failed": 3, "conditions": [{"type": "Failed", "status": "True"}]}


@pytest.mark.parametrize(
    ("alert", "broken", "well"),
    [
        ("KubePodCrashLooping", a_pod(**CRASHING), a_pod()),
        ("KubePodNotReady", a_pod(), a_pod(conditions=[{"type": "Ready", "status": "True"}])),
        (
            "KubeDeploymentReplicasMismatch",
            a_workload("Deployment", {"replicas": 3}, {"replicas": 3, "availableReplicas": 1}),
            a_workload("Deployment", {"replicas": 3}, {"replicas": 3, "availableReplicas": 3}),
        ),
        (
            "KubeStatefulSetReplicasMismatch",
            a_workload("StatefulSet", {"replicas": 3}, {"replicas": 3, "readyReplicas": 1}),
            a_workload("StatefulSet", {"replicas": 3}, {"replicas": 3, "readyReplicas": 3}),
        ),
        (
            "KubeDaemonSetRolloutStuck",
            a_workload("DaemonSet", {}, {"desiredNumberScheduled": 2, "numberAvailable": 1}),
            a_workload("DaemonSet", {}, {}),
        ),
        ("KubeJobFailed", a_workload("Job", {}, FAILED), a_workload("Job", {}, {"active": 1})),
        (
            "KubeHpaMaxedOut",
            a_workload("HorizontalPodAutoscaler", HPA, {"currentReplicas": 5}),
            a_workload("HorizontalPodAutoscaler", HPA, {"currentReplicas": 3}),
        ),
        ("KubeNodeNotReady", a_node("False"), a_node("True")),
    ],
)
def test_the_alerts_of_the_mixin_follow(
    alert: str, broken: dict[str, Any], well: dict[str, Any]
) -> None:
    assert len(ask(world(broken), RULES[alert])) == 1
    assert ask(world(well), RULES[alert]) == []
