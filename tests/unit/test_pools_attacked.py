"""The attackers' writes to pools and machines, judged here by the action's guards alone."""

import sys
from pathlib import Path
from typing import Any

from tiphys.sandbox.admission import refused_by
from tiphys.sandbox.patches import PatchType, apply
from tiphys.workflow_templates.catalogue import find
from tiphys.workflow_templates.pool_guards import GUARDS, MACHINES, SCALE

sys.path.insert(0, str(Path(__file__).parents[1] / "cluster" / "attacks"))

import against_pools
from asking import JSON_PATCH, Request
from attack import Attack
from garrison import RUN, SHOP

Obj = dict[str, Any]
ACTION = find("scale-gpu-pool")
POOL, MACHINE = against_pools.pools(SHOP)


def judged(request: Request) -> list[str] | None:
    """Give what refuses a write; None for one that the action's rights do not have at all."""
    if request.path.endswith("/scale"):
        field = request.query.get("fieldManager")
        asked: Obj = {
            "object": request.body,
            "oldObject": {"metadata": {}, "spec": {"replicas": POOL["spec"]["replicas"]}},
            "request": {"options": {"fieldManager": field} if field else {}},
        }
        return refused_by(ACTION, SCALE, {**asked, "run": RUN})
    if request.media != JSON_PATCH or not request.path.endswith("/machines/gpu-1"):
        return None  # Its nodes are guarded as those of every action that closes nodes.
    after = apply(MACHINE, request.body, PatchType.JSON)
    return refused_by(ACTION, MACHINES, {"object": after, "oldObject": MACHINE, "run": RUN})


def tried(attacks: list[Attack]) -> list[tuple[str, list[str]]]:
    found = [(one.title, judged(request)) for one in attacks for request in one.requests]
    return [(title, refusals) for title, refusals in found if refusals is not None]


def test_every_attack_is_refused_and_every_guard_refuses_one_alone() -> None:
    refusals = tried([*against_pools.attacks()])
    assert len(refusals) > 10
    assert [title for title, found in refusals if not found] == []
    alone = {found[0] for _, found in refusals if len(found) == 1}
    assert {guard.message for guard in GUARDS} - alone == set()


def test_what_the_action_does_goes_through() -> None:
    allowed = tried([*against_pools.rightly()])
    assert len(allowed) > 5
    assert [one for one in allowed if one[1]] == []
