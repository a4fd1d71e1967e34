"""Which pods of a node would be evicted, and why one of them must not be. Pure.

Invariant: what cannot be judged with certainty is refused. Left out are the pods that a drain
leaves where they are: those of DaemonSets, mirrors of static pods, and pods that have ended or are
about to. https://kubernetes.io/docs/tasks/administer-cluster/safely-drain-node/
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from tiphys.policies.model import Object
from tiphys.workflow_templates.label_selectors import selects
from tiphys.workflow_templates.nodes import labels_of, name_of, note_of, opted_in
from tiphys.workflow_templates.pointers import at
from tiphys.workflow_templates.workloads import controller_of, replicas

OWNERS = {"Job": "batch/v1", "ReplicaSet": "apps/v1", "StatefulSet": "apps/v1"}
"""The kinds whose controllers start a pod elsewhere for one that was evicted."""
HANDS_OFF = "tiphys.io/hands-off"
STAYS = "cluster-autoscaler.kubernetes.io/safe-to-evict"
"""People write `false` there of pods that must not be moved."""
_MIRROR = "kubernetes.io/config.mirror"
_BOUND = {
    "ephemeral": "a volume claim of its own",
    "hostPath": "a folder of its node",
    "persistentVolumeClaim": "a volume claim, which may bind it to its node",
}

Json = dict[str, Any]


def on_node(pods: Sequence[Object], node: str) -> Sequence[Object]:
    """Give the pods that a drain of a node evicts, by namespace and name."""
    here = [pod for pod in pods if at(pod, "/spec/nodeName") == node and goes(pod)]
    return sorted(here, key=lambda pod: (str(at(pod, "/metadata/namespace")), name_of(pod)))


def goes(pod: Object) -> bool:
    """Whether a drain evicts a pod."""
    if at(pod, "/status/phase") in {"Failed", "Succeeded"} or at(
        pod, "/metadata/deletionTimestamp"
    ):
        return False
    owner = controller_of(pod)
    of_daemon = owner is not None and owner["kind"] == "DaemonSet"
    return not of_daemon and note_of(pod, _MIRROR) is None


def told(pod: Object) -> str:
    """Name a pod for people."""
    return f"pod {at(pod, '/metadata/namespace')}/{name_of(pod)}"


def refusal(pod: Object, related: Mapping[str, Sequence[Object]]) -> str | None:
    """Say why a pod must not be evicted, or None.

    `related` has Namespaces, PodDisruptionBudgets and the pods' owners.
    """
    spaces = {name_of(one): one for one in related.get("Namespace", ())}
    place = spaces.get(str(at(pod, "/metadata/namespace")), {})
    if not opted_in(place):
        return "is in a namespace that did not opt in"
    reference = controller_of(pod)
    if reference is None:
        return "has no controller: nothing would start it again"
    if OWNERS.get(reference["kind"]) != reference.get("apiVersion"):
        return f"belongs to a {reference['kind']}, of which nothing is known here"
    owner = _owner(reference["uid"], related.get(reference["kind"], ()))
    if owner is None:
        return f"belongs to {reference['kind']} {reference['name']}, which is gone"
    for one in (place, owner, pod):
        if (why := note_of(one, HANDS_OFF)) is not None:
            return f"is to be left alone: {why or HANDS_OFF}"
    if note_of(pod, STAYS) == "false":
        return f"is annotated {STAYS}: false"
    volumes = cast("list[Json]", at(pod, "/spec/volumes") or [])
    for volume in volumes:
        for kind, what in _BOUND.items():
            if kind in volume:
                return f"has {what}"
    return _ends(owner, reference["kind"]) or _withheld(pod, related.get("PodDisruptionBudget", ()))


def _owner(uid: str, candidates: Sequence[Object]) -> Object | None:
    return next(
        (
            one
            for one in candidates
            if at(one, "/metadata/uid") == uid and not at(one, "/metadata/deletionTimestamp")
        ),
        None,
    )


def _ends(owner: Object, kind: str) -> str | None:
    """Say why nothing would start the pod again, by what its owner says."""
    if kind != "Job":
        return None if replicas(owner) else f"belongs to {kind} {name_of(owner)}, which wants none"
    # An evicted pod counts as failed, unless a policy says otherwise, which is not read here.
    limit = at(owner, "/spec/backoffLimit")
    left = (6 if limit is None else int(limit)) - int(at(owner, "/status/failed") or 0)
    return None if left >= 1 else f"belongs to Job {name_of(owner)}, which would fail with it"


def _withheld(pod: Object, budgets: Sequence[Object]) -> str | None:
    """Name the PodDisruptionBudget that lets no pod go now, or None."""
    space = at(pod, "/metadata/namespace")
    covering = [
        one
        for one in budgets
        if at(one, "/metadata/namespace") == space
        and selects(at(one, "/spec/selector"), labels_of(pod))
    ]
    if len(covering) > 1:
        return "is covered by two PodDisruptionBudgets, so no eviction is served"
    for one in covering:
        seen = int(at(one, "/status/observedGeneration") or 0)
        fresh = seen >= int(at(one, "/metadata/generation") or 0)
        if not fresh or int(at(one, "/status/disruptionsAllowed") or 0) < 1:
            return f"may not go: PodDisruptionBudget {name_of(one)} allows no disruption"
    return None
