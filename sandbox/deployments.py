"""The Deployment controller: revisions as ReplicaSets, rolling updates, conditions.

The arithmetic is the real controller's (kubernetes/pkg/controller/deployment); what it leaves out
is proportional scaling of several active ReplicaSets.
"""

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from tiphys.sandbox.cluster_events import record
from tiphys.sandbox.disruptions import amount
from tiphys.sandbox.resources import Obj, clone
from tiphys.sandbox.store import Store, timestamp

MANAGER = "kube-controller-manager"
HASH = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
_HASH_LETTERS = "bcdf456789"
_NOT_COPIED = {REVISION, "kubectl.kubernetes.io/last-applied-configuration"}


def template_hash(template: Obj) -> str:
    """Give ten letters and digits that stand for a pod template, from those Kubernetes uses."""
    text = json.dumps(template, sort_keys=True).encode()
    return "".join(_HASH_LETTERS[byte % 10] for byte in hashlib.sha256(text).digest()[:10])


def owner_of(obj: Obj) -> list[Obj]:
    """Give the ownerReferences that make `obj` the controller of something."""
    reference = {"apiVersion": obj["apiVersion"], "kind": obj["kind"]}
    reference |= {key: obj["metadata"][key] for key in ("name", "uid")}
    return [{**reference, "controller": True, "blockOwnerDeletion": True}]


def reconcile_deployment(store: Store, deployment: Obj) -> float | None:
    """Bring a Deployment one step further; gives the seconds after which to look again."""
    spec = deployment["spec"]
    sets = store.owned_by("ReplicaSet", deployment["metadata"]["uid"])
    present = next((each for each in sets if _template(each) == spec["template"]), None)
    old = [each for each in sets if each is not present]
    if spec.get("paused"):
        return _write_status(store, deployment, present, sets, found="")
    new, found = _newest(store, deployment, present, old)
    if spec["strategy"]["type"] == "Recreate":
        for each in old:
            _scale(store, deployment, each, 0)
        if not any(each.get("status", {}).get("replicas") for each in old):
            _scale(store, deployment, new, spec["replicas"])
    else:
        _roll(store, deployment, new, old)
    return _write_status(store, deployment, new, [new, *old], found=found)


def _template(replica_set: Obj) -> Obj:
    template = clone(replica_set["spec"]["template"])
    template["metadata"]["labels"].pop(HASH, None)
    return template


def _revision(obj: Obj) -> int:
    return int((obj["metadata"].get("annotations") or {}).get(REVISION, 0))


def _newest(
    store: Store, deployment: Obj, present: Obj | None, old: Sequence[Obj]
) -> tuple[Obj, str]:
    """Make or reuse the ReplicaSet of the present template; says which, if it was either."""
    meta = deployment["metadata"]
    revision = max([0, *map(_revision, old)]) + 1
    notes = {k: v for k, v in (meta.get("annotations") or {}).items() if k not in _NOT_COPIED}
    found = ""
    if present is None:
        found = "NewReplicaSetCreated"
        present = store.create(_replica_set(deployment, notes, revision), manager=MANAGER)
    elif _revision(present) < revision:
        found = "FoundNewReplicaSet"
    else:
        revision = _revision(present)
    wanted = {**notes, REVISION: str(revision)}
    if not wanted.items() <= (present["metadata"].get("annotations") or {}).items():
        present = _annotate(store, present, wanted)
    # Kept with the status, in place, so that it is no new generation.
    meta["annotations"] = {**(meta.get("annotations") or {}), REVISION: str(revision)}
    return present, found


def _annotate(store: Store, obj: Obj, annotations: dict[str, str]) -> Obj:
    meta = obj["metadata"]
    body = {"metadata": {"annotations": annotations}}
    return store.patch(obj["kind"], meta["namespace"], meta["name"], body, manager=MANAGER)


def _replica_set(deployment: Obj, annotations: dict[str, str], revision: int) -> Obj:
    spec, meta = deployment["spec"], deployment["metadata"]
    digest = template_hash(spec["template"])
    template = clone(spec["template"])
    template["metadata"].setdefault("labels", {})[HASH] = digest
    selector = clone(spec["selector"])
    selector.setdefault("matchLabels", {})[HASH] = digest
    return {
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{meta['name']}-{digest}",
            "namespace": meta["namespace"],
            "labels": dict(template["metadata"]["labels"]),
            "annotations": {**annotations, REVISION: str(revision)},
            "ownerReferences": owner_of(deployment),
        },
        "spec": {"replicas": 0, "selector": selector, "template": template},
    }


def _scale(store: Store, deployment: Obj, replica_set: Obj, replicas: int) -> None:
    """Set a ReplicaSet's replicas, also in the copy at hand."""
    before, meta = replica_set["spec"]["replicas"], replica_set["metadata"]
    if before == replicas:
        return
    body = {"spec": {"replicas": replicas}}
    store.patch("ReplicaSet", meta["namespace"], meta["name"], body, manager=MANAGER)
    replica_set["spec"]["replicas"] = replicas
    way = "up" if replicas > before else "down"
    told = f"Scaled {way} replica set {meta['name']} from {before} to {replicas}"
    record(store, deployment, "ScalingReplicaSet", told)


def _available(replica_set: Obj) -> int:
    return replica_set.get("status", {}).get("availableReplicas", 0)


def bounds(deployment: Obj) -> tuple[int, int]:
    """Give (max surge, max unavailable) as counts."""
    rolling = deployment["spec"]["strategy"].get("rollingUpdate")
    if not rolling:
        return 0, 0
    replicas = deployment["spec"]["replicas"]
    surge = amount(rolling["maxSurge"], replicas, up=True)
    unavailable = amount(rolling["maxUnavailable"], replicas, up=False)
    return surge, unavailable if surge or unavailable else 1


def _roll(store: Store, deployment: Obj, new: Obj, old: Sequence[Obj]) -> None:
    replicas = deployment["spec"]["replicas"]
    surge, unavailable = bounds(deployment)
    total = sum(each["spec"]["replicas"] for each in [new, *old])
    wanted = new["spec"]["replicas"]
    if wanted > replicas:
        _scale(store, deployment, new, replicas)
    elif total < replicas + surge:
        step = min(replicas + surge - total, replicas - wanted)
        _scale(store, deployment, new, wanted + step)
    total = sum(each["spec"]["replicas"] for each in [new, *old])
    least = replicas - unavailable
    spare = total - least - (new["spec"]["replicas"] - _available(new))
    oldest_first = sorted(old, key=_revision)
    # Pods that are not available anyway go first, then available ones as far as others stand in.
    for each in oldest_first:
        sick = min(max(spare, 0), max(each["spec"]["replicas"] - _available(each), 0))
        _scale(store, deployment, each, each["spec"]["replicas"] - sick)
        spare -= sick
    for each in oldest_first:
        down = min(max(spare, 0), each["spec"]["replicas"])
        _scale(store, deployment, each, each["spec"]["replicas"] - down)
        spare -= down


def _write_status(
    store: Store, deployment: Obj, new: Obj | None, sets: Sequence[Obj], *, found: str
) -> float | None:
    meta, before = deployment["metadata"], deployment.get("status", {})

    def count(of: Sequence[Obj], field: str) -> int:
        return sum(each.get("status", {}).get(field, 0) for each in of)

    status: Obj = {
        "observedGeneration": meta["generation"],
        "replicas": count(sets, "replicas"),
        "updatedReplicas": count([new] if new else [], "replicas"),
        "readyReplicas": count(sets, "readyReplicas"),
        "availableReplicas": count(sets, "availableReplicas"),
    }
    wanted = deployment["spec"]["replicas"]
    missing = max(0, max(wanted, status["replicas"]) - status["availableReplicas"])
    status["unavailableReplicas"] = missing
    enough = status["availableReplicas"] >= wanted - bounds(deployment)[1]
    available = condition(
        before,
        ("Available", enough),
        "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable",
        f"Deployment {'has' if enough else 'does not have'} minimum availability.",
    )
    name = new["metadata"]["name"] if new else ""
    progressing, again = _progress(deployment, status, name, found)
    status["conditions"] = [available, progressing]
    complete = progressing["reason"] == "NewReplicaSetAvailable"
    # An absent count is zero, as in the real API's JSON.
    status = {key: value for key, value in status.items() if value != 0}
    kept = {key: meta[key] for key in ("name", "namespace", "annotations") if key in meta}
    body = {"kind": "Deployment", "metadata": kept, "status": status}
    store.update(body, manager=MANAGER, subresource="status")
    if complete:
        _forget_old(store, deployment, [each for each in sets if each is not new])
    return again


def condition(before: Obj, named: tuple[str, bool], reason: str, message: str) -> Obj:
    """Give the condition (type, holds), with its old times where it did not change."""
    name, holds = named
    value = "True" if holds else "False"
    present = next((c for c in before.get("conditions") or [] if c["type"] == name), None)
    now = timestamp()
    same = present is not None and present["status"] == value
    changed: Any = present["lastTransitionTime"] if present and same else now
    unchanged = present and same and present["reason"] == reason and present["message"] == message
    return {
        "type": name,
        "status": value,
        "reason": reason,
        "message": message,
        "lastUpdateTime": present["lastUpdateTime"] if present and unchanged else now,
        "lastTransitionTime": changed,
    }


def _progress(deployment: Obj, status: Obj, name: str, found: str) -> tuple[Obj, float | None]:
    """Give the Progressing condition, and when to look again for its deadline."""
    before, wanted = deployment.get("status", {}), deployment["spec"]["replicas"]
    conditions = before.get("conditions") or []
    present = next((c for c in conditions if c["type"] == "Progressing"), None)
    counts = ("updatedReplicas", "readyReplicas", "availableReplicas")
    better = any(status[key] > before.get(key, 0) for key in counts)
    stale = status["replicas"] - status["updatedReplicas"]
    better |= stale < before.get("replicas", 0) - before.get("updatedReplicas", 0)
    quoted = f'ReplicaSet "{name}"'

    def say(holds: bool, reason: str, what: str) -> Obj:
        return condition(before, ("Progressing", holds), reason, f"{quoted} {what}")

    if not found and all(status[key] == wanted for key in (*counts, "replicas")):
        return say(True, "NewReplicaSetAvailable", "has successfully progressed."), None
    if present and not found and present["reason"] == "NewReplicaSetAvailable":
        # A finished rollout whose pods fail later is not a rollout that failed.
        return present, None
    if found or present is None or better:
        now = say(True, found or "ReplicaSetUpdated", "is progressing.")
        now["lastUpdateTime"] = timestamp()
        return now, float(deployment["spec"]["progressDeadlineSeconds"])
    since = datetime.fromisoformat(present["lastUpdateTime"])
    passed = (datetime.now(UTC) - since).total_seconds()
    left = deployment["spec"]["progressDeadlineSeconds"] - passed
    if present["status"] == "False" or left <= 0:
        return say(False, "ProgressDeadlineExceeded", "has timed out progressing."), None
    return present, left + 0.1


def _forget_old(store: Store, deployment: Obj, old: Sequence[Obj]) -> None:
    idle = sorted((each for each in old if not each["spec"]["replicas"]), key=_revision)
    surplus = len(idle) - deployment["spec"]["revisionHistoryLimit"]
    for each in idle[: max(0, surplus)]:
        store.delete("ReplicaSet", each["metadata"]["namespace"], each["metadata"]["name"])
