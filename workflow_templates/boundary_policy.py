"""A ValidatingAdmissionPolicy with its binding, as a value: what the boundary's files are made of.

Invariants: every policy fails closed (`failurePolicy: Fail`), denies, and answers 403; 422 would
mean a conflict to whoever patches. Identities and images are literals in the policies: if they
stood in the catalogue, emptying it would also refuse Argo's updates and a running Workflow's
rollback. https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from tiphys.policies.model import Json

Manifest = dict[str, Json]
_ADMISSION = "admissionregistration.k8s.io/v1"
_HELM = "helm.sh/resource-policy"
ALL = ("CREATE", "UPDATE", "DELETE", "CONNECT")
WRITES = ("CREATE", "UPDATE", "DELETE")
GARBAGE_COLLECTOR = "system:serviceaccount:kube-system:generic-garbage-collector"
NAMESPACE_CONTROLLER = "system:serviceaccount:kube-system:namespace-controller"
COLLECTORS = (GARBAGE_COLLECTOR, NAMESPACE_CONTROLLER)
"""They end what is to be deleted; Kubernetes names them."""


class BoundarySettings(BaseModel):
    """What an installation is called; each value is put into CEL literals as it stands.

    The chart renders with placeholders and fills them in. A list may be given as text, which is
    then a CEL list literal itself, such as `['a', 'b']`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: Sequence[str] | str
    """The images that pods of runs may have: the step's and Argo's executor's."""
    publisher_users: Sequence[str] | str = ()
    """Who may write WorkflowTemplates and the catalogue, beside the groups."""
    publisher_groups: Sequence[str] | str = ("system:masters", "kubeadm:cluster-admins")
    launcher: str = "system:serviceaccount:tiphys-system:tiphys-launcher"
    gateway: str = "system:serviceaccount:tiphys-system:tiphys-gateway"
    agents: str = "system:serviceaccount:tiphys-system:tiphys-agents"
    controller: str = "system:serviceaccount:tiphys-argo:argo"
    system_namespace: str = "tiphys-system"
    """Where the catalogue is."""
    actions_namespace: str = "tiphys-actions"
    """Where Workflows and their pods run."""
    stop_namespace: str = "tiphys-stop"
    argo_namespace: str = "tiphys-argo"
    name_prefix: str = "tiphys"
    """The first part of the policies' names, which are cluster-wide."""
    instance_id: str = "tiphys"
    """Argo's instanceID."""
    node_actions: bool | str = False
    """Let actions that declare it write nodes labelled `tiphys.io/heal: enabled`; no other. Text
    is a CEL literal itself, `true` or `false`."""


@dataclass(frozen=True)
class Match:
    """Which requests a policy judges."""

    group: str
    resources: tuple[str, ...]
    operations: tuple[str, ...]
    scope: str = "*"


@dataclass(frozen=True)
class Rule:
    """One validation: what must hold, and what is said when it does not."""

    expression: str
    message: str
    message_expression: str = ""


@dataclass(frozen=True)
class Policy:
    """One policy with its only binding."""

    name: str
    """Without the installation's prefix."""
    matches: tuple[Match, ...]
    rules: tuple[Rule, ...]
    namespace: str = ""
    """The only namespace whose objects it judges; empty: all, and what has no namespace."""
    conditions: tuple[tuple[str, str], ...] = ()
    variables: tuple[tuple[str, str], ...] = ()
    excludes: tuple[Match, ...] = ()
    parameters: Manifest | None = None
    """The binding's `paramRef`, of a ConfigMap."""
    stays: bool = False
    """Helm leaves it when the release goes; see docs/boundary.md on why the stop has to stay."""

    def manifests(self, prefix: str) -> list[Manifest]:
        """Give the policy and its binding."""
        name = f"{prefix}-{self.name}"
        spec: Manifest = {"failurePolicy": "Fail"}
        if self.parameters is not None:
            spec["paramKind"] = {"apiVersion": "v1", "kind": "ConfigMap"}
        constraints: Manifest = {"resourceRules": [_match(one) for one in self.matches]}
        if self.excludes:
            constraints["excludeResourceRules"] = [_match(one) for one in self.excludes]
        spec["matchConstraints"] = constraints
        for key, pairs in (("matchConditions", self.conditions), ("variables", self.variables)):
            if pairs:
                spec[key] = [{"name": n, "expression": line(text)} for n, text in pairs]
        spec["validations"] = [_validation(rule) for rule in self.rules]
        bound: Manifest = {"policyName": name, "validationActions": ["Deny"]}
        if self.parameters is not None:
            bound["paramRef"] = self.parameters
        if self.namespace:
            selector: Json = {"matchLabels": {"kubernetes.io/metadata.name": self.namespace}}
            bound["matchResources"] = {"namespaceSelector": selector}
        found = [
            _manifest("ValidatingAdmissionPolicy", name, spec),
            _manifest("ValidatingAdmissionPolicyBinding", name, bound),
        ]
        if self.stays:
            for one in found:
                one["metadata"] = {**_metadata(name), "annotations": {_HELM: "keep"}}
        return found


def text(value: str) -> str:
    """Write a CEL string literal; raises `ValueError` for what would end it."""
    if any(mark in value for mark in "'\\\n"):
        raise ValueError(f"{value!r} cannot stand in a CEL literal")
    return f"'{value}'"


def texts(values: Sequence[str] | str) -> str:
    """Write a CEL list literal; text is one already."""
    if isinstance(values, str):
        return values
    return f"[{', '.join(text(value) for value in values)}]"


def flag(value: bool | str) -> str:
    """Write a CEL literal of a choice; text is one already."""
    return value if isinstance(value, str) else str(value).lower()


def line(expression: str) -> str:
    """Put an expression on one line; no literal in the boundary holds two blanks."""
    return " ".join(expression.split()).replace("( ", "(").replace(" )", ")")


def user_is(name: str) -> str:
    """Say in CEL that one user asks."""
    return f"request.userInfo.username == {text(name)}"


def publisher(settings: BoundarySettings) -> tuple[str, str]:
    """Give the variable `publisher`: whether a publisher asks."""
    users, groups = texts(settings.publisher_users), texts(settings.publisher_groups)
    return (
        "publisher",
        f"""request.userInfo.username in {users} || (has(request.userInfo.groups)
            && request.userInfo.groups.exists(g, g in {groups}))""",
    )


PLACE = ("place", "has(request.namespace) ? request.namespace : ''")
WHAT = (
    "what",
    """request.operation + ' ' + request.resource.group + '/' + request.resource.resource
       + (has(request.subResource) && request.subResource != ''
       ? '/' + request.subResource : '')""",
)
"""Such as `UPDATE apps/deployments/scale` and `CREATE /events`: empty fields are left out."""
REVIEWS = tuple(
    Match(group, ("*",), ("*",)) for group in ("authentication.k8s.io", "authorization.k8s.io")
)
"""Questions about oneself; they change nothing."""


def _match(match: Match) -> Json:
    return {
        "apiGroups": [match.group],
        "apiVersions": ["*"],
        "operations": [*match.operations],
        "resources": [*match.resources],
        "scope": match.scope,
    }


def _validation(rule: Rule) -> Json:
    found: Manifest = {"expression": line(rule.expression), "message": rule.message}
    if rule.message_expression:
        found["messageExpression"] = line(rule.message_expression)
    return {**found, "reason": "Forbidden"}


def _manifest(kind: str, name: str, spec: Manifest) -> Manifest:
    return {"apiVersion": _ADMISSION, "kind": kind, "metadata": _metadata(name), "spec": spec}


def _metadata(name: str) -> Manifest:
    return {"name": name, "labels": {"app.kubernetes.io/part-of": "tiphys"}}
