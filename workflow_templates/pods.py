"""One planned pod and the owner that would recreate it."""

from collections.abc import Mapping, Sequence

from tiphys.policies.model import Object
from tiphys.workflow_templates.action import NotApplicableError, Run
from tiphys.workflow_templates.cluster import Gone
from tiphys.workflow_templates.pointers import at
from tiphys.workflow_templates.workloads import controller_of, replicas

RECREATORS = {
    "DaemonSet": "apps/v1",
    "Job": "batch/v1",
    "ReplicaSet": "apps/v1",
    "StatefulSet": "apps/v1",
}
"""The kinds whose controllers start a new pod for one that was deleted, with their versions."""


def recreator(pod: Object, related: Mapping[str, Sequence[Object]]) -> Mapping[str, str]:
    """Give the reference to the owner that will recreate a pod; else `NotApplicableError`."""
    reference = controller_of(pod)
    if reference is None or reference["kind"] not in RECREATORS:
        raise NotApplicableError("no controller would recreate this pod")
    candidates = related.get(reference["kind"], ())
    owner = next((o for o in candidates if at(o, "/metadata/uid") == reference["uid"]), None)
    if owner is None or at(owner, "/metadata/deletionTimestamp"):
        raise NotApplicableError("the pod's owner is gone, nothing would recreate the pod")
    if reference["kind"] in {"ReplicaSet", "StatefulSet"} and replicas(owner) == 0:
        raise NotApplicableError("the pod's owner wants no pods, nothing would recreate it")
    return reference


def planned_pod(run: Run, *, ending: bool) -> Object | None:
    """Read exactly the planned pod, by uid; `ending`: also while it is being deleted."""
    target = run.plan.target
    try:
        pod = run.cluster.get("v1", "Pod", target.namespace, target.name)
    except Gone:
        return None
    if at(pod, "/metadata/uid") != target.uid:
        return None
    return None if at(pod, "/metadata/deletionTimestamp") and not ending else pod


def owner_of(run: Run, pod: Object) -> Mapping[str, Sequence[Object]]:
    """Read the pod's owner, as `related` for planning again."""
    reference = controller_of(pod)
    if reference is None or reference["kind"] not in RECREATORS:
        return {}
    kind, name = reference["kind"], reference["name"]
    try:
        return {kind: [run.cluster.get(RECREATORS[kind], kind, run.plan.target.namespace, name)]}
    except Gone:
        return {}
