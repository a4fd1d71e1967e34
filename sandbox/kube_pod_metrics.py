"""What kube-state-metrics says about pods and their containers.

https://github.com/kubernetes/kube-state-metrics/blob/main/docs/metrics/workload/pod-metrics.md
"""

from collections.abc import Iterator, Mapping

from tiphys.sandbox.resources import Obj
from tiphys.sandbox.scheduler import quantity
from tiphys.sandbox.timestamps import from_rfc3339
from tiphys.sandbox.tsdb import Reading

_PHASES = ("Pending", "Succeeded", "Failed", "Unknown", "Running")
_UNITS = {"cpu": "core", "memory": "byte", "ephemeral_storage": "byte"}


def flag(holds: object) -> float:
    """1 or 0."""
    return 1.0 if holds else 0.0


def conditions(name: str, labels: Mapping[str, str], obj: Obj) -> Iterator[Reading]:
    """Each condition of an object's status, as three series of which one is 1."""
    for condition in obj.get("status", {}).get("conditions") or []:
        for status in ("true", "false", "unknown"):
            value = flag(condition["status"].lower() == status)
            yield name, {**labels, "condition": condition["type"], "status": status}, value


def owner_labels(obj: Obj) -> dict[str, str]:
    """The controller of an object; empty where there is none."""
    owners = obj["metadata"].get("ownerReferences") or []
    owner = next((o for o in owners if o.get("controller")), owners[0] if owners else None)
    if owner is None:
        return {"owner_kind": "", "owner_name": "", "owner_is_controller": ""}
    controller = str(bool(owner.get("controller"))).lower()
    return {
        "owner_kind": owner["kind"],
        "owner_name": owner["name"],
        "owner_is_controller": controller,
    }


def resource_labels(resource: str) -> dict[str, str]:
    """A resource's name and unit as labels: `nvidia.com/gpu` is `nvidia_com_gpu`, integer."""
    name = "".join(c if c.isalnum() else "_" for c in resource)
    return {"resource": name, "unit": _UNITS.get(name, "integer")}


def pod_samples(pod: Obj) -> Iterator[Reading]:
    """Every series about one pod."""
    meta, spec, status = pod["metadata"], pod.get("spec", {}), pod.get("status", {})
    labels = {"namespace": meta["namespace"], "pod": meta["name"], "uid": meta["uid"]}
    node = {"node": spec.get("nodeName", "")}
    owner = owner_labels(pod)
    created_by = {"created_by_kind": owner["owner_kind"], "created_by_name": owner["owner_name"]}
    address = {"host_ip": status.get("hostIP", ""), "pod_ip": status.get("podIP", "")}
    yield "kube_pod_info", {**labels, **node, **created_by, **address}, 1.0
    yield "kube_pod_owner", {**labels, **owner}, 1.0
    yield "kube_pod_created", labels, from_rfc3339(meta["creationTimestamp"])
    if "deletionTimestamp" in meta:
        yield "kube_pod_deletion_timestamp", labels, from_rfc3339(meta["deletionTimestamp"])
    if "startTime" in status:
        yield "kube_pod_start_time", labels, from_rfc3339(status["startTime"])
    for phase in _PHASES:
        value = flag(status.get("phase", "Pending") == phase)
        yield "kube_pod_status_phase", {**labels, "phase": phase}, value
    if "reason" in status:
        yield "kube_pod_status_reason", {**labels, "reason": status["reason"]}, 1.0
    for condition in status.get("conditions") or []:
        yield from _pod_condition(labels, condition)
    for container in spec.get("containers") or []:
        inside = {**labels, "container": container["name"]}
        for kind in ("requests", "limits"):
            wanted = (container.get("resources") or {}).get(kind) or {}
            for resource, amount in wanted.items():
                given = {**inside, **node, **resource_labels(resource)}
                yield f"kube_pod_container_resource_{kind}", given, quantity(amount)
    for container in status.get("containerStatuses") or []:
        yield from _container(labels, container)


def _pod_condition(labels: Mapping[str, str], condition: Obj) -> Iterator[Reading]:
    names = {"Ready": "kube_pod_status_ready", "PodScheduled": "kube_pod_status_scheduled"}
    name = names.get(condition["type"])
    if name is not None:
        for value in ("true", "false", "unknown"):
            holds = flag(condition["status"].lower() == value)
            yield name, {**labels, "condition": value}, holds
    if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
        yield "kube_pod_status_unschedulable", labels, 1.0


def _container(labels: Mapping[str, str], container: Obj) -> Iterator[Reading]:
    inside = {**labels, "container": container["name"]}
    state, last = container.get("state") or {}, container.get("lastState") or {}
    image = {
        "image": container.get("image", ""),
        "image_id": container.get("imageID", ""),
        "container_id": container.get("containerID", ""),
    }
    prefix = "kube_pod_container_status"
    yield "kube_pod_container_info", {**inside, **image}, 1.0
    yield f"{prefix}_ready", inside, flag(container.get("ready"))
    yield f"{prefix}_restarts_total", inside, float(container.get("restartCount", 0))
    for kind in ("running", "terminated", "waiting"):
        yield f"{prefix}_{kind}", inside, flag(kind in state)
    for kind in ("terminated", "waiting"):
        if reason := (state.get(kind) or {}).get("reason"):
            yield f"{prefix}_{kind}_reason", {**inside, "reason": reason}, 1.0
    if "startedAt" in (state.get("running") or {}):
        started = from_rfc3339(state["running"]["startedAt"])
        yield "kube_pod_container_state_started", inside, started
    if ended := last.get("terminated"):
        why = {**inside, "reason": ended.get("reason", "Error")}
        yield f"{prefix}_last_terminated_reason", why, 1.0
        yield f"{prefix}_last_terminated_exitcode", inside, float(ended.get("exitCode", 0))
