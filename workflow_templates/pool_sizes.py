"""Whether a pool may have another size now, and which machines go when it gets smaller. Pure.

Growing needs pods that wait for GPUs which one more machine of the pool would bring; shrinking
needs machines on which nothing runs. What cannot be told is refused.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, cast

from tiphys.policies.model import Change, Object, ObjectReference
from tiphys.workflow_templates.action import NotApplicableError
from tiphys.workflow_templates.gpu_demand import (
    another,
    busy,
    has_gpus,
    machines_needed,
)
from tiphys.workflow_templates.label_selectors import UnjudgedError
from tiphys.workflow_templates.nodes import UNSCHEDULABLE, name_of, open_for_pods, opted_in
from tiphys.workflow_templates.pointers import at
from tiphys.workflow_templates.pools import Member, PoolKind, limits, reference, within
from tiphys.workflow_templates.quantities import NotAQuantityError, amount

NODE = ("v1", "Node")
_COUNTED = "count/machines.cluster.x-k8s.io"
Related = Mapping[str, Sequence[Object]]


def resized(
    kind: PoolKind, pool: Object, related: Related, sizes: tuple[int, int]
) -> tuple[Change, ...]:
    """Give every change that takes a pool from one size to another; `NotApplicableError`."""
    try:
        return _resized(kind, pool, related, sizes)
    except (UnjudgedError, NotAQuantityError) as error:
        raise NotApplicableError(f"whether it is needed cannot be judged: {error}") from error


def _resized(
    kind: PoolKind, pool: Object, related: Related, sizes: tuple[int, int]
) -> tuple[Change, ...]:
    before, after = sizes
    members = _members(kind, pool, related)
    _bounded(pool, before, after)
    size = Change(path="/spec/replicas", present=before, intended=after)
    if after > before:
        _needed(members, related, after - before)
        return (size,)
    marked = [one.name for one in members if kind.leaving(one).present is not None]
    if marked:
        raise NotApplicableError(f"somebody has marked machine {marked[0]} to go first")
    going = _idle(members, related, before - after)
    return (*(change for one in going for change in _leaving(kind, one)), size)


def _members(kind: PoolKind, pool: Object, related: Related) -> Sequence[Member]:
    if why := kind.refusal(pool):
        raise NotApplicableError(why)
    found = kind.members(pool, related)
    if isinstance(found, str):
        raise NotApplicableError(found)
    for one in found:
        if one.node is None:
            raise NotApplicableError(f"machine {one.name} has no node yet")
        if not opted_in(one.node):
            raise NotApplicableError(f"node {name_of(one.node)} of the pool did not opt in")
    return found


def _node(member: Member) -> Object:
    """Give a machine's node; `_members` refuses a machine that has none."""
    return cast("Object", member.node)


def _bounded(pool: Object, before: int, after: int) -> None:
    allowed = limits(pool)
    if allowed is None:
        raise NotApplicableError("nobody has said how small and how large the pool may be")
    if after == before:
        raise NotApplicableError(f"there are {before} machines already")
    if not allowed[0] <= after <= allowed[1]:
        least, most = allowed
        raise NotApplicableError(f"its owners allow {least} to {most} machines, not {after}")
    if not within(before, after):
        raise NotApplicableError(f"from {before} to {after} machines is too much at a time")


def concerns(pool: Object, related: Related, pod: Object, kind: PoolKind) -> bool:
    """Say whether one more machine of a pool would take a pod, as far as its nodes tell."""
    members = kind.members(pool, related)
    nodes = [] if isinstance(members, str) else [m.node for m in members if m.node]
    pods = related.get("Pod", ())
    try:
        return any(another(node, pods).takes(pod) for node in nodes if has_gpus(node))
    except (UnjudgedError, NotAQuantityError):
        return False


# --- larger -------------------------------------------------------------------------------------


def _needed(members: Sequence[Member], related: Related, more: int) -> None:
    nodes, pods = related.get("Node", ()), related.get("Pod", ())
    alike = [node for node in map(_node, members) if open_for_pods(node) and has_gpus(node)]
    if not alike:
        raise NotApplicableError("no ready node of the pool shows what one more would offer")
    needed = machines_needed(alike[-1], nodes, pods)
    if needed == 0:
        raise NotApplicableError("no pod waits for GPUs that one more machine would bring")
    if needed < more:
        raise NotApplicableError(f"the pods that wait need {needed} more machines, not {more}")
    for quota in related.get("ResourceQuota", ()):
        _counted(quota, more)


def _counted(quota: Object, more: int) -> None:
    """Refuse what a quota on the number of machines would.

    https://kubernetes.io/docs/concepts/policy/resource-quotas/#quota-on-object-count
    """
    hard = cast("dict[str, Any]", at(quota, "/spec/hard") or {})
    used = cast("dict[str, Any]", at(quota, "/status/used") or {})
    if _COUNTED not in hard:
        return
    name = name_of(quota)
    if _COUNTED not in used:
        raise NotApplicableError(f"ResourceQuota {name} has not been counted yet")
    if amount(used[_COUNTED]) + more > amount(hard[_COUNTED]):
        raise NotApplicableError(f"ResourceQuota {name} allows {hard[_COUNTED]} machines")


# --- smaller ------------------------------------------------------------------------------------


def _idle(members: Sequence[Member], related: Related, fewer: int) -> Sequence[Member]:
    """Choose machines whose open nodes run nothing but what DaemonSets bring, the newest first."""
    nodes, pods = related.get("Node", ()), related.get("Pod", ())
    found = [m for m in members if open_for_pods(_node(m)) and not busy(_node(m), pods)]
    if len(found) < fewer:
        why = f"{len(found)} machines of the pool are empty, not {fewer}; nothing is evicted"
        raise NotApplicableError(why)
    going = found[len(found) - fewer :]
    gone = {name_of(_node(one)) for one in going}
    left = [node for node in nodes if name_of(node) not in gone]
    if machines_needed(_node(going[0]), left, pods):
        raise NotApplicableError("pods wait for GPUs that machines of the pool bring")
    return going


def _leaving(kind: PoolKind, member: Member) -> tuple[Change, Change]:
    node = _node(member)
    closed = Change(
        of=ObjectReference(**reference(node, NODE)),
        path=UNSCHEDULABLE,
        present=at(node, UNSCHEDULABLE),
        intended=True,
    )
    return closed, kind.leaving(member)


def made_since(members: Sequence[Member], moment: str) -> list[Member]:
    """Give the machines that were made at or after a moment that the API server wrote."""
    since = datetime.fromisoformat(moment)
    made = "/metadata/creationTimestamp"
    return [m for m in members if datetime.fromisoformat(str(at(m.machine, made))) >= since]
