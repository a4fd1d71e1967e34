"""A finished run is undone by a run of its own: only what it left, and only while that stands."""

import asyncio
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from tiphys.policies.model import Plan
from tiphys.policies.plan import short_digest
from tiphys.sandbox.behaviour import Behaviour, Match, PodState
from tiphys.workflow_templates import mark, undoing
from tiphys.workflow_templates.action import NotApplicableError, Result, StepName
from tiphys.workflow_templates.catalogue import find
from tiphys.workflow_templates.mark import Trace

sys.path.insert(0, str(Path(__file__).parent))

import test_steps_fences as fences
from test_steps_fences import AGAIN, EACH, MEMORY, NS, SCALE, World, planned, there

world = fences.world
PRECHECK, ACT, VERIFY, ROLLBACK = StepName


async def kept(world: World, name: str) -> tuple[Plan, Any]:
    """Let a run be verified; gives its plan and what was there before."""
    plan = await planned(world, name)
    before = world.get()["spec"]
    assert (await world.step(ACT, plan)).result is Result.ACTED
    verified = await world.step(VERIFY, plan)
    assert verified.result is Result.VERIFIED, verified
    return plan, before


def undo(plan: Plan, attempt: int = 2) -> Plan:
    return undoing.undo_of(plan, attempt)


async def refused(world: World, plan: Plan, why: str) -> None:
    before = standing(world)
    for step in (PRECHECK, ACT):
        report = await world.step(step, plan)
        assert report.result is Result.REFUSED, report
        assert why in report.message
    assert (await world.step(ROLLBACK, plan)).result is Result.NOTHING_CHANGED
    assert standing(world) == before


def standing(world: World) -> tuple[Any, str, str]:
    found = world.get()
    return found["spec"], mark.by_annotation(found), mark.by_manager(found)


@EACH
async def test_a_verified_run_is_undone_and_that_is_verified(world: World, name: str) -> None:
    plan, before = await kept(world, name)
    back = undo(plan)
    assert (await world.step(PRECHECK, back)).result is Result.AS_PLANNED
    assert (await world.step(ACT, back)).result is Result.ACTED
    assert mark.unfinished(world.get()) == short_digest(back), "others wait until it has ended"
    assert (await world.step(VERIFY, back)).result is Result.VERIFIED
    assert world.get()["spec"] == before
    version = world.version()
    for step in (PRECHECK, ACT):
        assert (await world.step(step, back)).result is Result.ALREADY_DONE
    assert world.version() == version


@EACH
async def test_an_undo_that_does_no_good_is_put_back_itself(world: World, name: str) -> None:
    plan, _ = await kept(world, name)
    after = world.get()["spec"]
    back = undo(plan)
    assert (await world.step(ACT, back)).result is Result.ACTED
    assert there(world, back, intended=True)
    assert (await world.step(ROLLBACK, back)).result is Result.UNDONE
    assert world.get()["spec"] == after
    await world.rolled_out()
    assert (await world.step(ACT, back)).result is Result.REFUSED
    assert world.get()["spec"] == after
    await refused(world, undo(plan, 3), "does not bear the mark")


@EACH
async def test_what_somebody_has_changed_since_is_not_undone(world: World, name: str) -> None:
    plan, _ = await kept(world, name)
    await fences.somebody_sets(world, plan, fences.OTHER)
    why = "does not bear the mark" if name == SCALE else "somebody has changed what"
    await refused(world, undo(plan), why)


@EACH
async def test_an_equal_value_without_that_runs_mark_is_not_undone(world: World, name: str) -> None:
    plan, _ = await kept(world, name)
    await fences.somebody_sets(world, plan, fences.OTHER)
    await fences.somebody_sets(world, plan, fences.INTENDED)
    if name != SCALE:  # its manager went with the value
        notes = {mark.ANNOTATION: None}
        world.store.patch("Deployment", NS, "cart", {"metadata": {"annotations": notes}})
    await refused(world, undo(plan), "does not bear the mark")


@EACH
async def test_a_run_that_was_rolled_back_is_not_undone(world: World, name: str) -> None:
    plan = await planned(world, name)
    assert (await world.step(ACT, plan)).result is Result.ACTED
    assert (await world.step(ROLLBACK, plan)).result is Result.UNDONE
    await world.rolled_out()
    await refused(world, undo(plan), "was rolled back")


@EACH
async def test_a_run_whose_rollback_has_begun_is_not_undone(world: World, name: str) -> None:
    plan, _ = await kept(world, name)
    await asyncio.to_thread(mark.close_door, world.run(plan))
    await refused(world, undo(plan), "was rolled back")


@EACH
async def test_an_undo_is_not_undone(world: World, name: str) -> None:
    plan, _ = await kept(world, name)
    back = undo(plan)
    await world.step(ACT, back)
    assert (await world.step(VERIFY, back)).result is Result.VERIFIED
    await refused(world, undo(back, 3), "does not bear the mark")
    why = undoing.never(find(name), back)
    assert why
    assert "planned anew" in why


@EACH
async def test_of_an_undo_and_another_run_one_acts(world: World, name: str) -> None:
    plan, _ = await kept(world, name)
    back, other = undo(plan), undo(plan, 3)
    assert (await world.step(ACT, back)).result is Result.ACTED
    report = await world.step(ACT, other)
    assert report.result is Result.REFUSED
    assert "another run" in report.message


@EACH
async def test_a_run_that_nobody_could_verify_is_undone_too(world: World, name: str) -> None:
    """Its mark says `act` for ever, since no verify has set another."""
    plan = await planned(world, name)
    before = world.get()["spec"]
    await world.step(ACT, plan)
    await world.rolled_out()
    back = undo(plan)
    assert (await world.step(PRECHECK, back)).result is Result.AS_PLANNED
    assert (await world.step(ACT, back)).result is Result.ACTED
    assert world.get()["spec"] == before


async def test_an_undo_that_makes_it_unwell_is_not_verified(world: World) -> None:
    plan, _ = await kept(world, fences.UNDO)
    world.behaviours.add(Behaviour(match=Match(namespace=NS), state=PodState.NOT_READY))
    back = undo(plan)
    await world.step(ACT, back)
    run = fences.replace(world.run(back), verify_share=0.02)
    assert (await world.step(VERIFY, back, run)).result is Result.NOT_VERIFIED


async def test_an_autoscaler_that_came_since_forbids_the_undo(world: World) -> None:
    plan, _ = await kept(world, SCALE)
    named = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "cart"}
    spec = {"scaleTargetRef": named, "minReplicas": 1, "maxReplicas": 5}
    meta = {"name": "cart", "namespace": NS}
    kind = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler"}
    world.store.create({**kind, "metadata": meta, "spec": spec})
    await refused(world, undo(plan), "owns the replicas")


async def test_a_paused_rollout_forbids_the_undo(world: World) -> None:
    plan, _ = await kept(world, AGAIN)
    world.human(paused=True)
    await world.until(lambda: world.get()["status"]["observedGeneration"]
                      == world.get()["metadata"]["generation"])  # fmt: skip
    await refused(world, undo(plan), "paused")


async def test_a_change_between_reading_and_undoing_is_not_overwritten(world: World) -> None:
    plan, _ = await kept(world, MEMORY)
    back = undo(plan)
    run = world.run(back)
    other = fences.container("cart:1")
    other["resources"] = fences.memory("80Mi")
    meddle = world.from_thread(lambda: world.human(template={"spec": {"containers": [other]}}))
    cast(Any, run.cluster).before = [meddle]
    assert (await world.step(ACT, back, run)).result is Result.REFUSED
    assert world.get()["spec"]["template"]["spec"]["containers"][0] == other


async def test_what_cannot_be_put_back_is_never_planned(world: World) -> None:
    restart = world.plan(fences.RESTART)
    why = undoing.never(find(fences.RESTART), restart)
    assert why
    assert "cannot be undone" in why
    scale = world.plan(SCALE, replicas=3)
    with pytest.raises(NotApplicableError, match="does not bear the mark"):
        undoing.planned(find(SCALE), scale, world.get(), {})


async def test_the_undo_of_a_plan_is_planned_on_what_stands_there(world: World) -> None:
    plan, _ = await kept(world, SCALE)
    found = undoing.planned(find(SCALE), plan, world.get(), {})
    assert [(c.path, c.present, c.intended) for c in found] == [("/spec/replicas", 3, 2)]
    world.human(replicas=5)
    await world.rolled_out()
    with pytest.raises(NotApplicableError):
        undoing.planned(find(SCALE), plan, world.get(), {})


async def test_a_later_run_on_other_fields_does_not_forbid_the_undo(world: World) -> None:
    plan, _ = await kept(world, AGAIN)
    later, _ = await kept(world, SCALE)
    back = undo(plan)
    assert (await world.step(ACT, back)).result is Result.ACTED
    assert there(world, back, intended=True)
    assert there(world, later, intended=True)


def test_the_endings_of_an_undo_are_its_own() -> None:
    digest, text = "a" * 40, "tiphys-" + "a" * 40
    left = {trace for trace in Trace if mark.left_by(text, f"{digest}.{trace}")}
    assert left == {Trace.ACT, Trace.KEPT}
    assert not mark.left_by(text, f"{'b' * 40}.act")
    assert not mark.left_by(text, "")
