"""Claims on volumes that are there already, and a stand-in for the driver that expands them.

No storage driver is needed, so it works alike on every cluster: binding and the judgement whether a
claim may grow are the cluster's own; only the storage behind it is said to be there. Classes and
volumes have no namespace; they go with the world.
"""

import contextlib
import secrets
import threading
import time

import urllib3

from tiphys.service.conform.trial import Stage
from tiphys.service.conform.wire import Json, UnexpectedAnswerError, Wire, place, place_of
from tiphys.service.conform.workloads import container, deployment, settled, template
from tiphys.workflow_templates.claims import CLAIM
from tiphys.workflow_templates.quantities import amount

VOLUME = ("v1", "PersistentVolume")
_DRIVEN = "conform.tiphys.io/driven"
"""The label of claims that the stand-in expands."""
_POLL = 0.3
_THERE = "/usr/share"
"""A folder of every node, mounted for reading alone."""


def storage_class(stage: Stage) -> str:
    """Make a class that allows expansion; gives its name."""
    name = f"conform-{secrets.token_hex(4)}"
    made: Json = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name},
        "provisioner": "stand-in.tiphys.io/none",
        "allowVolumeExpansion": True,
    }
    stage.wire.create(made)
    stage.world.swept.append(place_of(made))
    return name


def bound_claim(stage: Stage, size: str, *, driver: bool = True) -> Json:
    """Give a bound claim, in use by a running pod; with a driver it grows when it asks for more."""
    of, name = storage_class(stage), "cache"
    volume = _volume(stage, of, size, name)
    claim: Json = {
        "apiVersion": CLAIM[0],
        "kind": CLAIM[1],
        "metadata": {"name": name, "namespace": stage.namespace},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": size}},
            "storageClassName": of,
            "volumeName": volume["metadata"]["name"],
        },
    }
    if driver:
        claim["metadata"]["labels"] = {_DRIVEN: "yes"}
    path = place_of(stage.wire.create(claim))
    first = container(stage.world)
    first["volumeMounts"] = [{"name": "data", "mountPath": "/data", "readOnly": True}]
    pods = template(name, first)
    mounted = {"name": "data", "persistentVolumeClaim": {"claimName": name}}
    pods["spec"]["volumes"] = [mounted]
    user = place_of(stage.wire.create(deployment(stage.namespace, pods, 1)))
    settled(stage.world, user)
    with stage.world.lock:
        if stage.world.driver is None:
            stage.world.driver = threading.Thread(target=_drive, args=(stage.wire,), daemon=True)
            stage.world.driver.start()
    return {"apiVersion": CLAIM[0], "kind": CLAIM[1], **has(stage, path, size)}


def _volume(stage: Stage, of: str, size: str, claim: str) -> Json:
    """Make the volume behind a claim of that name."""
    made: Json = {
        "apiVersion": VOLUME[0],
        "kind": VOLUME[1],
        "metadata": {"name": f"conform-{secrets.token_hex(4)}"},
        "spec": {
            "capacity": {"storage": size},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": of,
            "claimRef": {"namespace": stage.namespace, "name": claim},
            "hostPath": {"path": _THERE},
        },
    }
    stage.wire.create(made)
    stage.world.swept.append(place_of(made))
    return made


def has(stage: Stage, path: str, size: str) -> Json:
    """Wait until a claim has so much; gives it."""

    def there(claim: Json) -> bool:
        found = (claim.get("status") or {}).get("capacity") or {}
        return bool(found.get("storage") == size)

    return stage.world.until(f"{path} has {size}", lambda: stage.wire.get(path), there)


def _drive(wire: Wire) -> None:
    """Be the driver of every claim that bears the label, until the cluster is gone."""
    while True:
        try:
            for claim in wire.items(place(*CLAIM), labelSelector=f"{_DRIVEN}=yes"):
                with contextlib.suppress(UnexpectedAnswerError):
                    _grow(wire, claim)
        except UnexpectedAnswerError:
            time.sleep(_POLL)
        except urllib3.exceptions.HTTPError:
            return
        time.sleep(_POLL)


def _grow(wire: Wire, claim: Json) -> None:
    asked = claim["spec"]["resources"]["requests"]["storage"]
    there = ((claim.get("status") or {}).get("capacity") or {}).get("storage")
    if there and amount(asked) > amount(there):
        size = {"capacity": {"storage": asked}}
        wire.patch(place(*VOLUME, "", claim["spec"]["volumeName"]), {"spec": size})
        meta = claim["metadata"]
        wire.patch(f"{place(*CLAIM, meta['namespace'], meta['name'])}/status", {"status": size})
