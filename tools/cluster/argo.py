"""Argo Workflows as the documentation asks users to install it.

Invariant: the controller holds rights in `tiphys-actions` and its own namespace, none beyond.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tiphys.service.conform import controller as like_ours
from tools.cluster.builds import argo_source
from tools.cluster.control_plane import Api
from tools.cluster.images import ARGO_CONTROLLER, ARGO_EXECUTOR
from tools.cluster.paths import Cache

NAMESPACE = "tiphys-argo"
ACTIONS = "tiphys-actions"
INSTANCE = like_ours.INSTANCE
CONTROLLER = "workflow-controller"
_GROUP = "argoproj.io"
_KINDS = 8
Manifest = dict[str, Any]


def is_served(api: Api) -> bool:
    """Tell whether every CRD is established."""
    found = api.read(f"/apis/{_GROUP}/v1alpha1")
    kinds = {r["kind"] for r in found["resources"]} if found else set[str]()
    return len(kinds) >= _KINDS


def is_ready(api: Api) -> bool:
    """Tell whether the controller's pod is ready."""
    found = api.read(f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{CONTROLLER}")
    return bool(found and found.get("status", {}).get("readyReplicas"))


def crd_files(cache: Cache) -> list[Path]:
    """Argo's full CRDs, which say every field; the small ones accept anything."""
    folder = argo_source(cache) / "manifests/base/crds/full"
    return sorted(folder.glob("argoproj.io_*.yaml"))


def _meta(name: str, namespace: str | None = None, **labels: str) -> dict[str, Any]:
    meta: dict[str, Any] = {"name": name}
    if namespace:
        meta["namespace"] = namespace
    if labels:
        meta["labels"] = labels
    return meta


def rights() -> list[Manifest]:
    """Give what the controller may do."""
    return like_ours.rights(NAMESPACE, ACTIONS)


def settings() -> Manifest:
    """Give the controller's settings."""
    return like_ours.settings(NAMESPACE)


def _container() -> dict[str, Any]:
    environment = {
        "LEADER_ELECTION_DISABLE": "true",
        "EXPRESSION_TEMPLATES": "false",
        "DEFAULT_REQUEUE_TIME": "1s",
    }
    name_of_pod = {"fieldRef": {"fieldPath": "metadata.name"}}
    return {
        "name": CONTROLLER,
        "image": ARGO_CONTROLLER,
        "imagePullPolicy": "Never",
        "args": [
            *("--namespaced", "--managed-namespace", ACTIONS),
            *("--configmap", f"{CONTROLLER}-configmap"),
            *("--executor-image", ARGO_EXECUTOR, "--executor-image-pull-policy", "Never"),
        ],
        "env": [
            *({"name": name, "value": value} for name, value in environment.items()),
            {"name": "LEADER_ELECTION_IDENTITY", "valueFrom": name_of_pod},
        ],
        "ports": [{"name": "metrics", "containerPort": 9090}, {"containerPort": 6060}],
        "readinessProbe": {"httpGet": {"port": 6060, "path": "/healthz"}, "periodSeconds": 1},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
    }


def controller() -> Manifest:
    """One controller, as a Deployment: deleting its pod is how a test kills it."""
    labels = {"app": CONTROLLER}
    pod = {
        "serviceAccountName": "argo",
        "containers": [_container()],
        "priorityClassName": "system-cluster-critical",
        "terminationGracePeriodSeconds": 5,
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _meta(CONTROLLER, NAMESPACE, **labels),
        "spec": {
            "replicas": 1,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def namespaces() -> list[Manifest]:
    """Argo's own namespace and the one that it watches."""
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": _meta(name)}
        for name in (NAMESPACE, ACTIONS)
    ]


def manifests() -> list[Manifest]:
    """Everything but the CRDs, in an order that can be applied at once."""
    account: Mapping[str, Any] = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": _meta("argo", NAMESPACE),
    }
    return [*namespaces(), dict(account), *rights(), settings(), controller()]
