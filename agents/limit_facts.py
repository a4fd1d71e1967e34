"""Facts about what surrounds a workload: its node, autoscaler, disruption budget, its Job."""

from collections.abc import Mapping, Sequence

from tiphys.agents.objects import condition, dig, items, mapping, name_of, strings, text, whole
from tiphys.agents.redact import redact
from tiphys.policies.model import Json, Object
from tiphys.workflow_templates.scheduled_runs import later_success

_PRESSURES = ("MemoryPressure", "DiskPressure", "PIDPressure")
_DRIVER_UPGRADE = "nvidia.com/gpu-driver-upgrade-state"
"""The GPU operator's upgrade controller writes there how far it is with a node.

https://docs.nvidia.com/datacenter/cloud-native/gpu-operator/latest/gpu-driver-upgrades.html
"""


def node_facts(node: Object) -> dict[str, Json]:
    """Give whether a node can run pods, and what presses on it."""
    ready = condition(node, "Ready")
    pressed: list[Json] = [k for k in _PRESSURES if text(condition(node, k), "status") == "True"]
    taints: list[Json] = [text(t, "key") for t in items(node, "spec", "taints")]
    return {
        "name": name_of(node),
        "ready": text(ready, "status") == "True",
        "reason": text(ready, "reason"),
        "message": text(ready, "message")[:300],
        "cordoned": dig(node, "spec", "unschedulable") is True,
        "pressures": pressed,
        "taints": taints,
        "driver_upgrade": strings(node, "metadata", "labels").get(_DRIVER_UPGRADE, ""),
    }


def autoscaler_facts(autoscaler: Object | None) -> dict[str, Json]:
    """Give the autoscaler that owns the replicas, if there is one."""
    if autoscaler is None:
        return {"present": False, "name": "", "min": 0, "max": 0, "current": 0, "desired": 0,
                "active": False, "obstacle": ""}  # fmt: skip
    active = condition(autoscaler, "ScalingActive")
    able = condition(autoscaler, "AbleToScale")
    stopped = next((c for c in (active, able) if text(c, "status") == "False"), {})
    return {
        "present": True,
        "name": name_of(autoscaler),
        "min": whole(autoscaler, "spec", "minReplicas", default=1),
        "max": whole(autoscaler, "spec", "maxReplicas"),
        "current": whole(autoscaler, "status", "currentReplicas"),
        "desired": whole(autoscaler, "status", "desiredReplicas"),
        "active": text(active, "status") == "True" and not stopped,
        "obstacle": _said(stopped),
    }


def _said(stopped: Object) -> str:
    """Give a condition's reason and message; empty for none."""
    words = f"{text(stopped, 'reason')}: {redact(text(stopped, 'message'))}"
    return words[:300] if stopped else ""


def budget_facts(pods: Sequence[Object], budgets: Sequence[Object]) -> dict[str, Json]:
    """Give the tightest disruption budget that covers any of the pods."""
    covering = [b for b in budgets if any(_selects(b, pod) for pod in pods)]
    if not covering:
        return {"present": False, "name": "", "allowed": 0, "wanted": 0, "healthy": 0,
                "expected": 0}  # fmt: skip
    return told_budget(min(covering, key=lambda b: whole(b, "status", "disruptionsAllowed")))


def told_budget(budget: Object) -> dict[str, Json]:
    """Give what one disruption budget asks for and has."""
    return {
        "present": True,
        "name": name_of(budget),
        "allowed": whole(budget, "status", "disruptionsAllowed"),
        "wanted": whole(budget, "status", "desiredHealthy"),
        "healthy": whole(budget, "status", "currentHealthy"),
        "expected": whole(budget, "status", "expectedPods"),
    }


def _selects(budget: Object, pod: Object) -> bool:
    """Match labels only: a budget with expressions counts as covering, to be on the safe side."""
    wanted = mapping(budget, "spec", "selector", "matchLabels")
    if items(budget, "spec", "selector", "matchExpressions"):
        return True
    labels: Mapping[str, str] = strings(pod, "metadata", "labels")
    return bool(wanted) and all(labels.get(key) == value for key, value in wanted.items())


def job_facts(job: Object, cron_job: Object | None, jobs: Sequence[Object]) -> dict[str, Json]:
    """Give how a Job stands, with the CronJob that made it and its namespace's Jobs."""
    later = later_success(job, jobs)
    return {
        "name": name_of(job),
        "active": whole(job, "status", "active"),
        "succeeded": whole(job, "status", "succeeded"),
        "failed": whole(job, "status", "failed"),
        "failed_because": text(condition(job, "Failed"), "reason"),
        "failed_message": text(condition(job, "Failed"), "message")[:300],
        "cronjob": name_of(cron_job) if cron_job else "",
        "cronjob_suspended": dig(cron_job, "spec", "suspend") is True,
        "later_success": name_of(later) if later else "",
    }
