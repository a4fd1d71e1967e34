"""What a PersistentVolumeClaim says of its size, of who uses it and of an expansion. Pure.

https://kubernetes.io/docs/concepts/storage/persistent-volumes/#expanding-persistent-volumes-claims
"""

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, cast

from tiphys.policies.model import Object
from tiphys.workflow_templates.pointers import at
from tiphys.workflow_templates.quantities import amount
from tiphys.workflow_templates.workloads import controller_of

CLAIM = ("v1", "PersistentVolumeClaim")
STORAGE_CLASS = ("storage.k8s.io/v1", "StorageClass")
REQUEST = "/spec/resources/requests/storage"
_CAPACITY = "/status/capacity/storage"
_FAILED = {"ControllerResizeError", "NodeResizeError"}
_UNDER_WAY = {"Resizing", "FileSystemResizePending", *_FAILED}
"""Conditions of a claim while its expansion has not ended well."""
_MAKERS = {"DaemonSet", "Job", "ReplicaSet", "ReplicationController", "StatefulSet"}
"""Who makes pods without minding the size of their claims."""
_OF_A_TEMPLATE = re.compile(r"(.+)-(\d+)")


def size(claim: Object) -> Fraction:
    """Give the bytes that it has or asks for, whichever is more: drivers round up."""
    return max(amount(at(claim, REQUEST) or 0), amount(at(claim, _CAPACITY) or 0))


def capacity(claim: Object) -> Fraction:
    """Give the bytes that it has."""
    return amount(at(claim, _CAPACITY) or 0)


def class_of(claim: Object) -> str:
    """Name its StorageClass; empty without one."""
    return str(at(claim, "/spec/storageClassName") or "")


def expansion(claim: Object) -> str | None:
    """Say why an expansion of it has not ended, or None."""
    conditions = cast("list[dict[str, Any]]", at(claim, "/status/conditions") or [])
    for one in conditions:
        if one.get("type") in _UNDER_WAY and one.get("status") == "True":
            return f"{one['type']}: {str(one.get('message') or 'an expansion has not ended')[:150]}"
    if stage := at(claim, "/status/allocatedResourceStatuses/storage"):
        return str(stage)
    if amount(at(claim, REQUEST) or 0) > capacity(claim):
        return f"it asks for {at(claim, REQUEST)} and has {at(claim, _CAPACITY) or 'nothing'}"
    return None


def given_up(claim: Object) -> str | None:
    """Say why its expansion cannot end by itself, or None."""
    conditions = cast("list[dict[str, Any]]", at(claim, "/status/conditions") or [])
    for one in conditions:
        if one.get("type") in _FAILED and one.get("status") == "True":
            return f"{one['type']}: {str(one.get('message') or 'the expansion failed')[:150]}"
    stage = str(at(claim, "/status/allocatedResourceStatuses/storage") or "")
    return stage if stage.endswith("Infeasible") else None


def obstacle(claim: Object) -> str | None:
    """Say what of the claim itself forbids to expand it now, or None."""
    if at(claim, "/metadata/deletionTimestamp"):
        return "the claim is being deleted"
    phase = at(claim, "/status/phase") or "not bound"
    if phase != "Bound":
        return f"the claim is {phase}, not Bound"
    if at(claim, "/spec/volumeMode") == "Block":
        return "it is a block device: nobody would grow what is on it"
    if why := expansion(claim):
        return f"an expansion has not ended: {why}"
    owner = controller_of(claim)
    if owner is not None and owner.get("kind") != "StatefulSet":
        return f"{owner.get('kind')} {owner.get('name')} owns the claim: its size is set there"
    return None


def expandable(claim: Object, classes: Sequence[Object]) -> str | None:
    """Say why its StorageClass does not let it grow, or None."""
    name = class_of(claim)
    if not name:
        return "the claim has no StorageClass, so nothing expands it"
    found = next((one for one in classes if at(one, "/metadata/name") == name), None)
    if found is None:
        return f"there is no StorageClass {name}"
    if at(found, "/allowVolumeExpansion") is not True:
        return f"StorageClass {name} does not allow expansion"
    return None


def mounted_by(claim: Object, pods: Sequence[Object]) -> Sequence[Object]:
    """Give the running pods that use it: only a mounted file system is grown."""
    name = at(claim, "/metadata/name")
    return [
        pod
        for pod in pods
        if at(pod, "/status/phase") == "Running"
        and not at(pod, "/metadata/deletionTimestamp")
        and any(
            at(volume, "/persistentVolumeClaim/claimName") == name
            for volume in at(pod, "/spec/volumes") or ()
        )
    ]


def operator_of(pods: Sequence[Object], sets: Sequence[Object]) -> str | None:
    """Name whose operator sets the sizes: who owns these pods, or their StatefulSet, or None."""
    by_uid = {at(one, "/metadata/uid"): one for one in sets}
    for pod in pods:
        owner = controller_of(pod)
        if owner is not None and owner.get("kind") == "StatefulSet":
            owner = controller_of(by_uid.get(owner.get("uid"), {}))
        elif owner is not None and owner.get("kind") in _MAKERS:
            owner = None
        if owner is not None:
            return f"{owner.get('kind')} {owner.get('name')}"
    return None


def template_of(claim: Object, sets: Sequence[Object]) -> str | None:
    """Name the StatefulSet from whose volumeClaimTemplates the claim was made, or None."""
    name = str(at(claim, "/metadata/name"))
    for one in sets:
        for template in cast("list[Any]", at(one, "/spec/volumeClaimTemplates") or []):
            stem = f"{at(template, '/metadata/name')}-{at(one, '/metadata/name')}"
            made = _OF_A_TEMPLATE.fullmatch(name)
            if made is not None and made[1] == stem:
                return str(at(one, "/metadata/name"))
    return None


def may_be_of_a_template(claim: Object) -> bool:
    """Say whether its name is as a StatefulSet would have given it."""
    return _OF_A_TEMPLATE.fullmatch(str(at(claim, "/metadata/name"))) is not None


def refusal(claim: Object, wanted: Fraction, related: Mapping[str, Sequence[Object]]) -> str | None:
    """Name the ResourceQuota or LimitRange that so large a claim would break, or None.

    A quota whose use is not known yet counts as full.
    https://kubernetes.io/docs/concepts/policy/resource-quotas/#storage-resource-quota
    """
    more = wanted - amount(at(claim, REQUEST) or 0)
    of_class = f"{class_of(claim)}.storageclass.storage.k8s.io/requests.storage"
    for quota in related.get("ResourceQuota", ()):
        hard, used = at(quota, "/spec/hard") or {}, at(quota, "/status/used") or {}
        for name in ("requests.storage", of_class):
            if name in hard and (
                name not in used or amount(used[name]) + more > amount(hard[name])
            ):
                there = used.get(name, "an unknown part")
                return (
                    f"ResourceQuota {at(quota, '/metadata/name')} would refuse it: {there} of "
                    f"{name} {hard[name]} is used"
                )
    for one in related.get("LimitRange", ()):
        for item in cast("list[Any]", at(one, "/spec/limits") or []):
            most = at(item, "/max/storage")
            if item.get("type") == CLAIM[1] and most is not None and wanted > amount(most):
                return f"LimitRange {at(one, '/metadata/name')} allows a claim {most} at most"
    return None
