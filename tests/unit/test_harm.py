"""What would make an action do harm, one check at a time; what was not read counts as harm."""

from copy import deepcopy
from typing import Any

import pytest

from tiphys.agents.harm import CHECKS, Proposed, harm
from tiphys.agents.untouched_facts import untouched
from tiphys.policies.model import Json, Target
from tiphys.workflow_templates.catalogue import every

BUDGET = {"present": True, "name": "web", "allowed": 0, "wanted": 3, "healthy": 3, "expected": 3}
XID = {"remedy": "replace_node", "device": "0000:3b:00", "codes": [79]}
MEMORY = {"container": "app", "limit_mib": 512, "killed_pods": 1, "raised_lately": False}
MORE = {"volume": {"name": "data", "raised_lately": False}, "memory": MEMORY,
        "pool": {"name": "h100", "machines": 2, "wanted": 3}}  # fmt: skip
GIVEN: dict[str, dict[str, Json]] = {
    "raise-memory-limit": {"container": "app", "limit_mib": 768},
    "replace-gpu-node": {"device": "0000:3b:00", "xids": [79]},
    "scale-gpu-pool": {"replicas": 3},
    "scale-workload": {"replicas": 5},
}
SOUND: dict[str, dict[str, Any]] = {
    "replace-gpu-node": {"gpu": XID},
    "restart-pod": {"pod": {"name": "web-1-1", "ready": False, "trouble": "unready"}},
    "rollout-undo": {"rollout": {"previous_healthy": True}},
}
"""What an action needs beside facts to which nothing has happened."""


def proposed(action: str, facts: dict[str, Any], given: dict[str, Json] | None = None) -> Proposed:
    whole: dict[str, Any] = {group: dict(told) for group, told in untouched().items()}
    whole |= deepcopy(MORE)
    for told in (SOUND.get(action, {}), facts):
        for group, inside in told.items():
            whole[group] = {} if inside is None else {**whole.get(group, {}), **inside}
    name = "web-1-1" if action == "restart-pod" else "web"
    target = Target(
        cluster="c", api_version="v1", kind="Thing", namespace="shop", name=name, uid="u"
    )
    return Proposed(action, target, GIVEN.get(action, {}) if given is None else given, whole)


def test_every_action_of_the_catalogue_was_thought_about() -> None:
    assert sorted(CHECKS) == [action.name for action in every()]
    assert harm(proposed("reboot-world", {})) == [
        "nobody has said what would make reboot-world do harm"
    ]


@pytest.mark.parametrize("action", sorted(CHECKS))
def test_nothing_speaks_against_an_action_where_nothing_is_odd(action: str) -> None:
    assert harm(proposed(action, {})) == []


SERVES = {"ready": True}
HARMFUL: dict[str, tuple[str, dict[str, Any], dict[str, Json] | None, str]] = {
    "another pod": ("restart-pod", {"pod": {"name": "web-1-2"}}, None, "about pod web-1-2"),
    "image of a pod": ("restart-pod", {"pod": {"trouble": "image"}}, None, "the same image"),
    "config of a pod": ("restart-pod", {"pod": {"trouble": "config"}}, None, "the same config"),
    "no room for a pod": ("restart-pod", {"pod": {"trouble": "unschedulable"}}, None, "no more"),
    "only replica": ("restart-pod", {"pod": SERVES, "pods": {"ready": 1}}, None, "only pod"),
    "budget of a pod": ("restart-pod", {"pod": SERVES, "budget": BUDGET}, None, "no disruption"),
    "node away": ("restart-pod", {"node": {"ready": False}}, None, "is not ready"),
    "node cordoned": ("restart-pod", {"node": {"cordoned": True}}, None, "has cordoned node"),
    "operator": ("restart-pod", {"workload": {"operator": "Database a"}}, None, "Database a owns"),
    "paused": ("restart-pod", {"workload": {"paused": True}}, None, "paused the rollouts"),
    "other remedy": ("restart-pod", {"gpu": XID}, None, "asks for something else (replace node)"),
    "image": ("rollout-restart", {"pods": {"image": 2}}, None, "image of 2 pods"),
    "config": ("update-config", {"pods": {"config": 1}}, None, "container of 1 pods"),
    "no room": ("raise-memory-limit", {"pods": {"unschedulable": 1}}, None, "no node takes 1"),
    "only replica of a rollout": (
        "rollout-restart", {"workload": {"replicas": 1, "rollout_takes": 1}, "pods": {"ready": 1}},
        None, "only pod that is ready"),
    "budget of a rollout": (
        "rollout-restart", {"workload": {"rollout_takes": 1}, "budget": BUDGET}, None,
        "wants 3 healthy"),
    "shared trouble": ("rollout-restart", {"pods": {"failing": 2}}, None, "no pod that"),
    "revision that never served": (
        "rollout-undo", {"rollout": {"previous_healthy": False}}, None, "the revision before"),
    "not killed": ("raise-memory-limit", {"memory": None}, None, "no single container was killed"),
    "another container": (
        "raise-memory-limit", {}, {"container": "proxy", "limit_mib": 64}, "container app that"),
    "leak": ("raise-memory-limit", {"memory": {"raised_lately": True}}, None, "looks like a leak"),
    "more of what cannot start": ("scale-workload", {"pods": {"image": 1}}, None, "fresh ones"),
    "paused and scaled": ("scale-workload", {"workload": {"paused": True}}, None, "paused"),
    "none left": ("scale-workload", {}, {"replicas": 0}, "nothing would serve"),
    "fewer than a budget": (
        "scale-workload", {"budget": BUDGET}, {"replicas": 2}, "wants 3 healthy pods"),
    "own limit": ("delete-failed-pods", {"garbage": {"own_limit": 1}}, None, "own limit"),
    "node still ill": ("delete-failed-pods", {"garbage": {"ill_nodes": ["n2"]}}, None, "n2"),
    "grown lately": ("expand-volume", {"volume": {"raised_lately": True}}, None, "within a week"),
    "common cause": ("cordon-drain-node", {"node": {"others_ill": ["n2"]}}, None, "common cause"),
    "drained for noise": (
        "cordon-drain-node", {"gpu": {"remedy": "nothing"}}, None, "something else (nothing)"),
    "machine for less": (
        "replace-gpu-node", {"gpu": {"remedy": "drain_and_reset"}}, None, "another machine"),
    "another code": (
        "replace-gpu-node", {}, {"device": "0000:3b:00", "xids": [95]}, "its xids are not"),
    "another device": (
        "replace-gpu-node", {}, {"device": "0000:d8:00", "xids": [79]}, "its device are not"),
    "smaller pool": ("scale-gpu-pool", {}, {"replicas": 1}, "take machines away"),
    "larger than needed": ("scale-gpu-pool", {}, {"replicas": 4}, "need 3 machines, not 4"),
}  # fmt: skip


HARMFUL |= {
    f"{what} by {action}": (action, *HARMFUL[what][1:])
    for action in ("raise-memory-limit", "update-config")
    for what in ("only replica of a rollout", "budget of a rollout")
}


@pytest.mark.parametrize(("action", "facts", "given", "told"), HARMFUL.values(), ids=[*HARMFUL])
def test_one_thing_that_is_odd_is_a_reason(
    action: str, facts: dict[str, Any], given: dict[str, Json] | None, told: str
) -> None:
    found = harm(proposed(action, facts, given))
    assert len(found) == 1, found
    assert told in found[0]


UNREAD = {
    "restart-pod": ("pod", "node", "budget"),
    "rollout-restart": ("pods", "workload", "budget"),
    "update-config": ("pods", "workload", "budget"),
    "raise-memory-limit": ("pods", "workload", "budget"),
    "rollout-undo": ("rollout",),
    "scale-workload": ("pods", "workload"),
    "delete-failed-pods": ("garbage",),
    "expand-volume": ("volume",),
    "cordon-drain-node": ("node",),
    "replace-gpu-node": ("gpu",),
    "scale-gpu-pool": ("pool",),
}


@pytest.mark.parametrize(
    ("action", "group"),
    [(action, group) for action, groups in UNREAD.items() for group in groups],
    ids=[f"{action} without {group}" for action, groups in UNREAD.items() for group in groups],
)
def test_what_nobody_has_read_is_a_reason(action: str, group: str) -> None:
    serving: dict[str, Any] = {"pod": SERVES} if action == "restart-pod" else {}
    found = harm(proposed(action, {**serving, group: None}))
    assert any("nobody has read" in one for one in found), found


@pytest.mark.parametrize("value", ["many", True, None], ids=["text", "bool", "nothing"])
def test_a_count_that_is_no_number_was_not_read(value: Json) -> None:
    found = harm(proposed("rollout-restart", {"pods": {"image": value}}))
    assert found == ["nobody has read pods.image, without which it may do harm"]


def test_a_ready_pod_whose_gpu_has_failed_under_it_is_started_anew() -> None:
    faulted = {"pod": SERVES, "pods": {"ready": 1}, "gpu": {"remedy": "restart_application"}}
    assert harm(proposed("restart-pod", faulted)) == []


def test_a_stateful_pod_of_a_revision_that_was_taken_back_may_go() -> None:
    stale = {"pod": {"trouble": "image"}, "pods": {"failing": 1, "outdated_failing": 1}}
    assert harm(proposed("restart-pod", stale)) == []
    mixed = {"pod": {"trouble": "image"}, "pods": {"failing": 2, "outdated_failing": 1}}
    assert len(harm(proposed("restart-pod", mixed))) == 1


def test_a_pod_that_does_not_serve_takes_nothing_from_a_budget() -> None:
    assert harm(proposed("restart-pod", {"budget": BUDGET})) == []
