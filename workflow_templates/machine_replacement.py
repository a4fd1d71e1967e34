"""Whether a GPU node's machine may be deleted so that its pool makes another, and whether it has.

For Cluster API. Pure. Invariants: a machine goes only when node and machine name each other, it
belongs to a pool that keeps its number of machines, every other machine of that pool is well, and
nobody else is at work there: so at most one machine of a pool is replaced at a time.
https://cluster-api.sigs.k8s.io/developer/core/controllers/machine-set
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from tiphys.policies.model import Change, Json, Object, ObjectReference
from tiphys.workflow_templates.action import NotApplicableError, Related, Right, Scope
from tiphys.workflow_templates.evictable import HANDS_OFF
from tiphys.workflow_templates.nodes import cordoned, labels_of, name_of, note_of, opted_in, ready
from tiphys.workflow_templates.pointers import at
from tiphys.workflow_templates.quantities import amount
from tiphys.workflow_templates.workloads import Health, caught_up, controller_of, replicas

GROUP = "cluster.x-k8s.io"
VERSION = f"{GROUP}/v1beta2"
POOL = (VERSION, "MachineDeployment")
SET = (VERSION, "MachineSet")
MACHINE = (VERSION, "Machine")
QUOTA = ("v1", "ResourceQuota")
READS = tuple(Related(*kind, Scope.CLUSTER) for kind in (POOL, SET, MACHINE, QUOTA))
"""What `departure` needs, beside nodes and namespaces."""
RIGHTS = (
    Right(GROUP, "machinedeployments", ("list",)),
    Right(GROUP, "machinesets", ("list",)),
    Right(GROUP, "machines", ("get", "list", "delete")),
    Right("", "resourcequotas", ("list",)),
)
_GPU = "nvidia.com/gpu"
_COUNTED = f"count/machines.{GROUP}"
_PAUSED = f"{GROUP}/paused"
_NAMED, _PLACED = f"{GROUP}/machine", f"{GROUP}/cluster-namespace"
_CONTROL_PLANE = f"{GROUP}/control-plane"

Related_ = Mapping[str, Sequence[Object]]


@dataclass(frozen=True)
class Pool:
    """What keeps a machine's fellows at a number: a MachineDeployment, or a MachineSet alone."""

    machine: Object
    top: Object
    kind: tuple[str, str]
    sets: Sequence[Object]
    """The MachineSets whose machines are the pool's."""


def departure(node: Object, related: Related_) -> Change:
    """Give the end of a node's machine; raises `NotApplicableError` where it must not go now."""
    pool = _pool(node, related)
    for why in (_held(node, pool, related), _unwell(pool, related), _full(pool, related)):
        if why:
            raise NotApplicableError(why)
    count = gpus(node)
    if not count:
        raise NotApplicableError(f"node {name_of(node)} offers no GPU: it is no GPU node")
    present: Json = {
        "pool": {"kind": pool.kind[1], "name": name_of(pool.top), "uid": _uid(pool.top)},
        "gpus": count,
        "boot": str(at(node, "/status/nodeInfo/bootID") or ""),
    }
    return Change(of=_reference(pool.machine), path="", present=present, intended=None)


def whole_again(gone: Change, node: str, related: Related_) -> Health:
    """Say whether a pool has all its machines without the one that went, ready with its GPUs."""
    assert gone.of is not None
    uid, kind = str(at(gone.present, "/pool/uid")), str(at(gone.present, "/pool/kind"))
    wanted_gpus = int(at(gone.present, "/gpus") or 0)
    top = _by_uid(uid, related.get(kind, ()))
    if top is None:
        return Health(False, f"{kind} {at(gone.present, '/pool/name')} is gone", hopeless=True)
    if _by_uid(gone.of.uid, related.get(MACHINE[1], ())):
        return Health(False, f"machine {gone.of.name} has not gone yet")
    nodes = {name_of(one): one for one in related.get("Node", ())}
    if node in nodes and str(note_of(nodes[node], _NAMED)) == gone.of.name:
        return Health(False, f"node {node} has not gone yet")
    machines = _machines_of(_sets_of(top, kind, related), related)
    here = [one for one in machines if not _leaving(one)]
    well = [one for one in here if _serves(_node_of(one, nodes) or {}, wanted_gpus)]
    wanted = replicas(top)
    if len(well) < wanted or len(machines) > len(here):
        return Health(False, f"{len(well)} of {wanted} machines of the pool are ready with "
                             f"{wanted_gpus} GPUs")  # fmt: skip
    return Health(True, f"{len(well)} machines of the pool are ready with {wanted_gpus} GPUs each")


def gpus(node: Object) -> int:
    """Count the GPUs that a node was made with; one that fails is only no longer allocatable."""
    return int(amount(cast("Any", at(node, "/status/capacity") or {}).get(_GPU, 0)))


# --- finding --------------------------------------------------------------------------------------


def _pool(node: Object, related: Related_) -> Pool:
    machine = _machine(node, related)
    owner = _owner(machine, SET, related)
    if owner is None:
        raise NotApplicableError(
            f"machine {name_of(machine)} belongs to no MachineSet: nothing would make another"
        )
    top = _owner(owner, POOL, related)
    if top is None:
        if controller_of(owner) is not None:
            raise NotApplicableError(f"MachineSet {name_of(owner)} belongs to something unknown")
        return Pool(machine, owner, SET, [owner])
    return Pool(machine, top, POOL, _sets_of(top, POOL[1], related))


def _machine(node: Object, related: Related_) -> Object:
    name, space = note_of(node, _NAMED), note_of(node, _PLACED)
    if not name or not space:
        raise NotApplicableError(f"node {name_of(node)} names no machine of Cluster API")
    for one in related.get(MACHINE[1], ()):
        if (name_of(one), at(one, "/metadata/namespace")) != (name, space):
            continue
        provider = at(node, "/spec/providerID")
        if (
            provider
            and provider == at(one, "/spec/providerID")
            and (at(one, "/status/nodeRef/name") == name_of(node))
        ):
            return one
        raise NotApplicableError(f"machine {name} does not say that node {name_of(node)} is its")
    raise NotApplicableError(
        f"machine {space}/{name} of node {name_of(node)} is not in the cluster"
    )


def _owner(obj: Object, kind: tuple[str, str], related: Related_) -> Object | None:
    reference = controller_of(obj)
    if reference is None or reference["kind"] != kind[1]:
        return None
    if str(reference.get("apiVersion")).partition("/")[0] != GROUP:
        return None
    return _by_uid(reference["uid"], related.get(kind[1], ()))


def _sets_of(top: Object, kind: str, related: Related_) -> Sequence[Object]:
    if kind == SET[1]:
        return [top]
    every = related.get(SET[1], ())
    return [one for one in every if (controller_of(one) or {}).get("uid") == _uid(top)]


def _machines_of(sets: Sequence[Object], related: Related_) -> Sequence[Object]:
    uids = {_uid(one) for one in sets}
    every = related.get(MACHINE[1], ())
    return [one for one in every if (controller_of(one) or {}).get("uid") in uids]


# --- judging --------------------------------------------------------------------------------------


def _held(node: Object, pool: Pool, related: Related_) -> str | None:
    """Say who else is at work on it, or wants it left alone."""
    machine, space = pool.machine, at(pool.machine, "/metadata/namespace")
    spaces = {name_of(one): one for one in related.get("Namespace", ())}
    if not opted_in(spaces.get(str(space), {})):
        return f"namespace {space} of machine {name_of(machine)} did not opt in"
    for one in (node, machine, *pool.sets, pool.top):
        if _leaving(one):
            return f"{_told(one)} is being deleted already"
        if (why := note_of(one, HANDS_OFF)) is not None:
            return f"{_told(one)} is to be left alone: {why or HANDS_OFF}"
        if note_of(one, _PAUSED) is not None or at(one, "/spec/paused"):
            return f"{_told(one)} is paused"
    if _CONTROL_PLANE in labels_of(machine):
        return f"machine {name_of(machine)} bears the control plane"
    told = {str(c.get("type")): c.get("status") for c in _conditions(machine)}
    if "OwnerRemediated" in told or told.get("HealthCheckSucceeded") == "False":
        return f"a MachineHealthCheck deals with machine {name_of(machine)} already"
    return None


def _unwell(pool: Pool, related: Related_) -> str | None:
    """Say why the pool would not surely make another; at most one machine goes at a time."""
    top, name = pool.top, f"{pool.kind[1]} {name_of(pool.top)}"
    wanted = replicas(top)
    there, fit = (int(at(top, f"/status/{key}") or 0) for key in ("replicas", "readyReplicas"))
    if not wanted:
        return f"{name} wants no machine: nothing would make another"
    if not caught_up(top):
        return f"the controller of {name} has not seen the newest change yet"
    if not wanted == there == fit:
        return f"{name} is not whole: {fit} of {wanted} machines are ready, {there} are there"
    nodes = {name_of(one): one for one in related.get("Node", ())}
    for one in _machines_of(pool.sets, related):
        if _uid(one) == _uid(pool.machine):
            continue
        own = _node_of(one, nodes) or {}
        if _leaving(one) or not ready(own):
            return f"another machine of the pool, {name_of(one)}, is on its way or not well"
        if cordoned(own):
            return f"another node of the pool, {name_of(own)}, is closed"
    return None


def _full(pool: Pool, related: Related_) -> str | None:
    """Name a quota that leaves no room for one more, since the old machine is still counted.

    https://kubernetes.io/docs/concepts/policy/resource-quotas/#quota-on-object-count
    """
    space = at(pool.machine, "/metadata/namespace")
    for quota in related.get(QUOTA[1], ()):
        hard = cast("dict[str, Any]", at(quota, "/spec/hard") or {})
        used = cast("dict[str, Any]", at(quota, "/status/used") or {})
        if at(quota, "/metadata/namespace") != space or _COUNTED not in hard:
            continue
        if _COUNTED not in used or amount(used[_COUNTED]) + 1 > amount(hard[_COUNTED]):
            return f"ResourceQuota {name_of(quota)} leaves no room for another machine"
    return None


def _serves(node: Object, wanted: int) -> bool:
    room = cast("dict[str, Any]", at(node, "/status/allocatable") or {})
    return ready(node) and not cordoned(node) and amount(room.get(_GPU, 0)) >= wanted


def _node_of(machine: Object, nodes: Mapping[str, Object]) -> Object | None:
    return nodes.get(str(at(machine, "/status/nodeRef/name")))


def _conditions(obj: Object) -> list[dict[str, Any]]:
    return cast("list[dict[str, Any]]", at(obj, "/status/conditions") or [])


def _leaving(obj: Object) -> bool:
    return bool(at(obj, "/metadata/deletionTimestamp"))


def _uid(obj: Object) -> str:
    return str(at(obj, "/metadata/uid"))


def _by_uid(uid: str, several: Sequence[Object]) -> Object | None:
    return next((one for one in several if _uid(one) == uid), None)


def _told(obj: Object) -> str:
    return f"{obj.get('kind') or 'object'} {name_of(obj)}"


def _reference(machine: Object) -> ObjectReference:
    return ObjectReference(
        api_version=MACHINE[0],
        kind=MACHINE[1],
        namespace=str(at(machine, "/metadata/namespace")),
        name=name_of(machine),
        uid=_uid(machine),
    )
