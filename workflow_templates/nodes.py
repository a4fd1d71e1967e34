"""What a node says of itself: ready, open for pods, opted in, whose it is. Pure."""

from typing import Any, cast

from tiphys.policies.model import Object
from tiphys.workflow_templates.pointers import at, escape

OPT_IN = "tiphys.io/heal"
"""The label, with the value `enabled`, of what opted in: a namespace, or a node."""
CONTROL_PLANE = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")
"""Labels of nodes that bear the control plane, whatever their value.

https://kubernetes.io/docs/reference/labels-annotations-taints/#node-role-kubernetes-io-control-plane
"""
UNSCHEDULABLE = "/spec/unschedulable"

Json = dict[str, Any]


def name_of(obj: Object) -> str:
    """Give an object's name."""
    return str(at(obj, "/metadata/name"))


def labels_of(obj: Object) -> dict[str, str]:
    """Give an object's labels."""
    return cast("dict[str, str]", at(obj, "/metadata/labels") or {})


def note_of(obj: Object, key: str) -> str | None:
    """Give an annotation; None without it."""
    found = at(obj, f"/metadata/annotations/{escape(key)}")
    return None if found is None else str(found)


def opted_in(obj: Object) -> bool:
    """Whether people said that this namespace or node may be healed."""
    return labels_of(obj).get(OPT_IN) == "enabled"


def cordoned(node: Object) -> bool:
    """Whether no new pod is put on a node."""
    return at(node, UNSCHEDULABLE) is True


def ready(node: Object) -> bool:
    """Whether a node's kubelet answers and can run pods."""
    found = cast("list[Json]", at(node, "/status/conditions") or [])
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in found)


def bears_control_plane(node: Object) -> bool:
    """Whether a node runs the cluster itself."""
    taints = {str(taint.get("key")) for taint in taints_of(node)}
    return bool({*CONTROL_PLANE} & ({*labels_of(node)} | taints))


def taints_of(node: Object) -> list[Json]:
    """Give a node's taints."""
    return cast("list[Json]", at(node, "/spec/taints") or [])


def open_for_pods(node: Object) -> bool:
    """Whether the scheduler may put pods here at all, taints aside."""
    leaving = at(node, "/metadata/deletionTimestamp")
    return ready(node) and not cordoned(node) and not leaving
