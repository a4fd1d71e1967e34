"""Reads who was killed at a memory limit, what that limit is and whether it was raised before."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import pairwise

from tiphys.agents.objects import instant, items, mapping, text
from tiphys.agents.pod_facts import minutes_between
from tiphys.agents.workload_facts import rollout_at
from tiphys.policies.model import Json, Object
from tiphys.workflow_templates.quantities import MIB, NotAQuantityError, amount

KILLED_MINUTES = 60.0
"""A container that was killed for its memory longer ago says nothing of now."""
LATELY_MINUTES = 7 * 24 * 60.0
"""Memory that ran out so soon after its limit was raised is lost, not needed."""


def memory_facts(
    workload: Object, history: Sequence[Object], pods: Sequence[Object], now: datetime
) -> Mapping[str, Json]:
    """Give the facts of the one container that was killed; empty where there is none, or several.

    `history`: the workload's ReplicaSets, the newest revision first.
    """
    killed = {name for pod in pods for name in _killed(pod, now)}
    if len(killed) != 1:
        return {}
    (name,) = killed
    minutes = _raised_minutes(workload, history, name, now)
    return {
        "container": name,
        "limit_mib": _limit(workload, name) // MIB,
        "killed_pods": sum(1 for pod in pods if name in _killed(pod, now)),
        "raised_minutes": minutes,
        "raised_lately": 0 <= minutes <= LATELY_MINUTES,
    }


def _killed(pod: Object, now: datetime) -> set[str]:
    found: set[str] = set()
    for status in items(pod, "status", "containerStatuses"):
        for state in ("state", "lastState"):
            how = mapping(status, state, "terminated")
            since = minutes_between(instant(how, "finishedAt"), now)
            if text(how, "reason") == "OOMKilled" and since <= KILLED_MINUTES:
                found.add(text(status, "name"))
    return found


def _raised_minutes(workload: Object, history: Sequence[Object], name: str, now: datetime) -> float:
    """Give the minutes since the limit was last raised; -1 where no kept revision did."""
    for index, (newer, older) in enumerate(pairwise(history)):
        if _limit(newer, name) > _limit(older, name) > 0:
            born = instant(newer, "metadata", "creationTimestamp")
            return minutes_between(rollout_at(workload, history) if index == 0 else born, now)
    return -1.0


def _limit(owner: Object, name: str) -> int:
    """Give a container's memory limit in bytes; 0 without one."""
    containers = items(owner, "spec", "template", "spec", "containers")
    found = next((c for c in containers if text(c, "name") == name), {})
    try:
        return int(amount(mapping(found, "resources", "limits").get("memory") or 0))
    except NotAQuantityError:
        return 0
