"""What may have been read of a GPU node's machine and pool: changes that a trial plans on."""

from collections.abc import Callable
from copy import deepcopy

from tiphys.service.conform.planner import Edit, Json, Related
from tiphys.workflow_templates.mark import ANNOTATION
from tiphys.workflow_templates.nodes import CONTROL_PLANE

Which = Callable[[Json, Related], Json]
"""Finds one of the objects that were read."""
_GROUP = "cluster.x-k8s.io"
_NAMED, _PLACED = f"{_GROUP}/machine", f"{_GROUP}/cluster-namespace"
_GPU = "nvidia.com/gpu"
_NOW = "2026-01-01T00:00:00Z"


def put(which: Which, *keys: str, to: object) -> Edit:
    """Set what these keys lead to; None takes it away."""

    def edit(target: Json, related: Related) -> None:
        found = which(target, related)
        for key in keys[:-1]:
            found = found.setdefault(key, {})
        found[keys[-1]] = to
        if to is None:
            del found[keys[-1]]

    return edit


def each(*edits: Edit) -> Edit:
    """Make several changes."""

    def edit(target: Json, related: Related) -> None:
        for one in edits:
            one(target, related)

    return edit


# --- finding --------------------------------------------------------------------------------------


def _node(target: Json, related: Related) -> Json:
    del related
    return target


def _machine(target: Json, related: Related) -> Json:
    """Give the node's machine."""
    notes = target["metadata"]["annotations"]
    [found] = [one for one in related["Machine"] if _place(one) == (notes[_PLACED], notes[_NAMED])]
    return found


def _place(obj: Json) -> tuple[str, str]:
    return obj["metadata"]["namespace"], obj["metadata"]["name"]


def _set(target: Json, related: Related) -> Json:
    """Give the MachineSet of the node's machine."""
    return _owner(_machine(target, related), related["MachineSet"])


def _pool(target: Json, related: Related) -> Json:
    """Give the MachineDeployment of the node's machine."""
    return _owner(_set(target, related), related["MachineDeployment"])


def _owner(obj: Json, candidates: list[Json]) -> Json:
    uid = _reference(obj)["uid"]
    [found] = [one for one in candidates if one["metadata"]["uid"] == uid]
    return found


def _reference(obj: Json) -> Json:
    [found] = obj["metadata"]["ownerReferences"]
    return found


def _owner_of_machine(target: Json, related: Related) -> Json:
    return _reference(_machine(target, related))


def _owner_of_set(target: Json, related: Related) -> Json:
    return _reference(_set(target, related))


def _other(target: Json, related: Related) -> Json:
    """Give another machine of the pool."""
    own = _machine(target, related)
    uid = _reference(own)["uid"]
    found = [one for one in related["Machine"] if one is not own and _uid_of_owner(one) == uid]
    return found[0]


def _uid_of_owner(obj: Json) -> str:
    return str(next((one["uid"] for one in obj["metadata"].get("ownerReferences") or []), ""))


def _other_node(target: Json, related: Related) -> Json:
    name = _other(target, related)["status"]["nodeRef"]["name"]
    return next(one for one in related["Node"] if one["metadata"]["name"] == name)


# --- changes --------------------------------------------------------------------------------------


def _twin(target: Json, related: Related) -> None:
    """Let a machine of that name be in another namespace, and be listed first."""
    twin = deepcopy(_machine(target, related))
    twin["metadata"] |= {"namespace": "elsewhere", "uid": "twin"}
    related["Machine"].insert(0, twin)


def _quota(hard: str, *, elsewhere: bool = False) -> Edit:
    """Let there be a quota of something, all of which is used."""

    def edit(target: Json, related: Related) -> None:
        space = "elsewhere" if elsewhere else _place(_machine(target, related))[0]
        counted = {hard: "1"}
        related["ResourceQuota"].append(
            {
                "metadata": {"name": "full", "namespace": space},
                "spec": {"hard": counted},
                "status": {"hard": counted, "used": counted},
            }
        )

    return edit


_DRAINED = each(
    put(_node, "spec", "unschedulable", to=True),
    put(_node, "metadata", "annotations", ANNOTATION, to=f"{'b' * 40}.kept"),
)
_WANTS_NONE = each(
    put(_pool, "spec", "replicas", to=0),
    put(_pool, "status", "replicas", to=0),
    put(_pool, "status", "readyReplicas", to=0),
)
STAYS: dict[str, Edit] = {
    "its node does not name its machine": put(_node, "metadata", "annotations", _NAMED, to=None),
    "its node does not say where its machine is": put(
        _node, "metadata", "annotations", _PLACED, to=None
    ),
    "its machine is in another namespace": put(_machine, "metadata", "namespace", to="elsewhere"),
    "nothing owns its machine": put(_machine, "metadata", "ownerReferences", to=None),
    "what owns its machine is of another kind": put(_owner_of_machine, "kind", to="MachinePool"),
    "what owns its machine is of another API group": put(
        _owner_of_machine, "apiVersion", to="example.org/v1"
    ),
    "its MachineSet belongs to something unknown": put(_owner_of_set, "kind", to="Rollout"),
    "its machine is being deleted": put(_machine, "metadata", "deletionTimestamp", to=_NOW),
    "its machine bears the control plane": put(
        _machine, "metadata", "labels", f"{_GROUP}/control-plane", to=""
    ),
    "its pool is being deleted": put(_pool, "metadata", "deletionTimestamp", to=_NOW),
    "its pool wants no machine": _WANTS_NONE,
    "its pool's controller has not seen the newest change": put(
        _pool, "metadata", "generation", to=1_000_000
    ),
    "another machine of the pool is being deleted": put(
        _other, "metadata", "deletionTimestamp", to=_NOW
    ),
    "another machine of the pool has no node": put(_other, "status", "nodeRef", to=None),
    "another node of the pool is not ready": put(_other_node, "status", "conditions", to=[]),
    "the node offers no GPU": put(_node, "status", "capacity", _GPU, to=None),
    "the node bears the control plane": put(_node, "metadata", "labels", CONTROL_PLANE[0], to=""),
}
"""The machine must not go, or nothing would surely make another."""
GOES: dict[str, Edit] = {
    "a machine of that name is in another namespace": _twin,
    "its MachineSet belongs to nothing": put(_set, "metadata", "ownerReferences", to=None),
    "a quota of another namespace has no room": _quota(f"count/machines.{_GROUP}", elsewhere=True),
    "a quota that counts no machines is full": _quota("pods"),
    "an earlier run has drained the node": _DRAINED,
}
"""It looks like those, and the machine may go."""
