"""What an installed Tiphys brings beside its catalogue: namespaces, identities, rights.

The rights are the design's: agents read (no Secrets, no exec, ConfigMaps only those that the policy
names), the launcher handles Workflows in one namespace, the gateway creates the stop ConfigMap and
cannot delete it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tiphys.sandbox.rbac import MASTERS, Tokens
from tiphys.sandbox.resources import RESOURCES

SYSTEM = "tiphys-system"
ACTIONS = "tiphys-actions"
STOP = "tiphys-stop"
AGENTS, LAUNCHER, GATEWAY, ADMIN = "agents", "launcher", "gateway", "admin"
_RBAC = "rbac.authorization.k8s.io"
_UNREAD = {"secrets", "configmaps", "serviceaccounts"}

Json = dict[str, Any]


def manifests() -> list[Json]:
    """Give the objects, in the order in which they can be created."""
    return [
        # Every cluster has it; the Events of nodes are there.
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}},
        *(_namespace(name) for name in (SYSTEM, ACTIONS, STOP)),
        *(_account(name) for name in (AGENTS, LAUNCHER, GATEWAY)),
        _role("ClusterRole", "tiphys-agents", "", _reader_rules()),
        _binding("ClusterRole", "tiphys-agents", "", AGENTS),
        _role(
            "Role",
            "tiphys-launcher",
            ACTIONS,
            [_rule("argoproj.io", "workflows", "create", "get", "list", "watch", "patch")],
        ),
        _binding("Role", "tiphys-launcher", ACTIONS, LAUNCHER),
        _role(
            "Role", "tiphys-stop-reader", STOP, [_rule("", "configmaps", "get", "list", "watch")]
        ),
        _binding("Role", "tiphys-stop-reader", STOP, LAUNCHER),
        _role("Role", "tiphys-gateway", STOP, [_rule("", "configmaps", "create", "get", "list")]),
        _binding("Role", "tiphys-gateway", STOP, GATEWAY),
    ]


def config_reader(namespace: str, names: Sequence[str]) -> list[Json]:
    """Let the agents read these ConfigMaps of a namespace, one by one."""
    rule = {**_rule("", "configmaps", "get"), "resourceNames": [*names]}
    return [
        _role("Role", "tiphys-agents-config", namespace, [rule]),
        _binding("Role", "tiphys-agents-config", namespace, AGENTS),
    ]


def nodes(count: int = 3) -> list[Json]:
    """Give ordinary worker nodes, which opted in."""
    room = {"cpu": "8", "memory": "32Gi", "pods": "110"}
    return [
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": f"worker-{number}",
                "labels": {
                    "kubernetes.io/hostname": f"worker-{number}",
                    "kubernetes.io/os": "linux",
                    "tiphys.io/heal": "enabled",
                    "topology.kubernetes.io/zone": f"zone-{number}",
                },
            },
            "spec": {},
            "status": {
                "capacity": room,
                "allocatable": room,
                "nodeInfo": {"kubeletVersion": "v1.35.4"},
                "conditions": [
                    {"type": "Ready", "status": "True", "reason": "KubeletReady"},
                    {"type": "MemoryPressure", "status": "False"},
                    {"type": "DiskPressure", "status": "False"},
                ],
            },
        }
        for number in range(1, count + 1)
    ]


def write_kubeconfigs(directory: Path, server: str, tokens: Tokens) -> dict[str, Path]:
    """Write one kubeconfig for each role, and one for a human administrator; give their paths."""
    written: dict[str, Path] = {}
    for role in (AGENTS, LAUNCHER, GATEWAY, ADMIN):
        token = (
            tokens.issue("sandbox-admin", (MASTERS,))
            if role == ADMIN
            else tokens.service_account(SYSTEM, f"tiphys-{role}")
        )
        path = directory / f"{role}.kubeconfig"
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(_kubeconfig(server, role, token), sort_keys=False))
        written[role] = path
    return written


def _kubeconfig(server: str, user: str, token: str) -> Json:
    context = {"cluster": "sandbox", "user": user, "namespace": ACTIONS}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "sandbox", "cluster": {"server": server}}],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": "sandbox", "context": context}],
        "current-context": "sandbox",
    }


def _namespace(name: str) -> Json:
    labels = {"kubernetes.io/metadata.name": name, "app.kubernetes.io/part-of": "tiphys"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def _account(role: str) -> Json:
    meta = {"name": f"tiphys-{role}", "namespace": SYSTEM}
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta}


def _rule(group: str, resource: str, *verbs: str) -> Json:
    return {"apiGroups": [group], "resources": [resource], "verbs": list(verbs)}


def _reader_rules() -> list[Json]:
    groups: dict[str, list[str]] = {}
    for resource in RESOURCES:
        if resource.group != _RBAC and resource.plural not in _UNREAD:
            groups.setdefault(resource.group, []).append(resource.plural)
    rules: list[Json] = [
        {"apiGroups": [group], "resources": plurals, "verbs": ["get", "list", "watch"]}
        for group, plurals in groups.items()
    ]
    return [*rules, _rule("", "pods/log", "get")]


def _role(kind: str, name: str, namespace: str, rules: Sequence[Json]) -> Json:
    meta = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": kind,
        "metadata": meta,
        "rules": list(rules),
    }


def _binding(role_kind: str, name: str, namespace: str, role: str) -> Json:
    meta = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": f"{role_kind}Binding",
        "metadata": meta,
        "roleRef": {"apiGroup": _RBAC, "kind": role_kind, "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": f"tiphys-{role}", "namespace": SYSTEM}],
    }
