"""Where an action's rights reach, and what a change is of."""

from typing import Any

from tiphys.policies.model import Change, ObjectReference
from tiphys.workflow_templates.action import Related, Right, Scope
from tiphys.workflow_templates.catalogue import find
from tiphys.workflow_templates.identities import access, cluster_access
from tiphys.workflow_templates.rollout_restart import RolloutRestart

WIDE = Right("", "nodes", ("get",), Scope.CLUSTER)


class Wide(RolloutRestart):
    """An action with a right outside namespaces, which no other action has."""

    rights = (*RolloutRestart.rights, WIDE)


def rules(objects: list[Any]) -> list[Any]:
    return [rule for one in objects for rule in one.get("rules", [])]


def test_what_has_no_namespace_is_granted_by_a_cluster_role_and_nothing_else_is() -> None:
    granted = {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}
    made: list[Any] = cluster_access(Wide(), "runs", "tiphys")
    assert [one["kind"] for one in made] == ["ClusterRole", "ClusterRoleBinding"]
    assert rules(made) == [granted]
    assert made[1]["roleRef"]["kind"] == "ClusterRole"
    assert all("namespace" not in one["metadata"] for one in made)
    assert made[1]["subjects"][0]["namespace"] == "runs"
    assert granted not in rules(access(Wide(), "shop", "runs"))
    assert rules(access(Wide(), "shop", "runs")) == rules(access(RolloutRestart(), "shop", "runs"))


def test_an_action_that_stays_in_its_namespace_has_no_cluster_role() -> None:
    assert cluster_access(find("rollout-restart"), "runs", "tiphys") == []


def test_related_objects_are_listed_where_their_scope_says() -> None:
    assert Related("v1", "Pod").place("shop") == "shop"
    assert Related("v1", "Pod", Scope.CLUSTER).place("shop") == ""


def test_a_change_names_its_object_and_says_nothing_where_it_is_the_target() -> None:
    own = Change(path="/spec/replicas", present=1, intended=2)
    assert own.model_dump() == {"path": "/spec/replicas", "present": 1, "intended": 2}
    assert (own.place, Change(path="", present={}, intended=None).place) == (
        "/spec/replicas",
        "the object",
    )
    of = ObjectReference(api_version="v1", kind="Pod", namespace="shop", name="a", uid="u")
    other = Change(of=of, path="", present={}, intended=None)
    assert other.place == "Pod shop/a"
    assert Change.model_validate(other.model_dump(mode="json")) == other
    assert Change.model_validate_json(own.model_dump_json()) == own
