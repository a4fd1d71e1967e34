"""Which alerts are the same and which speak of the same thing, from their labels alone.

A pod's name tells its workload only by convention; a wrong guess here groups alerts wrongly but
never picks an action's target, which the resolver reads from the cluster.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime

from tiphys.policies.model import AlertStatus

OWN_LABEL = "tiphys_incident"
"""An alert that we sent ourselves names its incident in this label."""
RUN, UNDO = "run ", "undo "
"""What the subject of a person's wish begins with, and of no alert: none can join its incident."""

TELLERS = frozenset({"__replica__", "prometheus", "prometheus_replica", "replica"})
"""Labels that say which of several equal Prometheus told an alert: the names that the Prometheus
operator, Thanos and Mimir give them by default."""
ALWAYS_FIRING = frozenset({"DeadMansSwitch", "InfoInhibitor", "Watchdog"})
"""Alerts that prove by firing that alerting works, or that only keep others quiet."""

Labels = Mapping[str, str]

# What Kubernetes generates: suffixes from this alphabet (apimachinery util/rand), and a pod
# template's hash from the ten letters to which that encoding maps decimal digits.
_RANDOM = "[bcdfghjklmnpqrstvwxz2456789]"
_REPLICA_SET = re.compile(rf"^(?P<name>.+)-(?:[bcdf456789]{{6,10}}|(?=[a-z]*\d){_RANDOM}{{8,10}})$")
_RANDOM_SUFFIX = re.compile(rf"^(?P<name>.+)-{_RANDOM}{{5}}$")
_SCHEDULED_JOB = re.compile(r"^.+-\d{8,10}$")
_ORDINAL = re.compile(r"^(?P<name>.+)-(?:0|[1-9]\d{0,3})$")

_WORKLOADS = ("deployment", "statefulset", "daemonset", "cronjob")
_NAMED = {
    "job_name": "job",
    "horizontalpodautoscaler": "horizontalpodautoscaler",
    "poddisruptionbudget": "poddisruptionbudget",
    "persistentvolumeclaim": "persistentvolumeclaim",
}
_EXPORTERS = ("kube-state-metrics", "node-exporter", "dcgm-exporter", "cadvisor")
"""These speak of other objects; their own `pod`, `service` and `instance` are not the subject."""
_NODE_LABELS = ("node", "Hostname", "nodename", "kubernetes_node")


def subject(labels: Labels) -> str:
    """Name what the alert is about, such as `deployment shop/cart`, `node worker-3` or its name.

    Alerts of one cluster with equal subjects belong to one incident.
    """
    about = _about(_as_scraped(labels))
    return f"alert {about}" if about.startswith((RUN, UNDO)) else about


def _about(labels: Labels) -> str:
    namespace, pod = labels.get("namespace", ""), labels.get("pod", "")
    if labels.get("alertname") in ALWAYS_FIRING:  # or they would keep other incidents open
        return " ".join(filter(None, (labels["alertname"], namespace)))
    exporter = _exporter(labels)
    node = _node(labels, exporter)
    named = _workload(labels, namespace)
    if named:
        return named
    if pod and namespace and not (node and exporter and _speaks_of_node(exporter, pod)):
        return workload_of(namespace, pod)
    if node:
        return f"node {node}"
    if labels.get("persistentvolume"):
        return f"persistentvolume {labels['persistentvolume']}"
    if namespace:
        service = "" if exporter else labels.get("service", "")
        return f"service {namespace}/{service}" if service else f"namespace {namespace}"
    if labels.get("instance") and not exporter:
        return f"instance {labels.get('job', '')}/{labels['instance']}"
    return labels.get("alertname") or "(unnamed)"


def shown(labels: Labels) -> str:
    """Name what the alert is about for people: a pod stays a pod, without a guess at its owner."""
    about, scraped = subject(labels), _as_scraped(labels)
    namespace, pod = scraped.get("namespace", ""), scraped.get("pod", "")
    return f"pod {namespace}/{pod}" if pod and about == workload_of(namespace, pod) else about


def workload_of(namespace: str, pod: str) -> str:
    """Name the workload that a pod's name speaks of, or the pod when it bears no generated part."""
    generated = _RANDOM_SUFFIX.match(pod)
    if generated:
        stem = generated["name"]
        template = _REPLICA_SET.match(stem)
        if template:
            return f"deployment {namespace}/{template['name']}"
        kind = "job" if _SCHEDULED_JOB.match(stem) else "daemonset"
        return f"{kind} {namespace}/{stem}"
    ordinal = _ORDINAL.match(pod)
    return f"statefulset {namespace}/{ordinal['name']}" if ordinal else f"pod {namespace}/{pod}"


def fingerprint(labels: Labels) -> str:
    """Compute a fingerprint as Alertmanager does: FNV-1a (64 bit) over the sorted labels.

    Source: prometheus/common, model/signature.go.
    """
    value = 0xCBF29CE484222325
    for name in sorted(labels):
        for byte in name.encode() + b"\xff" + labels[name].encode() + b"\xff":
            value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def identity(labels: Labels, mark: str, ignored: frozenset[str]) -> tuple[str, str]:
    """Give what an alert is known by, and which of its tellers says it; `mark`: its fingerprint.

    Two Prometheus that watch the same tell the same alert, with labels that say only who told it.
    Those are `ignored`; without any of them the mark stays as it is, and the teller is empty.
    """
    if ignored.isdisjoint(labels):
        return mark, ""
    about = sorted((k, v) for k, v in labels.items() if k not in ignored)
    teller = sorted((k, v) for k, v in labels.items() if k in ignored)
    return _digest(about, 8), _digest(teller, 4)


def _digest(pairs: list[tuple[str, str]], size: int) -> str:
    return hashlib.blake2b(json.dumps(pairs).encode(), digest_size=size).hexdigest()


def alert_id(cluster: str, mark: str, starts_at: datetime, status: AlertStatus) -> str:
    """Give the stable id of an alert in one status; `mark` is its fingerprint."""
    start = starts_at.astimezone(UTC).isoformat(timespec="microseconds")
    parts = json.dumps([cluster, mark, start, status.value], ensure_ascii=True)
    return hashlib.sha256(parts.encode()).hexdigest()


def _as_scraped(labels: Labels) -> Labels:
    """Prefer `exported_pod` and the like: without `honor_labels` the plain ones are the scrape's.

    Source: Prometheus' configuration, `honor_labels`.
    """
    exported = {k.removeprefix("exported_"): v for k, v in labels.items() if _is_exported(k)}
    return {**labels, **exported} if exported else labels


def _is_exported(name: str) -> bool:
    return name.startswith("exported_") and name != "exported_job"


def _workload(labels: Labels, namespace: str) -> str:
    kind, name = labels.get("workload_type", ""), labels.get("workload", "")
    if kind and name:
        return _place(kind.lower(), namespace, name)
    for kind in _WORKLOADS:
        if labels.get(kind):
            return _place(kind, namespace, labels[kind])
    if labels.get("replicaset"):
        template = _REPLICA_SET.match(labels["replicaset"])
        if template:
            return _place("deployment", namespace, template["name"])
        return _place("replicaset", namespace, labels["replicaset"])
    for label, kind in _NAMED.items():
        if labels.get(label):
            return _place(kind, namespace, labels[label])
    return ""


def _place(kind: str, namespace: str, name: str) -> str:
    return f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"


def _exporter(labels: Labels) -> str:
    """Name the exporter whose scrape this is, empty for a program that speaks of itself."""
    scrape = (labels.get("job", ""), labels.get("service", ""))
    return next((e for e in _EXPORTERS if any(e in label for label in scrape)), "")


def _node(labels: Labels, exporter: str) -> str:
    for label in _NODE_LABELS:
        if labels.get(label):
            return labels[label]
    if exporter in {"node-exporter", "dcgm-exporter"}:  # one on each node, and it is the instance
        return labels.get("instance", "").rsplit(":", 1)[0]
    return ""


def _speaks_of_node(exporter: str, pod: str) -> bool:
    """Whether node beats pod: the pod is the exporter's own, or happens to use the broken GPU."""
    return exporter in pod or exporter == "dcgm-exporter"
