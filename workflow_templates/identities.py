"""Who an action is in the cluster, and exactly what that identity may do.

Invariant: no verb that the action does not declare, and a ClusterRole only for what has no
namespace or must be seen in all; what an action may write stands in its module alone.
"""

from collections.abc import Sequence

from tiphys.policies.model import Json
from tiphys.workflow_templates.action import Action, Right, Scope
from tiphys.workflow_templates.mark import EVENTS_OF_NODES

ACTION_LABEL = "tiphys.io/action"
_RBAC = "rbac.authorization.k8s.io"
_EVENTS = Right("", "events", ("create", "get"))
"""Every run claims its target, and tells of itself, by Events there."""
_REPORTS = Right("argoproj.io", "workflowtaskresults", ("create", "patch"))
"""Argo's executor: https://argo-workflows.readthedocs.io/en/latest/workflow-rbac/"""

Manifest = dict[str, Json]


def account_name(action: Action) -> str:
    """Name the action's ServiceAccount."""
    return f"act-{action.name}"


def identities(action: Action, namespace: str) -> list[Manifest]:
    """Give the ServiceAccount and its right to report to Argo, where Workflows run."""
    account: Manifest = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": _metadata(action, account_name(action), namespace),
    }
    name = f"{account_name(action)}-reports"
    return [account, *_granted(action, (namespace, name), namespace, (_REPORTS,))]


def access(action: Action, namespace: str, account_namespace: str) -> list[Manifest]:
    """Give the action's rights in a namespace that opted in."""
    place = namespace, f"tiphys-{account_name(action)}"
    own = [right for right in action.rights if right.scope is Scope.NAMESPACE]
    return _granted(action, place, account_namespace, (*own, _EVENTS))


def cluster_access(action: Action, account_namespace: str, prefix: str) -> list[Manifest]:
    """Give the action's rights outside namespaces; nothing for most. Names begin with `prefix`."""
    wide = [right for right in action.rights if right.scope is Scope.CLUSTER]
    place = "", f"{prefix}-{account_name(action)}"
    if not wide:
        return []
    found = _granted(action, place, account_namespace, wide)
    if action.works_on_nodes:
        # A node's Events are there, whoever leaves them.
        name = f"{prefix}-{account_name(action)}-events"
        found += _granted(action, (EVENTS_OF_NODES, name), account_namespace, (_EVENTS,))
    return found


def _granted(
    action: Action, place: tuple[str, str], account_namespace: str, rights: Sequence[Right]
) -> list[Manifest]:
    rules: list[Json] = [
        {"apiGroups": [r.api_group], "resources": [r.resource], "verbs": [*r.verbs]} for r in rights
    ]
    version, (namespace, name) = f"{_RBAC}/v1", place
    wide = "" if namespace else "Cluster"
    return [
        {
            "apiVersion": version,
            "kind": f"{wide}Role",
            "metadata": _metadata(action, name, namespace),
            "rules": rules,
        },
        {
            "apiVersion": version,
            "kind": f"{wide}RoleBinding",
            "metadata": _metadata(action, name, namespace),
            "roleRef": {"apiGroup": _RBAC, "kind": f"{wide}Role", "name": name},
            "subjects": [
                {
                    "kind": "ServiceAccount",
                    "name": account_name(action),
                    "namespace": account_namespace,
                }
            ],
        },
    ]


def _metadata(action: Action, name: str, namespace: str) -> Manifest:
    place: Manifest = {"namespace": namespace} if namespace else {}
    return {"name": name, **place, "labels": {ACTION_LABEL: action.name}}
