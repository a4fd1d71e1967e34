"""The closed list of metrics whose history a model may have read, as PromQL for a resolved object.

Invariant: an object's name enters a query as one quoted string, and nothing else does.
"""

import math
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from tiphys.agents.ports import Series
from tiphys.agents.promql import pods_named_like, quoted, selector
from tiphys.agents.reads import Metric
from tiphys.policies.model import Json, Target

MEASURED: Final = {"Deployment", "StatefulSet", "DaemonSet", "Pod", "Node", "PersistentVolumeClaim"}
"""Kinds of objects that have a metric here."""
KEPT_POINTS: Final = 24
KEPT_SERIES: Final = 6


def query_of(metric: Metric, target: Target) -> str | None:
    """Write the query; None where such an object has no such metric."""
    if target.kind == "Node":
        return _of_node(metric, target.name)
    if target.kind == "PersistentVolumeClaim":
        return _of_volume(metric, target)
    if target.kind == "Pod":
        return _of_pods(metric, target.namespace, f"pod={quoted(target.name)}")
    counted = _of_workload(metric, target)
    pods = f"pod=~{pods_named_like(target.name)}"
    return counted or _of_pods(metric, target.namespace, pods)


def _of_workload(metric: Metric, target: Target) -> str | None:
    kind = target.kind.lower()
    names = {
        ("deployment", Metric.REPLICAS): "kube_deployment_spec_replicas",
        ("deployment", Metric.AVAILABLE): "kube_deployment_status_replicas_available",
        ("statefulset", Metric.REPLICAS): "kube_statefulset_replicas",
        ("statefulset", Metric.AVAILABLE): "kube_statefulset_status_replicas_ready",
        ("daemonset", Metric.REPLICAS): "kube_daemonset_status_desired_number_scheduled",
        ("daemonset", Metric.AVAILABLE): "kube_daemonset_status_number_available",
        (kind, Metric.GENERATION): f"kube_{kind}_metadata_generation",
    }
    name = names.get((kind, metric))
    return selector(name, {"namespace": target.namespace, kind: target.name}) if name else None


def _of_pods(metric: Metric, namespace: str, pods: str) -> str | None:
    here = f"namespace={quoted(namespace)},{pods}"
    used = f'container!="",{here}'
    limit = "sum by (pod) (kube_pod_container_resource_limits{resource=%s," + here + "})"
    cpu = f"sum by (pod) (rate(container_cpu_usage_seconds_total{{{used}}}[2m]))"
    memory = f"sum by (pod) (container_memory_working_set_bytes{{{used}}})"
    throttled = f"sum by (pod) (rate(container_cpu_cfs_throttled_periods_total{{{used}}}[2m]))"
    periods = f"sum by (pod) (rate(container_cpu_cfs_periods_total{{{used}}}[2m]))"
    ready = f'kube_pod_status_ready{{condition="true",{here}}}'
    return {
        Metric.CPU_OF_LIMIT: f"{cpu} / {limit % quoted('cpu')}",
        Metric.CPU_THROTTLED: f"{throttled} / {periods}",
        Metric.MEMORY_OF_LIMIT: f"{memory} / {limit % quoted('memory')}",
        Metric.READY_PODS: f"sum({ready})",
        Metric.RESTARTS: f"sum by (pod) (kube_pod_container_status_restarts_total{{{here}}})",
    }.get(metric)


def _of_node(metric: Metric, node: str) -> str | None:
    here = f"node={quoted(node)}"
    ready = {"condition": "Ready", "status": "true", "node": node}
    cpu = f'sum(rate(container_cpu_usage_seconds_total{{id="/",{here}}}[2m]))'
    memory = f'sum(container_memory_working_set_bytes{{id="/",{here}}})'
    room = "sum(kube_node_status_allocatable{resource=%s," + here + "})"
    return {
        Metric.NODE_CPU: f"{cpu} / {room % quoted('cpu')}",
        Metric.NODE_MEMORY: f"{memory} / {room % quoted('memory')}",
        Metric.NODE_READY: selector("kube_node_status_condition", ready),
    }.get(metric)


def _of_volume(metric: Metric, claim: Target) -> str | None:
    of = {"namespace": claim.namespace, "persistentvolumeclaim": claim.name}
    used = selector("kubelet_volume_stats_used_bytes", of)
    return (
        f"{used} / {selector('kubelet_volume_stats_capacity_bytes', of)}"
        if metric is Metric.VOLUME_USED
        else None
    )


def step_of(minutes: int) -> float:
    """Give the seconds between two points of a history."""
    return timedelta(minutes=minutes).total_seconds() / (2 * KEPT_POINTS)


def history_told(metric: Metric, found: Sequence[Series], since: float) -> tuple[Json, str]:
    """Give the record and the summary of a history that began at `since` (Unix seconds)."""
    told: list[Json] = []
    last: list[float] = []
    for series in found[:KEPT_SERIES]:
        points = [(at, value) for at, value in series.points if math.isfinite(value)]
        if not points:
            continue
        stride = max(1, math.ceil(len(points) / KEPT_POINTS))
        kept = points[::-1][::stride][::-1]
        last.append(points[-1][1])
        told.append(
            {
                "of": series.labels.get("pod", ""),
                "minute_and_value": [
                    [round((at - since) / 60, 1), float(f"{value:.4g}")] for at, value in kept
                ],
            }
        )
    if not told:
        return told, f"{metric.value}: no data"
    return told, f"{metric.value}: {len(found)} series, now {min(last):.3g} to {max(last):.3g}"
