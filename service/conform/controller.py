"""An Argo controller of the kit's own, in namespaces of its own, as the cluster's own one is made.

So the cluster's stays as it is while ours is killed, and what it may do is what docs/install.md
says: rights in the namespace of the Workflows and in its own, none beyond.
"""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import yaml

from tiphys.service.conform.wire import Json, Wire
from tiphys.service.errors import WorldRefusedError

CONTROLLER = "workflow-controller"
INSTANCE = "tiphys"
"""Which Workflows it takes, by their label."""
_CONFIG = f"{CONTROLLER}-configmap"
_GIVEN_APART = ("--executor-image", "--executor-image-pull-policy")
_GROUP = "argoproj.io"
_READ = ["get", "list", "watch"]
_WRITE = ["create", "update", "patch", "delete"]


class NoArgoError(WorldRefusedError):
    """The cluster has no Deployment of an Argo Workflows controller to make another like it."""


def found(wire: Wire) -> Json:
    """Give the container of the controller that the cluster has."""
    for one in wire.items("/apis/apps/v1/deployments"):
        for container in one["spec"]["template"]["spec"]["containers"]:
            words = [*(container.get("command") or []), *(container.get("args") or [])]
            if CONTROLLER in one["metadata"]["name"] or CONTROLLER in words:
                return container
    raise NoArgoError("no Deployment is named workflow-controller, nor does any run it")


def like(container: Json, namespace: str, actions: str) -> list[Json]:
    """Give the manifests of another controller for `actions`, in `namespace`, with its image.

    By default Argo starts a pod that vanished again while its node is younger than ten seconds and
    gives it up after that; here always the worse happens, so that it can be counted on.
    """
    kept = {k: v for k, v in deepcopy(container).items() if k.startswith("image")}
    words: Sequence[str] = container.get("args") or []
    executor = [
        word
        for number, word in enumerate(words)
        if "executor-image" in word or (number and words[number - 1] in _GIVEN_APART)
    ]
    environment = {
        "LEADER_ELECTION_DISABLE": "true",
        "LEADER_ELECTION_IDENTITY": namespace,
        "EXPRESSION_TEMPLATES": "false",
        "DEFAULT_REQUEUE_TIME": "1s",
        "RECENTLY_STARTED_POD_DURATION": "1h",
    }
    ours = ["--namespaced", "--managed-namespace", actions, "--configmap", _CONFIG, *executor]
    probe = {"httpGet": {"port": 6060, "path": "/healthz"}, "periodSeconds": 1}
    made: Json = {
        **kept,
        "name": CONTROLLER,
        "args": ours,
        "env": [{"name": name, "value": value} for name, value in environment.items()],
        "readinessProbe": probe,
    }
    if command := container.get("command"):
        made["command"] = command
    spaces = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
              for name in (namespace, actions)]  # fmt: skip
    account = {"name": "argo", "namespace": namespace}
    return [
        *spaces,
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account},
        *rights(namespace, actions),
        settings(namespace),
        _deployment(namespace, made),
    ]


def _deployment(namespace: str, container: Json) -> Json:
    labels = {"app": CONTROLLER}
    pod = {"serviceAccountName": "argo", "containers": [container]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": CONTROLLER, "namespace": namespace, "labels": labels},
        "spec": {
            "replicas": 1,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {**pod, "terminationGracePeriodSeconds": 5},
            },
        },
    }


def rights(namespace: str, actions: str) -> list[Json]:
    """Upstream's namespaced role without secrets, volume claims and disruption budgets, which no
    template of ours uses (manifests/namespace-install/workflow-controller-rbac).
    """
    parts = ("", "/finalizers", "/status")
    workflows = [name + part for name in ("workflows", "workflowtasksets") for part in parts]
    for_actions = [
        _rule("", ["pods"], _READ + _WRITE),
        _rule("", ["pods/exec"], ["create"]),
        _rule("", ["configmaps"], _READ),
        _rule("", ["serviceaccounts"], ["get", "list"]),
        _rule("", ["events"], ["create", "patch"]),
        _rule(_GROUP, [*workflows, "workflowartifactgctasks"], _READ + _WRITE),
        _rule(_GROUP, ["workflowtemplates", "cronworkflows"], _READ),
        _rule(_GROUP, ["workflowtaskresults"], ["list", "watch", "deletecollection"]),
    ]
    own = [
        _rule("", ["configmaps"], _READ),
        _rule("", ["events"], ["create", "patch"]),
        _rule("coordination.k8s.io", ["leases"], ["create", "get", "update"]),
    ]
    return [*_role(actions, namespace, for_actions), *_role(namespace, namespace, own)]


def settings(namespace: str) -> Json:
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
        "metadata": {"name": _CONFIG, "namespace": namespace},
        "data": {
            "instanceID": INSTANCE,
            "workflowRestrictions": yaml.safe_dump({"templateReferencing": "Strict"}),
            "executor": yaml.safe_dump(executor),
        },
    }


def _role(namespace: str, account_namespace: str, rules: list[Json]) -> list[Json]:
    api = "rbac.authorization.k8s.io"
    meta = {"name": "argo", "namespace": namespace}
    return [
        {"apiVersion": f"{api}/v1", "kind": "Role", "metadata": meta, "rules": rules},
        {
            "apiVersion": f"{api}/v1",
            "kind": "RoleBinding",
            "metadata": meta,
            "roleRef": {"apiGroup": api, "kind": "Role", "name": "argo"},
            "subjects": [
                {"kind": "ServiceAccount", "name": "argo", "namespace": account_namespace}
            ],
        },
    ]


def _rule(group: str, resources: list[str], verbs: list[str]) -> dict[str, Any]:
    return {"apiGroups": [group], "resources": resources, "verbs": verbs}
