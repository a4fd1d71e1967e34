"""Nodes of one stage, whose kubelet is played here: pods run there because it says so.

Two machines are not to be had, and a node that others use cannot be drained in a trial. So a stage
makes nodes that only its own pods tolerate, and a thread plays all their kubelets, on either
cluster: it reports the nodes, says of each pod that it runs and is ready, and lets it go when told.
"""

import threading
import time
from contextlib import suppress
from datetime import UTC, datetime

from urllib3.exceptions import HTTPError

from tiphys.service.conform.nodes import BARE
from tiphys.service.conform.snapshot import STAGE
from tiphys.service.conform.trial import Stage
from tiphys.service.conform.wire import Json, UnexpectedAnswerError, Wire, place
from tiphys.service.conform.worlds import World
from tiphys.workflow_templates.nodes import OPT_IN

IDLE = "tiphys.io/idle"
"""On a node with this annotation no pod ever starts."""
_NODES, _PODS = "/api/v1/nodes", "/api/v1/pods"
_ROOM = {"cpu": "4", "memory": "8Gi", "pods": "20"}
_LOOK, _REPORT = 0.25, 10.0
"""Seconds between two looks at the pods, and between two reports of the nodes."""


def play(stage: Stage, *names: str) -> list[str]:
    """Make nodes that opted in, and play their kubelet as long as they are there."""
    made: list[str] = []
    for name in names:
        full = f"{name}-{stage.namespace}"
        stage.wire.create(_node(full, stage.namespace))
        stage.world.swept.append(place("v1", "Node", "", full))
        made.append(full)
    with stage.world.lock:
        if not stage.world.played:
            stage.world.played = True
            player = _Player(stage.world, Wire(stage.wire.kubeconfig))
            threading.Thread(target=player.run, name="kubelets", daemon=True).start()

    def fresh() -> list[Json]:
        return [node for node in _of(stage) if node["metadata"]["name"] in made]

    stage.world.until("the nodes take pods", lambda: all(map(_untainted, fresh())))
    return made


def placed(stage: Stage, pods: Json) -> Json:
    """Let pods of this template run on the stage's nodes, and there alone."""
    pods["spec"] |= {
        "nodeSelector": {STAGE: stage.namespace},
        "tolerations": [{"key": STAGE, "operator": "Exists"}],
    }
    return pods


def node_path(name: str) -> str:
    """Give a node's path."""
    return place("v1", "Node", "", name)


def _of(stage: Stage) -> list[Json]:
    return stage.wire.items(_NODES, labelSelector=f"{STAGE}={stage.namespace}")


def _untainted(node: Json) -> bool:
    return [taint["key"] for taint in node["spec"].get("taints") or []] == [STAGE]


def _node(name: str, namespace: str) -> Json:
    labels = {STAGE: namespace, OPT_IN: "enabled", "kubernetes.io/hostname": name}
    taint = {"key": STAGE, "value": namespace, "effect": "NoSchedule"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels, "annotations": {**BARE}},
        "spec": {"taints": [taint]},
        "status": {"allocatable": _ROOM, "capacity": _ROOM, "conditions": [_ready()]},
    }


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _ready() -> Json:
    moments = {"lastHeartbeatTime": _now(), "lastTransitionTime": _now()}
    return {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "", **moments}


class _Player:
    """The kubelets of all stages of one world."""

    def __init__(self, world: World, wire: Wire) -> None:
        self._world, self._wire = world, wire
        self._reported = time.monotonic()

    def run(self) -> None:
        """Play until the cluster, or every node, is gone."""
        while True:
            try:
                nodes = self._wire.items(_NODES, labelSelector=STAGE)
                if not nodes and self._is_over():
                    return
                self._report(nodes)
                self._look({node["metadata"]["name"]: node for node in nodes})
            except (HTTPError, UnexpectedAnswerError, KeyError):
                if not self._there():
                    return
            time.sleep(_LOOK)

    def _is_over(self) -> bool:
        """Whether no node is left; who makes the next one begins anew."""
        with self._world.lock:
            self._world.played = bool(self._wire.items(_NODES, labelSelector=STAGE))
            return not self._world.played

    def _there(self) -> bool:
        with suppress(HTTPError):
            return self._wire.ask("GET", "/readyz").status == 200
        return False

    def _report(self, nodes: list[Json]) -> None:
        if time.monotonic() - self._reported < _REPORT:
            return
        self._reported = time.monotonic()
        for node in nodes:
            path = node_path(node["metadata"]["name"])
            self._wire.patch(f"{path}/status", {"status": {"conditions": [_ready()]}})

    def _look(self, nodes: dict[str, Json]) -> None:
        for pod in self._wire.items(_PODS):
            meta, node = pod["metadata"], nodes.get(pod["spec"].get("nodeName", ""))
            if node is None:
                continue
            path = place("v1", "Pod", meta["namespace"], meta["name"])
            idle = IDLE in (node["metadata"].get("annotations") or {})
            if "deletionTimestamp" in meta:
                self._wire.delete(path, force=True)
            elif not idle and pod.get("status", {}).get("phase") == "Pending":
                self._start(path, pod)

    def _start(self, path: str, pod: Json) -> None:
        moment = _now()
        conditions = [
            {"type": kind, "status": "True", "lastTransitionTime": moment}
            for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")
        ]
        containers = [
            {
                "name": one["name"],
                "image": one["image"],
                "imageID": "",
                "ready": True,
                "restartCount": 0,
                "state": {"running": {"startedAt": moment}},
            }
            for one in pod["spec"]["containers"]
        ]
        status = {"phase": "Running", "startTime": moment, "conditions": conditions}
        body = {"status": {**status, "containerStatuses": containers}}
        self._wire.ask("PATCH", f"{path}/status", body, "application/merge-patch+json")
