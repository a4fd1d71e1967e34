"""Draining a node against a live API: the node is closed, the planned pods move, nothing else does.

Each guard of a drain has a test here that goes red without it.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, cast

import pytest
from draining_world import NODE, NS, SPEED, Watched, World, shop, workload

from tiphys.workflow_templates.action import Report, Result, Run, StepName
from tiphys.workflow_templates.catalogue import find
from tiphys.workflow_templates.undoing import undo_of

PRECHECK, ACT, VERIFY, ROLLBACK = StepName


async def test_the_node_is_closed_and_its_pods_move(world: World) -> None:
    await shop(world)
    gone, others = world.names(), world.names("worker-2") + world.names("worker-3")
    plan = world.plan()
    assert [c.place for c in plan.changes] == [
        "/spec/unschedulable", *(f"Pod {NS}/{name}" for name in gone)
    ]  # fmt: skip
    assert (await world.step(PRECHECK, plan)).result is Result.AS_PLANNED
    assert (await world.step(ACT, plan)).result is Result.ACTED
    assert (await world.step(VERIFY, plan)).result is Result.VERIFIED
    assert world.node()["spec"] == {"unschedulable": True}
    assert world.pods() == []
    left = world.names("worker-2") + world.names("worker-3")
    assert set(others) < set(left)
    assert len(left) == 6
    assert world.events() == ["act", "acted", "drained", "kept"]


async def test_a_second_run_of_each_step_changes_nothing_more(world: World) -> None:
    await shop(world)
    plan = world.plan()
    await world.step(ACT, plan)
    await world.until(lambda: world.all_ready(6))
    before = world.names("worker-2") + world.names("worker-3")
    assert (await world.step(PRECHECK, plan)).result is Result.ALREADY_DONE
    assert (await world.step(ACT, plan)).result is Result.ALREADY_DONE
    assert world.names("worker-2") + world.names("worker-3") == before


async def test_acting_at_once_is_acting_once(world: World) -> None:
    await shop(world)
    plan = world.plan()
    reports = await asyncio.gather(*(world.step(ACT, world.run(plan)) for _ in range(3)))
    results = {one.result for one in reports}
    assert Result.ACTED in results
    assert results <= {Result.ACTED, Result.ALREADY_DONE}
    assert world.pods() == []


async def test_rollback_opens_the_node_and_brings_no_pod_back(world: World) -> None:
    await shop(world)
    plan, before = world.plan(), world.node()
    await world.step(ACT, plan)
    report = await world.step(ROLLBACK, plan)
    assert report.result is Result.UNDONE
    assert "not brought back" in report.message
    assert world.node()["spec"] == before["spec"]
    assert world.pods() == []
    assert (await world.step(ACT, plan)).result is Result.REFUSED


async def test_rollback_puts_back_a_false_that_was_there(world: World) -> None:
    await shop(world)
    world.change_node({"spec": {"unschedulable": False}})
    plan = world.plan()
    await world.step(ACT, plan)
    assert (await world.step(ROLLBACK, plan)).result is Result.UNDONE
    assert world.node()["spec"] == {"unschedulable": False}


async def test_rollback_before_act_changes_nothing(world: World) -> None:
    await shop(world)
    plan, before = world.plan(), world.node()
    report = await world.step(ROLLBACK, plan)
    assert report.result is Result.NOTHING_CHANGED
    assert "brought back" not in report.message, "no pod was evicted"
    assert world.node() == before


async def test_an_undo_opens_the_node_and_says_nothing_of_pods(world: World) -> None:
    await shop(world)
    plan = world.plan()
    await world.step(ACT, plan)
    assert (await world.step(VERIFY, plan)).result is Result.VERIFIED
    back = undo_of(plan, 2)
    assert (await world.step(ACT, back)).result is Result.ACTED
    world.store.create(workload("late", 1, nodeName=NODE))
    await world.until(lambda: len(world.pods()) == 1)
    report = await world.step(VERIFY, back)
    assert report.result is Result.VERIFIED, "whoever comes to an open node is welcome"
    assert "the node takes pods again" in report.message
    closed = await world.step(ROLLBACK, back)
    assert closed.result is Result.UNDONE
    assert "brought back" not in closed.message
    assert world.node()["spec"] == {"unschedulable": True}


async def test_a_node_that_somebody_opened_again_is_left_alone(world: World) -> None:
    await shop(world)
    plan = world.plan()
    await world.step(ACT, plan)
    world.change_node({"spec": {"unschedulable": None}})
    assert (await world.step(ROLLBACK, plan)).result is Result.NOT_OURS
    assert (await world.step(VERIFY, plan)).result is Result.NOT_VERIFIED


async def test_where_nobody_opted_in_nothing_is_read_and_nothing_goes(world: World) -> None:
    """There the identity has no rights: asking would end in an error, not in a reason."""
    await shop(world)
    plan = world.plan()
    world.store.create(workload("teller", 1, "bank", nodeName=NODE))
    await world.until(lambda: len(world.pods()) == 3)
    report = await world.step(PRECHECK, plan)
    assert report.result is Result.REFUSED
    assert "pod bank/teller" in report.message
    assert "is in a namespace that did not opt in" in report.message


async def test_a_node_that_somebody_closed_is_not_opened(world: World) -> None:
    await shop(world)
    plan = world.plan()
    world.change_node({"spec": {"unschedulable": True}})
    report = await world.step(ACT, plan)
    assert report.result is Result.REFUSED
    assert "closed" in report.message
    assert (await world.step(ROLLBACK, plan)).result is Result.NOTHING_CHANGED
    assert world.node()["spec"] == {"unschedulable": True}


# --- interrupted --------------------------------------------------------------------------------


async def test_a_drain_goes_on_where_it_was_left(world: World) -> None:
    await shop(world)
    run = world.run(world.plan())

    def dies() -> None:
        raise KeyboardInterrupt

    run.cluster.before["eviction"] = [lambda: None, dies]  # type: ignore[attr-defined]
    with suppress(KeyboardInterrupt):
        await asyncio.to_thread(_act, run)
    await world.until(lambda: len(world.pods()) == 1)
    again = world.run(run.plan)
    assert (await world.step(ACT, again)).result is Result.ACTED
    assert world.pods() == []


def _act(run: Any) -> Report | None:
    try:
        return find(run.plan.action).act(run)
    except KeyboardInterrupt:
        return None


# --- held up, or stopped ------------------------------------------------------------------------


def at_evictions(run: Run, *happens: Callable[[], None]) -> Run:
    """Let something happen before each eviction in turn."""
    cast(Watched, run.cluster).before["eviction"] = [*happens]
    return run


def nothing() -> None:
    """Let nothing happen."""


def guard(world: World, least: int) -> None:
    """Let a budget watch over the shop."""
    spec = {"minAvailable": least, "selector": {"matchLabels": {"app": "cart"}}}
    meta = {"name": "guard", "namespace": NS}
    world.store.create({"kind": "PodDisruptionBudget", "metadata": meta, "spec": spec})


async def test_a_budget_is_waited_for(world: World) -> None:
    await shop(world)
    guard(world, 5)
    await world.until(lambda: "status" in world.store.get("PodDisruptionBudget", NS, "guard"))
    run = world.run(world.plan())
    assert (await world.step(ACT, run)).result is Result.ACTED
    assert world.pods() == []
    sent = [one for one in cast(Watched, run.cluster).sent if "eviction" in one]
    assert len(sent) > 2  # the second pod was withheld until the first had a successor


async def test_a_budget_that_never_gives_way_ends_the_drain_and_opens_the_node(
    world: World,
) -> None:
    await shop(world)
    run = world.run(world.plan())
    at_evictions(run, world.inside(lambda: guard(world, 6)))
    report = await world.step(ACT, run)
    assert report.result is Result.CRASHED
    assert "budget" in report.message
    assert len(world.pods()) == 2
    assert (await world.step(ROLLBACK, run)).result is Result.UNDONE
    assert "unschedulable" not in world.node()["spec"]


async def test_a_pod_that_comes_just_before_the_node_is_closed_stops_it(world: World) -> None:
    await shop(world)
    run = world.run(world.plan())

    def comes() -> None:
        pod = world.pods()[0]
        meta = {"name": "late", "namespace": NS, "labels": {"app": "late"}}
        meta["ownerReferences"] = pod["metadata"]["ownerReferences"]
        spec = {"containers": pod["spec"]["containers"], "nodeName": NODE}
        world.store.create({"kind": "Pod", "metadata": meta, "spec": spec})

    before = world.names()
    cast(Watched, run.cluster).before["PATCH"] = [world.inside(comes)]
    report = await world.step(ACT, run)
    assert report.result is Result.CRASHED
    assert "which the plan does not name" in report.message
    assert set(before) <= {*world.names()}
    assert (await world.step(ROLLBACK, run)).result is Result.UNDONE


@pytest.mark.parametrize("how", ["opened again", "rolled back", "too late"])
async def test_no_pod_is_evicted_once(world: World, how: str) -> None:
    await shop(world)
    ends, last = world.now() + timedelta(minutes=10), world.names()[1]
    run = world.run(world.plan(), not_after=ends)

    def stop() -> None:
        if how == "opened again":
            world.change_node({"spec": {"unschedulable": None}})
        elif how == "rolled back":
            meta = {"name": f"tiphys-{run.digest}.undone", "namespace": "default"}
            world.store.create({"kind": "Event", "metadata": meta})
        else:
            world.began -= 600 / (SPEED - 1)

    at_evictions(run, world.inside(stop), nothing)
    report = await world.step(ACT, run)
    assert report.result is Result.CRASHED
    assert last in world.names()


async def test_a_pod_of_the_same_name_is_another_pod(world: World) -> None:
    await shop(world)
    run = world.run(world.plan())
    [first, _] = world.names()

    def replaced() -> None:
        pod = world.store.get("Pod", NS, first)
        world.store.delete("Pod", NS, first, grace=0)
        meta = {**pod["metadata"], "ownerReferences": []}
        spec = {**pod["spec"], "nodeName": "worker-2"}
        world.store.create({"kind": "Pod", "metadata": meta, "spec": spec})

    at_evictions(run, world.inside(replaced))
    assert (await world.step(ACT, run)).result is Result.ACTED
    assert first in world.names("worker-2")


async def test_an_answer_that_gets_lost_is_no_second_write(world: World) -> None:
    await shop(world)
    run = world.run(world.plan())
    cast(Watched, run.cluster).lost = ["PATCH", "eviction"]
    assert (await world.step(ACT, run)).result is Result.ACTED
    sent = cast(Watched, run.cluster).sent
    assert len([one for one in sent if "PATCH" in one]) == 1
    assert world.pods() == []


async def test_other_peoples_annotations_survive_the_mark(world: World) -> None:
    """A node without annotations gets its first one between our look and our write."""
    await shop(world)
    run = world.run(world.plan())

    def annotated() -> None:
        world.change_node({"metadata": {"annotations": {"team": "shop"}}})

    cast(Watched, run.cluster).before["PATCH"] = [world.inside(annotated)]
    report = await world.step(ACT, run)
    assert world.node()["metadata"]["annotations"]["team"] == "shop"
    assert report.result in {Result.ACTED, Result.REFUSED}


async def test_what_does_not_become_whole_elsewhere_is_not_verified(world: World) -> None:
    await shop(world)
    run = world.run(world.plan(), share=0.05)
    await world.step(ACT, run)
    await world.until(lambda: world.all_ready(6) and len(world.store.list("Pod", NS)) == 6)
    for name in ("worker-2", "worker-3"):
        world.change_node({"spec": {"unschedulable": True}}, name)
    pod = world.store.list("Pod", NS)[0]["metadata"]["name"]
    world.store.delete("Pod", NS, pod, grace=0)
    [owner] = world.store.list("ReplicaSet", NS)

    def told() -> Any:
        seen = world.store.get("ReplicaSet", NS, owner["metadata"]["name"])
        return seen["status"].get("readyReplicas", 0) < 6

    await world.until(told)
    report = await world.step(VERIFY, run)
    assert report.result is Result.NOT_VERIFIED
    assert "ready" in report.message


async def test_long_lists_are_read_to_their_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tiphys.workflow_templates.cluster.PAGE", 2)
    await shop(world)
    run = world.run(world.plan())
    found = await asyncio.to_thread(run.cluster.list, "v1", "Pod", "")
    assert len(found) == len({pod["metadata"]["uid"] for pod in found}) == 6  # type: ignore[index]
