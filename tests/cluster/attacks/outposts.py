"""Nodes of the attackers' own, without a kubelet, and the pod of a run on one: pure data."""

from copy import deepcopy

from asking import Json
from garrison import OTHER_RUN, RELEASE, RUN, step_pod

ACTOR = "cordon-drain-node"
ON_NODES = (ACTOR, "replace-gpu-node")
"""The actions whose pods are kept off a node."""
OPEN, OUT, OURS, THEIRS, CLOSED, HEAD, TAINTED = (
    f"{RELEASE}-node-{name}"
    for name in ("open", "out", "ours", "theirs", "closed", "head", "tainted")
)
"""Open; not opted in; closed by this run, by another, by hand; the control plane's, by label and by
taint."""
_MARKS = {
    OURS: f"{RUN.removeprefix('tiphys-')}.act",
    THEIRS: f"{OTHER_RUN.removeprefix('tiphys-')}.act",
}
_HEAD = "node-role.kubernetes.io/control-plane"


def nodes() -> list[Json]:
    """Give them; no pod is ever put there."""
    return [_node(name) for name in (OPEN, OUT, OURS, THEIRS, CLOSED, HEAD, TAINTED)]


def _node(name: str) -> Json:
    labels = {"tiphys.io/attack": "node"}
    labels |= {} if name == OUT else {"tiphys.io/heal": "enabled"}
    labels |= {_HEAD: ""} if name == HEAD else {}
    taints = [{"key": "tiphys.io/no-kubelet", "effect": "NoSchedule"}]
    taints += [{"key": _HEAD, "effect": "NoSchedule"}] if name == TAINTED else []
    closed = {"unschedulable": True} if name in {OURS, THEIRS, CLOSED} else {}
    mark = {"tiphys.io/run": _MARKS[name]} if name in _MARKS else {}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels, "annotations": {"team": "shop", **mark}},
        "spec": {"taints": taints, **closed},
    }


def run_pod(name: str, number: int, run: str = RUN) -> Json:
    """Give the pod of a run of whatever action."""
    return node_pod(number, run, name) if name in ON_NODES else step_pod(name, number, run)


def node_pod(number: int = 109, run: str = RUN, name: str = ACTOR) -> Json:
    """Give the pod of a run that acts on the open node: it may run on any other."""
    made = deepcopy(step_pod(name, number, run))
    apart = {"key": "metadata.name", "operator": "NotIn", "values": [OPEN]}
    required = {"nodeSelectorTerms": [{"matchFields": [apart]}]}
    kind = "requiredDuringSchedulingIgnoredDuringExecution"
    made["spec"]["affinity"] = {"nodeAffinity": {kind: required}}
    main = made["spec"]["containers"][1]
    given = {"TIPHYS_PLAN": "cGxhbg", "TIPHYS_NODE": OPEN}
    main["env"] = [*main["env"], *({"name": k, "value": v} for k, v in given.items())]
    return made
