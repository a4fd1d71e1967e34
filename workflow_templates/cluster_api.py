"""Cluster API's MachineDeployment as a pool. Pure.

Only pools of the cluster that they stand in: a management cluster's pools of other clusters have
nodes that cannot be seen here, and are refused.
https://cluster-api.sigs.k8s.io/developer/core/controllers/machine-deployment
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from tiphys.policies.model import Change, Object, ObjectReference
from tiphys.workflow_templates.action import Related
from tiphys.workflow_templates.pointers import at, escape
from tiphys.workflow_templates.pools import Member, reference
from tiphys.workflow_templates.workloads import caught_up, controller_of, replicas

GROUP = "cluster.x-k8s.io"
VERSION = f"{GROUP}/v1beta2"
POOL, SET, MACHINE = (
    (VERSION, "MachineDeployment"), (VERSION, "MachineSet"), (VERSION, "Machine"),
)  # fmt: skip
DELETE_FIRST = f"{GROUP}/delete-machine"
"""Such machines go first when a pool gets smaller, whatever its deletion order."""
PAUSED = f"{GROUP}/paused"
AUTOSCALED = tuple(
    f"{GROUP}/cluster-api-autoscaler-node-group-{end}-size" for end in ("min", "max")
)
"""Either hands the size to cluster-autoscaler."""
REPLICAS_ELSEWHERE = f"{GROUP}/replicas-managed-by"
_TOPOLOGY = "capi-topology"
"""The field manager of a Cluster's topology, which writes the sizes that the Cluster gives."""


class MachineDeployments:
    """Reads a MachineDeployment, its sets and its machines."""

    kind = POOL
    reads = (Related(*SET), Related(*MACHINE))

    def refusal(self, pool: Object) -> str | None:
        """Say why nobody should change its size now, or None."""
        notes = cast("dict[str, str]", at(pool, "/metadata/annotations") or {})
        owner = _owner_of_size(pool)
        if at(pool, "/metadata/deletionTimestamp"):
            return "the pool is being deleted"
        if any(key in notes for key in AUTOSCALED):
            return "cluster-autoscaler owns the pool's size"
        if notes.get(REPLICAS_ELSEWHERE):
            return f"{notes[REPLICAS_ELSEWHERE]} owns the pool's size"
        if owner == _TOPOLOGY:
            return "the Cluster's topology owns the pool's size: change it there"
        if owner is None:
            return "the API server cannot say who set the pool's size: set it once by hand"
        if at(pool, "/spec/paused") or PAUSED in notes:
            return "the pool is paused"
        if not caught_up(pool):
            return "its controller has not seen the newest change yet"
        return _unwhole(pool)

    def members(
        self, pool: Object, related: Mapping[str, Sequence[Object]]
    ) -> Sequence[Member] | str:
        """Give its machines by who owns them; each node must say that it is its machine's."""
        uid = at(pool, "/metadata/uid")
        sets = {at(s, "/metadata/uid") for s in related.get(SET[1], ()) if _made_by(s) == uid}
        machines = [one for one in related.get(MACHINE[1], ()) if _made_by(one) in sets]
        machines = [one for one in machines if not at(one, "/metadata/deletionTimestamp")]
        nodes = {at(node, "/metadata/name"): node for node in related.get("Node", ())}
        found: list[Member] = []
        for machine in sorted(machines, key=_age):
            name = at(machine, "/status/nodeRef/name")
            node = nodes.get(name)
            if name and not _same(machine, node):
                return f"node {name} of its machines is not in this cluster"
            found.append(Member(machine, node))
        return found

    def leaving(self, member: Member) -> Change:
        """Annotate it as Cluster API asks for."""
        path = f"/metadata/annotations/{escape(DELETE_FIRST)}"
        return Change(
            of=ObjectReference(**reference(member.machine, MACHINE)),
            path=path,
            present=at(member.machine, path),
            intended="tiphys",
        )


def _owner_of_size(pool: Object) -> str | None:
    """Give the field manager of the size; None where the API server has lost it.

    A merge patch of a custom resource's `scale` that changes nothing leaves an entry without a
    subresource and without a time, and the next PUT then leaves none (seen on Kubernetes 1.35): a
    run's mark would be missing.
    """
    entries = cast("list[dict[str, Any]]", at(pool, "/metadata/managedFields") or [])
    owners = [e for e in entries if at(e, "/fieldsV1/f:spec/f:replicas") is not None]
    if any("time" not in e and not e.get("subresource") for e in owners):
        return None
    return str(owners[0].get("manager")) if len(owners) == 1 else ""


def _unwhole(pool: Object) -> str | None:
    wanted = replicas(pool)
    there, fresh, ready = (
        int(at(pool, f"/status/{name}") or 0)
        for name in ("replicas", "upToDateReplicas", "readyReplicas")
    )
    if fresh < there:
        return f"a rollout is in progress: {fresh} of {there} machines are up to date"
    if there != wanted or ready != wanted:
        return f"the pool is not whole: {ready} of {wanted} machines are ready, {there} are there"
    return None


def _made_by(obj: Object) -> str:
    return str((controller_of(obj) or {}).get("uid", ""))


def _age(machine: Object) -> tuple[str, str]:
    return str(at(machine, "/metadata/creationTimestamp")), str(at(machine, "/metadata/name"))


def _same(machine: Object, node: Object | None) -> bool:
    """Say whether a node is there and is a machine's, by what both sides say."""
    notes = cast("dict[str, str]", at(node, "/metadata/annotations") or {})
    meta = cast("dict[str, str]", machine["metadata"])
    return (
        at(node, "/spec/providerID") == at(machine, "/spec/providerID") is not None
        and notes.get(f"{GROUP}/machine") == meta["name"]
        and notes.get(f"{GROUP}/cluster-namespace") == meta["namespace"]
    )
