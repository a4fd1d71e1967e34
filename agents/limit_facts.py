"""Facts about what surrounds a workload: its node, autoscaler, disruption budget, its Job."""

from collections.abc import Mapping, Sequence

from tiphys.agents.objects import condition, dig, items, mapping, name_of, strings, text, whole
from tiphys.policies.model import Json, Object
from tiphys.workflow_templates.scheduled_runs import later_success

_PRESSURES = ("MemoryPressure", "DiskPressure", "PIDPressure")


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
    }


def autoscaler_facts(autoscaler: Object | None) -> dict[str, Json]:
    """Give the autoscaler that owns the replicas, if there is one."""
    if autoscaler is None:
        return {"present": False, "name": "", "min": 0, "max": 0, "current": 0, "desired": 0}
    return {
        "present": True,
        "name": name_of(autoscaler),
        "min": whole(autoscaler, "spec", "minReplicas", default=1),
        "max": whole(autoscaler, "spec", "maxReplicas"),
        "current": whole(autoscaler, "status", "currentReplicas"),
        "desired": whole(autoscaler, "status", "desiredReplicas"),
    }


def budget_facts(pods: Sequence[Object], budgets: Sequence[Object]) -> dict[str, Json]:
    """Give the tightest disruption budget that covers any of the pods."""
    covering = [b for b in budgets if any(_selects(b, pod) for pod in pods)]
    if not covering:
        return {"present": False, "name": "", "allowed": 0}
    tightest = min(covering, key=lambda b: whole(b, "status", "disruptionsAllowed"))
    return {
        "present": True,
        "name": name_of(tightest),
        "allowed": whole(tightest, "status", "disruptionsAllowed"),
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
