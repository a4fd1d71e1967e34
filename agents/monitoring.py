"""Which alerts are about the monitoring itself, and what must not be believed while they fire.

Names and meanings are those of the public mixins of Prometheus and kube-state-metrics.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from tiphys.agents.ports import Sample
from tiphys.agents.promql import any_of, what_it_reads
from tiphys.agents.verdict import Verdict, ask_a_human
from tiphys.policies.correlation import ALWAYS_FIRING, subject
from tiphys.policies.model import Alert, Cause

PARTS: Final = frozenset(
    {
        "alertmanager",
        "kube-prometheus-stack-prometheus-operator",
        "kube-state-metrics",
        "mimir",
        "prometheus",
        "prometheus-operator",
        "thanos-query",
        "thanos-receive",
        "thanos-rule",
        "thanos-store",
        "vmagent",
        "vmalert",
        "vmsingle",
    }
)
"""Values of `app.kubernetes.io/name` of what monitors."""
_NAMES = re.compile(r"(Prometheus|Alertmanager|KubeStateMetrics|ConfigReloader|Thanos)[A-Z].*")
_JOBS = re.compile(r"(.*[-/])?(prometheus|alertmanager|kube-state-metrics|thanos)([-/].*)?")
_NOT_THEMSELVES = re.compile(r".*(exporter|adapter|pushgateway|kubelet).*")
_OF_TARGETS = frozenset({"TargetDown", "PrometheusTargetMissing"})
_BLIND_TO_OBJECTS = (
    "KubeStateMetricsListErrors",
    "KubeStateMetricsShardingMismatch",
    "KubeStateMetricsShardsMissing",
    "KubeStateMetricsWatchErrors",
)
_BLIND = (
    "PrometheusMissingRuleEvaluations",
    "PrometheusNotIngestingSamples",
    "PrometheusRuleFailures",
    "PrometheusTargetSyncFailure",
)
BLINDING_QUERY: Final = (
    f'ALERTS{{alertstate="firing",alertname=~{any_of((*_BLIND, *_BLIND_TO_OBJECTS))}}}'
)
"""The alerts under which what Prometheus tells is not the state of the world."""


def always_fires(alert: Alert) -> bool:
    """Tell whether an alert is meant to fire always, to prove that alerting works."""
    return alert.name in ALWAYS_FIRING


def is_about_monitoring(alert: Alert) -> bool:
    """Tell whether an alert says that the monitoring itself is ill."""
    if alert.name in _OF_TARGETS:
        job = alert.labels.get("job", "")
        return bool(_JOBS.fullmatch(job)) and not _NOT_THEMSELVES.fullmatch(job)
    return bool(_NAMES.fullmatch(alert.name))


def blinded(firing: Sequence[Sample], expressions: Collection[str]) -> Verdict | None:
    """Say so where alerts with these expressions are not to be believed; `firing` by the query."""
    reads: set[str] = set()
    for expression in expressions:
        reads |= what_it_reads(expression)[0]
    of_objects = any(name.startswith("kube_") for name in reads)
    for sample in firing:
        name = sample.labels.get("alertname", "")
        if name in _BLIND or (name in _BLIND_TO_OBJECTS and of_objects):
            return ask_a_human(
                f"{name} fires: what this alert rests on is not to be believed until the "
                "monitoring itself is well again, and nothing is done on its word",
                Cause(subjects=(subject(_as_posted(sample.labels)),), words=f"{name} fires"),
            )
    return None


def _as_posted(labels: Mapping[str, str]) -> dict[str, str]:
    """Leave out what only the series bears and the alert does not."""
    return {k: v for k, v in labels.items() if k not in {"__name__", "alertstate"}}


def tellers(alerts: Collection[Alert], expressions: Collection[str]) -> set[str]:
    """Give the scrape jobs that tell what the alerts rest on, where that can be seen."""
    jobs = {a.labels["job"] for a in alerts if a.labels.get("job")}
    for expression in expressions:
        jobs |= what_it_reads(expression)[1]
    return jobs


def down_targets(jobs: Collection[str]) -> str:
    """Write the query for what cannot be scraped of these jobs."""
    return f"up{{job=~{any_of(jobs)}}} == 0"


def untold(alerts: Sequence[Alert], down: Sequence[Sample]) -> Verdict | None:
    """Say so where a target that could tell of one of the alerts is down."""
    jobs = sorted(
        {
            sample.labels.get("job", "")
            for sample in down
            if any(_could_tell(sample.labels, alert) for alert in alerts)
        }
    )
    if not jobs:
        return None
    words = f"targets of {', '.join(jobs)} are down"
    return ask_a_human(
        f"the alert's expression is no longer true, but {words}: nobody can say whether it is over",
        Cause(subjects=tuple(f"job {job}" for job in jobs), words=words),
    )


def _could_tell(target: Mapping[str, str], alert: Alert) -> bool:
    """Leave out targets on other nodes than the alert's."""
    return all(
        alert.labels.get(key, target[key]) == target[key]
        for key in ("instance", "node")
        if key in target
    )
