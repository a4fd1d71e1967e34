"""The kubelets: a pod's life from its creation on, as its behaviour decides.

Minutes are seconds here: a pod is ready after about 0.25 s, a crash loop's back-off ends at 4 s.
"""

import time
from dataclasses import dataclass

from tiphys.sandbox.behaviour import Behaviour, Behaviours, PodState
from tiphys.sandbox.cluster_events import record
from tiphys.sandbox.logs import Logs
from tiphys.sandbox.pod_status import Life, Stage, ending, pod_status
from tiphys.sandbox.resources import Obj
from tiphys.sandbox.scheduler import choose
from tiphys.sandbox.store import Store, timestamp

WORKFLOW_LABEL = "workflows.argoproj.io/workflow"
KUBELET = "sandbox.tiphys.io/kubelet"
"""An annotation of nodes: `none` where there is no kubelet to run or to correct its pods."""
"""Pods with it are run by the Argo simulation, as real processes."""
_ENDING = {PodState.CRASH, PodState.EVICTED, PodState.OOM, PodState.SUCCEEDED}
_LOW = "The node was low on resource: ephemeral-storage."


@dataclass(frozen=True)
class Pace:
    """How many seconds things take."""

    start: float = 0.1
    ready: float = 0.12
    run: float = 0.15
    """What a crashing container lives."""
    backoff: float = 0.2
    """Before the first restart; doubled each time."""
    longest_backoff: float = 4.0
    stop: float = 0.05
    """Until a pod that is told to end has ended; at most its grace period."""
    repeat: float = 5.0
    """Between two Events of a probe or a pull that keeps failing."""


class Kubelets:
    """All nodes' kubelets, and the scheduler's decision before them."""

    def __init__(self, store: Store, behaviours: Behaviours, logs: Logs, pace: Pace) -> None:
        self._store = store
        self._behaviours = behaviours
        self._logs = logs
        self._pace = pace
        self._lives: dict[str, Life] = {}

    def reconcile(self, pod: Obj) -> float | None:
        """Bring a pod one step further; gives the seconds after which to look again."""
        meta = pod["metadata"]
        if WORKFLOW_LABEL in (meta.get("labels") or {}):
            return None
        if self._is_bare(pod["spec"].get("nodeName", "")):
            return None
        behaviour = self._behaviours.of(pod)
        life = self._lives.get(meta["uid"])
        if pod.get("status", {}).get("phase") in {"Succeeded", "Failed"}:
            # Also where somebody else wrote so: a kubelet never takes an end back.
            if life is not None:
                life.stage = Stage.ENDED
            return None
        if life is None:
            if not self._bind(pod, behaviour):
                return None
            life = self._lives[meta["uid"]] = Life(Stage.CREATING, time.monotonic())
            self._write(pod, life, behaviour)
            return self._pace.start
        again = self._advance(pod, life, behaviour)
        self._write(pod, life, behaviour)
        return again

    def end(self, pod: Obj) -> float | None:
        """Stop a pod that is being deleted, then let its object go."""
        meta = pod["metadata"]
        if WORKFLOW_LABEL in (meta.get("labels") or {}):
            return None
        life = self._lives.get(meta["uid"])
        if life and life.stopping is None:
            life.stopping = time.monotonic()
            self._kill(pod, life)
        left = self._pace.stop - (time.monotonic() - life.stopping) if life and life.stopping else 0
        if left > 0:
            return left
        self._store.delete("Pod", meta["namespace"], meta["name"], uid=meta["uid"], grace=0)
        return None

    def gone(self, pod: Obj) -> None:
        """Note that a pod's object was deleted, by force or in the end."""
        life = self._lives.pop(pod["metadata"]["uid"], None)
        if life and life.stopping is None:
            self._kill(pod, life)
        self._logs.forget(pod["metadata"]["uid"])

    def _kill(self, pod: Obj, life: Life) -> None:
        if life.stage is not Stage.ENDED:
            for container in pod["spec"]["containers"]:
                record(self._store, pod, "Killing", f"Stopping container {container['name']}")

    def _is_bare(self, node: str) -> bool:
        """Whether it is a node without a kubelet, and says so: nothing happens there."""
        found = self._store.find("Node", "", node) if node else None
        return bool(found) and (found["metadata"].get("annotations") or {}).get(KUBELET) == "none"

    # --- binding --------------------------------------------------------------------------------

    def _bind(self, pod: Obj, behaviour: Behaviour) -> bool:
        meta = pod["metadata"]
        if pod["spec"].get("nodeName"):
            return True
        if behaviour.state is PodState.PENDING:
            node, why = "", behaviour.message or "0/0 nodes are available."
        else:
            node, why = choose(self._store, pod)
        if node:
            pod["spec"]["nodeName"] = node
            self._store.update(pod, manager="kube-scheduler")
            told = f"Successfully assigned {meta['namespace']}/{meta['name']} to {node}"
            record(self._store, pod, "Scheduled", told)
            return True
        present = next(iter(pod["status"].get("conditions") or []), None)
        if not present or present["message"] != why:
            refused = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
            refused |= {"message": why, "lastTransitionTime": timestamp()}
            pod["status"] = {"phase": "Pending", "conditions": [refused]}
            self._store.update(pod, manager="kube-scheduler", subresource="status")
            record(self._store, pod, "FailedScheduling", why, warning=True)
        return False

    # --- running --------------------------------------------------------------------------------

    def _write(self, pod: Obj, life: Life, behaviour: Behaviour) -> None:
        meta = {key: pod["metadata"][key] for key in ("name", "namespace", "uid")}
        body = {"kind": "Pod", "metadata": meta, "status": pod_status(pod, life, behaviour)}
        self._store.update(body, manager="kubelet", subresource="status")

    def _advance(self, pod: Obj, life: Life, behaviour: Behaviour) -> float | None:
        passed = time.monotonic() - life.since
        match life.stage:
            case Stage.CREATING | Stage.PULL_FAILED:
                if life.stage is Stage.CREATING and passed < self._pace.start:
                    return self._pace.start - passed
                if behaviour.state is PodState.IMAGE_PULL:
                    return self._fail_to_pull(pod, life, behaviour)
                return self._start(pod, life, behaviour)
            case Stage.RUNNING:
                return self._run(pod, life, behaviour, passed)
            case Stage.BACKOFF:
                doubled = self._pace.backoff * 2.0 ** min(life.restarts, 20)
                wait = min(doubled, self._pace.longest_backoff)
                if passed < wait:
                    return wait - passed
                self._logs.restarted(pod["metadata"]["uid"], _first(pod)["name"])
                life.restarts += 1
                return self._start(pod, life, behaviour)
            case Stage.ENDED:
                return None

    def _start(self, pod: Obj, life: Life, behaviour: Behaviour) -> float:
        life.stage, life.since, life.started = Stage.RUNNING, time.monotonic(), timestamp()
        life.ready = False
        container = _first(pod)
        for line in behaviour.logs:
            self._logs.append(pod["metadata"]["uid"], container["name"], line)
        told = f'Container image "{container["image"]}" already present on machine'
        record(self._store, pod, "Pulled", told)
        record(self._store, pod, "Started", f"Started container {container['name']}")
        return self._pace.run if behaviour.state in _ENDING else self._pace.ready

    def _run(self, pod: Obj, life: Life, behaviour: Behaviour, passed: float) -> float | None:
        if behaviour.state in _ENDING:
            if passed < self._pace.run:
                return self._pace.run - passed
            return self._end(pod, life, behaviour)
        if passed < self._pace.ready:
            return self._pace.ready - passed
        life.ready = behaviour.state is not PodState.NOT_READY
        if life.ready:
            return None
        self._repeat(pod, life, "Unhealthy", f"Readiness probe failed: {behaviour.message}")
        return self._pace.repeat

    def _end(self, pod: Obj, life: Life, behaviour: Behaviour) -> float | None:
        life.last, life.ready, life.since = ending(pod, life, behaviour), False, time.monotonic()
        meta, container = pod["metadata"], _first(pod)
        if behaviour.state is PodState.EVICTED:
            life.stage, life.evicted = Stage.ENDED, behaviour.message or _LOW
            record(self._store, pod, "Evicted", life.evicted, warning=True)
            return None
        if behaviour.message:
            self._logs.append(meta["uid"], container["name"], behaviour.message)
        policy = pod["spec"].get("restartPolicy", "Always")
        if policy == "Never" or (policy == "OnFailure" and life.last["exitCode"] == 0):
            life.stage = Stage.ENDED
            return None
        life.stage = Stage.BACKOFF
        whose = f"{container['name']} in pod {meta['name']}_{meta['namespace']}({meta['uid']})"
        told = f"Back-off restarting failed container {whose}"
        record(self._store, pod, "BackOff", told, warning=True)
        return self._pace.backoff

    def _fail_to_pull(self, pod: Obj, life: Life, behaviour: Behaviour) -> float:
        life.stage = Stage.PULL_FAILED
        image = _first(pod)["image"]
        why = f'Failed to pull image "{image}": {behaviour.message or "not found"}'
        self._repeat(pod, life, "Failed", why)
        record(self._store, pod, "BackOff", f'Back-off pulling image "{image}"')
        return self._pace.repeat

    def _repeat(self, pod: Obj, life: Life, reason: str, message: str) -> None:
        now = time.monotonic()
        if now - life.told >= self._pace.repeat:
            life.told = now
            record(self._store, pod, reason, message, warning=True)


def _first(pod: Obj) -> Obj:
    return pod["spec"]["containers"][0]
