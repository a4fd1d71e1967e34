"""The facts of objects to which nothing has happened, by the functions that read real ones.

A case that tells only what is odd about a Deployment, a pod or a node is filled up from here.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from tiphys.agents.garbage_facts import garbage_facts
from tiphys.agents.gpu_facts import unclear
from tiphys.agents.limit_facts import autoscaler_facts, budget_facts, job_facts, node_facts
from tiphys.agents.node_around import around
from tiphys.agents.pod_facts import pod_facts, pods_facts
from tiphys.agents.workload_facts import rollout_facts, workload_facts
from tiphys.policies.model import Json

NOW: Final = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
_BORN: Final = "2026-02-01T12:00:00Z"
_READY: Final[dict[str, Any]] = {"conditions": [{"type": "Ready", "status": "True"}]}
_SET: Final = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "uid": "rs"}
_NODE: Final[dict[str, Any]] = {"metadata": {"name": "node-1"}, "status": _READY}
_DEPLOYMENT: Final[dict[str, Any]] = {
    "metadata": {"name": "web", "namespace": "shop", "uid": "web"},
    "spec": {"replicas": 3},
    "status": {"replicas": 3, "updatedReplicas": 3, "readyReplicas": 3, "availableReplicas": 3,
               "conditions": [{"type": "Progressing", "reason": "NewReplicaSetAvailable"}]},
}  # fmt: skip
WITH_WORKLOAD: Final = ("rollout", "pods", "autoscaler", "budget")
"""Groups that are read wherever a workload is."""


def _pod(number: int) -> dict[str, Any]:
    told: dict[str, Any] = {"name": "app", "ready": True, "state": {"running": {}}}
    owner: dict[str, Any] = {**_SET, "controller": True}
    return {
        "metadata": {"name": f"web-1-{number}", "uid": f"pod-{number}", "creationTimestamp": _BORN,
                     "ownerReferences": [owner]},
        "spec": {"nodeName": "node-1", "containers": [{"name": "app", "image": "web:1"}]},
        "status": {"phase": "Running", **_READY, "containerStatuses": [told]},
    }  # fmt: skip


def untouched() -> Mapping[str, dict[str, Json]]:
    """Give the groups: Deployment `web` with three ready pods of one revision on node `node-1`."""
    pods = [_pod(number) for number in (1, 2, 3)]
    return {
        "workload": {**workload_facts(_DEPLOYMENT, "Deployment"), "operator": ""},
        "rollout": rollout_facts(_DEPLOYMENT, "Deployment", [], pods, NOW),
        "pods": pods_facts(pods, "rs", NOW),
        "pod": {**pod_facts(pods[0], NOW), "log_tail": []},
        "node": {**node_facts(_NODE), **around(_NODE, [])},
        "autoscaler": autoscaler_facts(None),
        "budget": budget_facts([], []),
        "job": job_facts({}, None, []),
        "garbage": garbage_facts(_DEPLOYMENT, {"ReplicaSet": [], "Pod": []}, []),
        "gpu": unclear("", ""),
        "resolution": {"found": False, "ambiguous": False, "candidates": [], "missing": []},
    }
