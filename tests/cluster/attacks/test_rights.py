"""Each identity may do what its part of the design says and nothing else, verb by verb.

Every resource that the API server serves, with every verb that it knows, in every namespace of the
installation, in one that has nothing to do with it, and without a namespace.
"""

from collections.abc import Iterator, Mapping

import pytest
from asking import JSON, Json, Request, place
from fort import Fort
from garrison import ACTIONS, ACTORS, ARGO, SHOP, STOP, SYSTEM

from tiphys.workflow_templates.action import Scope
from tiphys.workflow_templates.catalogue import find

PLACES = (SHOP, ACTIONS, STOP, SYSTEM, ARGO, "default", "kube-system")
Grant = tuple[str, str, str]
"""Namespace, `group/resource` with its subresource, verb."""
BASICS = {
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
    ("authentication.k8s.io", "selfsubjectreviews"),
}
"""What Kubernetes grants to everybody: questions about oneself."""
EVENTS = (("", "events", "create"), ("", "events", "get"))
REPORTS = (("argoproj.io", "workflowtaskresults", verb) for verb in ("create", "patch"))
MORE_VERBS = (
    "get", "list", "watch", "create", "update", "patch", "delete", "deletecollection",
    "bind", "escalate", "impersonate", "approve", "sign", "use",
)  # fmt: skip


def served(fort: Fort) -> set[tuple[str, str]]:
    """Give every (group, resource) there is, subresources as `pods/exec`."""
    found: set[tuple[str, str]] = set()
    versions = ["/api/v1"] + [
        f"/apis/{version['groupVersion']}"
        for group in fort.wire.want("GET", "/apis")["groups"]
        for version in group["versions"]
    ]
    for path in versions:
        group = "" if path == "/api/v1" else path.split("/")[2]
        found |= {(group, one["name"]) for one in fort.wire.want("GET", path)["resources"]}
    return found


def granted(fort: Fort, name: str) -> set[Grant]:
    """Ask the API server for all that an identity may do; wildcards are spelt out."""
    who, everything = fort.who(name, wide=False), served(fort)
    found: set[Grant] = set()
    for namespace in PLACES:
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectRulesReview",
            "spec": {"namespace": namespace},
        }
        path = place("authorization.k8s.io/v1", "selfsubjectrulesreviews")
        status = fort.wire.want("POST", path, body, who)["status"]
        assert not status.get("incomplete"), status
        for rule in status["resourceRules"]:
            found |= {
                (namespace, f"{group}/{resource}", verb)
                for group, resource, verb in spelt(rule, everything)
                if (group, resource) not in BASICS
            }
    return found


def spelt(rule: Json, everything: set[tuple[str, str]]) -> Iterator[tuple[str, str, str]]:
    """Give each resource and verb that a rule covers."""
    verbs = MORE_VERBS if "*" in rule["verbs"] else rule["verbs"]
    for group, resource in everything | {
        (g, r)
        for g in rule.get("apiGroups", [])
        for r in rule.get("resources", [])
        if "*" not in g + r
    }:
        sub = f"*/{resource.partition('/')[2]}"
        if {group, "*"} & {*rule.get("apiGroups", [])} and (
            {resource, "*", sub} & {*rule.get("resources", [])}
        ):
            yield from ((group, resource, verb) for verb in verbs)


def expected() -> Mapping[str, set[Grant]]:
    """Give the design's table; an action's own part stands in its module alone."""
    workflows = {
        (ACTIONS, "argoproj.io/workflows", v) for v in ("create", "get", "list", "watch", "patch")
    }
    stops = {(STOP, "/configmaps", v) for v in ("get", "list")}
    found = {
        "launcher": workflows | stops | {(STOP, "/configmaps", "watch")},
        "gateway": stops | {(STOP, "/configmaps", "create")},
    }
    reports = {(ACTIONS, f"{group}/{resource}", verb) for group, resource, verb in REPORTS}
    for name in ACTORS:
        action = find(name)
        given = [(r.scope, r.api_group, r.resource, v) for r in action.rights for v in r.verbs]
        own = [rest for scope, *rest in given if scope is Scope.NAMESPACE]
        there = {(SHOP, f"{group}/{resource}", verb) for group, resource, verb in (*own, *EVENTS)}
        wide = [rest for scope, *rest in given if scope is Scope.CLUSTER]
        there |= {(p, f"{group}/{resource}", v) for group, resource, v in wide for p in PLACES}
        if action.works_on_nodes:
            there |= {("default", f"{group}/{resource}", verb) for group, resource, verb in EVENTS}
        found[f"act-{name}"] = there | reports
    return found


EXPECTED = expected()


@pytest.mark.parametrize("name", EXPECTED)
def test_an_identity_may_do_what_is_its_own_and_nothing_else(fort: Fort, name: str) -> None:
    assert granted(fort, name) == EXPECTED[name]


def test_agents_only_read_and_no_secret(fort: Fort) -> None:
    seen = granted(fort, "agents")
    assert {verb for _, _, verb in seen} <= {"get", "list"}
    resources = {resource for _, resource, _ in seen}
    closed = {
        "/secrets", "/configmaps", "/serviceaccounts", "/pods/exec", "/pods/attach",
        "/pods/portforward", "/pods/proxy", "/nodes/proxy", "/services/proxy", "/nodes/log",
    }  # fmt: skip
    assert not resources & closed
    assert not {one for one in resources if one.startswith("rbac.authorization.k8s.io")}
    assert {"/pods", "/pods/log", "apps/deployments", "/events"} <= resources


@pytest.mark.parametrize("name", [f"act-{name}" for name in ACTORS])
def test_an_access_review_says_the_same(fort: Fort, name: str) -> None:
    """The rules above are computed here; the API server's own answers must agree with them."""
    mine = granted(fort, name)
    asked = [
        ((namespace, f"{group}/{resource}", verb), _question(namespace, group, resource, verb))
        for group, resource in sorted(served(fort))
        for verb in ("get", "list", "create", "update", "patch", "delete")
        for namespace in (SHOP, "")
    ]
    who = fort.who(name, wide=False)
    path = place("authorization.k8s.io/v1", "selfsubjectaccessreviews")
    answers = fort.wire.all(
        [(Request("POST", path, body, JSON, stored=True), who) for _, body in asked]
    )
    wide = {("", *rest) for _, *rest in mine if all((p, *rest) in mine for p in PLACES)}
    wrong = [
        grant
        for (grant, _), answer in zip(asked, answers, strict=True)
        if tuple(grant[1].split("/", 1)) not in BASICS
        and answer.body["status"]["allowed"] != (grant in mine | wide)
    ]
    assert not wrong


def _question(namespace: str, group: str, resource: str, verb: str) -> Json:
    plural, _, sub = resource.partition("/")
    attributes = {"namespace": namespace, "verb": verb, "group": group, "resource": plural}
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes | ({"subresource": sub} if sub else {})},
    }
