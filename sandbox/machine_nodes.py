"""The nodes of the stand-in for a machine provider: made, kept alive, drained and taken away.

A real cluster gives up a node that nobody speaks for: a Lease is renewed as a kubelet does.
https://kubernetes.io/docs/reference/node/node-status/#heartbeats
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

Json = dict[str, Any]
GPU = "nvidia.com/gpu"
GPU_COUNT = "capacity.cluster-autoscaler.kubernetes.io/gpu-count"
"""Annotation of a pool: GPUs of each of its machines."""
TAINT = {"key": GPU, "value": "present", "effect": "NoSchedule"}
"""Only pods that tolerate it, as those of GPU jobs do, come to such a node."""
BEAT_SECONDS = 10.0
_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
_NODES = "/api/v1/nodes"
_PREFIXES = ("node.cluster.x-k8s.io/", "node-role.kubernetes.io/", "tiphys.io/")
_MERGE = "application/merge-patch+json"


@dataclass(frozen=True)
class Node:
    """What a machine's node shall be."""

    name: str
    gpus: int
    labels: Mapping[str, str]
    annotations: Mapping[str, str]

    @property
    def provider_id(self) -> str:
        """Say which machine of the cloud it is; the Machine says the same."""
        return f"stand-in://{self.name}"

    @staticmethod
    def of(machine: Json, pool: Json) -> "Node":
        """Derive it: labels with Cluster API's prefixes reach the node."""
        meta, notes = machine["metadata"], pool["metadata"].get("annotations") or {}
        own = {k: v for k, v in meta["labels"].items() if k.startswith(_PREFIXES)}
        [owner] = meta["ownerReferences"]
        return Node(
            name=meta["name"],
            gpus=int(notes.get(GPU_COUNT, 8)),
            labels={
                **own,
                "kubernetes.io/hostname": meta["name"],
                "kubernetes.io/os": "linux",
                # Where it is missing, a real controller adds it some time later.
                "beta.kubernetes.io/os": "linux",
                "nvidia.com/gpu.present": "true",
            },
            annotations={
                "cluster.x-k8s.io/cluster-name": machine["spec"]["clusterName"],
                "cluster.x-k8s.io/machine": meta["name"],
                "cluster.x-k8s.io/owner-kind": owner["kind"],
                "cluster.x-k8s.io/owner-name": owner["name"],
            },
        )


@dataclass
class Nodes:
    """All nodes of one provider."""

    want: Callable[..., Any]
    """Asks for what must succeed: (method, path, body, media)."""
    _beaten: dict[str, float] = field(default_factory=dict[str, float])

    def make(self, node: Node, more: Mapping[str, str]) -> None:
        """Have the node, Ready and with its GPUs."""
        room = {"cpu": "64", "memory": "512Gi", "pods": "110", GPU: str(node.gpus)}
        meta = {"name": node.name, "labels": {**node.labels}}
        body = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {**meta, "annotations": {**node.annotations, **more}},
            "spec": {"providerID": node.provider_id, "taints": [TAINT]},
        }
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "ready"}
        stamps = {"lastHeartbeatTime": _now(), "lastTransitionTime": _now()}
        status = {"capacity": room, "allocatable": room, "conditions": [{**ready, **stamps}]}
        self.want("POST", _NODES, body)
        self._beat(node.name)
        self.want("PATCH", f"{_NODES}/{node.name}/status", {"status": status}, _MERGE)

    def keep(self, machine: Json) -> bool:
        """Speak for a machine's node, where it has one; say whether it has."""
        reference = machine.get("status", {}).get("nodeRef")
        if reference and time.monotonic() - self._beaten.get(reference["name"], 0) > BEAT_SECONDS:
            self._beat(reference["name"])
        return bool(reference)

    def drained(self, name: str) -> bool:
        """Cordon the node and ask its pods to go; say whether all but a DaemonSet's are gone."""
        self.want("PATCH", f"{_NODES}/{name}", {"spec": {"unschedulable": True}}, _MERGE)
        found = self.want("GET", f"/api/v1/pods?fieldSelector=spec.nodeName%3D{name}")
        pods = [pod for pod in (found or {"items": []})["items"] if not _of_daemon_set(pod)]
        for pod in pods:
            meta = pod["metadata"]
            path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
            if "deletionTimestamp" in meta:
                # No kubelet will say that it has ended.
                self.want("DELETE", path, {"kind": "DeleteOptions", "gracePeriodSeconds": 0})
                continue
            named = {"name": meta["name"], "namespace": meta["namespace"]}
            eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": named}
            self.want("POST", f"{path}/eviction", eviction)
        return not pods

    def remove(self, name: str) -> None:
        """Take the node away."""
        self._beaten.pop(name, None)
        self.want("DELETE", f"{_NODES}/{name}")
        self.want("DELETE", f"{_LEASES}/{name}")

    def _beat(self, name: str) -> None:
        self._beaten[name] = time.monotonic()
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": now}
        if self.want("PATCH", f"{_LEASES}/{name}", {"spec": spec}, _MERGE) is None:
            meta = {"name": name, "namespace": "kube-node-lease"}
            lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
            self.want("POST", _LEASES, {**lease, "metadata": meta, "spec": spec})


def _of_daemon_set(pod: Json) -> bool:
    owners = pod["metadata"].get("ownerReferences") or []
    return any(owner["kind"] == "DaemonSet" for owner in owners)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
