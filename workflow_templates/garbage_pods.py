"""Which pods are garbage: ended without their process's doing, and replaced since. Pure.

The kubelet ends a pod when its node runs out of something, shuts down or cannot take it after all;
a Deployment's ReplicaSet then starts another, and the ended one stays until some 12,500 have
gathered. https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-garbage-collection
"""

from collections.abc import Mapping, Sequence

from tiphys.policies.model import Object
from tiphys.workflow_templates.pointers import at
from tiphys.workflow_templates.workloads import controller_of

MOST = 40
"""Pods of one plan; more than that is no leftover but something that goes on."""
REASONS = ("Evicted", "NodeAffinity", "NodeShutdown", "Shutdown", "Terminated")
"""Values of `status.reason`, beside those that begin with `OUT_OF`; `Terminated` is how a node
that shuts down gracefully ends its pods."""
OUT_OF = "OutOf"
"""The kubelet's admission: OutOfcpu, OutOfmemory, OutOfpods, OutOfnvidia.com/gpu."""
OWNER = "ReplicaSet"
"""The only kind whose controller leaves them: StatefulSets and DaemonSets delete theirs, and what
a Job, a Workflow or a training operator keeps of a failed pod is its record."""


def reason_of(pod: Object) -> str | None:
    """Give why the kubelet ended a pod that is garbage; None for any other pod."""
    reason = str(at(pod, "/status/reason") or "")
    named = reason in REASONS or reason.startswith(OUT_OF)
    failed = at(pod, "/status/phase") == "Failed"
    controller = controller_of(pod)
    owned = controller is not None and controller["kind"] == OWNER
    return reason if failed and named and owned else None


def garbage_of(deployment: Object, related: Mapping[str, Sequence[Object]]) -> Sequence[Object]:
    """Give a Deployment's garbage, by name; `related` has its namespace's ReplicaSets and Pods."""
    uid, sets = at(deployment, "/metadata/uid"), set[str]()
    for one in related.get("ReplicaSet", ()):
        owner = controller_of(one)
        if owner is not None and owner["uid"] == uid:
            sets.add(str(at(one, "/metadata/uid")))
    found = [pod for pod in related.get("Pod", ()) if _is_left(pod, sets)]
    return sorted(found, key=lambda pod: str(at(pod, "/metadata/name")))


def _is_left(pod: Object, sets: set[str]) -> bool:
    owner = controller_of(pod)
    mine = owner is not None and owner["uid"] in sets
    return mine and reason_of(pod) is not None and not at(pod, "/metadata/deletionTimestamp")


GUARD = f"""has(oldObject.status.phase) && oldObject.status.phase == 'Failed'
    && has(oldObject.status.reason) && (oldObject.status.reason in {[*REASONS]}
    || oldObject.status.reason.startsWith('{OUT_OF}'))"""
"""The same of one pod in CEL; a test holds the two against each other."""
OWNED = f"""has(oldObject.metadata.ownerReferences)
    && oldObject.metadata.ownerReferences.exists(o, has(o.controller) && o.controller
    && o.kind == '{OWNER}' && o.apiVersion == 'apps/v1')"""
