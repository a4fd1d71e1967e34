"""Argo Workflows as the documentation asks users to install it.

Invariant: the controller holds rights in `tiphys-actions` and its own namespace, none beyond.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tools.cluster.builds import argo_source
from tools.cluster.control_plane import Api
from tools.cluster.images import ARGO_CONTROLLER, ARGO_EXECUTOR
from tools.cluster.paths import Cache

NAMESPACE = "tiphys-argo"
ACTIONS = "tiphys-actions"
INSTANCE = "tiphys"
CONTROLLER = "workflow-controller"
_GROUP = "argoproj.io"
_READ = ["get", "list", "watch"]
_WRITE = ["create", "update", "patch", "delete"]

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


def _role(namespace: str, rules: list[dict[str, Any]]) -> list[Manifest]:
    api = "rbac.authorization.k8s.io"
    return [
        {
            "apiVersion": f"{api}/v1",
            "kind": "Role",
            "metadata": _meta("argo", namespace),
            "rules": rules,
        },
        {
            "apiVersion": f"{api}/v1",
            "kind": "RoleBinding",
            "metadata": _meta("argo", namespace),
            "roleRef": {"apiGroup": api, "kind": "Role", "name": "argo"},
            "subjects": [{"kind": "ServiceAccount", "name": "argo", "namespace": NAMESPACE}],
        },
    ]


def _rule(groups: str, resources: list[str], verbs: list[str]) -> dict[str, Any]:
    return {"apiGroups": [groups], "resources": resources, "verbs": verbs}


def rights() -> list[Manifest]:
    """Upstream's namespaced role without secrets, volume claims and disruption budgets, which no
    template of ours uses (manifests/namespace-install/workflow-controller-rbac).
    """
    actions = [
        _rule("", ["pods"], _READ + _WRITE),
        _rule("", ["pods/exec"], ["create"]),
        _rule("", ["configmaps"], _READ),
        _rule("", ["serviceaccounts"], ["get", "list"]),
        _rule("", ["events"], ["create", "patch"]),
        _rule(
            _GROUP,
            [
                name + part
                for name in ("workflows", "workflowtasksets")
                for part in ("", "/finalizers", "/status")
            ]
            + ["workflowartifactgctasks"],
            _READ + _WRITE,
        ),
        _rule(_GROUP, ["workflowtemplates", "cronworkflows"], _READ),
        _rule(_GROUP, ["workflowtaskresults"], ["list", "watch", "deletecollection"]),
    ]
    own = [
        _rule("", ["configmaps"], _READ),
        _rule("", ["events"], ["create", "patch"]),
        _rule("coordination.k8s.io", ["leases"], ["create", "get", "update"]),
    ]
    return [*_role(ACTIONS, actions), *_role(NAMESPACE, own)]


def settings() -> Manifest:
    """The controller's settings; `Strict` starts only Workflows that name a template."""
    restricted = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "runAsUser": 8737,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    executor = {
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": restricted,
    }
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _meta(f"{CONTROLLER}-configmap", NAMESPACE),
        "data": {
            "instanceID": INSTANCE,
            "workflowRestrictions": yaml.safe_dump({"templateReferencing": "Strict"}),
            "executor": yaml.safe_dump(executor),
        },
    }


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
