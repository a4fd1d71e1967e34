"""A pod's `status` from what its kubelet knows of it."""

import hashlib
import math
from dataclasses import dataclass, field
from enum import StrEnum

from tiphys.sandbox.behaviour import Behaviour, PodState
from tiphys.sandbox.resources import Obj
from tiphys.sandbox.store import timestamp


class Stage(StrEnum):
    """Where a pod's first container is; the others follow it, without failing."""

    CREATING = "creating"
    PULL_FAILED = "pull_failed"
    RUNNING = "running"
    BACKOFF = "backoff"
    ENDED = "ended"


@dataclass
class Life:
    """What the kubelet remembers of a pod."""

    stage: Stage
    since: float
    """Monotonic seconds at which the stage began."""
    created: str = field(default_factory=timestamp)
    started: str = ""
    restarts: int = 0
    ready: bool = False
    last: Obj | None = None
    """How the first container ended the last time."""
    evicted: str = ""
    """What the kubelet said when it evicted the pod."""
    stopping: float | None = None
    """Monotonic seconds at which it was told to end."""
    told: float = -math.inf
    """Monotonic seconds of the last repeated Event."""


def pod_status(pod: Obj, life: Life, behaviour: Behaviour) -> Obj:
    """Give the whole status; conditions keep their times where they did not change."""
    code = (life.last or {}).get("exitCode", 0)
    phase = {
        Stage.CREATING: "Pending",
        Stage.PULL_FAILED: "Pending",
        Stage.ENDED: "Failed" if code else "Succeeded",
    }.get(life.stage, "Running")
    containers = [
        _container(pod, life, behaviour, index) for index in range(len(pod["spec"]["containers"]))
    ]
    ready = all(container["ready"] for container in containers)
    octets = hashlib.sha256(pod["metadata"]["uid"].encode()).digest()
    told = {"reason": "Evicted", "message": life.evicted} if life.evicted else {}
    return {
        "phase": phase,
        **told,
        "conditions": _conditions(pod, ready=ready, ended=life.stage is Stage.ENDED),
        "hostIP": "10.0.0.1",
        "podIP": f"10.1.{octets[0]}.{octets[1]}",
        "startTime": life.created,
        "qosClass": "Burstable",
        "containerStatuses": containers,
    }


def ending(pod: Obj, life: Life, behaviour: Behaviour) -> Obj:
    """Say how the first container just ended."""
    by_state = {
        PodState.EVICTED: (137, "ContainerStatusUnknown"),
        PodState.OOM: (137, "OOMKilled"),
        PodState.SUCCEEDED: (0, "Completed"),
    }
    code, reason = by_state.get(
        behaviour.state, (behaviour.exit_code, "Error" if behaviour.exit_code else "Completed")
    )
    return {
        "exitCode": code,
        "reason": reason,
        "startedAt": life.started,
        "finishedAt": timestamp(),
        "containerID": _container_id(pod, 0, life.restarts),
    }


def _container_id(pod: Obj, index: int, restarts: int) -> str:
    text = f"{pod['metadata']['uid']}/{index}/{restarts}"
    return "containerd://" + hashlib.sha256(text.encode()).hexdigest()


def _container(pod: Obj, life: Life, behaviour: Behaviour, index: int) -> Obj:
    spec, first = pod["spec"]["containers"][index], index == 0
    running = life.stage is Stage.RUNNING or (life.stage is Stage.BACKOFF and not first)
    restarts = life.restarts if first else 0
    status: Obj = {
        "name": spec["name"],
        "image": spec["image"],
        "imageID": "",
        "ready": running and (life.ready or not first),
        "started": running,
        "restartCount": restarts,
        "state": {"running": {"startedAt": life.started}},
        "lastState": {},
    }
    if running:
        status["containerID"] = _container_id(pod, index, restarts)
    elif life.stage is Stage.ENDED:
        status["state"] = {"terminated": life.last}
    else:
        status["state"] = {"waiting": _waiting(pod, life, behaviour, spec)}
    if first and life.last and life.stage is not Stage.ENDED:
        status["lastState"] = {"terminated": life.last}
    return status


def _waiting(pod: Obj, life: Life, behaviour: Behaviour, container: Obj) -> Obj:
    meta = pod["metadata"]
    if life.stage is Stage.BACKOFF:
        whose = f"{container['name']} pod={meta['name']}_{meta['namespace']}({meta['uid']})"
        why = f"back-off 10s restarting failed container={whose}"
        return {"reason": "CrashLoopBackOff", "message": why}
    if life.stage is Stage.PULL_FAILED:
        why = f'Back-off pulling image "{container["image"]}": {behaviour.message or "not found"}'
        return {"reason": "ImagePullBackOff", "message": why}
    return {"reason": "ContainerCreating"}


def _conditions(pod: Obj, *, ready: bool, ended: bool) -> list[Obj]:
    before = {c["type"]: c for c in pod.get("status", {}).get("conditions") or []}
    why = "PodCompleted" if ended else "ContainersNotReady"
    found: list[Obj] = []
    for name in ("PodScheduled", "Initialized", "ContainersReady", "Ready"):
        holds = ready if name in {"ContainersReady", "Ready"} else True
        value = "True" if holds else "False"
        present = before.get(name)
        same = present is not None and present["status"] == value
        condition: Obj = {"type": name, "status": value}
        condition["lastTransitionTime"] = (
            present["lastTransitionTime"] if present and same else timestamp()
        )
        found.append(condition if holds else {**condition, "reason": why})
    return found
