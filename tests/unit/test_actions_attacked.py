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
import legitimate
from asking import JSON_PATCH
from attack import Attack
from garrison import RUN, SHOP, targets

Obj = dict[str, Any]
PATCHERS = [one for one in every() if any("patch" in right.verbs for right in one.rights)]
PLURALS = {"DaemonSet": "daemonsets", "Deployment": "deployments", "StatefulSet": "statefulsets"}
WORKLOADS = {
    f"/apis/apps/v1/namespaces/{SHOP}/{PLURALS[one['kind']]}/{one['metadata']['name']}": one
    for one in targets(SHOP)
    if one["kind"] in PLURALS
}


def refusals(action: Action, path: str, patch: list[Obj]) -> list[str]:
    """Give what refuses the patch."""
    before = WORKLOADS[path]
    resource = f"apps/{PLURALS[before['kind']]}"
    if f"UPDATE {resource}" not in writes(action):
        return ["not declared"]
    try:
        after = apply(before, patch, PatchType.JSON)
    except Exception as error:
        pytest.fail(f"{path} {patch}: {error}")
    return refused_by(action, resource, {"object": after, "oldObject": before, "run": RUN})


def patches(action: Action, attacks: list[Attack]) -> Iterator[tuple[str, str, list[Obj]]]:
    """Give what an action's account tries on workloads that are there."""
    for attack in attacks:
        if attack.who != f"act-{action.name}":
            continue
        for one in attack.requests:
            if one.media == JSON_PATCH and one.path in WORKLOADS:
                yield attack.title, one.path, one.body


@pytest.mark.parametrize("action", PATCHERS, ids=lambda one: one.name)
def test_every_patch_of_an_attacker_is_refused_and_every_guard_refuses_one(action: Action) -> None:
    attacks = [one for _, _, found in against_actions.sections() for one in found]
    tried = [*patches(action, attacks)]
    assert len(tried) > 5
    through = [(title, path) for title, path, body in tried if not refusals(action, path, body)]
    assert through == []
    alone = {
        (path.split("/")[6], found[0])
        for _, path, body in tried
        if len(found := refusals(action, path, body)) == 1
    }
    needed = {(guard.resource.removeprefix("apps/"), guard.message) for guard in action.guards}
    assert needed - alone == set()


@pytest.mark.parametrize("action", PATCHERS, ids=lambda one: one.name)
def test_every_patch_that_must_go_through_does(action: Action) -> None:
    tried = [*patches(action, legitimate.requests())]
    assert tried
    held_up = [(title, refusals(action, path, body)) for title, path, body in tried]
    assert [one for one in held_up if one[1]] == []
