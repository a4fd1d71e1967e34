"""Reads a workload: what it wants, what it has, and what its last rollout changed."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from tiphys.agents.objects import (
    condition,
    dig,
    instant,
    is_controlled_by,
    items,
    mapping,
    name_of,
    text,
    uid_of,
    whole,
)
from tiphys.agents.pod_facts import Trouble, minutes_between, trouble_of
from tiphys.policies.model import Json, Object
from tiphys.workflow_templates.rollouts import turnover

RECENT_MINUTES = 60.0
"""A rollout of the last hour is the first suspect."""
REVISION = "deployment.kubernetes.io/revision"
_STUCK = {Trouble.IMAGE, Trouble.CONFIG, Trouble.CRASH, Trouble.OUT_OF_MEMORY}


def revision_of(replicaset: Object) -> int:
    """Give the revision the Deployment controller wrote on a ReplicaSet; 0 without one."""
    written = text(replicaset, "metadata", "annotations", REVISION)
    return int(written) if written.isdigit() else 0


def revisions(deployment: Object, replicasets: Sequence[Object]) -> list[Object]:
    """Give a Deployment's ReplicaSets, the newest revision first."""
    own = [r for r in replicasets if is_controlled_by(r, uid_of(deployment)) and revision_of(r)]
    return sorted(own, key=revision_of, reverse=True)


def workload_facts(workload: Object, kind: str) -> dict[str, Json]:
    """Give what a Deployment, StatefulSet or DaemonSet wants and has."""
    if kind == "DaemonSet":
        wanted = whole(workload, "status", "desiredNumberScheduled")
        available = whole(workload, "status", "numberAvailable")
        ready = whole(workload, "status", "numberReady")
    else:
        wanted = whole(workload, "spec", "replicas", default=1)
        available = whole(workload, "status", "availableReplicas")
        ready = whole(workload, "status", "readyReplicas")
    return {
        "kind": kind,
        "name": name_of(workload),
        "replicas": wanted,
        "available": available,
        "ready": ready,
        "paused": dig(workload, "spec", "paused") is True,
        "progressing_reason": text(condition(workload, "Progressing"), "reason"),
        "seen": whole(workload, "status", "observedGeneration")
        >= whole(workload, "metadata", "generation"),
        "strategy": _strategy(workload),
        "partition": whole(workload, "spec", "updateStrategy", "rollingUpdate", "partition"),
        "misscheduled": whole(workload, "status", "numberMisscheduled"),
        "rollout_takes": turnover({**workload, "kind": kind}).missing,
    }


def _strategy(workload: Object) -> str:
    """Give how its pods are replaced; Kubernetes' default is RollingUpdate."""
    named = [text(workload, "spec", field, "type") for field in ("strategy", "updateStrategy")]
    return next(filter(None, named), "RollingUpdate")


def rollout_moves(workload: Object, kind: str) -> bool:
    """Tell whether the spec and what runs differ: a rollout has not ended, well or badly."""
    generation = whole(workload, "metadata", "generation")
    if whole(workload, "status", "observedGeneration") < generation:
        return True
    if kind == "DaemonSet":
        wanted = whole(workload, "status", "desiredNumberScheduled")
        return whole(workload, "status", "updatedNumberScheduled") < wanted
    wanted = whole(workload, "spec", "replicas", default=1)
    updated = whole(workload, "status", "updatedReplicas")
    if kind == "StatefulSet":
        current, update = (
            text(workload, "status", f"{which}Revision") for which in ("current", "update")
        )
        return current != update or whole(workload, "status", "replicas") != wanted
    present = whole(workload, "status", "replicas")
    finished = text(condition(workload, "Progressing"), "reason") == "NewReplicaSetAvailable"
    short = whole(workload, "status", "availableReplicas") < updated
    return updated < wanted or present > updated or (short and not finished)


def rollout_is_stuck(workload: Object, newest: str, pods: Sequence[Object], now: datetime) -> bool:
    """Tell whether the rollout will not end by itself: late, or its newest pods cannot start."""
    if text(condition(workload, "Progressing"), "reason") == "ProgressDeadlineExceeded":
        return True
    fresh = [p for p in pods if is_controlled_by(p, newest)] if newest else list(pods)
    return any(trouble_of(p, now) in _STUCK for p in fresh)


def rollout_at(workload: Object, history: Sequence[Object]) -> datetime | None:
    """Give when the newest revision began; a ReplicaSet that came back keeps its old birthday."""
    if not history:
        return None
    born = [instant(r, "metadata", "creationTimestamp") for r in history[:2]]
    if len(born) == 2 and born[0] and born[1] and born[0] < born[1]:
        return instant(condition(workload, "Progressing"), "lastUpdateTime")
    return born[0]


def rollout_facts(
    workload: Object, kind: str, history: Sequence[Object], pods: Sequence[Object], now: datetime
) -> dict[str, Json]:
    """Give what the last rollout changed and how far it came."""
    newest = uid_of(history[0]) if history else ""
    moves = rollout_moves(workload, kind)
    stuck = moves and rollout_is_stuck(workload, newest, pods, now)
    minutes = minutes_between(rollout_at(workload, history), now)
    changed: list[Json] = [*differences(history)]
    return {
        "in_progress": moves and not stuck,
        "stuck": stuck,
        "completed": text(condition(workload, "Progressing"), "reason") == "NewReplicaSetAvailable",
        "minutes": minutes,
        "recent": len(history) > 1 and 0 <= minutes <= RECENT_MINUTES,
        "revision": revision_of(history[0]) if history else 0,
        "previous_revision": revision_of(history[1]) if len(history) > 1 else 0,
        "changed": changed,
        "images": _images(history[0]) if history else "",
        "previous_images": _images(history[1]) if len(history) > 1 else "",
        "previous_healthy": False,
        "age_of_previous_minutes": _tenure(history),
    }


def _tenure(history: Sequence[Object]) -> float:
    """Give the minutes between the births of the two newest ReplicaSets; -1 where unknown."""
    born = [instant(r, "metadata", "creationTimestamp") for r in history[:2]]
    if len(born) < 2 or born[0] is None or born[1] is None:
        return -1.0
    return round((born[0] - born[1]) / timedelta(minutes=1), 2)


def _containers(replicaset: Object) -> dict[str, Object]:
    template = mapping(replicaset, "spec", "template")
    return {text(c, "name"): c for c in items(template, "spec", "containers")}


def _images(replicaset: Object) -> str:
    return ", ".join(text(c, "image") for c in _containers(replicaset).values())[:300]


def differences(history: Sequence[Object]) -> list[str]:
    """Name the fields of the pod template that the last rollout changed; never their values."""
    if len(history) < 2:
        return []
    new, old = _containers(history[0]), _containers(history[1])
    found = {
        field
        for name in {*new, *old}
        for field in {*new.get(name, {}), *old.get(name, {})}
        if dig(new.get(name, {}), field) != dig(old.get(name, {}), field)
    }
    now, before = (mapping(r, "spec", "template", "spec") for r in history[:2])
    found |= {
        field for field in {*now, *before} - {"containers"} if dig(now, field) != dig(before, field)
    }
    return sorted(found)
