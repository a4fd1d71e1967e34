"""A pool whose size was changed against a live API: whether it is whole, and the way back."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest
from draining_world import NS, World
from sized_world import LAST, MACHINES, Sized, nothing, writes

from tiphys.workflow_templates.action import Report, Result, Run, StepName

_PRECHECK, ACT, VERIFY, ROLLBACK = StepName
ANOTHERS = f"{'b' * 40}.act"


@pytest.fixture
def pool(world: World) -> Sized:
    found = Sized(world, "scale-gpu-pool")
    found.make()
    return found


# --- the way back -------------------------------------------------------------------------------


async def rolled_back(pool: Sized, change: Callable[[], object] = nothing) -> tuple[Run, Report]:
    """Make it smaller, let something happen, and roll back before the machine has gone."""
    run = pool.resizing(2)
    assert (await pool.step(ACT, run)).result is Result.ACTED
    change()
    back = pool.again(run.plan)
    return back, await pool.step(ROLLBACK, back)


async def test_what_has_not_gone_yet_is_opened_and_not_chosen_any_more(pool: Sized) -> None:
    _, report = await rolled_back(pool)
    assert (report.result, report.observed.get("opened")) == (Result.UNDONE, 2)
    assert (pool.closed, pool.chosen, pool.size) == (False, None, 3)


CHANGED: dict[str, Callable[[Sized], object]] = {
    "it goes": lambda pool: pool.world.store.delete("Machine", NS, LAST),
    "another run has it": lambda pool: pool.note(run=ANOTHERS),
    "somebody chose it again": lambda pool: pool.note(first="by hand"),
}


@pytest.mark.parametrize("name", CHANGED)
async def test_a_machine_that_is_not_as_left_is_not_touched(pool: Sized, name: str) -> None:
    back, report = await rolled_back(pool, lambda: CHANGED[name](pool))
    assert (report.result, report.observed.get("opened")) == (Result.UNDONE, 1)
    assert pool.chosen == ("by hand" if "somebody" in name else "tiphys")
    assert [what for what in writes(back) if MACHINES in what] == []


async def test_a_node_that_another_run_has_stays_closed(pool: Sized) -> None:
    _, report = await rolled_back(pool, lambda: pool.note("Node", run=ANOTHERS))
    assert (report.result, report.observed.get("opened")) == (Result.UNDONE, 1)
    assert pool.closed


async def test_a_machine_that_went_as_it_was_put_back_needs_nothing(pool: Sized) -> None:
    run = pool.resizing(2)
    assert (await pool.step(ACT, run)).result is Result.ACTED
    back = pool.again(run.plan)
    pool.meanwhile(back, f"GET {MACHINES}", pool.remove)
    report = await pool.step(ROLLBACK, back)
    assert (report.result, report.observed.get("opened")) == (Result.UNDONE, 1)


async def test_what_is_to_go_at_a_size_that_somebody_else_set_stays_closed(pool: Sized) -> None:
    """Opened, it would take a job, and then go with it."""
    run, report = await rolled_back(pool, lambda: pool.resize(1))
    assert report.result is Result.NOT_OURS
    assert (pool.closed, pool.chosen, pool.size) == (True, "tiphys", 1)
    assert writes(run) == []


# --- whether it is whole ------------------------------------------------------------------------


def machine_without_node(pool: Sized) -> None:
    made = pool.world.store.get("Machine", NS, "worker-1")
    del made["status"]["nodeRef"]
    pool.world.store.update(made, subresource="status")


UNWHOLE: dict[str, tuple[Callable[[Sized], object], str]] = {
    "a machine has no node": (machine_without_node, "machine worker-1 has no ready node"),
    "a node is not ready": (
        lambda pool: pool.say("worker-1", conditions=[{"type": "Ready", "status": "False"}]),
        "machine worker-1 has no ready node",
    ),
    "a node has no GPUs": (
        lambda pool: pool.say("worker-1", allocatable={"cpu": "8"}),
        "node worker-1 does not offer its GPUs yet",
    ),
    "a node is gone": (
        lambda pool: pool.world.store.delete("Node", "", "worker-1"),
        "node worker-1 of its machines is not in this cluster",
    ),
    "its controller has not seen it": (
        lambda pool: pool.tell(2, observedGeneration=0),
        "its controller has not seen the newest change yet",
    ),
}


async def verified(pool: Sized, run: Run) -> Report:
    """See whether it is whole, in a second and a bit."""
    return await pool.step(VERIFY, replace(pool.again(run.plan), verify_share=0.01))


async def test_a_pool_is_whole_once_its_machines_offer_their_gpus(pool: Sized) -> None:
    run = pool.resizing(2)
    assert (await pool.step(ACT, run)).result is Result.ACTED
    pool.tell(2)
    pool.world.store.delete("Machine", NS, LAST)
    report = await verified(pool, run)
    assert report.result is Result.NOT_VERIFIED
    assert "machines that were to go are still there" in report.message
    pool.remove()
    assert (await verified(pool, run)).result is Result.VERIFIED


@pytest.mark.parametrize("name", UNWHOLE)
async def test_a_pool_is_not_whole_while(pool: Sized, name: str) -> None:
    run = pool.resizing(2)
    assert (await pool.step(ACT, run)).result is Result.ACTED
    pool.remove()
    pool.tell(2)
    change, why = UNWHOLE[name]
    change(pool)
    report = await verified(pool, run)
    assert (report.result, why in report.message) == (Result.NOT_VERIFIED, True), report.message


# --- larger, and back -----------------------------------------------------------------------------


async def grown(pool: Sized) -> Run:
    """Give a run that has asked for a fourth machine, since a job finds no room on three."""
    gpus = {"resources": {"limits": {"nvidia.com/gpu": "8"}}}
    pods = {"metadata": {"labels": {"app": "train"}},
            "spec": {"containers": [{"name": "main", "image": "train:1", **gpus}]}}  # fmt: skip
    spec = {"replicas": 4, "selector": {"matchLabels": {"app": "train"}}, "template": pods}
    meta = {"name": "train", "namespace": NS}
    store = pool.world.store
    store.create({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec})
    await pool.world.until(
        lambda: "Insufficient nvidia.com/gpu" in str([p["status"] for p in store.list("Pod", NS)])
    )
    run = pool.resizing(4)
    assert (await pool.step(ACT, run)).result is Result.ACTED
    return run


async def test_what_did_not_come_need_not_go(pool: Sized) -> None:
    run = await grown(pool)
    assert (await pool.step(ROLLBACK, run)).result is Result.UNDONE
    assert pool.size == 3


async def test_a_machine_that_came_and_has_a_job_by_now_stays(pool: Sized) -> None:
    await asyncio.sleep(1.1)  # Their time is in whole seconds.
    run = await grown(pool)
    pool.come()
    await pool.world.until(lambda: pool.world.pods("worker-4"))
    report = await pool.step(ROLLBACK, run)
    assert report.result is Result.NOT_UNDONE
    assert "runs on node worker-4: nothing is evicted" in report.message
    assert pool.size == 4


async def test_a_machine_from_before_it_is_not_the_one_that_came(pool: Sized) -> None:
    meta = {"name": "worker-0", "namespace": NS}
    made = pool.world.store.create({"kind": "Machine", "metadata": meta, "spec": {}})
    await asyncio.sleep(1.1)  # Their time is in whole seconds.
    run = await grown(pool)
    made["metadata"]["ownerReferences"] = pool.last()["metadata"]["ownerReferences"]
    pool.world.store.update(made)
    report = await pool.step(ROLLBACK, run)
    assert report.result is Result.NOT_UNDONE
    assert "which machines came by this run cannot be told" in report.message
    assert pool.size == 4


async def test_machines_that_cannot_be_told_stay(pool: Sized) -> None:
    run = await grown(pool)
    pool.world.store.delete("Node", "", "worker-1")
    report = await pool.step(ROLLBACK, run)
    assert report.result is Result.NOT_UNDONE
    assert "node worker-1 of its machines is not in this cluster" in report.message
    assert pool.size == 4
