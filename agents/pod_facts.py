"""Reads a pod as an engineer would: is it serving, and if not, what holds it up?"""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import StrEnum

from tiphys.agents.objects import (
    EMPTY,
    condition,
    controller_of,
    dig,
    instant,
    items,
    mapping,
    name_of,
    text,
    uid_of,
    whole,
)
from tiphys.agents.redact import redact
from tiphys.policies.model import Json, Object

BETWEEN_CRASHES_MINUTES = 10.0
"""A container that ended by itself so recently is crashing, though it runs just now."""


class Trouble(StrEnum):
    """What holds a pod up, the most telling first."""

    TERMINATING = "terminating"
    ENDED = "ended"
    NONE = "none"
    IMAGE = "image"
    CONFIG = "config"
    OUT_OF_MEMORY = "out_of_memory"
    CRASH = "crash"
    UNSCHEDULABLE = "unschedulable"
    STARTING = "starting"
    UNREADY = "unready"
    """Its process runs and does not report ready."""


_IMAGE = {"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull",
          "RegistryUnavailable", "ImageInspectError"}  # fmt: skip
_ON_ITS_WAY = {"ContainerCreating", "PodInitializing"}
_CONFIG = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}


def minutes_between(earlier: datetime | None, now: datetime) -> float:
    """Give the minutes since a time; -1 where it is unknown."""
    return -1.0 if earlier is None else round((now - earlier).total_seconds() / 60, 2)


def is_ready(pod: Object) -> bool:
    """Tell whether the pod counts as an endpoint."""
    return text(condition(pod, "Ready"), "status") == "True"


def _statuses(pod: Object) -> list[Object]:
    return [
        *items(pod, "status", "initContainerStatuses"),
        *items(pod, "status", "containerStatuses"),
    ]


def _waiting(pod: Object) -> Object:
    """Give the state of the container that waits for the most telling reason."""
    waiting = [s for s in _statuses(pod) if text(s, "state", "waiting", "reason")]
    telling = [s for s in waiting if text(s, "state", "waiting", "reason") not in _ON_ITS_WAY]
    return (telling or waiting or [EMPTY])[0]


def _ended(pod: Object) -> tuple[Object, Object]:
    """Give the container that ended last and how, or empty objects."""
    best: tuple[str, Object, Object] = ("", {}, {})
    for status in _statuses(pod):
        for state in ("state", "lastState"):
            how = mapping(status, state, "terminated")
            failed = whole(how, "exitCode", default=0) != 0
            if failed and text(how, "finishedAt") >= best[0]:
                best = (text(how, "finishedAt"), status, how)
    return best[1], best[2]


def trouble_of(pod: Object, now: datetime) -> Trouble:
    """Name what holds the pod up."""
    if dig(pod, "metadata", "deletionTimestamp"):
        return Trouble.TERMINATING
    if text(pod, "status", "phase") in {"Succeeded", "Failed"}:
        return Trouble.ENDED
    if is_ready(pod):
        return Trouble.NONE
    reason = text(_waiting(pod), "state", "waiting", "reason")
    if reason in _IMAGE:
        return Trouble.IMAGE
    if reason in _CONFIG:
        return Trouble.CONFIG
    _, how = _ended(pod)
    since = minutes_between(instant(how, "finishedAt"), now)
    if reason == "CrashLoopBackOff" or (how and since <= BETWEEN_CRASHES_MINUTES):
        killed = text(how, "reason") == "OOMKilled"
        return Trouble.OUT_OF_MEMORY if killed else Trouble.CRASH
    if text(condition(pod, "PodScheduled"), "status") == "False":
        return Trouble.UNSCHEDULABLE
    if text(pod, "status", "phase") == "Pending" or reason:
        return Trouble.STARTING
    return Trouble.UNREADY


def gpus_of(pod: Object) -> int:
    """Count the GPUs a pod asks for: every resource whose name contains `gpu`."""
    total = 0
    for container in items(pod, "spec", "containers"):
        wanted = {
            **mapping(container, "resources", "requests"),
            **mapping(container, "resources", "limits"),
        }
        for name, amount in wanted.items():
            if "gpu" in name.lower():
                digits = str(amount)
                total += int(digits) if digits.isdigit() else 1
    return total


def pod_facts(pod: Object, now: datetime) -> dict[str, Json]:
    """Give the facts of one pod under the names that playbooks read."""
    waiting = mapping(_waiting(pod), "state", "waiting")
    ended, how = _ended(pod)
    statuses = items(pod, "status", "containerStatuses")
    failing = _waiting(pod) or ended or next((s for s in statuses if not dig(s, "ready")), {})
    owner = controller_of(pod)
    return {
        "name": name_of(pod),
        "phase": text(pod, "status", "phase"),
        "ready": is_ready(pod),
        "trouble": trouble_of(pod, now).value,
        "running": bool(statuses) and all(dig(s, "state", "running") is not None for s in statuses),
        "restarts": sum(whole(s, "restartCount") for s in _statuses(pod)),
        "container": text(failing, "name"),
        "image": text(failing, "image"),
        "waiting_reason": text(waiting, "reason"),
        "waiting_message": redact(text(waiting, "message"))[:300],
        "exit_code": whole(how, "exitCode", default=-1),
        "ended_because": text(how, "reason"),
        "scheduling_message": text(condition(pod, "PodScheduled"), "message")[:300],
        "node": text(pod, "spec", "nodeName"),
        "age_minutes": minutes_between(instant(pod, "metadata", "creationTimestamp"), now),
        "controlled_by": owner.kind if owner else "",
        "gpus": gpus_of(pod),
    }


def _ready_since(live: Sequence[Object], failing: Sequence[Object]) -> int:
    """Count the ready pods that were made after the last of the failing ones had fallen out.

    Their times are whole seconds: what happened within the same one counts as before.
    """
    fell = [instant(condition(pod, "Ready"), "lastTransitionTime") for pod in failing]
    known = [moment for moment in fell if moment is not None]
    if not known or len(known) < len(fell):
        return 0
    born = [instant(p, "metadata", "creationTimestamp") for p in live if is_ready(p)]
    return sum(1 for moment in born if moment is not None and moment > max(known))


def _revision(pod: Object) -> str:
    return text(pod, "metadata", "labels", "controller-revision-hash")


def pods_facts(
    pods: Sequence[Object], newest: str, now: datetime, wanted: str = ""
) -> dict[str, Json]:
    """Count a workload's pods by what holds them up.

    `newest` is the newest ReplicaSet's uid; `wanted` the revision that a StatefulSet wants, whose
    pods bear it as a label.
    """
    live = [p for p in pods if trouble_of(p, now) not in {Trouble.TERMINATING, Trouble.ENDED}]
    failing = [p for p in live if not is_ready(p)]
    counts = Counter(trouble_of(p, now) for p in live)
    fresh = {uid_of(p) for p in live if (owner := controller_of(p)) and owner.uid == newest}
    names: list[Json] = [*sorted(name_of(p) for p in failing)[:20]]
    by_trouble: Mapping[str, Json] = {t.value: counts[t] for t in Trouble if t is not Trouble.NONE}
    return {
        "total": len(live),
        "ready": len(live) - len(failing),
        "failing": len(failing),
        "failing_names": names,
        "failing_nodes": len({text(p, "spec", "nodeName") for p in failing}),
        "newest_total": len(fresh),
        "newest_ready": sum(1 for p in live if uid_of(p) in fresh and is_ready(p)),
        "newest_failing": sum(1 for p in failing if uid_of(p) in fresh),
        "older_ready": sum(1 for p in live if uid_of(p) not in fresh and is_ready(p)),
        "older_failing": sum(1 for p in failing if uid_of(p) not in fresh),
        "outdated_failing": sum(1 for p in failing if wanted and _revision(p) != wanted),
        "ready_since": _ready_since(live, failing),
        **by_trouble,
    }
