"""Emptying a node: the pods that go, and their eviction one after the other.

For every action that drains. Invariants: a pod is evicted only when the plan names it by uid, by
the eviction subresource with that uid as its precondition, while the node is closed by this run,
before `notAfter`, and as long as no rollback has begun; a pod on the node that the plan does not
name stops it. Several evictions are resumed where they were left.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from tiphys.policies.model import Change, Json, Object, ObjectReference
from tiphys.policies.plan import canonical
from tiphys.workflow_templates import mark
from tiphys.workflow_templates.action import (
    NotApplicableError,
    Related,
    Report,
    Result,
    Right,
    Run,
    Scope,
)
from tiphys.workflow_templates.cluster import ClusterError, Conflict, Gone, Unreachable
from tiphys.workflow_templates.evictable import OWNERS, on_node, refusal, told
from tiphys.workflow_templates.fenced import PAUSE_SECONDS
from tiphys.workflow_templates.label_selectors import UnjudgedError
from tiphys.workflow_templates.mark import Trace
from tiphys.workflow_templates.nodes import cordoned, name_of, opted_in
from tiphys.workflow_templates.pointers import at
from tiphys.workflow_templates.spare_room import no_room
from tiphys.workflow_templates.workloads import Health, controller_of, healthy

LARGEST = 9_000
"""Bytes of a plan's evictions: a plan of them must fit into a Workflow's parameter."""
NODE = ("v1", "Node")
_BUDGET = ("policy/v1", "PodDisruptionBudget")
READS = tuple(
    Related(version, kind, Scope.CLUSTER)
    for version, kind in (
        NODE, ("v1", "Pod"), ("v1", "Namespace"), _BUDGET,
        *((version, kind) for kind, version in OWNERS.items()),
    )
)  # fmt: skip
"""What `evictions` needs of the cluster."""
RIGHTS = (
    Right("", "nodes", ("get", "list", "patch"), Scope.CLUSTER),
    Right("", "pods", ("list",), Scope.CLUSTER),
    Right("", "namespaces", ("list",), Scope.CLUSTER),
    Right("policy", "poddisruptionbudgets", ("list",)),
    Right("apps", "replicasets", ("get",)),
    Right("apps", "statefulsets", ("get",)),
    Right("batch", "jobs", ("get",)),
    Right("", "pods/eviction", ("create",)),
)
"""What closing and draining a node needs."""


# --- planning: pure -------------------------------------------------------------------------------


def evictions(node: Object, related: Mapping[str, Sequence[Object]]) -> tuple[Change, ...]:
    """Give the end of each pod that a drain of a node evicts; `related` has what `READS` names.

    Raises `NotApplicableError` where one must not go, or might find no room elsewhere.
    """
    name, pods = name_of(node), related.get("Pod", ())
    going = on_node(pods, name)
    try:
        for pod in going:
            if why := refusal(pod, related):
                raise NotApplicableError(f"{told(pod)} {why}")
    except UnjudgedError as error:
        raise NotApplicableError(f"whether the pods may go cannot be judged: {error}") from error
    if why := no_room(going, name, related.get("Node", ()), pods):
        raise NotApplicableError(why)
    found = tuple(Change(of=_reference(p), path="", present=_told(p), intended=None) for p in going)
    if sum(len(canonical(one)) for one in found) > LARGEST:
        raise NotApplicableError(f"{len(found)} pods are more than one plan can name")
    return found


def _reference(pod: Object) -> ObjectReference:
    space, uid = str(at(pod, "/metadata/namespace")), str(at(pod, "/metadata/uid"))
    return ObjectReference(
        api_version="v1", kind="Pod", namespace=space, name=name_of(pod), uid=uid
    )


def _told(pod: Object) -> Json:
    owner = controller_of(pod) or {}
    told: Json = {key: str(owner.get(key)) for key in ("kind", "name", "uid")}
    return {"owner": told}


def planned(run: Run) -> Sequence[ObjectReference]:
    """Give the pods whose end the plan names."""
    changes = run.plan.changes
    return [c.of for c in changes if c.of is not None and c.of.kind == "Pod"]


# --- reading, inside the pod ----------------------------------------------------------------------


def surroundings(run: Run) -> Mapping[str, Sequence[Object]]:
    """Read what `evictions` needs: owners and budgets only where people opted in."""
    cluster, name = run.cluster, run.plan.target.name
    pods = cluster.list("v1", "Pod", "")
    spaces = cluster.list("v1", "Namespace", "")
    open_spaces = {name_of(space) for space in spaces if opted_in(space)}
    found: dict[str, list[Object]] = {
        "Pod": [*pods],
        "Namespace": [*spaces],
        "Node": [*cluster.list(*NODE, "")],
        _BUDGET[1]: [],
        **{kind: [] for kind in OWNERS},
    }
    going = [p for p in on_node(pods, name) if at(p, "/metadata/namespace") in open_spaces]
    for space in sorted({str(at(pod, "/metadata/namespace")) for pod in going}):
        found[_BUDGET[1]] += cluster.list(*_BUDGET, space)
    for kind, space, owner in sorted(_owners(going)):
        try:
            found[kind].append(cluster.get(OWNERS[kind], kind, space, owner))
        except Gone:
            continue
    return found


def _owners(pods: Sequence[Object]) -> set[tuple[str, str, str]]:
    """Give the pods' controllers of known kinds, as (kind, namespace, name)."""
    found: set[tuple[str, str, str]] = set()
    for pod in pods:
        owner = controller_of(pod)
        if owner is not None and OWNERS.get(owner["kind"]) == owner.get("apiVersion"):
            found.add((owner["kind"], str(at(pod, "/metadata/namespace")), owner["name"]))
    return found


def _here(run: Run) -> Sequence[Object]:
    """List the pods on the node."""
    return run.cluster.list("v1", "Pod", "", f"spec.nodeName={run.plan.target.name}")


# --- acting ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Draining:
    """The planned pods of a node that this run has closed."""

    run: Run
    seconds: int
    """How long evictions may be tried: a budget may hold them up."""

    def act(self) -> Report:
        """Evict until no planned pod is left that is not on its way out."""
        run, sent, last = self.run, 0, ""
        until = run.now() + timedelta(seconds=self.seconds)
        while run.now() < until:
            left = self._left()
            if not left:
                return self._ended(sent)
            for pod in left:
                if why := self._closed():
                    raise InterruptedDrainError(f"{why}; {len(left)} of the planned pods are left")
                try:
                    run.cluster.evict_pod(pod.namespace, pod.name, pod.uid)
                    sent += 1
                except (Conflict, Gone):
                    continue
                except Unreachable as error:
                    # Among them 429: its disruption budget does not let it go yet.
                    last = str(error)
            run.sleep(PAUSE_SECONDS)
        raise InterruptedDrainError(f"not all pods could be evicted in time: {last}")

    def _left(self) -> Sequence[ObjectReference]:
        """Give the planned pods that nobody has told to go; raises for one that is not planned."""
        wanted = {pod.uid: pod for pod in planned(self.run)}
        here = on_node(_here(self.run), self.run.plan.target.name)
        for pod in here:
            if at(pod, "/metadata/uid") not in wanted:
                raise InterruptedDrainError(f"{told(pod)} is there, which the plan does not name")
        present = {str(at(pod, "/metadata/uid")) for pod in here}
        return [pod for uid, pod in wanted.items() if uid in present]

    def _closed(self) -> str | None:
        """Say why no pod may be evicted now, or None."""
        run = self.run
        if mark.found(run, run.digest, Trace.UNDONE):
            return "rollback of this run has begun"
        if run.now() >= run.not_after:
            return "notAfter has passed"
        node = run.cluster.get(*NODE, "", run.plan.target.name)
        ours = mark.by_annotation(node) == f"{run.digest}.{Trace.ACT}"
        same = at(node, "/metadata/uid") == run.plan.target.uid
        if not (same and ours and cordoned(node)):
            return "the node is not closed by this run any more"
        return None

    def _ended(self, sent: int) -> Report:
        run = self.run
        if not sent:
            return Report(Result.ALREADY_DONE, "the planned pods were told to go before", {})
        mark.tell(run, "Drained", f"tiphys-{run.digest}: evicted {sent} pods")
        return Report(Result.ACTED, f"evicted {sent} pods", {"evicted": sent})


class InterruptedDrainError(ClusterError):
    """The node is closed, and not all planned pods were evicted."""


def emptied(run: Run) -> Health:
    """Say whether every planned pod is gone and its owner is whole elsewhere."""
    wanted = {pod.uid for pod in planned(run)}
    here = _here(run)
    left = [pod for pod in here if at(pod, "/metadata/uid") in wanted]
    if left:
        return Health(False, f"{len(left)} of {len(wanted)} planned pods have not ended yet")
    if others := on_node(here, run.plan.target.name):
        return Health(False, f"{told(others[0])} is on the node, which the plan does not name")
    for kind, space, name in sorted(_planned_owners(run)):
        try:
            health = healthy(run.cluster.get(OWNERS[kind], kind, space, name))
        except Gone:
            continue  # Nobody wants its pods any more: a newer revision, or a person, replaced it.
        if not health.ok:
            return Health(False, f"{space}: {health.sentence}", health.hopeless)
    return Health(True, f"{len(wanted)} planned pods are gone, and their owners are whole")


def _planned_owners(run: Run) -> set[tuple[str, str, str]]:
    return {
        (str(at(c.present, "/owner/kind")), c.of.namespace, str(at(c.present, "/owner/name")))
        for c in run.plan.changes
        if c.of is not None and c.of.kind == "Pod"
    }
