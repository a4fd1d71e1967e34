"""Making a pool smaller against a live API: what comes between the writes of scale-gpu-pool."""

import asyncio
from datetime import timedelta

import pytest
from draining_world import World
from sized_world import (
    LAST,
    MACHINES,
    NODE_READ,
    NODE_WRITE,
    SIZE_WRITE,
    DiedError,
    Sized,
    dies,
    nothing,
    watched,
    writes,
)

from tiphys.workflow_templates import mark
from tiphys.workflow_templates.action import Result, StepName

PRECHECK, ACT, _VERIFY, _ROLLBACK = StepName


@pytest.fixture
def pool(world: World) -> Sized:
    found = Sized(world, "scale-gpu-pool")
    found.make()
    return found


# --- smaller ------------------------------------------------------------------------------------


async def test_a_machine_is_closed_and_chosen_before_the_size_is_lowered(pool: Sized) -> None:
    await asyncio.sleep(1.1)  # So that no machine seems to have come by this run.
    run = pool.resizing(2)
    assert (await pool.step(ACT, run)).result is Result.ACTED
    assert [what.partition(" ")[0] for what in writes(run)] == ["PATCH", "PATCH", "PUT"]
    assert (pool.closed, pool.chosen, pool.size) == (True, "tiphys", 2)


async def test_a_job_that_came_as_its_node_was_closed_keeps_its_machine(pool: Sized) -> None:
    run = pool.resizing(2)
    pool.meanwhile(run, NODE_WRITE, pool.job)
    report = await pool.step(ACT, run)
    assert report.result is Result.CRASHED
    assert f"pod train runs on node {LAST}: nothing is evicted" in report.message
    assert (pool.closed, pool.chosen, pool.size) == (False, None, 3)


async def test_a_node_that_a_person_closed_meanwhile_stays_closed(pool: Sized) -> None:
    run = pool.resizing(2)

    def closed() -> None:
        pool.cordon()
        pool.job()

    pool.meanwhile(run, NODE_WRITE, closed)
    report = await pool.step(ACT, run)
    assert "runs on node" in report.message
    assert pool.closed
    assert mark.ANNOTATION not in pool.world.node(LAST)["metadata"]["annotations"]


async def test_a_node_that_a_person_opened_meanwhile_is_open_already(pool: Sized) -> None:
    run = pool.resizing(2)

    def opened() -> None:
        pool.cordon(None)
        pool.job()

    # Pods are listed to plan again, to see what is planned, and once the node is closed.
    pool.meanwhile(run, "GET /api/v1/pods", nothing, nothing, opened)
    report = await pool.step(ACT, run)
    assert "runs on node" in report.message
    assert len(writes(run)) == 1


async def test_a_machine_that_a_person_chose_meanwhile_is_left_as_it_is(pool: Sized) -> None:
    run = pool.resizing(2)
    pool.meanwhile(run, f"PATCH {MACHINES}", lambda: pool.note(first="by hand"))
    assert (await pool.step(ACT, run)).result is Result.ACTED
    assert pool.chosen == "by hand"
    assert mark.ANNOTATION not in pool.last()["metadata"]["annotations"]


async def test_a_node_that_moves_is_closed_at_the_fifth_try(pool: Sized) -> None:
    run = pool.resizing(2)
    moves = [lambda: pool.cordon(value=False), lambda: pool.cordon(None)]
    pool.meanwhile(run, NODE_WRITE, *moves, *moves)
    assert (await pool.step(ACT, run)).result is Result.ACTED
    assert writes(run).count(NODE_WRITE) == 5
    assert pool.closed


@pytest.mark.parametrize("kind", ["Node", "Machine"])
async def test_what_took_the_name_of_what_goes_is_left_alone(pool: Sized, kind: str) -> None:
    run = pool.resizing(2)
    read = NODE_READ if kind == "Node" else f"GET {MACHINES}"
    pool.meanwhile(run, read, lambda: pool.anew(kind))
    assert (await pool.step(ACT, run)).result is Result.ACTED
    assert (pool.closed, pool.chosen) == (kind != "Node", None if kind == "Machine" else "tiphys")


# --- a run that ends before its time --------------------------------------------------------------


async def test_once_its_rollback_has_begun_no_machine_is_chosen(pool: Sized) -> None:
    run = pool.resizing(2)
    watched(run).before[NODE_WRITE] = [lambda: mark.close_door(pool.again(run.plan))]
    report = await pool.step(ACT, run)
    assert (report.result, "was ended" in report.message) == (Result.CRASHED, True)
    assert (pool.chosen, pool.size) == (None, 3)


async def test_past_its_time_no_machine_is_chosen(pool: Sized) -> None:
    run = pool.resizing(2)
    late = run.not_after + timedelta(minutes=1)
    watched(run).before[NODE_WRITE] = [lambda: object.__setattr__(run, "now", lambda: late)]
    report = await pool.step(ACT, run)
    assert (report.result, "was ended" in report.message) == (Result.CRASHED, True)
    assert (pool.chosen, pool.size) == (None, 3)


@pytest.mark.parametrize("at", [f"GET {MACHINES}", SIZE_WRITE])
async def test_what_it_did_before_it_died_is_not_held_against_it(pool: Sized, at: str) -> None:
    """Neither a node that it closed, nor a machine that it chose."""
    run = pool.resizing(2)
    pool.meanwhile(run, at, dies)
    with pytest.raises(DiedError):
        await pool.step(ACT, run)
    assert (pool.closed, pool.chosen) == (True, "tiphys" if at == SIZE_WRITE else None)
    again = pool.again(run.plan)
    assert (await pool.step(PRECHECK, again)).result is Result.AS_PLANNED
    assert (await pool.step(ACT, again)).result is Result.ACTED
    assert pool.size == 2
