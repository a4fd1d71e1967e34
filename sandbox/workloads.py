"""The controllers that own pods: ReplicaSets, StatefulSets, DaemonSets and Jobs."""

from collections.abc import Iterable, Sequence

from tiphys.sandbox.cluster_events import record
from tiphys.sandbox.deployments import MANAGER, condition, owner_of, template_hash
from tiphys.sandbox.disruptions import is_ready
from tiphys.sandbox.resources import Obj, clone
from tiphys.sandbox.scheduler import repels
from tiphys.sandbox.selectors import selects
from tiphys.sandbox.store import ApiError, Store, timestamp
from tiphys.sandbox.volumes import claims_of_templates

REVISION_HASH = "controller-revision-hash"
_ENDED = {"Succeeded", "Failed"}


def _phase(pod: Obj) -> str:
    return pod.get("status", {}).get("phase", "Pending")


def _active(pod: Obj) -> bool:
    return _phase(pod) not in _ENDED and "deletionTimestamp" not in pod["metadata"]


def _create_pod(store: Store, owner: Obj, *, name: str = "", node: str = "", **labels: str) -> None:
    template = clone(owner["spec"]["template"])
    meta = template.get("metadata") or {}
    meta["labels"] = {**(meta.get("labels") or {}), **labels}
    meta |= {"namespace": owner["metadata"]["namespace"], "ownerReferences": owner_of(owner)}
    meta |= {"name": name} if name else {"generateName": f"{owner['metadata']['name']}-"}
    spec = {**template["spec"], "nodeName": node} if node else template["spec"]
    if volumes := claims_of_templates(store, owner, name):
        spec = {**spec, "volumes": [*(spec.get("volumes") or []), *volumes]}
    try:
        made = store.create({"kind": "Pod", "metadata": meta, "spec": spec}, manager=MANAGER)
    except ApiError as refusal:
        record(store, owner, "FailedCreate", f"Error creating: {refusal.message}", warning=True)
        raise
    record(store, owner, "SuccessfulCreate", f"Created pod: {made['metadata']['name']}")


def _delete_pod(store: Store, owner: Obj, pod: Obj) -> None:
    if "deletionTimestamp" in pod["metadata"]:
        return
    store.delete("Pod", pod["metadata"]["namespace"], pod["metadata"]["name"])
    record(store, owner, "SuccessfulDelete", f"Deleted pod: {pod['metadata']['name']}")


def _write(store: Store, obj: Obj, status: Obj) -> None:
    """Write the status, with the generation that it is about."""
    meta = {key: obj["metadata"][key] for key in ("name", "namespace")}
    status = {"observedGeneration": obj["metadata"].get("generation", 1), **status}
    body = {"kind": obj["kind"], "metadata": meta, "status": status}
    store.update(body, manager=MANAGER, subresource="status")


def _dispensable_first(pods: Iterable[Obj]) -> list[Obj]:
    def rank(pod: Obj) -> tuple[bool, bool, bool, int]:
        statuses = pod.get("status", {}).get("containerStatuses") or []
        restarts = sum(status["restartCount"] for status in statuses)
        bound = bool(pod["spec"].get("nodeName"))
        return bound, _phase(pod) == "Running", is_ready(pod), -restarts

    youngest = sorted(pods, key=lambda pod: pod["metadata"]["creationTimestamp"], reverse=True)
    return sorted(youngest, key=rank)


def reconcile_replica_set(store: Store, obj: Obj) -> None:
    """Make the number of pods equal to the replicas; a pod whose labels left it is let go."""
    uid, wanted = obj["metadata"]["uid"], obj["spec"]["replicas"]
    _release(store, obj)
    pods = [pod for pod in store.owned_by("Pod", uid) if _active(pod)]
    try:
        for _ in range(wanted - len(pods)):
            _create_pod(store, obj)
        for pod in _dispensable_first(pods)[: max(0, len(pods) - wanted)]:
            _delete_pod(store, obj, pod)
    finally:  # also when a quota lets no more in
        left = [pod for pod in store.owned_by("Pod", uid) if _active(pod)]
        ready = sum(map(is_ready, left))
        status = {"replicas": len(left), "fullyLabeledReplicas": len(left)}
        _write(store, obj, {**status, "readyReplicas": ready, "availableReplicas": ready})


def _release(store: Store, obj: Obj) -> None:
    meta = obj["metadata"]
    for pod in store.owned_by("Pod", meta["uid"]):
        if not selects(obj["spec"]["selector"], pod["metadata"].get("labels") or {}):
            body = {"metadata": {"ownerReferences": None}}
            store.patch("Pod", meta["namespace"], pod["metadata"]["name"], body, manager=MANAGER)


def reconcile_stateful_set(store: Store, obj: Obj) -> None:
    """Keep ordinals 0 to replicas - 1, in order; replace outdated ones from the highest down."""
    meta, spec = obj["metadata"], obj["spec"]
    current = template_hash(spec["template"])
    ended = [pod for pod in store.owned_by("Pod", meta["uid"]) if _phase(pod) in _ENDED]
    for pod in ended:
        store.delete("Pod", meta["namespace"], pod["metadata"]["name"])
    pods = {pod["metadata"]["name"]: pod for pod in store.owned_by("Pod", meta["uid"])}
    names = [f"{meta['name']}-{ordinal}" for ordinal in range(spec["replicas"])]
    patient = spec.get("podManagementPolicy", "OrderedReady") == "OrderedReady"
    for name in names:
        if name not in pods:
            _create_pod(store, obj, name=name, **{REVISION_HASH: current})
        if patient and not (name in pods and is_ready(pods[name])):
            break
    surplus = [pod for name, pod in pods.items() if name not in names]
    for pod in sorted(surplus, key=_ordinal)[-1:]:
        _delete_pod(store, obj, pod)
    present = [pods[name] for name in names if name in pods]
    if not surplus and len(present) == len(names):
        _replace_outdated(store, obj, present, current)
    _write(store, obj, _stateful_status(store, obj, current))


def _ordinal(pod: Obj) -> int:
    return int(pod["metadata"]["name"].rpartition("-")[2])


def _hash(pod: Obj) -> str:
    return (pod["metadata"].get("labels") or {}).get(REVISION_HASH, "")


def _replace_outdated(store: Store, obj: Obj, pods: Sequence[Obj], current: str) -> None:
    if obj["spec"].get("updateStrategy", {}).get("type", "RollingUpdate") != "RollingUpdate":
        return
    for pod in reversed(pods):
        if _hash(pod) != current:
            _delete_pod(store, obj, pod)
            return
        if not is_ready(pod):
            return


def _stateful_status(store: Store, obj: Obj, current: str) -> Obj:
    pods = [pod for pod in store.owned_by("Pod", obj["metadata"]["uid"]) if _active(pod)]
    ready = sum(map(is_ready, pods))
    updated = sum(_hash(pod) == current for pod in pods)
    revision = f"{obj['metadata']['name']}-{current}"
    before = obj.get("status", {}).get("currentRevision", revision)
    done = updated == ready == obj["spec"]["replicas"]
    return {
        "replicas": len(pods),
        "readyReplicas": ready,
        "availableReplicas": ready,
        "updatedReplicas": updated,
        "currentReplicas": updated if done or before == revision else len(pods) - updated,
        "currentRevision": revision if done else before,
        "updateRevision": revision,
    }


def reconcile_daemon_set(store: Store, obj: Obj) -> None:
    """Keep one pod on every node that its selector names; replace outdated ones one by one.

    A node with a taint that its pods do not tolerate gets none, and keeps one that is there.
    """
    uid, current = obj["metadata"]["uid"], template_hash(obj["spec"]["template"])
    spec = obj["spec"]["template"]["spec"]
    wanted = (spec.get("nodeSelector") or {}).items()
    pods = [pod for pod in store.owned_by("Pod", uid) if _active(pod)]
    taken = {pod["spec"].get("nodeName") for pod in pods}
    nodes = {
        node["metadata"]["name"]
        for node in store.list("Node")
        if wanted <= (node["metadata"].get("labels") or {}).items()
        and (node["metadata"]["name"] in taken or not repels(node, spec))
    }
    for node in sorted(nodes - taken):
        _create_pod(store, obj, node=node, **{REVISION_HASH: current})
    for pod in pods:
        if pod["spec"].get("nodeName") not in nodes:
            _delete_pod(store, obj, pod)
    outdated = [pod for pod in pods if _hash(pod) != current]
    if outdated and len(pods) == len(nodes) and all(map(is_ready, pods)):
        _delete_pod(store, obj, outdated[0])
    pods = [pod for pod in store.owned_by("Pod", uid) if _active(pod)]
    ready = sum(map(is_ready, pods))
    status = {
        "desiredNumberScheduled": len(nodes),
        "currentNumberScheduled": len(pods),
        "updatedNumberScheduled": sum(_hash(pod) == current for pod in pods),
        "numberMisscheduled": 0,
        "numberReady": ready,
        "numberAvailable": ready,
        "numberUnavailable": len(nodes) - ready,
    }
    _write(store, obj, status)


def reconcile_job(store: Store, obj: Obj) -> None:
    """Run pods until enough succeeded or too many failed."""
    spec, before = obj["spec"], obj.get("status", {})
    pods = store.owned_by("Pod", obj["metadata"]["uid"])
    succeeded = sum(_phase(pod) == "Succeeded" for pod in pods)
    failed = sum(_phase(pod) == "Failed" for pod in pods)
    active = [pod for pod in pods if _active(pod)]
    status: Obj = {"startTime": before.get("startTime") or timestamp(), "succeeded": succeeded}
    status |= {"failed": failed, "ready": sum(map(is_ready, active))}
    if any(c["status"] == "True" for c in before.get("conditions") or []):
        return
    if succeeded >= spec["completions"]:
        done = condition(before, ("Complete", True), "CompletionsReached", "Reached completions")
        status |= {"conditions": [done], "completionTime": timestamp(), "active": 0}
    elif failed > spec["backoffLimit"]:
        told = "Job has reached the specified backoff limit"
        status |= {"active": 0}
        status["conditions"] = [condition(before, ("Failed", True), "BackoffLimitExceeded", told)]
        record(store, obj, "BackoffLimitExceeded", told, warning=True)
        for pod in active:
            _delete_pod(store, obj, pod)
    else:
        wanted = min(spec["parallelism"], spec["completions"] - succeeded)
        name = obj["metadata"]["name"]
        for _ in range(wanted - len(active)):
            _create_pod(store, obj, **{"job-name": name, "batch.kubernetes.io/job-name": name})
        status["active"] = max(wanted, len(active))
    _write(store, obj, status)
