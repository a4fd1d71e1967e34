"""scale-gpu-pool step by step: a pool grows for those that wait, and shrinks by what is empty."""

import pytest

from tiphys.policies.model import Plan
from tiphys.policies.plan import short_digest
from tiphys.service.conform import pools
from tiphys.service.conform.runs import plan_on, publish_all, shop
from tiphys.service.conform.steps import Steps
from tiphys.service.conform.trial import Stage
from tiphys.service.conform.trials.scale_gpu_pool import TRIAL
from tiphys.service.conform.wire import Json, place, place_of
from tiphys.service.conform.worlds import World
from tiphys.workflow_templates import mark
from tiphys.workflow_templates.action import NotApplicableError, Result, StepName

pytestmark = pytest.mark.together
PRECHECK, ACT, VERIFY, ROLLBACK = StepName
NAME = "scale-gpu-pool"
FIRST = "cluster.x-k8s.io/delete-machine"


def names(objects: list[Json]) -> list[str]:
    return [one["metadata"]["name"] for one in objects]


def stage(world: World, replicas: int) -> tuple[str, Json]:
    """Make a pool of machines on which nothing runs; gives its namespace, too."""
    publish_all(world)
    space = shop(world)
    return space, pools.made(world, pools.gpu_pool(space, replicas))


def plan(world: World, pool: Json, replicas: int, attempt: int = 1) -> Plan:
    return plan_on(world, world.wire.get(place_of(pool)), NAME, attempt, replicas=replicas)


def busy(world: World, pool: Json, machine: Json, gpus: int = 1) -> str:
    """Let a pod run on a machine; gives its path."""
    pod = pools.gpu_pod(world, pool, gpus=gpus, node=machine["metadata"]["name"])
    return place("v1", "Pod", pod["metadata"]["namespace"], pod["metadata"]["name"])


def closed(world: World, pool: Json) -> list[str]:
    """Give the pool's nodes that take no pods."""
    return names([n for n in pools.nodes(world, pool) if n["spec"].get("unschedulable")])


def test_the_empty_machine_goes_and_the_busy_ones_stay(world: World) -> None:
    _, pool = stage(world, 3)
    machines = pools.machines(world, pool)
    pods = [
        busy(world, pool, machine, gpus) for machine, gpus in zip(machines[:2], (1, 0), strict=True)
    ]
    made = plan(world, pool, 2)
    empty = machines[2]["metadata"]["name"]
    told = [(c.of.kind if c.of else "", c.of.name if c.of else "", c.path) for c in made.changes]
    assert told == [
        ("Node", empty, "/spec/unschedulable"),
        ("Machine", empty, "/metadata/annotations/cluster.x-k8s.io~1delete-machine"),
        ("", "", "/spec/replicas"),
    ]
    steps = Steps(world, made)
    assert steps.run(PRECHECK).result is Result.AS_PLANNED
    assert steps.run(ACT).result is Result.ACTED
    assert steps.run(VERIFY).result is Result.VERIFIED
    assert names(pools.machines(world, pool)) == names(machines[:2])
    assert [world.wire.get(path)["metadata"].get("deletionTimestamp") for path in pods] == [
        None
    ] * 2
    assert steps.run(ACT).result is Result.ALREADY_DONE
    back = steps.run(ROLLBACK)
    assert back.result is Result.UNDONE, back
    assert len(pools.machines(world, pools.settled(world, place_of(pool)) and pool)) == 3


def test_a_pool_without_empty_machines_is_not_made_smaller(world: World) -> None:
    _, pool = stage(world, 2)
    for machine in pools.machines(world, pool):
        busy(world, pool, machine)
    with pytest.raises(NotApplicableError, match="0 machines of the pool are empty, not 1"):
        plan(world, pool, 1)


def test_a_machine_that_gets_a_job_meanwhile_is_kept(world: World) -> None:
    _, pool = stage(world, 2)
    made = plan(world, pool, 1)
    [going] = [c.of.name for c in made.changes if c.of and c.of.kind == "Machine"]
    machine = next(m for m in pools.machines(world, pool) if m["metadata"]["name"] == going)
    busy(world, pool, machine)
    for step in (PRECHECK, ACT):
        assert Steps(world, made).run(step).result is Result.REFUSED
    assert closed(world, pool) == []
    assert len(pools.machines(world, pool)) == 2


def test_what_an_interrupted_run_had_closed_is_opened_again(world: World) -> None:
    """It died between closing a node and lowering the size."""
    _, pool = stage(world, 2)
    made = plan(world, pool, 1)
    steps = Steps(world, made)
    digest = _digest(made)
    _claim(world, pool, digest)
    for change in made.changes:
        if change.of is None:
            continue
        path = place(change.of.api_version, change.of.kind, change.of.namespace, change.of.name)
        notes = {mark.ANNOTATION: f"{digest}.act"}
        if change.of.kind == "Node":
            world.wire.patch(path, {"spec": {"unschedulable": True}})
        else:
            notes[FIRST] = "tiphys"
        world.wire.patch(path, {"metadata": {"annotations": notes}})
    assert len(closed(world, pool)) == 1
    said = steps.run(ROLLBACK)
    assert said.result is Result.UNDONE, said
    assert closed(world, pool) == []
    found = [m["metadata"].get("annotations") or {} for m in pools.machines(world, pool)]
    assert all(FIRST not in notes for notes in found)
    assert len(pools.machines(world, pool)) == 2


def test_an_interrupted_run_is_gone_on_with(world: World) -> None:
    _, pool = stage(world, 2)
    made = plan(world, pool, 1)
    digest = _digest(made)
    _claim(world, pool, digest)
    [node] = [c.of.name for c in made.changes if c.of and c.of.kind == "Node"]
    notes = {"metadata": {"annotations": {mark.ANNOTATION: f"{digest}.act"}}}
    world.wire.patch(place("v1", "Node", "", node), {**notes, "spec": {"unschedulable": True}})
    steps = Steps(world, made)
    assert steps.run(PRECHECK).result is Result.AS_PLANNED
    assert steps.run(ACT).result is Result.ACTED
    pools.settled(world, place_of(pool))
    assert node not in names(pools.nodes(world, pool))


def test_a_node_that_a_person_closed_is_not_chosen(world: World) -> None:
    _, pool = stage(world, 2)
    newest = pools.nodes(world, pool)
    world.wire.patch(place_of(newest[0]), {"spec": {"unschedulable": True}})
    made = plan(world, pool, 1)
    assert [c.of.name for c in made.changes if c.of and c.of.kind == "Node"] == names(newest[1:])


def test_a_new_machine_that_got_a_job_is_not_taken_away_by_the_rollback(world: World) -> None:
    """The job would end with it: the earlier size does not hold, and a person is told."""
    publish_all(world)
    here = Stage(world)
    pool = TRIAL.build(here)
    made = TRIAL.plan(here, pool)
    steps = Steps(world, made)
    assert steps.run(ACT).result is Result.ACTED
    pools.settled(world, place_of(pool))
    pools.label(world, pools.nodes(world, pool))
    pods = place("v1", "Pod", here.namespace)

    def placed(found: list[Json]) -> bool:
        return len([p for p in found if p["spec"].get("nodeName")]) == 3

    world.until("the third job has its machine", lambda: world.wire.items(pods), placed)
    said = steps.run(ROLLBACK)
    assert said.result is Result.NOT_UNDONE
    assert "nothing is evicted" in said.message
    assert world.wire.get(place_of(pool))["spec"]["replicas"] == 3
    assert closed(world, pool) == []


def test_a_new_machine_that_is_empty_is_the_one_that_the_rollback_takes(world: World) -> None:
    publish_all(world)
    here = Stage(world)
    pool = TRIAL.build(here)
    before = names(pools.machines(world, pool))
    steps = Steps(world, TRIAL.plan(here, pool))
    assert steps.run(ACT).result is Result.ACTED
    pools.settled(world, place_of(pool))
    assert len(pools.machines(world, pool)) == 3
    said = steps.run(ROLLBACK)
    assert said.result is Result.UNDONE, said
    pools.settled(world, place_of(pool))
    assert names(pools.machines(world, pool)) == before


def _digest(made: Plan) -> str:
    return short_digest(made)


def _claim(world: World, pool: Json, digest: str) -> None:
    """Leave the claim that a run leaves before its first write."""
    meta = world.wire.get(place_of(pool))["metadata"]
    world.wire.create(
        {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": f"tiphys-{digest}.act",
                "namespace": meta["namespace"],
                "annotations": {mark.GENERATION: str(meta["generation"])},
            },
            "involvedObject": {
                "apiVersion": pool["apiVersion"],
                "kind": pool["kind"],
                "namespace": meta["namespace"],
                "name": meta["name"],
                "uid": meta["uid"],
            },
            "reason": "TiphysAct",
            "message": "acts",
            "type": "Normal",
        }
    )
