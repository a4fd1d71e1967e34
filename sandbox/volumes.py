"""PersistentVolumeClaims: bound, and grown, as the API server and a storage driver do it.

A class whose provisioner is `PROVISIONER` gets volumes made and expanded at once; other claims are
bound to the volume that they name, and whoever plays their driver expands them.
https://kubernetes.io/docs/concepts/storage/persistent-volumes/
"""

from collections.abc import Iterable, Sequence
from fractions import Fraction

from tiphys.sandbox.api_error import ApiError, invalid
from tiphys.sandbox.deployments import MANAGER
from tiphys.sandbox.resources import BY_KIND, Obj, clone
from tiphys.sandbox.store import AdmissionRequest, Store
from tiphys.workflow_templates.quantities import amount

PROVISIONER = "disk.sandbox.tiphys.io"
_KIND = "PersistentVolumeClaim"


# --- what the API server lets through -----------------------------------------------------------


def install(store: Store) -> None:
    """Make the store refuse changes of a claim that the API server refuses."""

    def judge(request: AdmissionRequest) -> None:
        old = request.old
        if request.kind != _KIND or request.operation != "UPDATE" or request.subresource or not old:
            return
        _fixed(request.obj, old)
        if asked(request.obj) > asked(old):
            _may_grow(store, request.obj)

    store.admission.append(judge)


def asked(claim: Obj) -> Fraction:
    """Give the bytes that a claim asks for."""
    return amount(_requests(claim).get("storage", 0))


def use(name: str, claims: Iterable[Obj]) -> Fraction | None:
    """Give what claims use of a quota's resource; None for another resource.

    https://kubernetes.io/docs/concepts/policy/resource-quotas/#storage-resource-quota
    """
    if name == "persistentvolumeclaims":
        return Fraction(sum(1 for _ in claims))
    of, _, what = name.rpartition(".storageclass.storage.k8s.io/")
    if what != "requests.storage":
        return None
    mine = (c for c in claims if not of or c["spec"].get("storageClassName") == of)
    return sum(map(asked, mine), Fraction(0))


def _requests(claim: Obj) -> Obj:
    return (claim["spec"].get("resources") or {}).get("requests") or {}


def _fixed(claim: Obj, old: Obj) -> None:
    """Refuse less than it has, and another change of a bound claim's spec."""
    resource, name = BY_KIND[_KIND], claim["metadata"]["name"]
    has = amount((old.get("status", {}).get("capacity") or {}).get("storage", 0))
    if asked(claim) < asked(old) and asked(claim) <= has:
        field = "spec.resources.requests.storage"
        why = "Forbidden: field can not be less than status.capacity"
        raise invalid(resource, name, f"{field}: {why}")
    new = clone(claim["spec"])
    new["resources"] = old["spec"].get("resources")
    if old["spec"].get("volumeName") and new != old["spec"]:
        why = "spec: Forbidden: spec is immutable after creation except resources.requests"
        raise invalid(resource, name, why)


def _may_grow(store: Store, claim: Obj) -> None:
    """Judge as the admission plugin PersistentVolumeClaimResize does."""
    name, found = claim["metadata"]["name"], None
    if claim.get("status", {}).get("phase") != "Bound":
        why = "Only bound persistent volume claims can be expanded"
        raise ApiError(403, "Forbidden", f'persistentvolumeclaims "{name}" is forbidden: {why}')
    if of := claim["spec"].get("storageClassName"):
        found = store.find("StorageClass", "", of)
    if not (found or {}).get("allowVolumeExpansion"):
        why = (
            "only dynamically provisioned pvc can be resized and the storageclass that provisions "
            "the pvc must support resize"
        )
        raise ApiError(403, "Forbidden", f'persistentvolumeclaims "{name}" is forbidden: {why}')


# --- what the binder and the driver do ----------------------------------------------------------


def reconcile_claim(store: Store, claim: Obj) -> None:
    """Bind it to its volume, made where its class is ours, and let it grow there."""
    ours = _is_ours(store, claim)
    name = claim["spec"].get("volumeName")
    if not name and ours:
        name = _provision(store, claim)
        claim = _write(store, claim, {"spec": {"volumeName": name}})
    volume = store.find("PersistentVolume", "", name) if name else None
    if volume is None:
        return
    status = claim.get("status") or {}
    if status.get("phase") != "Bound":
        size = volume["spec"]["capacity"]
        bound = {"phase": "Bound", "capacity": size, "accessModes": claim["spec"]["accessModes"]}
        _write(store, claim, {"status": bound}, "status")
        _write(store, volume, {"status": {"phase": "Bound"}}, "status")
    elif ours and asked(claim) > amount(status["capacity"]["storage"]):
        size = {"storage": _requests(claim)["storage"]}
        _write(store, volume, {"spec": {"capacity": size}})
        _write(store, claim, {"status": {"capacity": size}}, "status")


def claims_of_templates(store: Store, owner: Obj, pod: str) -> Sequence[Obj]:
    """Make the claims of a StatefulSet's pod where they are missing; give its volumes."""
    meta, volumes = owner["metadata"], list[Obj]()
    for template in owner["spec"].get("volumeClaimTemplates") or []:
        name = f"{template['metadata']['name']}-{pod}"
        if store.find(_KIND, meta["namespace"], name) is None:
            labels = owner["spec"]["selector"].get("matchLabels") or {}
            made = {"name": name, "namespace": meta["namespace"], "labels": {**labels}}
            body = {"kind": _KIND, "metadata": made, "spec": clone(template["spec"])}
            store.create(body, manager=MANAGER)
        mount = {"persistentVolumeClaim": {"claimName": name}}
        volumes.append({"name": template["metadata"]["name"], **mount})
    return volumes


def _is_ours(store: Store, claim: Obj) -> bool:
    of = claim["spec"].get("storageClassName")
    found = store.find("StorageClass", "", of) if of else None
    return (found or {}).get("provisioner") == PROVISIONER


def _provision(store: Store, claim: Obj) -> str:
    meta = claim["metadata"]
    name = f"pvc-{meta['uid']}"
    if store.find("PersistentVolume", "", name) is None:
        reference = {key: meta[key] for key in ("namespace", "name", "uid")}
        spec = {
            "capacity": {"storage": _requests(claim)["storage"]},
            "accessModes": claim["spec"]["accessModes"],
            "claimRef": {"kind": _KIND, "apiVersion": "v1", **reference},
            "storageClassName": claim["spec"]["storageClassName"],
            "csi": {"driver": PROVISIONER, "volumeHandle": name},
        }
        body = {"kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec}
        store.create(body, manager=MANAGER)
    return name


def _write(store: Store, obj: Obj, body: Obj, subresource: str = "") -> Obj:
    meta = obj["metadata"]
    space, name = meta.get("namespace", ""), meta["name"]
    return store.patch(obj["kind"], space, name, body, manager=MANAGER, subresource=subresource)
