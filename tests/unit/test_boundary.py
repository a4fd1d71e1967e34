"""The boundary as rendered: closed, guarded, as reviewed; and what planning knows of its guards."""

import os
from pathlib import Path
from typing import Any

import cel
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tiphys.sandbox import admission
from tiphys.sandbox.store import ApiError, Store
from tiphys.workflow_templates import template_guards
from tiphys.workflow_templates.action import Right
from tiphys.workflow_templates.boundary import BoundarySettings, boundary, policies
from tiphys.workflow_templates.boundary_identities import UndeclaredVerbError, writes
from tiphys.workflow_templates.catalogue import every
from tiphys.workflow_templates.restart_pod import RestartPod

GOLDEN = Path(__file__).parent / "golden" / "boundary.yaml"
SETTINGS = BoundarySettings(images=("registry.example/step", "registry.example/argoexec"))
RENDERED: list[Any] = boundary(SETTINGS)
POLICIES = [one for one in RENDERED if one["kind"] == "ValidatingAdmissionPolicy"]
NAMES = [one["metadata"]["name"] for one in POLICIES]


def test_golden_boundary() -> None:
    text = yaml.safe_dump_all(RENDERED, sort_keys=False, width=100)
    if os.environ.get("TIPHYS_GOLDEN") == "write":
        GOLDEN.write_text(text)
    assert GOLDEN.read_text() == text, "reviewed? then: make golden"


@pytest.mark.parametrize("policy", POLICIES, ids=NAMES)
def test_every_policy_fails_closed_and_answers_403(policy: Any) -> None:
    spec = policy["spec"]
    assert spec["failurePolicy"] == "Fail"
    assert {rule["reason"] for rule in spec["validations"]} == {"Forbidden"}
    messages = [rule["message"] for rule in spec["validations"]]
    assert len({*messages}) == len(messages)


def test_every_policy_is_bound_once_and_denies() -> None:
    bindings = [one for one in RENDERED if one not in POLICIES]
    assert [one["spec"]["policyName"] for one in bindings] == NAMES
    assert all(one["spec"]["validationActions"] == ["Deny"] for one in bindings)


def test_the_identities_are_bound_everywhere() -> None:
    everywhere = [
        one["metadata"]["name"]
        for one in RENDERED
        if one not in POLICIES and "matchResources" not in one["spec"]
    ]
    assert everywhere == [
        "tiphys-service",
        "tiphys-act",
        *(f"tiphys-act-{a.name}" for a in every()),
    ]


def test_the_stop_outlives_its_release() -> None:
    kept = [
        one["metadata"]["name"]
        for one in RENDERED
        if one["metadata"].get("annotations", {}).get("helm.sh/resource-policy") == "keep"
    ]
    assert kept == ["tiphys-stop", "tiphys-stop"]


@pytest.mark.parametrize("action", every(), ids=lambda action: action.name)
def test_every_write_of_an_action_is_guarded(action: Any) -> None:
    guarded = {guard.resource for guard in action.guards}
    assert {what.partition(" ")[2] for what in writes(action)} == guarded


def test_a_verb_that_nobody_can_judge_is_an_error() -> None:
    class Greedy(RestartPod):
        rights = (Right("", "pods", ("*",)),)

    with pytest.raises(UndeclaredVerbError):
        boundary(SETTINGS, [Greedy()])


@pytest.mark.parametrize("value", ["a'b", "a\\b", "a\nb"])
def test_a_name_cannot_leave_its_literal(value: str) -> None:
    with pytest.raises(ValueError, match="CEL literal"):
        boundary(BoundarySettings(images=("x",), launcher=value))


def test_placeholders_stay_as_they_are() -> None:
    text = yaml.safe_dump_all(
        boundary(BoundarySettings(images="@@IMAGES@@", publisher_users="@@USERS@@"))
    )
    assert "in @@IMAGES@@" in " ".join(text.split())
    assert "'@@IMAGES@@'" not in text


def test_nodes_count_only_where_they_are_switched_on() -> None:
    def labels(**settings: Any) -> Any:
        (act,) = (p for p in policies(BoundarySettings(images=(), **settings)) if p.name == "act")
        node = {
            "variables": {"place": ""},
            "request": {"operation": "UPDATE", "resource": {"group": "", "resource": "nodes"}},
            "oldObject": {"metadata": {"labels": {"tiphys.io/heal": "enabled"}}},
            "namespaceObject": None,
        }
        return cel.compile(dict(act.variables)["labels"]).execute(cel.Context(node))

    assert labels() == {}
    assert labels(node_actions=True) == {"tiphys.io/heal": "enabled"}


# --- planning and admission say the same of a pod template ---------------------------------------

CONTEXTS = st.sampled_from(
    [
        None, {}, {"privileged": True}, {"privileged": False}, {"runAsUser": 1},
        {"capabilities": {"add": ["X"]}}, {"capabilities": {"drop": ["ALL"]}},
        {"procMount": "Unmasked"}, {"procMount": "Default"},
    ]
)  # fmt: skip
CONTAINERS = st.builds(
    lambda name, image, context: (
        {"name": name, "image": image} | ({} if context is None else {"securityContext": context})
    ),
    st.sampled_from("abc"),
    st.sampled_from(["1", "2"]),
    CONTEXTS,
)
LISTS = st.lists(CONTAINERS, min_size=1, max_size=2, unique_by=lambda one: one["name"])
VOLUMES = st.lists(
    st.sampled_from(
        [
            {"name": "v", "hostPath": {"path": "/"}}, {"name": "v", "configMap": {"name": "x"}},
            {"name": "w", "emptyDir": {}}, {"name": "w", "nfs": {"server": "x"}},
        ]
    ),
    max_size=2,
)  # fmt: skip
SPECS = st.fixed_dictionaries(
    {"containers": LISTS},
    optional={
        "initContainers": LISTS,
        "volumes": VOLUMES,
        "serviceAccountName": st.sampled_from(["x", "y"]),
        "hostNetwork": st.booleans(),
        "nodeSelector": st.sampled_from([{"x": "1"}, {"x": "2"}]),
    },
)


def admitted(present: Any, intended: Any) -> bool:
    """Judge the change by the guards alone, as the API server would."""
    facts: dict[str, Any] = {
        "object": {"spec": {"template": {"spec": intended}}, "metadata": {}},
        "oldObject": {"spec": {"template": {"spec": present}}, "metadata": {}},
        "variables": {},
    }
    for name, text in template_guards.TERMS:
        facts["variables"][name] = cel.compile(text).execute(cel.Context(facts))
    guards = [g for g in template_guards.guards("x") if "variables.not" not in g.expression]
    return all(cel.compile(g.expression).execute(cel.Context(facts)) is True for g in guards)


@given(one=SPECS, other=SPECS)
def test_what_is_planned_is_admitted_both_ways(one: Any, other: Any) -> None:
    planned = template_guards.moved(one, other) is None
    assert planned == (admitted(one, other) and admitted(other, one))


# --- the sandbox judges by the same policies ------------------------------------------------------


@pytest.mark.parametrize("user", [SETTINGS.agents, SETTINGS.launcher, SETTINGS.gateway])
def test_the_sandbox_keeps_the_service_from_everything_else(user: str) -> None:
    store = Store()
    store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    admission.install(store)
    settings = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "settings", "namespace": "shop"},
    }
    with pytest.raises(ApiError, match="tiphys-service"):
        store.create(settings, user=user)
    store.create(settings, user="somebody")
