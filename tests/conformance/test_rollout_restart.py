"""rollout-restart in Argo's pods: every pod is another one after it, or all is as it was before."""

import pytest
from runs_made import fly

from tiphys.policies.model import Outcome
from tiphys.service.conform.runs import HOPELESS, plan_on, publish_all, shop
from tiphys.service.conform.wire import Json, place, place_of
from tiphys.service.conform.workloads import container, deployment, settled, template
from tiphys.service.conform.worlds import World
from tiphys.workflow_templates import mark
from tiphys.workflow_templates.action import Result, StepName
from tiphys.workflow_templates.rollout_restart import RESTART

pytestmark = pytest.mark.together
PRECHECK, ACT, VERIFY, ROLLBACK = StepName
NAME = "rollout-restart"


def made(world: World, kind: str = "Deployment", replicas: int = 2, **spec: Json) -> str:
    """Make a shop with one workload; gives its path."""
    body = deployment(shop(world), template("cart", container(world)), replicas, kind)
    body["spec"] |= spec
    return place_of(world.wire.create(body))


def uids(world: World, path: str) -> set[str]:
    """Give the pods that are not about to end."""
    found = world.wire.items(place("v1", "Pod", path.split("/")[5]))
    return {p["metadata"]["uid"] for p in found if "deletionTimestamp" not in p["metadata"]}


def moved(before: Json, after: Json) -> int:
    """Count the writes; of a Deployment's annotations, as the last mark is one, too."""
    return after["metadata"]["generation"] - before["metadata"]["generation"]


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet"])
def test_every_pod_is_replaced_and_nothing_else_changes(world: World, kind: str) -> None:
    path = made(world, kind)
    before = settled(world, path)
    old = uids(world, path)
    flown = fly(world, plan_on(world, before, NAME))
    flown.ends_as(Outcome.VERIFIED)
    after, new = world.wire.get(path), uids(world, path)
    assert len(new) == len(old) > 0
    assert not new & old
    notes = after["spec"]["template"]["metadata"].pop("annotations")
    assert [*notes] == [RESTART]
    assert after["spec"] == before["spec"]
    assert moved(before, after) == (2 if kind == "Deployment" else 1)
    assert after["metadata"]["annotations"][mark.ANNOTATION] == f"{flown.digest}.kept"
    again = fly(world, plan_on(world, world.wire.get(path), NAME, 2))
    again.ends_as(Outcome.VERIFIED)
    assert not uids(world, path) & new


def test_pods_that_cannot_come_back_are_not_waited_for(world: World) -> None:
    """The namespace is full: the surplus pod is refused, and the rollout cannot begin."""
    path = made(world)
    before = settled(world, path)
    space, old = path.split("/")[5], uids(world, path)
    quota = {"apiVersion": "v1", "kind": "ResourceQuota"}
    meta = {"name": "full", "namespace": space}
    world.wire.create({**quota, "metadata": meta, "spec": {"hard": {"pods": "2"}}})
    flown = fly(
        world,
        plan_on(world, before, NAME),
        publish_all(world, variant="-hopeless", share=HOPELESS),
    )
    flown.ends_as(Outcome.ROLLED_BACK)
    after = settled(world, path)
    assert after["spec"] == before["spec"]
    assert uids(world, path) == old
    assert flown.results() == {
        PRECHECK: Result.AS_PLANNED,
        ACT: Result.ACTED,
        VERIFY: Result.NOT_VERIFIED,
        ROLLBACK: Result.UNDONE,
    }
    assert after["metadata"]["annotations"][mark.ANNOTATION] == f"{flown.digest}.undone"


def test_a_release_since_the_plan_is_not_restarted(world: World) -> None:
    path = made(world)
    plan = plan_on(world, settled(world, path), NAME)
    pods = template("cart", container(world, RELEASE="2"))
    world.wire.patch(path, {"spec": {"template": pods}})
    moved = settled(world, path)
    flown = fly(world, plan)
    seen = flown.ends_as(Outcome.REFUSED)
    assert seen.steps[0].message.startswith("the target is not as planned")
    assert world.wire.get(path)["spec"] == moved["spec"]


def test_replicas_that_moved_since_the_plan_do_not_matter(world: World) -> None:
    path = made(world)
    plan = plan_on(world, settled(world, path), NAME)
    world.wire.patch(path, {"spec": {"replicas": 3}})
    settled(world, path)
    flown = fly(world, plan)
    flown.ends_as(Outcome.VERIFIED)
    assert world.wire.get(path)["status"]["readyReplicas"] == 3


def test_what_is_paused_meanwhile_is_left_alone(world: World) -> None:
    path = made(world)
    plan = plan_on(world, settled(world, path), NAME)
    world.wire.patch(path, {"spec": {"paused": True}})
    flown = fly(world, plan)
    seen = flown.ends_as(Outcome.REFUSED)
    assert seen.steps[0].message == "the rollout is paused"
    assert "annotations" not in world.wire.get(path)["spec"]["template"]["metadata"]


def test_a_run_started_again_after_act_restarts_nothing_more(world: World) -> None:
    path = made(world)
    before = settled(world, path)
    flown = fly(world, plan_on(world, before, NAME, hold=world.hold))

    def done() -> bool:
        pods = world.wire.get(path)["spec"]["template"]
        return "annotations" in pods["metadata"]

    world.until("it has acted", done)
    first = next(pod for pod in flown.pods() if "-run-" in pod["metadata"]["name"])
    flown.delete_pod(first, force=True)
    flown.ends_as(Outcome.VERIFIED)
    after = world.wire.get(path)
    assert moved(before, after) == 2
    assert flown.events() in (["act", "acted", "kept"], ["act", "kept"])
