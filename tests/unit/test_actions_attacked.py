"""The attackers' patches, judged here by the actions' guards alone; the real API server has its own
suite (tests/cluster/attacks), whose requests these are.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tiphys.sandbox.admission import refused_by
from tiphys.sandbox.patches import PatchType, apply
from tiphys.workflow_templates.action import Action
from tiphys.workflow_templates.boundary_identities import writes
from tiphys.workflow_templates.catalogue import every

sys.path.insert(0, str(Path(__file__).parents[1] / "cluster" / "attacks"))

import against_actions
import against_machines
import against_nodes
import legitimate
from asking import JSON_PATCH, place
from attack import Attack
from garrison import RUN, SHOP, targets
from outposts import nodes

Obj = dict[str, Any]
PATCHERS = [
    one
    for one in every()
    if one.name != "scale-gpu-pool" and any("patch" in right.verbs for right in one.rights)
]
"""The pools' has a test of its own, `test_pools_attacked`."""
NOT_GUARDED = {"a node that did not opt in"}
"""What the boundary refuses to every action, and needs no guard of one."""


def plural_of(one: Obj) -> str:
    """Give the plural that a kind has in paths."""
    return f"{one['kind'].lower()}s"


OBJECTS: dict[str, Obj] = {
    f"{place(one['apiVersion'], plural_of(one), SHOP)}/{one['metadata']['name']}": one
    for one in targets(SHOP)
} | {f"/api/v1/nodes/{one['metadata']['name']}": one for one in nodes()}


GROWING = OBJECTS[place("v1", "persistentvolumeclaims", SHOP) + "/growing"]
GROWING["spec"]["resources"]["requests"]["storage"] = "4Gi"


def resource_of(one: Obj) -> str:
    """Name an object's resource as guards do."""
    group, _, _ = one["apiVersion"].rpartition("/")
    return f"{group}/{plural_of(one)}"


def refusals(action: Action, path: str, patch: list[Obj]) -> list[str]:
    """Give what refuses the patch."""
    before = OBJECTS[path]
    resource = resource_of(before)
    if f"UPDATE {resource}" not in writes(action):
        return ["not declared"]
    try:
        after = apply(before, patch, PatchType.JSON)
    except Exception as error:
        pytest.fail(f"{path} {patch}: {error}")
    return refused_by(action, resource, {"object": after, "oldObject": before, "run": RUN})


def patches(action: Action, attacks: list[Attack]) -> Iterator[tuple[str, str, list[Obj]]]:
    """Give what an action's account tries on objects that are there."""
    for attack in attacks:
        if attack.who != f"act-{action.name}" or attack.title in NOT_GUARDED:
            continue
        for one in attack.requests:
            if one.media == JSON_PATCH and one.path in OBJECTS:
                yield attack.title, one.path, one.body


@pytest.mark.parametrize("action", PATCHERS, ids=lambda one: one.name)
def test_every_patch_of_an_attacker_is_refused_and_every_guard_refuses_one(action: Action) -> None:
    sections = [
        *against_actions.sections(), *against_nodes.sections(), *against_machines.sections()
    ]  # fmt: skip
    attacks = [one for _, _, found in sections for one in found]
    tried = [*patches(action, attacks)]
    assert len(tried) > 5
    through = [(title, path) for title, path, body in tried if not refusals(action, path, body)]
    assert through == []
    alone = {
        (resource_of(OBJECTS[path]), found[0])
        for _, path, body in tried
        if len(found := refusals(action, path, body)) == 1
    }
    patched = {f"{r.api_group}/{r.resource}" for r in action.rights if "patch" in r.verbs}
    needed = {(one.resource, one.message) for one in action.guards if one.resource in patched}
    assert needed - alone == set()


@pytest.mark.parametrize("action", PATCHERS, ids=lambda one: one.name)
def test_every_patch_that_must_go_through_does(action: Action) -> None:
    tried = [*patches(action, legitimate.requests())]
    assert tried
    held_up = [(title, refusals(action, path, body)) for title, path, body in tried]
    assert [one for one in held_up if one[1]] == []
