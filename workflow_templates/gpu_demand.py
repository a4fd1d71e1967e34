"""Which pods wait for GPUs, and how many more machines of a kind would take them. Pure.

It packs as a scheduler would at best, so it never asks for more machines than are needed. What
cannot be judged (`spare_room`) does not count as demand, nor does a preemption under way.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, cast

from tiphys.policies.model import Object
from tiphys.workflow_templates.nodes import labels_of, name_of, open_for_pods, taints_of
from tiphys.workflow_templates.pointers import at
from tiphys.workflow_templates.quantities import amount
from tiphys.workflow_templates.spare_room import HOST, Place, requests, unjudged
from tiphys.workflow_templates.workloads import controller_of

Json = dict[str, Any]
_ENDED = {"Succeeded", "Failed"}


def is_gpu(resource: str) -> bool:
    """Say whether a resource's name is that of a GPU or a part of one."""
    return "gpu" in resource.lower() or resource.startswith("nvidia.com/mig-")


def gpus(pod: Object) -> Fraction:
    """Count the GPUs that a pod asks for."""
    return sum((n for name, n in requests(pod).items() if is_gpu(name)), Fraction(0))


def waiting(pods: Sequence[Object]) -> list[Object]:
    """Give the pods that no node takes for want of GPUs, the largest first."""
    live = [pod for pod in pods if at(pod, "/status/phase") not in _ENDED]
    found = [pod for pod in live if _waits(pod) and unjudged(pod, live) is None]
    return sorted(found, key=lambda pod: (-gpus(pod), str(at(pod, "/metadata/uid"))))


def another(node: Object, pods: Sequence[Object]) -> Place:
    """Give what one more node like this would be: with its DaemonSets' pods alone."""
    labels = {k: v for k, v in labels_of(node).items() if k != HOST}
    taints = [t for t in taints_of(node) if not str(t.get("key")).startswith("node.")]
    meta, spec = cast("Json", node["metadata"]), cast("Json", node.get("spec") or {})
    like = {
        **node,
        "metadata": {**meta, "labels": labels, "name": ""},
        "spec": {**spec, "taints": taints},
    }
    return Place(cast("Object", like), [p for p in _on(node, pods) if of_daemon_set(p)])


def machines_needed(like: Object, nodes: Sequence[Object], pods: Sequence[Object]) -> int:
    """Count the machines like this node's that would take the pods that wait for GPUs.

    Pods for which there is room on the nodes that there are do not count. Raises `UnjudgedError`
    and `NotAQuantityError`.
    """
    present = [Place(node, _on(node, pods)) for node in nodes if open_for_pods(node)]
    new: list[Place] = []
    for pod in waiting(pods):
        if _put(pod, [*present, *new]):
            continue
        fresh = another(like, pods)
        if _put(pod, [fresh]):
            new.append(fresh)
    return len(new)


def has_gpus(node: Object) -> bool:
    """Say whether a node offers GPUs, as its device plugin tells."""
    room = cast("Json", at(node, "/status/allocatable") or {})
    return any(is_gpu(name) and amount(value) > 0 for name, value in room.items())


def busy(node: Object, pods: Sequence[Object]) -> list[Object]:
    """Give a node's pods that have not ended and are not a DaemonSet's or the node's own."""
    mirror = "/metadata/annotations/kubernetes.io~1config.mirror"
    return [p for p in _on(node, pods) if not of_daemon_set(p) and at(p, mirror) is None]


def of_daemon_set(pod: Object) -> bool:
    """Say whether a DaemonSet brought a pod to its node."""
    return (controller_of(pod) or {}).get("kind") == "DaemonSet"


def _put(pod: Object, places: Sequence[Place]) -> bool:
    for place in places:
        if place.takes(pod):
            place.add(pod)
            return True
    return False


def _waits(pod: Object) -> bool:
    if at(pod, "/spec/nodeName"):
        return False
    if at(pod, "/metadata/deletionTimestamp") or at(pod, "/status/nominatedNodeName"):
        return False
    conditions = cast("list[Json]", at(pod, "/status/conditions") or [])
    said = [c for c in conditions if c.get("type") == "PodScheduled"]
    wanting = [f"Insufficient {name}" for name in requests(pod) if is_gpu(name)]
    return any(
        c.get("reason") == "Unschedulable" and any(w in str(c.get("message")) for w in wanting)
        for c in said
    )


def _on(node: Object, pods: Sequence[Object]) -> list[Object]:
    here = [pod for pod in pods if at(pod, "/spec/nodeName") == name_of(node)]
    return [pod for pod in here if at(pod, "/status/phase") not in _ENDED]
