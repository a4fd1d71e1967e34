"""Who may do what: bearer tokens, and RBAC computed from the store's Roles and Bindings.

https://kubernetes.io/docs/reference/access-authn-authz/rbac/
"""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass

from tiphys.sandbox.resources import Obj
from tiphys.sandbox.store import Store

MASTERS = "system:masters"
"""Members of this group may do everything."""


@dataclass(frozen=True)
class Identity:
    """A user and the groups it is in."""

    user: str
    groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class Access:
    """One thing that somebody wants to do."""

    verb: str
    group: str
    resource: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""


class Tokens:
    """The bearer tokens in force."""

    def __init__(self) -> None:
        self._identities: dict[str, Identity] = {}

    def issue(self, user: str, groups: tuple[str, ...] = ()) -> str:
        """Give a new token for a user."""
        token = secrets.token_urlsafe(24)
        self._identities[token] = Identity(user, (*groups, "system:authenticated"))
        return token

    def service_account(self, namespace: str, name: str) -> str:
        """Give a new token for a ServiceAccount."""
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
        return self.issue(f"system:serviceaccount:{namespace}:{name}", groups)

    def user_of(self, token: str) -> Identity | None:
        """Say whose token it is; None for an unknown or revoked one."""
        return self._identities.get(token)

    def revoke(self, token: str) -> None:
        """Make a token worthless from now on."""
        self._identities.pop(token, None)


def allowed(store: Store, identity: Identity, access: Access) -> bool:
    """Whether some Role or ClusterRole bound to the identity grants the access."""
    if MASTERS in identity.groups:
        return True
    return any(_grants(rule, access) for rule in _rules(store, identity, access.namespace))


def _rules(store: Store, identity: Identity, namespace: str) -> Iterator[Obj]:
    bindings = store.list("ClusterRoleBinding")
    bindings += store.list("RoleBinding", namespace) if namespace else []
    for binding in bindings:
        space = binding["metadata"].get("namespace", "")
        if any(_is(subject, identity, space) for subject in binding.get("subjects") or []):
            ref = binding["roleRef"]
            role = store.find(ref["kind"], space if ref["kind"] == "Role" else "", ref["name"])
            yield from (role or {}).get("rules") or []


def _is(subject: Obj, identity: Identity, namespace: str) -> bool:
    if subject["kind"] == "ServiceAccount":
        space = subject.get("namespace", namespace)
        return identity.user == f"system:serviceaccount:{space}:{subject['name']}"
    if subject["kind"] == "Group":
        return subject["name"] in identity.groups
    return subject["name"] == identity.user


def _grants(rule: Obj, access: Access) -> bool:
    resources = rule.get("resources") or []
    wanted = f"{access.resource}/{access.subresource}" if access.subresource else access.resource
    names = rule.get("resourceNames") or []
    return (
        bool({access.verb, "*"} & set(rule.get("verbs") or []))
        and bool({access.group, "*"} & set(rule.get("apiGroups") or []))
        and bool({wanted, "*", f"*/{access.subresource}"} & set(resources))
        # A list cannot be limited to names: a rule with names does not grant it.
        and (not names or access.name in names)
    )
