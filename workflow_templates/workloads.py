"""What a workload says of itself: healthy, rolling out, owned, scaled by another. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from tiphys.policies.model import Object
from tiphys.workflow_templates.pointers import at

REVISION = "deployment.kubernetes.io/revision"
_SILENT = {"CronJob", "Job"}
"""Kinds whose controllers do not tell which generation they have seen."""
_ROLLED_OUT = {"DaemonSet", "Deployment", "StatefulSet"}


@dataclass(frozen=True)
class Health:
    """One look at a workload."""

    ok: bool
    sentence: str
    hopeless: bool = False
    """Waiting cannot help: verify ends at once."""


def controller_of(obj: Object) -> Mapping[str, str] | None:
    """Give the owner reference that controls an object, or None."""
    owners = cast("list[dict[str, Any]]", at(obj, "/metadata/ownerReferences") or [])
    return next((owner for owner in owners if owner.get("controller")), None)


def replicas(obj: Object) -> int:
    """Give the wanted replicas; the API's default is 1."""
    wanted = at(obj, "/spec/replicas")
    return 1 if wanted is None else int(wanted)


def caught_up(obj: Object) -> bool:
    """Say whether the controller has seen the newest spec, as far as it tells."""
    if obj.get("kind") in _SILENT:
        return True
    return _status(obj, "observedGeneration") >= int(at(obj, "/metadata/generation") or 0)


def rolling_out(obj: Object) -> str | None:
    """Say why a rollout is under way, or None. Deployments, StatefulSets and DaemonSets."""
    if not caught_up(obj):
        return "its controller has not seen the newest change yet"
    if obj.get("kind") == "DaemonSet":
        return _moving_daemons(obj)
    wanted, updated = replicas(obj), _status(obj, "updatedReplicas")
    if obj.get("kind") == "StatefulSet":
        moving = at(obj, "/status/currentRevision") != at(obj, "/status/updateRevision")
        return "a rollout is in progress" if moving else None
    if updated < wanted:
        return f"a rollout is in progress: {updated} of {wanted} replicas are updated"
    if _status(obj, "replicas") > max(updated, wanted):
        return "a rollout is in progress: old replicas are still there"
    return None


def healthy(obj: Object) -> Health:
    """Judge a workload by its own status."""
    name = f"{obj.get('kind')} {at(obj, '/metadata/name')}"
    if not caught_up(obj):
        return Health(False, f"{name}: its controller has not seen the newest change yet")
    if obj.get("kind") == "Job":
        return _job(obj, name)
    if obj.get("kind") == "DaemonSet":
        wanted, ready = _status(obj, "desiredNumberScheduled"), _status(obj, "numberReady")
    else:
        wanted, ready = replicas(obj), _status(obj, "readyReplicas")
    if obj.get("kind") in {"Deployment", "ReplicaSet"}:
        ready = min(ready, _status(obj, "availableReplicas"))
    sentence = f"{name}: {ready} of {wanted} ready"
    rollout = rolling_out(obj) if obj.get("kind") in _ROLLED_OUT else None
    if rollout:
        return Health(False, f"{sentence}, {rollout}")
    return Health(ready == wanted == _status(obj, "replicas", wanted), sentence)


def revisions(deployment: Object, replica_sets: Sequence[Object]) -> list[tuple[int, Object]]:
    """Give a Deployment's revisions, oldest first.

    https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#checking-rollout-history-of-a-deployment
    """
    uid = at(deployment, "/metadata/uid")
    found: list[tuple[int, Object]] = []
    for one in replica_sets:
        owner = controller_of(one)
        if owner is not None and owner.get("uid") == uid and (number := revision(one)):
            found.append((number, one))
    return sorted(found, key=lambda item: item[0])


def revision(obj: Object) -> int | None:
    """Read the revision annotation; None where there is none."""
    annotations = cast("dict[str, str]", at(obj, "/metadata/annotations") or {})
    number = annotations.get(REVISION, "")
    return int(number) if number.isdigit() else None


def template_of(replica_set: Object) -> Any:
    """Give a ReplicaSet's pod template without the label that the Deployment's controller added."""
    template = dict(at(replica_set, "/spec/template"))
    labels = dict(at(template, "/metadata/labels") or {})
    labels.pop("pod-template-hash", None)
    return {**template, "metadata": {**template.get("metadata", {}), "labels": labels}}


def autoscaler_of(target: Object, autoscalers: Sequence[Object]) -> str | None:
    """Name the HorizontalPodAutoscaler that owns the replicas, or None."""
    for one in autoscalers:
        reference = at(one, "/spec/scaleTargetRef") or {}
        same_group = str(reference.get("apiVersion", "apps/")).startswith("apps/")
        same_name = reference.get("name") == at(target, "/metadata/name")
        if same_group and same_name and reference.get("kind") == target.get("kind"):
            return str(at(one, "/metadata/name"))
    return None


def _moving_daemons(obj: Object) -> str | None:
    if at(obj, "/spec/updateStrategy/type") == "OnDelete":
        return None
    wanted, updated = _status(obj, "desiredNumberScheduled"), _status(obj, "updatedNumberScheduled")
    if updated < wanted:
        return f"a rollout is in progress: {updated} of {wanted} pods are updated"
    return None


def _job(obj: Object, name: str) -> Health:
    conditions = cast("list[dict[str, Any]]", at(obj, "/status/conditions") or [])
    true = {c.get("type") for c in conditions if c.get("status") == "True"}
    if "Failed" in true:
        return Health(False, f"{name} has failed", hopeless=True)
    if "Complete" in true:
        return Health(True, f"{name} is complete")
    active, ready = _status(obj, "active"), _status(obj, "ready")
    return Health(0 < active == ready, f"{name}: {ready} of {active} active pods ready")


def _status(obj: Object, field: str, default: int = 0) -> int:
    value = at(obj, f"/status/{field}")
    return default if value is None else int(value)
