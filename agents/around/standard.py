"""The standard series of a namespace: one query a kind, for all its workloads at once.

kube-state-metrics 2 (docs/metrics/workload in its repository), cAdvisor, the usual names of HTTP
servers' metrics (http_requests_total, http_request_duration_seconds), and recording rules named
`workload:…` with the workload's label.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from tiphys.agents.around.place import Place, either
from tiphys.agents.causes.signals import Kind

RATE: Final = "[2m]"
_CODES: Final = ("code", "status", "status_code")
_HTTP: Final = "http_requests_total"


@dataclass(frozen=True)
class Asked:
    """One range query over a place."""

    words: str
    write: Callable[[Place], str]
    kind: Kind | None = None
    """What its series are evidence of; None: they tell of changes, or of parts of a ratio."""


def _of_limit(place: Place, used: str, resource: str) -> str:
    limit = f'kube_pod_container_resource_limits{{resource="{resource}",{place.pods()}}}'
    share = f"sum by (namespace, pod) ({used}) / sum by (namespace, pod) ({limit})"
    return place.by_pod_owner(f"({share})", "max")


def _cpu(place: Place) -> str:
    used = f'container_cpu_usage_seconds_total{{container!="",{place.pods()}}}'
    return _of_limit(place, f"rate({used}{RATE})", "cpu")


def _memory(place: Place) -> str:
    used = f'container_memory_working_set_bytes{{container!="",{place.pods()}}}'
    return _of_limit(place, used, "memory")


def _restarts(place: Place) -> str:
    counted = f"kube_pod_container_status_restarts_total{{{place.pods()}}}"
    return place.by_pod_owner(f"sum by (namespace, pod) (increase({counted}[5m]))", "sum")


def _available(place: Place) -> str:
    def share(label: str, available: str, wanted: str) -> str:
        by, where = f"max by (namespace, {label})", place.named(label)
        return f"{by} ({available}{{{where}}}) / ({by} ({wanted}{{{where}}}) > 0)"

    return either((
        share("deployment", "kube_deployment_status_replicas_available",
              "kube_deployment_spec_replicas"),
        share("statefulset", "kube_statefulset_status_replicas_ready", "kube_statefulset_replicas"),
        share("daemonset", "kube_daemonset_status_number_available",
              "kube_daemonset_status_desired_number_scheduled"),
    ))  # fmt: skip


def _requests(place: Place) -> str:
    rates = f"rate({_HTTP}{{{place.pods()}}}{RATE})"
    return place.by_pod_owner(f"sum by (namespace, pod) ({rates})", "sum")


def _failed(place: Place) -> str:
    # One that names the status otherwise has no such label, and no match.
    rates = either(f'rate({_HTTP}{{{place.pods()},{c}=~"5.."}}{RATE})' for c in _CODES)
    return place.by_pod_owner(f"sum by (namespace, pod) ({rates})", "sum")


def _latency(place: Place) -> str:
    rates = f"rate(http_request_duration_seconds_bucket{{{place.pods()}}}{RATE})"
    by_le = place.by_pod_owner(f"sum by (le, namespace, pod) ({rates})", "sum", "le, ")
    return f"histogram_quantile(0.95, {by_le})"


def _recorded(place: Place) -> str:
    # Whatever label names the workload: narrowed, only those that name a Deployment are read.
    where = place.named("deployment")
    return f'{{__name__=~"workload:.+",{where}}}'


def _wanted(place: Place) -> str:
    deployments, stateful = place.named("deployment"), place.named("statefulset")
    return either((
        f"max by (namespace, deployment) (kube_deployment_spec_replicas{{{deployments}}})",
        f"max by (namespace, statefulset) (kube_statefulset_replicas{{{stateful}}})",
    ))  # fmt: skip


def _generations(place: Place) -> str:
    return either(
        f"max by (namespace, {kind}) (kube_{kind}_metadata_generation{{{place.named(kind)}}})"
        for kind in ("deployment", "statefulset", "daemonset")
    )


def _versions(place: Place) -> str:
    versions = f"kube_configmap_metadata_resource_version{{{place.within()}}}"
    return f"max by (namespace, configmap) ({versions})"


CPU: Final = Asked("CPU of its limit", _cpu, Kind.CPU)
MEMORY: Final = Asked("memory of its limit", _memory, Kind.MEMORY)
RESTARTS: Final = Asked("container restarts within 5 min", _restarts, Kind.RESTARTS)
AVAILABLE: Final = Asked("replicas available of those wanted", _available, Kind.AVAILABILITY)
REQUESTS: Final = Asked("HTTP requests a second", _requests, Kind.REQUESTS)
FAILED: Final = Asked("HTTP requests answered with 5xx", _failed)
LATENCY: Final = Asked("95th percentile of its HTTP answers", _latency, Kind.LATENCY)
RECORDED: Final = Asked("recording rules of workloads", _recorded)
WANTED: Final = Asked("replicas wanted", _wanted)
GENERATIONS: Final = Asked("generations of the specs", _generations)
VERSIONS: Final = Asked("versions of ConfigMaps", _versions)


def tenants(place: Place) -> str:
    """Ask which pods' owners had pods on which nodes within the last hour."""
    by = "max by (namespace, node, created_by_kind, created_by_name)"
    return f"{by} (last_over_time(kube_pod_info{{{place.pods()}}}[1h]))"


def recorded_kind(rule: str) -> tuple[Kind, bool] | None:
    """Tell what a recording rule's name says it measures, and whether it counts what failed.

    Names are level:metric:operations, as Prometheus' documentation recommends; None where the name
    says none of the kinds.
    """
    _, _, rest = rule.partition(":")
    words = set(rest.replace(":", "_").split("_"))
    if words & {"duration", "latency"}:
        return Kind.LATENCY, False
    if "ratio" in words:
        if words & {"error", "errors", "failed", "failures"}:
            return Kind.AVAILABILITY, True
        if words & {"success", "availability", "available"}:
            return Kind.AVAILABILITY, False
        if "cpu" in words:
            return Kind.CPU, False
        return (Kind.MEMORY, False) if "memory" in words else None
    if "rate" in words and words & {"request", "requests"} and not words & {"errors", "failed"}:
        return Kind.REQUESTS, False
    return None


def symptom_kind(metrics: Iterable[str]) -> Kind | None:
    """Tell what an alert complains about by the metrics that its expression reads, if they do."""
    words = {w for name in metrics for w in name.replace(":", "_").split("_")}
    if words & {"duration", "latency"}:
        return Kind.LATENCY
    if words & {"error", "errors", "failed", "failures", "available", "unavailable"}:
        return Kind.AVAILABILITY
    return None
