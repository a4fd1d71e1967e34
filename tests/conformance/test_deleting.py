"""Actions that delete garbage, in Argo's pods: what is planned goes once, and nothing else."""

import pytest
from argo_made import Flight
from runs_made import HOPELESS, Flown, fly, plan_on, publish_all, shop
from wire import Json, place, place_of
from workloads_made import container, deployment, settled, template
from worlds import World

from tiphys.policies.model import Outcome
from tiphys.workflow_templates.action import Result, StepName

pytestmark = pytest.mark.together
POD = ("v1", "Pod")
PRECHECK, ACT, VERIFY, ROLLBACK = StepName
PODS = "delete-failed-pods"


def pods_of(world: World, space: str) -> list[Json]:
    return world.wire.items(place(*POD, space))


def names(world: World, space: str) -> set[str]:
    return {pod["metadata"]["name"] for pod in pods_of(world, space)}


def evict(world: World, pod: Json) -> None:
    """End a pod as its kubelet does, which then never starts it again."""
    path = f"{place(*POD, pod['metadata']['namespace'])}/{pod['metadata']['name']}/status"
    ready = [{"type": "Ready", "status": "False"}]
    status = {"phase": "Failed", "reason": "Evicted", "message": "low", "conditions": ready}
    world.wire.patch(path, {"status": status})


def evicted(world: World, count: int = 2) -> tuple[Json, set[str]]:
    """Make a Deployment that has replaced its evicted pods; give it and their names."""
    space = shop(world)
    made = world.wire.create(deployment(space, template("cart", container(world)), count))
    settled(world, place_of(made))
    gone = pods_of(world, space)
    for pod in gone:
        evict(world, pod)
    world.until("they are replaced", lambda: len(names(world, space)) >= 2 * count)

    def ready() -> int:
        alive = [p for p in pods_of(world, space) if p["status"]["phase"] == "Running"]
        told = [c for p in alive for c in p["status"]["conditions"] if c["type"] == "Ready"]
        return sum(c["status"] == "True" for c in told)

    world.until("the others are ready", ready, lambda number: number == count)
    return settled(world, place_of(made)), {pod["metadata"]["name"] for pod in gone}


def run_pod(flown: Flight) -> Json:
    return next(pod for pod in flown.pods() if "-run-" in pod["metadata"]["name"])


def space_of(flown: Flown) -> str:
    return flown.plan.target.namespace


# --- pods ---------------------------------------------------------------------------------------


def test_evicted_pods_go_and_the_others_stay(world: World) -> None:
    target, gone = evicted(world)
    space = target["metadata"]["namespace"]
    kept = names(world, space) - gone
    flown = fly(world, plan_on(world, target, PODS))
    flown.ends_as(Outcome.VERIFIED)
    assert names(world, space) == kept
    assert flown.events() == ["act", "acted", "kept"]
    assert flown.results() == {
        PRECHECK: Result.AS_PLANNED,
        ACT: Result.ACTED,
        VERIFY: Result.VERIFIED,
    }
    after = world.wire.get(place_of(target))
    assert (after["spec"], after["metadata"]["generation"]) == (
        target["spec"],
        target["metadata"]["generation"],
    )


def test_a_deletion_started_again_deletes_nothing_more(world: World) -> None:
    target, gone = evicted(world)
    space = target["metadata"]["namespace"]
    flown = fly(world, plan_on(world, target, PODS, hold=world.hold))
    world.until("they are gone", lambda: not names(world, space) & gone)
    kept = names(world, space)
    flown.delete_pod(run_pod(flown), force=True)
    flown.ends_as(Outcome.VERIFIED)
    assert names(world, space) == kept
    assert flown.events() == ["act", "acted", "kept"]


def test_pods_that_are_gone_already_are_refused(world: World) -> None:
    target, gone = evicted(world)
    plan = plan_on(world, target, PODS)
    for name in gone:
        world.wire.delete(f"{place(*POD, target['metadata']['namespace'])}/{name}")
    flown = fly(world, plan)
    seen = flown.ends_as(Outcome.REFUSED)
    assert seen.result(ROLLBACK) is Result.NOTHING_CHANGED
    assert flown.events() == ["undone"]


def test_a_deletion_that_does_not_help_has_nothing_to_put_back(world: World) -> None:
    target, gone = evicted(world)
    space = target["metadata"]["namespace"]
    hopeless = publish_all(world, variant="-hopeless", share=HOPELESS)
    flown = fly(world, plan_on(world, target, PODS, hold=world.hold * 3), hopeless)
    world.until("they are gone", lambda: not names(world, space) & gone)
    pods = template("cart", container(world, "not-ready"))
    world.wire.patch(place_of(target), {"spec": {"template": pods}})
    seen = flown.ends_as(Outcome.INEFFECTIVE)
    assert seen.result(ROLLBACK) is Result.NOTHING_TO_RESTORE
