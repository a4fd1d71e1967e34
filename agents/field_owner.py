"""Whose a field is: a GitOps controller or an operator that would put it back. Pure."""

import re
from collections.abc import Sequence
from typing import Final

from tiphys.agents.objects import items, mapping, text
from tiphys.policies.model import Change, Json, Object, Owner

BUILT_IN: Final = {
    "CronJob", "DaemonSet", "Deployment", "Job", "Node", "ReplicaSet", "ReplicationController",
    "StatefulSet",
}  # fmt: skip
_MANAGERS: Final = re.compile(
    r"argocd.*|argo-?cd.*|flux.*|kustomize-controller|helm-controller|.*-operator|.*-controller"
)
_OWN_CONTROLLERS: Final = {"kube-controller-manager", "deployment-controller"}
_GITOPS_MARKS: Final = (
    ("annotations", "argocd.argoproj.io/tracking-id", "Argo CD"),
    ("labels", "argocd.argoproj.io/instance", "Argo CD"),
    ("labels", "kustomize.toolkit.fluxcd.io/name", "Flux"),
    ("labels", "helm.toolkit.fluxcd.io/name", "Flux"),
)


def field_owner(thing: Object, owners: Sequence[Owner], changes: Sequence[Change]) -> str | None:
    """Name the GitOps controller or operator that would put one of these fields back, or None.

    Source: metadata.managedFields (Kubernetes, "Server-Side Apply"); Argo CD's and Flux' tracking
    marks; owner references to custom resources.
    """
    foreign = next((o for o in owners[:1] if o.kind not in BUILT_IN), None)
    if foreign is not None:
        return f"{foreign.kind} {foreign.name} (its operator)"
    fields = [change.path for change in changes if change.of is None and change.path]
    if not fields:
        return None
    if owners and owners[-1].kind not in BUILT_IN:
        return f"{owners[-1].kind} {owners[-1].name} (its operator)"
    managers = _managers(thing)
    for manager, owned in managers:
        if any(_owns(owned, field) for field in fields):
            return manager
    for place, key, who in _GITOPS_MARKS:
        marked = text(thing, "metadata", place, key)
        # The mark of a controller whose own fields cannot be told apart covers all of them.
        if marked and not managers:
            return f"{who} ({marked})"
    return None


def _managers(thing: Object) -> list[tuple[str, Object]]:
    """Give the controllers that manage fields, with their fields."""
    found: list[tuple[str, Object]] = []
    for entry in items(thing, "metadata", "managedFields"):
        manager = text(entry, "manager")
        known = _MANAGERS.fullmatch(manager) and manager not in _OWN_CONTROLLERS
        if known and text(entry, "subresource") != "status":
            found.append((manager, mapping(entry, "fieldsV1")))
    return found


def _owns(fields: Object, pointer: str) -> bool:
    """Tell whether a field set covers a JSON pointer; a list's items count as one."""
    here: Json = dict(fields)
    for raw in pointer.split("/")[1:]:
        segment = raw.replace("~1", "/").replace("~0", "~")
        if not isinstance(here, dict):
            return False
        if f"f:{segment}" in here:
            here = here[f"f:{segment}"]
            continue
        return any(key.startswith(("k:", "v:", "i:")) for key in here)
    return True
