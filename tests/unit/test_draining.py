"""Which pods a drain names, and each reason for which it is refused instead. Pure."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from tiphys.policies.model import Change
from tiphys.workflow_templates.action import NotApplicableError
from tiphys.workflow_templates.catalogue import find
from tiphys.workflow_templates.cordon_drain_node import patch_of
from tiphys.workflow_templates.evictable import HANDS_OFF

Obj = dict[str, Any]
ACTION = find("cordon-drain-node")
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
OPTED_IN = {"tiphys.io/heal": "enabled"}


def node(name: str, cpu: str = "4", **spec: Any) -> Obj:
    room = {"cpu": cpu, "memory": "8Gi", "pods": "10", "nvidia.com/gpu": "0"}
    return {
        "metadata": {
            "name": name,
            "uid": f"u-{name}",
            "labels": {**OPTED_IN, "kubernetes.io/hostname": name, "pool": "a"},
        },
        "spec": spec,
        "status": {"allocatable": room, "conditions": [{"type": "Ready", "status": "True"}]},
    }


def owner(kind: str, name: str) -> Obj:
    version = "batch/v1" if kind == "Job" else "apps/v1"
    made = {"apiVersion": version, "kind": kind, "name": name, "uid": f"u-{name}"}
    return {**made, "controller": True}


def pod(name: str, where: str = "n1", kind: str = "ReplicaSet", cpu: str = "1", **spec: Any) -> Obj:
    return {
        "metadata": {
            "name": name,
            "namespace": "shop",
            "uid": f"u-{name}",
            "labels": {"app": "cart"},
            "annotations": {},
            "ownerReferences": [owner(kind, f"cart-{kind}")],
        },
        "spec": {
            "nodeName": where,
            "containers": [{"name": "main", "resources": {"requests": {"cpu": cpu}}}],
            **spec,
        },
        "status": {"phase": "Running"},
    }


def owned(kind: str, **spec: Any) -> Obj:
    name = f"cart-{kind}"
    return {"metadata": {"name": name, "uid": f"u-{name}"}, "spec": {"replicas": 2, **spec}}


def cluster() -> dict[str, list[Obj]]:
    return {
        "Node": [node("n1"), node("n2"), node("n3")],
        "Pod": [pod("a"), pod("b"), pod("c", "n2")],
        "Namespace": [
            {"metadata": {"name": "shop", "labels": OPTED_IN}},
            {"metadata": {"name": "bank"}},
        ],
        "ReplicaSet": [owned("ReplicaSet")],
        "StatefulSet": [owned("StatefulSet")],
        "Job": [owned("Job", backoffLimit=3)],
        "PodDisruptionBudget": [],
    }


def plan(have: dict[str, list[Obj]]) -> tuple[Change, ...]:
    return ACTION.changes(have["Node"][0], have, ACTION.parameters())


def going(have: dict[str, list[Obj]]) -> list[str]:
    return [change.of.name for change in plan(have) if change.of]


def test_it_names_the_field_and_each_pod() -> None:
    first, *pods = plan(cluster())
    assert (first.of, first.path, first.present, first.intended) == (
        None, "/spec/unschedulable", None, True,
    )  # fmt: skip
    assert [(str(one.of), one.path, one.intended) for one in pods] == [
        ("Pod shop/a", "", None), ("Pod shop/b", "", None),
    ]  # fmt: skip
    assert pods[0].of is not None
    assert pods[0].of.uid == "u-a"
    assert pods[0].present == {
        "owner": {"kind": "ReplicaSet", "name": "cart-ReplicaSet", "uid": "u-cart-ReplicaSet"}
    }


STAYS: dict[str, Callable[[Obj], None]] = {
    "it ended well": lambda one: one["status"].update(phase="Succeeded"),
    "it failed": lambda one: one["status"].update(phase="Failed"),
    "it is about to end": lambda one: one["metadata"].update(deletionTimestamp="2026-01-01"),
    "a DaemonSet's": lambda one: one["metadata"].update(ownerReferences=[owner("DaemonSet", "d")]),
    "a static pod's mirror": lambda one: one["metadata"]["annotations"].update(
        {"kubernetes.io/config.mirror": "x"}
    ),
}


@pytest.mark.parametrize("name", STAYS)
def test_a_drain_leaves_it_where_it_is(name: str) -> None:
    have = cluster()
    STAYS[name](have["Pod"][0])
    assert going(have) == ["b"]


def budget(**status: Any) -> Obj:
    return {
        "metadata": {"name": "guard", "namespace": "shop", "generation": 1},
        "spec": {"selector": {"matchLabels": {"app": "cart"}}},
        "status": {"observedGeneration": 1, "disruptionsAllowed": 1, **status},
    }


def _space(have: dict[str, list[Obj]]) -> None:
    have["Pod"][0]["metadata"]["namespace"] = "bank"


def _annotated(where: str, key: str, value: str) -> Callable[[dict[str, list[Obj]]], None]:
    def change(have: dict[str, list[Obj]]) -> None:
        have[where][0]["metadata"].setdefault("annotations", {})[key] = value

    return change


def _spec(**spec: Any) -> Callable[[dict[str, list[Obj]]], None]:
    return lambda have: have["Pod"][0]["spec"].update(spec)


def _node(**spec: Any) -> Callable[[dict[str, list[Obj]]], None]:
    return lambda have: have["Node"][0]["spec"].update(spec)


def _others(change: Callable[[Obj], Any]) -> Callable[[dict[str, list[Obj]]], None]:
    def every(have: dict[str, list[Obj]]) -> None:
        for one in have["Node"][1:]:
            change(one)

    return every


def _job(**fields: Any) -> Callable[[dict[str, list[Obj]]], None]:
    def change(have: dict[str, list[Obj]]) -> None:
        have["Pod"][0] = pod("a", kind="Job")
        have["Job"][0].update(fields)

    return change


def _of(kind: str, version: str) -> Callable[[dict[str, list[Obj]]], None]:
    reference = {**owner("ReplicaSet", "x"), "kind": kind, "apiVersion": version}
    return lambda have: have["Pod"][0]["metadata"].update(ownerReferences=[reference])


def _anti(**term: Any) -> Obj:
    selector = {"matchLabels": {"app": "cart"}}
    full = {"labelSelector": selector, "topologyKey": "kubernetes.io/hostname", **term}
    return {"podAntiAffinity": {REQUIRED: [full]}}


REFUSED: dict[str, tuple[str, Callable[[dict[str, list[Obj]]], Any]]] = {
    "the node did not opt in": (
        "did not opt in", lambda have: have["Node"][0]["metadata"].update(labels={})
    ),
    "a control plane's node": (
        "control plane",
        lambda have: have["Node"][0]["metadata"]["labels"].update(
            {"node-role.kubernetes.io/control-plane": ""}
        ),
    ),
    "a control plane's taint": (
        "control plane",
        _node(taints=[{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]),
    ),
    "closed already": ("closed the node already", _node(unschedulable=True)),
    "the kubelet is silent": (
        "kubelet does not answer",
        lambda have: have["Node"][0]["status"].update(conditions=[]),
    ),
    "the node is going": (
        "being removed",
        lambda have: have["Node"][0]["metadata"].update(deletionTimestamp="2026-01-01"),
    ),
    "no controller": (
        "no controller", lambda have: have["Pod"][0]["metadata"].update(ownerReferences=[])
    ),
    "an unknown controller": ("nothing is known", _of("PyTorchJob", "kubeflow.org/v1")),
    "a kind of that name elsewhere": ("nothing is known", _of("Job", "batch.volcano.sh/v1alpha1")),
    "the owner is gone": ("is gone", lambda have: have["ReplicaSet"].clear()),
    "the owner wants none": ("wants none", lambda have: have["ReplicaSet"][0]["spec"].update(
        replicas=0)),
    "a Job that would fail": (
        "would fail with it", _job(status={"failed": 3})
    ),
    "another namespace": ("did not opt in", _space),
    "hands off the pod": ("left alone", _annotated("Pod", HANDS_OFF, "ours")),
    "hands off the owner": ("left alone", _annotated("ReplicaSet", HANDS_OFF, "")),
    "hands off the namespace": ("left alone", _annotated("Namespace", HANDS_OFF, "")),
    "not to be moved": (
        "safe-to-evict",
        _annotated("Pod", "cluster-autoscaler.kubernetes.io/safe-to-evict", "false"),
    ),
    "a claim": ("volume claim", _spec(volumes=[{"name": "d", "persistentVolumeClaim": {}}])),
    "the node's folder": ("folder of its node", _spec(volumes=[{"name": "d", "hostPath": {}}])),
    "a budget": (
        "guard allows no disruption",
        lambda have: have["PodDisruptionBudget"].append(budget(disruptionsAllowed=0)),
    ),
    "a budget not looked at yet": (
        "guard allows no disruption",
        lambda have: have["PodDisruptionBudget"].append(budget(observedGeneration=0)),
    ),
    "two budgets": (
        "two PodDisruptionBudgets",
        lambda have: have["PodDisruptionBudget"].extend([budget(), budget()]),
    ),
    "the last node": ("last node", _others(lambda one: one["spec"].update(unschedulable=True))),
    "others are not ready": ("last node", _others(lambda one: one["status"].update(conditions=[]))),
    "no processors": (
        "no other node surely has room",
        _others(lambda one: one["status"]["allocatable"].update(cpu="1")),
    ),
    "no GPU": (
        "no other node surely has room",
        lambda have: have["Pod"][0]["spec"]["containers"][0].update(
            resources={"limits": {"nvidia.com/gpu": "1"}}
        ),
    ),
    "a device that others do not have": (
        "no other node surely has room",
        lambda have: have["Pod"][0]["spec"]["containers"][0].update(
            resources={"limits": {"example.com/nic": "1"}}
        ),
    ),
    "no place for pods": (
        "no other node surely has room",
        _others(lambda one: one["status"]["allocatable"].update(pods="1")),
    ),
    "a selector": ("no other node surely has room", _spec(nodeSelector={"pool": "b"})),
    "an affinity": (
        "no other node surely has room",
        _spec(affinity={"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "pool", "operator": "NotIn", "values": ["a"]}]}]}}}),
    ),
    "an affinity by name": (
        "no other node surely has room",
        _spec(affinity={"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [
            {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]}}}),
    ),
    "a taint": (
        "no other node surely has room",
        _others(lambda one: one["spec"].update(taints=[{"key": "k", "effect": "NoSchedule"}])),
    ),
    "a taint tolerated for a while": (
        "no other node surely has room",
        lambda have: (
            _others(lambda one: one["spec"].update(taints=[{"key": "k", "effect": "NoExecute"}]))(
                have
            ),
            _spec(tolerations=[{"operator": "Exists", "tolerationSeconds": 300}])(have),
        ),
    ),
    "another's pod there": (
        "no other node surely has room",
        lambda have: (
            have["Node"].pop(),
            _spec(affinity=_anti())(have),
        ),
    ),
    "a pod there that wants none beside it": (
        "no other node surely has room",
        lambda have: (have["Node"].pop(), have["Pod"][2]["spec"].update(affinity=_anti())),
    ),
    "away by zone": ("more than the host", _spec(affinity=_anti(topologyKey="zone"))),
    "kept off by zone": (
        "kept off by",
        lambda have: have["Pod"][2]["spec"].update(affinity=_anti(topologyKey="zone")),
    ),
    "near another": ("near another pod", _spec(affinity={"podAffinity": {REQUIRED: [{}]}})),
    "spread": (
        "spread evenly", _spec(topologySpreadConstraints=[{"whenUnsatisfiable": "DoNotSchedule"}])
    ),
    "a scheduler of its own": ("scheduler of its own", _spec(schedulerName="volcano")),
    "a claimed device": ("claims a device", _spec(resourceClaims=[{"name": "gpu"}])),
    "a port of the node": (
        "port of its node",
        lambda have: have["Pod"][0]["spec"]["containers"][0].update(ports=[{"hostPort": 80}]),
    ),
    "an unreadable size": (
        "cannot be judged",
        lambda have: have["Pod"][0]["spec"]["containers"][0].update(
            resources={"requests": {"cpu": "much"}}
        ),
    ),
    "more than a plan can name": (
        "more than one plan",
        lambda have: (
            have["Pod"].extend(pod(f"{'p' * 40}-{n}", cpu="1m") for n in range(60)),
            _others(lambda one: one["status"]["allocatable"].update(pods="200"))(have),
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused(name: str) -> None:
    words, change = REFUSED[name]
    have = cluster()
    change(have)
    with pytest.raises(NotApplicableError, match=words):
        plan(have)


FINE: dict[str, Callable[[dict[str, list[Obj]]], Any]] = {
    "a budget with room": lambda have: have["PodDisruptionBudget"].append(budget()),
    "another's budget": lambda have: have["PodDisruptionBudget"].append(
        {**budget(disruptionsAllowed=0), "spec": {"selector": {"matchLabels": {"app": "x"}}}}
    ),
    "a Job that may fail once more": _job(status={"failed": 2}),
    "a selector that fits": _spec(nodeSelector={"pool": "a"}),
    "a tolerated taint": lambda have: (
        _others(lambda one: one["spec"].update(taints=[{"key": "k", "effect": "NoSchedule"}]))(
            have
        ),
        [p["spec"].update(tolerations=[{"key": "k", "operator": "Exists"}]) for p in have["Pod"]],
    ),
    "a taint that only prefers": _others(
        lambda one: one["spec"].update(taints=[{"key": "k", "effect": "PreferNoSchedule"}])
    ),
    "away by host, with a free node": lambda have: have["Pod"][0]["spec"].update(affinity=_anti()),
    "an empty folder": _spec(volumes=[{"name": "d", "emptyDir": {}}]),
    "spread as it can be": _spec(
        topologySpreadConstraints=[{"whenUnsatisfiable": "ScheduleAnyway"}]
    ),
}


@pytest.mark.parametrize("name", FINE)
def test_it_is_planned(name: str) -> None:
    have = cluster()
    FINE[name](have)
    assert going(have) == ["a", "b"]


def test_pods_that_wait_for_room_have_it_first() -> None:
    have = cluster()
    have["Node"].pop()
    waiting = pod("w", cpu="2")
    del waiting["spec"]["nodeName"]
    assert going(deepcopy(have)) == ["a", "b"]
    have["Pod"].append(waiting)
    with pytest.raises(NotApplicableError, match="room"):
        plan(have)


def test_init_containers_and_sidecars_count() -> None:
    from tiphys.workflow_templates.spare_room import requests

    one = pod("a")
    one["spec"]["initContainers"] = [
        {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "500m"}}},
        {"name": "i", "resources": {"requests": {"cpu": "3"}}},
    ]
    one["spec"]["overhead"] = {"cpu": "250m"}
    assert float(requests(one)["cpu"]) == 3.75
    assert float(requests(one)["pods"]) == 1


def test_who_annotates_the_node_meanwhile_is_not_overwritten() -> None:
    """Of a node without annotations the patch makes the first, and holds that there are none."""
    values = [("/spec/unschedulable", None, True)]
    every, own = "/metadata/annotations", "/metadata/annotations/tiphys.io~1run"
    assert [one for one in patch_of(node("n1"), values, "d.act") if _notes(one)] == [
        {"op": "test", "path": every, "value": None},
        {"op": "add", "path": every, "value": {}},
        {"op": "add", "path": own, "value": "d.act"},
    ]
    noted = node("n1")
    noted["metadata"]["annotations"] = {"team": "shop"}
    assert [one for one in patch_of(noted, values, "d.act") if _notes(one)] == [
        {"op": "test", "path": own, "value": None},
        {"op": "add", "path": own, "value": "d.act"},
    ]


def _notes(operation: Any) -> bool:
    return "annotations" in operation["path"]
