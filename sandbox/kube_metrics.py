"""What kube-state-metrics says about the simulated cluster, for its Prometheus.

Only the series that the kubernetes-mixin's alerts and the scenarios need, with the names, labels
and values of kube-state-metrics 2.
https://github.com/kubernetes/kube-state-metrics/tree/main/docs/metrics
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

from tiphys.sandbox.kube_pod_metrics import (
    conditions,
    flag,
    owner_labels,
    pod_samples,
    resource_labels,
)
from tiphys.sandbox.resources import Obj
from tiphys.sandbox.scheduler import quantity
from tiphys.sandbox.store import Store
from tiphys.sandbox.timestamps import from_rfc3339
from tiphys.sandbox.tsdb import Reading

JOB = "kube-state-metrics"

_ROLE = "node-role.kubernetes.io/"


def samples(store: Store) -> Iterator[Reading]:
    """Every series as it is now: name, labels (`job` among them, no empty ones), value."""
    for kind, describe in _KINDS.items():
        for obj in store.list(kind):
            for name, labels, value in describe(obj):
                yield name, {"job": JOB, **{k: v for k, v in labels.items() if v}}, value


def _counts(
    prefix: str, labels: Mapping[str, str], given: Mapping[str, float | int | str | None]
) -> Iterator[Reading]:
    """Series of a common prefix; a count that the API leaves out is zero."""
    for name, value in given.items():
        yield f"{prefix}_{name}", labels, float(value or 0)


def _named(obj: Obj, label: str) -> dict[str, str]:
    meta = obj["metadata"]
    return {"namespace": meta.get("namespace", ""), label: meta["name"]}


def _rollout(obj: Obj, label: str) -> Iterator[Reading]:
    """Age, generation and wanted size, which workloads have in common."""
    meta, labels = obj["metadata"], _named(obj, label)
    generations = {
        "metadata_generation": meta.get("generation"),
        "status_observed_generation": obj.get("status", {}).get("observedGeneration"),
    }
    yield from _counts(f"kube_{label}", labels, generations)
    yield f"kube_{label}_created", labels, from_rfc3339(meta["creationTimestamp"])


def _deployment(obj: Obj) -> Iterator[Reading]:
    labels, status = _named(obj, "deployment"), obj.get("status", {})
    yield from _rollout(obj, "deployment")
    yield from _counts(
        "kube_deployment",
        labels,
        {
            "spec_replicas": obj["spec"].get("replicas", 1),
            "spec_paused": flag(obj["spec"].get("paused")),
            "status_replicas": status.get("replicas"),
            "status_replicas_available": status.get("availableReplicas"),
            "status_replicas_ready": status.get("readyReplicas"),
            "status_replicas_unavailable": status.get("unavailableReplicas"),
            "status_replicas_updated": status.get("updatedReplicas"),
        },
    )
    yield from conditions("kube_deployment_status_condition", labels, obj)


def _replica_set(obj: Obj) -> Iterator[Reading]:
    labels, status = _named(obj, "replicaset"), obj.get("status", {})
    yield from _rollout(obj, "replicaset")
    yield "kube_replicaset_owner", {**labels, **owner_labels(obj)}, 1.0
    yield from _counts(
        "kube_replicaset",
        labels,
        {
            "spec_replicas": obj["spec"].get("replicas", 1),
            "status_replicas": status.get("replicas"),
            "status_ready_replicas": status.get("readyReplicas"),
        },
    )


def _stateful_set(obj: Obj) -> Iterator[Reading]:
    labels, status = _named(obj, "statefulset"), obj.get("status", {})
    yield from _rollout(obj, "statefulset")
    yield from _counts(
        "kube_statefulset",
        labels,
        {
            "replicas": obj["spec"].get("replicas", 1),
            "status_replicas": status.get("replicas"),
            "status_replicas_available": status.get("availableReplicas"),
            "status_replicas_current": status.get("currentReplicas"),
            "status_replicas_ready": status.get("readyReplicas"),
            "status_replicas_updated": status.get("updatedReplicas"),
        },
    )
    for name in ("current", "update"):
        revision = {**labels, "revision": status.get(f"{name}Revision", "")}
        yield f"kube_statefulset_status_{name}_revision", revision, 1.0


def _daemon_set(obj: Obj) -> Iterator[Reading]:
    labels, status = _named(obj, "daemonset"), obj.get("status", {})
    yield from _rollout(obj, "daemonset")
    yield from _counts(
        "kube_daemonset_status",
        labels,
        {
            "current_number_scheduled": status.get("currentNumberScheduled"),
            "desired_number_scheduled": status.get("desiredNumberScheduled"),
            "number_available": status.get("numberAvailable"),
            "number_misscheduled": status.get("numberMisscheduled"),
            "number_ready": status.get("numberReady"),
            "number_unavailable": status.get("numberUnavailable"),
            "updated_number_scheduled": status.get("updatedNumberScheduled"),
        },
    )


def _job(obj: Obj) -> Iterator[Reading]:
    labels, status = _named(obj, "job_name"), obj.get("status", {})
    yield "kube_job_info", labels, 1.0
    yield "kube_job_owner", {**labels, **owner_labels(obj)}, 1.0
    yield "kube_job_created", labels, from_rfc3339(obj["metadata"]["creationTimestamp"])
    counts = {name: status.get(name) for name in ("active", "failed", "succeeded")}
    yield from _counts("kube_job_status", labels, counts)
    for name, field in (("start", "startTime"), ("completion", "completionTime")):
        if field in status:
            yield f"kube_job_status_{name}_time", labels, from_rfc3339(status[field])
    for condition in status.get("conditions") or []:
        name = {"Failed": "kube_job_failed", "Complete": "kube_job_complete"}.get(condition["type"])
        for value in ("true", "false", "unknown") if name else ():
            holds = flag(condition["status"].lower() == value)
            yield str(name), {**labels, "condition": value}, holds


def _node(obj: Obj) -> Iterator[Reading]:
    meta, spec, status = obj["metadata"], obj.get("spec", {}), obj.get("status", {})
    labels = {"node": meta["name"]}
    info = status.get("nodeInfo") or {}
    version = {"kubelet_version": info.get("kubeletVersion", "")}
    yield "kube_node_info", {**labels, **version}, 1.0
    yield "kube_node_created", labels, from_rfc3339(meta["creationTimestamp"])
    yield "kube_node_spec_unschedulable", labels, flag(spec.get("unschedulable"))
    for taint in spec.get("taints") or []:
        given = {key: str(taint.get(key) or "") for key in ("key", "value", "effect")}
        yield "kube_node_spec_taint", {**labels, **given}, 1.0
    for name in meta.get("labels") or {}:
        if name.startswith(_ROLE):
            yield "kube_node_role", {**labels, "role": name.removeprefix(_ROLE)}, 1.0
    yield from conditions("kube_node_status_condition", labels, obj)
    for kind in ("allocatable", "capacity"):
        for resource, amount in (status.get(kind) or {}).items():
            given = {**labels, **resource_labels(resource)}
            yield f"kube_node_status_{kind}", given, quantity(amount)


def _autoscaler(obj: Obj) -> Iterator[Reading]:
    labels, spec, status = _named(obj, "horizontalpodautoscaler"), obj["spec"], obj.get("status")
    target = spec.get("scaleTargetRef") or {}
    prefix = "kube_horizontalpodautoscaler"
    kind, name = target.get("kind", ""), target.get("name", "")
    about = {"scaletargetref_kind": kind, "scaletargetref_name": name}
    yield f"{prefix}_info", {**labels, **about}, 1.0
    counts = {
        "spec_max_replicas": spec.get("maxReplicas"),
        "spec_min_replicas": spec.get("minReplicas", 1),
        "status_current_replicas": (status or {}).get("currentReplicas"),
        "status_desired_replicas": (status or {}).get("desiredReplicas"),
    }
    yield from _counts(prefix, labels, counts)
    yield from conditions(f"{prefix}_status_condition", labels, obj)


def _disruption_budget(obj: Obj) -> Iterator[Reading]:
    status = obj.get("status", {})
    counts = {
        "current_healthy": status.get("currentHealthy"),
        "desired_healthy": status.get("desiredHealthy"),
        "expected_pods": status.get("expectedPods"),
        "pod_disruptions_allowed": status.get("disruptionsAllowed"),
    }
    labels = _named(obj, "poddisruptionbudget")
    yield from _counts("kube_poddisruptionbudget_status", labels, counts)


def _volume_claim(obj: Obj) -> Iterator[Reading]:
    labels, spec = _named(obj, "persistentvolumeclaim"), obj["spec"]
    prefix = "kube_persistentvolumeclaim"
    place = {
        "storageclass": spec.get("storageClassName", ""),
        "volumename": spec.get("volumeName", ""),
    }
    yield f"{prefix}_info", {**labels, **place}, 1.0
    for mode in spec.get("accessModes") or []:
        yield f"{prefix}_access_mode", {**labels, "access_mode": mode}, 1.0
    for phase in ("Bound", "Lost", "Pending"):
        holds = flag(obj.get("status", {}).get("phase", "Pending") == phase)
        yield f"{prefix}_status_phase", {**labels, "phase": phase}, holds
    requested = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    if requested is not None:
        yield f"{prefix}_resource_requests_storage_bytes", labels, quantity(requested)


def _quota(obj: Obj) -> Iterator[Reading]:
    labels = _named(obj, "resourcequota")
    for kind in ("hard", "used"):
        for resource, amount in (obj.get("status", {}).get(kind) or {}).items():
            given = {**labels, "resource": resource, "type": kind}
            yield "kube_resourcequota", given, quantity(amount)


def _namespace(obj: Obj) -> Iterator[Reading]:
    name = obj["metadata"]["name"]
    for phase in ("Active", "Terminating"):
        holds = flag(obj.get("status", {}).get("phase", "Active") == phase)
        yield "kube_namespace_status_phase", {"namespace": name, "phase": phase}, holds


_KINDS: dict[str, Callable[[Obj], Iterable[Reading]]] = {
    "DaemonSet": _daemon_set,
    "Deployment": _deployment,
    "HorizontalPodAutoscaler": _autoscaler,
    "Job": _job,
    "Namespace": _namespace,
    "Node": _node,
    "PersistentVolumeClaim": _volume_claim,
    "Pod": pod_samples,
    "PodDisruptionBudget": _disruption_budget,
    "ReplicaSet": _replica_set,
    "ResourceQuota": _quota,
    "StatefulSet": _stateful_set,
}
