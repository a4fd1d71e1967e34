"""Where it hurts: a workload's pods that do not serve, by node, and what its making waits for."""

from collections.abc import Sequence
from datetime import datetime

from tiphys.agents.objects import condition, instant, items, name_of, strings, text
from tiphys.agents.pod_facts import Trouble, is_ready, minutes_between, trouble_of
from tiphys.agents.resolver import Link, Subjects
from tiphys.policies.model import Json, Object

NAME = "app.kubernetes.io/name"
_RESIZING = ("Resizing", "FileSystemResizePending")
_NO_RESIZING = ("ControllerResizeError", "NodeResizeError")


def whereabouts(subjects: Subjects, node: Object | None, now: datetime) -> dict[str, Json]:
    """Give what the on-call agent needs to tell whether the cause is elsewhere; states, no text."""
    link = subjects.workload
    namespace = text(link.thing, "metadata", "namespace") if link else ""
    return {
        "workload": f"{link.kind} {namespace}/{name_of(link.thing)}" if link else "",
        "namespace": namespace,
        "part": _part(link) if link else "",
        "groups": _groups(subjects.pods, now),
        "quota": _is_refused(link.thing) if link else False,
        "claim": name_of(subjects.claim) if subjects.claim else "",
        "resizing": _is_resizing(subjects.claim) if subjects.claim else False,
        "node": name_of(node) if node and not link and not subjects.pod else "",
        "node_minutes": minutes_between(
            instant(condition(node or {}, "Ready"), "lastTransitionTime"), now
        ),
    }


def _groups(pods: Sequence[Object], now: datetime) -> list[Json]:
    """Count the pods that do not serve by node and trouble, with the age of the oldest of each."""
    found: dict[tuple[str, str], tuple[int, float]] = {}
    for pod in pods:
        trouble = trouble_of(pod, now)
        if trouble is Trouble.ENDED or (is_ready(pod) and trouble is Trouble.NONE):
            continue
        key = (text(pod, "spec", "nodeName"), trouble.value)
        age = minutes_between(instant(pod, "metadata", "creationTimestamp"), now)
        count, oldest = found.get(key, (0, age))
        found[key] = (count + 1, max(oldest, age))
    return [
        {"node": node, "trouble": trouble, "count": count, "minutes": oldest}
        for (node, trouble), (count, oldest) in sorted(found.items())
    ]


def _part(link: Link) -> str:
    """Give what the workload says that it is."""
    return strings(link.thing, "metadata", "labels").get(NAME, "")


def _is_refused(workload: Object) -> bool:
    """Tell whether a quota keeps its pods from being made, as the Deployment controller says."""
    failure = condition(workload, "ReplicaFailure")
    return text(failure, "status") == "True" and "exceeded quota" in text(failure, "message")


def _is_resizing(claim: Object) -> bool:
    told = {
        text(one, "type")
        for one in items(claim, "status", "conditions")
        if text(one, "status") == "True"
    }
    return bool(told & set(_RESIZING)) and not told & set(_NO_RESIZING)
