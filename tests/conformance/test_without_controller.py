"""Runs while Argo's controller is dead or may start no pods. One after the other, for that."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from argo_made import launch, template
from runs_made import fly

from tiphys.policies.model import Outcome
from tiphys.service.conform.flights import submit
from tiphys.service.conform.runs import HOPELESS, plan_on, publish_all, shop
from tiphys.service.conform.wire import Json, place_of
from tiphys.service.conform.workloads import container, deployment, settled
from tiphys.service.conform.workloads import template as pods_like
from tiphys.service.conform.worlds import World
from tiphys.workflow_templates.action import Result, StepName

SCALE = "scale-workload"


def cart(world: World) -> Json:
    """Make a shop with one healthy Deployment."""
    pods = pods_like("cart", container(world))
    made = world.wire.create(deployment(shop(world), pods))
    return settled(world, place_of(made))


@contextmanager
def full(world: World, namespace: str, pods: int) -> Iterator[None]:
    """Let no more pods into a namespace while inside."""
    meta = {"name": "full", "namespace": namespace}
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta}
    made = world.wire.create({**quota, "spec": {"hard": {"pods": str(pods)}}})
    try:
        yield
    finally:
        world.wire.delete(place_of(made))


def test_a_killed_controller_goes_on_where_it_was(world: World) -> None:
    flight = launch(world, template(world, "orphan", SLOW="act", LONG="8", FAILS="verify"))
    flight.until_running("act")
    world.kill_controller()
    status = flight.ended()
    assert status["phase"] == "Failed"
    assert flight.node("rollback", "Pod")["phase"] == "Succeeded"
    assert flight.node("act")["phase"] == "Succeeded"


def test_a_mutex_may_be_lost_with_its_controller_and_no_run_is(world: World) -> None:
    mutex = {"mutexes": [{"name": "{{workflow.parameters.target}}"}]}
    made = template(world, "forgotten", SLOW="act", LONG="8", synchronization=mutex)
    first = launch(world, made, target="that-target")
    first.until_running("act")
    second = submit(world, "forgotten", target="that-target")
    world.until(
        "the second waits", lambda: second.workflow().get("status", {}).get("message") or ""
    )
    world.kill_controller()
    # Whether the second waits on is Argo's luck: steps have fences of their own for that.
    assert [flight.ended()["phase"] for flight in (first, second)] == ["Succeeded", "Succeeded"]


def test_a_run_that_the_controller_finds_too_late_does_nothing(world: World) -> None:
    before = cart(world)
    publish_all(world)
    with world.controller_down():
        flown = fly(world, plan_on(world, before, SCALE, replicas=3), seconds=2)
        since = time.monotonic()
        world.until("notAfter has passed", lambda: time.monotonic() - since > 3)
        assert "status" not in flown.workflow() or not flown.workflow()["status"].get("phase")
    seen = flown.ends_as(Outcome.REFUSED)
    assert seen.steps[0].message == "notAfter has passed"
    assert world.wire.get(place_of(before))["spec"] == before["spec"]


def test_what_failed_while_the_controller_was_away_is_rolled_back_when_it_is_back(
    world: World,
) -> None:
    before = cart(world)
    hopeless = publish_all(world, variant="-hopeless", share=HOPELESS)
    path = place_of(before)
    with full(world, before["metadata"]["namespace"], 2):
        flown = fly(world, plan_on(world, before, SCALE, replicas=3), hopeless)
        world.until("it has begun", flown.pods)
        with world.controller_down():
            world.until(
                "its pod has failed",
                lambda: [pod["status"].get("phase") for pod in flown.pods()],
                lambda phases: phases == ["Failed"],
            )
            assert world.wire.get(path)["spec"]["replicas"] == 3
            assert not flown.view().ended
        flown.ends_as(Outcome.ROLLED_BACK)
    assert world.wire.get(path)["spec"] == before["spec"]


def test_a_full_quota_holds_a_rollback_up_until_there_is_room(world: World) -> None:
    before = cart(world)
    hopeless = publish_all(world, variant="-hopeless", share=HOPELESS)
    path = place_of(before)
    with full(world, before["metadata"]["namespace"], 2):
        flown = fly(world, plan_on(world, before, SCALE, replicas=3), hopeless)
        world.until("it has begun", flown.pods)
        with full(world, world.actions, 0):

            def refused() -> str:
                tries = [n for n in flown.nodes() if n["type"] == "Pod"]
                found = [n for n in tries if n["templateName"] == "rollback"]
                return str(found[0].get("message") or "") if found else ""

            world.until("its rollback is refused", refused, lambda said: "quota" in said)
            flown.keep("rollback-over-quota")
            seen = flown.view()
            assert (seen.ended, seen.result(StepName.VERIFY)) == (False, Result.NOT_VERIFIED)
            assert world.wire.get(path)["spec"]["replicas"] == 3
        flown.ends_as(Outcome.ROLLED_BACK)
    assert world.wire.get(path)["spec"] == before["spec"]
