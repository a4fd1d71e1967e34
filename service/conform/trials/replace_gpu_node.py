"""replace-gpu-node, tried on one of two machines of a pool."""

from tiphys.service.conform import pools
from tiphys.service.conform.machine_readings import GOES, STAYS
from tiphys.service.conform.played_nodes import placed, play
from tiphys.service.conform.snapshot import STAGE
from tiphys.service.conform.trial import Stage, Trial
from tiphys.service.conform.wire import Json, place, place_of
from tiphys.service.conform.workloads import container, deployment, settled, template
from tiphys.workflow_templates.nodes import OPT_IN

_PAUSED = "cluster.x-k8s.io/paused"
_LOST = [79]
"""Xid 79: the GPU has fallen off the bus."""


def _build(stage: Stage) -> Json:
    """Let a node of the pool opt in; the stage looks at it, too."""
    pool = pools.made(stage.world, pools.gpu_pool(stage.namespace, 2))
    node = pools.nodes(stage.world, pool)[0]
    labels = {OPT_IN: "enabled", STAGE: stage.namespace}
    return _patch(stage, node, {"metadata": {"labels": labels}})


def _busy(stage: Stage) -> Json:
    """Let two pods run on it, and another node, which comes later, have room for them."""
    target = _build(stage)
    pods = placed(stage, template("cart", container(stage.world)))
    pods["spec"]["tolerations"].append(pools.TOLERATED)
    made = stage.wire.create(deployment(stage.namespace, pods, 2))

    def bound() -> int:
        return sum("nodeName" in pod["spec"] for pod in stage.objects("v1", "Pod"))

    stage.world.until("its pods are bound", bound, lambda now: now == 2)
    play(stage, "spare")
    settled(stage.world, place_of(made))
    return {**target, **stage.wire.get(place_of(target))}


def _patch(stage: Stage, obj: Json, body: Json, part: str = "") -> Json:
    named = {"apiVersion": obj["apiVersion"], "kind": obj["kind"]}
    return {**named, **stage.wire.patch(place_of(obj) + part, body)}


def _pool(stage: Stage) -> Json:
    return stage.objects(*pools.POOL)[0]


def _machine(stage: Stage, target: Json) -> Json:
    name = target["metadata"]["annotations"]["cluster.x-k8s.io/machine"]
    return {"apiVersion": pools.MACHINE[0], "kind": pools.MACHINE[1],
            **stage.wire.get(stage.place(*pools.MACHINE, name))}  # fmt: skip


# --- what may come in between ---------------------------------------------------------------------


def _paused(stage: Stage, target: Json) -> None:
    del target
    _patch(stage, _pool(stage), {"metadata": {"annotations": {_PAUSED: ""}}})


def _hands_off(stage: Stage, target: Json) -> None:
    notes = {"tiphys.io/hands-off": "the vendor looks at it"}
    _patch(stage, _machine(stage, target), {"metadata": {"annotations": notes}})


def _another_is_replaced(stage: Stage, target: Json) -> None:
    """Let another machine go while the cloud has none to spare."""
    pool, own = _pool(stage), target["metadata"]["name"]
    pools.exhausted(stage.world, pool, 1)
    others = [m for m in pools.machines(stage.world, pool) if m["metadata"]["name"] != own]
    stage.wire.delete(place_of(others[0]))

    def less(found: Json) -> bool:
        return found["status"]["readyReplicas"] < 2

    stage.world.until("it is gone", lambda: stage.wire.get(place_of(pool)), less)


def _another_is_closed(stage: Stage, target: Json) -> None:
    own = target["metadata"]["name"]
    every = pools.nodes(stage.world, _pool(stage))
    [other] = [node for node in every if node["metadata"]["name"] != own]
    _patch(stage, other, {"spec": {"unschedulable": True}})


def _counted_out(stage: Stage, target: Json) -> None:
    del target
    meta = {"name": "machines", "namespace": stage.namespace}
    quota: Json = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta}
    stage.wire.create({**quota, "spec": {"hard": {"count/machines.cluster.x-k8s.io": "2"}}})


def _handed_to_health_check(stage: Stage, target: Json) -> None:
    machine = _machine(stage, target)
    told = {"type": "OwnerRemediated", "status": "False", "reason": "WaitingForRemediation",
            "message": "its owner is to replace it",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}  # fmt: skip
    conditions = [*machine["status"].get("conditions", []), told]
    _patch(stage, machine, {"status": {"conditions": conditions}}, "/status")


def _rebooted(stage: Stage, target: Json) -> None:
    info = target["status"].get("nodeInfo") or {}
    fresh = {**_EMPTY_INFO, **info, "bootID": "5a0e2f4c-6f5d-4a0c-9d53-0d3f3c1b7a11"}
    _patch(stage, target, {"status": {"nodeInfo": fresh}}, "/status")


_EMPTY_INFO = dict.fromkeys(
    ("architecture", "containerRuntimeVersion", "kernelVersion", "kubeProxyVersion",
     "kubeletVersion", "machineID", "operatingSystem", "osImage", "systemUUID"), "",
)  # fmt: skip


def _closed_by_hand(stage: Stage, target: Json) -> None:
    _patch(stage, target, {"spec": {"unschedulable": True}})


def _node_opted_out(stage: Stage, target: Json) -> None:
    _patch(stage, target, {"metadata": {"labels": {OPT_IN: None}}})


def _space_opted_out(stage: Stage, target: Json) -> None:
    del target
    path = place("v1", "Namespace", "", stage.namespace)
    stage.wire.patch(path, {"metadata": {"labels": {OPT_IN: None}}})


def _without_controller(stage: Stage, target: Json) -> None:
    pools.gpu_pod(stage.world, _pool(stage), name="alone", node=target["metadata"]["name"])


def _none_left(stage: Stage, target: Json) -> None:
    """Let the cloud have no machine in place of the one that goes."""
    del target
    pools.exhausted(stage.world, _pool(stage), 1)


TRIAL = Trial(
    action="replace-gpu-node",
    build=_build,
    also={"pods run on the node": _busy},
    parameters={"device": "0000:3b:00", "xids": _LOST},
    violations={
        "its pool is paused": _paused,
        "its machine is to be left alone": _hands_off,
        "another machine of the pool is on its way": _another_is_replaced,
        "another node of the pool is closed": _another_is_closed,
        "a quota leaves no room for another machine": _counted_out,
        "a health check deals with the machine": _handed_to_health_check,
        "the node has rebooted": _rebooted,
        "somebody has closed the node": _closed_by_hand,
        "the node has opted out": _node_opted_out,
        "the machine's namespace has opted out": _space_opted_out,
        "a pod has no controller": _without_controller,
    },
    spoil=_none_left,
    unplannable=STAYS,
    plannable=GOES,
)
