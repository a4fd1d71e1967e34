"""raise-memory-limit in Argo's pods: more memory and nothing else, or all is as it was before."""

import pytest
from runs_made import fly

from tiphys.policies.model import Outcome
from tiphys.service.conform.runs import HOPELESS, plan_on, publish_all, shop
from tiphys.service.conform.wire import Json, place, place_of
from tiphys.service.conform.workloads import container, deployment, settled, template
from tiphys.service.conform.worlds import World
from tiphys.workflow_templates import mark
from tiphys.workflow_templates.action import NotApplicableError, Result, StepName
from tiphys.workflow_templates.quantities import MIB, amount

pytestmark = pytest.mark.together
PRECHECK, ACT, VERIFY, ROLLBACK = StepName
NAME = "raise-memory-limit"


def made(world: World, kind: str = "Deployment", replicas: int = 2, **resources: Json) -> str:
    """Make a shop with one workload of guaranteed memory; gives its path."""
    first = container(world)
    memory = {"memory": "64Mi"}
    first["resources"] = {"limits": {**memory}, "requests": {**memory}, **resources}
    body = deployment(shop(world), template("cart", first), replicas, kind)
    return place_of(world.wire.create(body))


def limit(world: World, space: str, kind: str, spec: Json) -> str:
    """Make a ResourceQuota or a LimitRange, and wait until it has been counted."""
    body = {"apiVersion": "v1", "kind": kind, "metadata": {"name": "tight", "namespace": space}}
    path = place_of(world.wire.create({**body, "spec": spec}))
    if kind == "ResourceQuota":
        world.until("it is counted", lambda: (world.wire.get(path).get("status") or {}).get("used"))
    return path


def memory_of(found: Json) -> Json:
    return found["spec"]["template"]["spec"]["containers"][0]["resources"]


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
def test_limit_and_equal_request_rise_and_nothing_else_changes(world: World, kind: str) -> None:
    path = made(world, kind)
    before = settled(world, path)
    flown = fly(world, plan_on(world, before, NAME, container="main", limit_mib=96))
    flown.ends_as(Outcome.VERIFIED)
    after = world.wire.get(path)
    assert memory_of(after) == {"limits": {"memory": "96Mi"}, "requests": {"memory": "96Mi"}}
    pods = world.wire.items(place("v1", "Pod", path.split("/")[5]))
    running = [p["spec"]["containers"][0]["resources"] for p in pods]
    assert [one for one in running if one != memory_of(after)] == []
    memory_of(after).update(memory_of(before))
    assert after["spec"] == before["spec"]
    assert after["metadata"]["annotations"][mark.ANNOTATION] == f"{flown.digest}.kept"


# The API server writes 1024Mi as 1Gi; taken for somebody else's value, it would not be undone.
@pytest.mark.parametrize(("limits", "mib"), [("64Mi", 96), ("600Mi", 1024)])
def test_pods_that_find_no_room_are_not_waited_for(world: World, limits: str, mib: int) -> None:
    """The namespace is full: the new pods are refused."""
    path = made(world, limits={"memory": limits})
    before = settled(world, path)
    plan = plan_on(world, before, NAME, container="main", limit_mib=mib)
    limit(world, path.split("/")[5], "ResourceQuota", {"hard": {"pods": "2"}})
    flown = fly(world, plan, publish_all(world, variant="-hopeless", share=HOPELESS))
    flown.ends_as(Outcome.ROLLED_BACK)
    after = settled(world, path)
    assert after["spec"] == before["spec"]
    assert flown.results() == {
        PRECHECK: Result.AS_PLANNED,
        ACT: Result.ACTED,
        VERIFY: Result.NOT_VERIFIED,
        ROLLBACK: Result.UNDONE,
    }


# Two pods of 64 MiB; at the height of the rollout three of 96.
@pytest.mark.parametrize(
    ("kind", "spec", "why"),
    [
        ("ResourceQuota", {"hard": {"limits.memory": "287Mi"}}, "ResourceQuota tight would refuse"),
        ("ResourceQuota", {"hard": {"requests.memory": "287Mi"}}, "ResourceQuota tight would"),
        (
            "LimitRange",
            {"limits": [{"type": "Container", "max": {"memory": "80Mi"}}]},
            "LimitRange tight allows 80 MiB",
        ),
    ],
)
def test_what_a_quota_or_a_range_would_refuse_is_neither_planned_nor_begun(
    world: World, kind: str, spec: Json, why: str
) -> None:
    path = made(world)
    before = settled(world, path)
    plan = plan_on(world, before, NAME, container="main", limit_mib=96)
    limit(world, path.split("/")[5], kind, spec)
    with pytest.raises(NotApplicableError, match=why):
        plan_on(world, before, NAME, container="main", limit_mib=96)
    flown = fly(world, plan)
    seen = flown.ends_as(Outcome.REFUSED)
    assert seen.steps[0].message.startswith(why)
    assert world.wire.get(path)["spec"] == before["spec"]


def test_a_quota_with_just_enough_room_is_no_obstacle(world: World) -> None:
    path = made(world)
    before = settled(world, path)
    limit(world, path.split("/")[5], "ResourceQuota", {"hard": {"limits.memory": "288Mi"}})
    flown = fly(world, plan_on(world, before, NAME, container="main", limit_mib=96))
    flown.ends_as(Outcome.VERIFIED)


def test_a_quota_counts_the_memory_of_pods_and_refuses_what_is_beyond_it(world: World) -> None:
    """What planning takes for granted of it: a missing request is the limit."""
    path = made(world, requests={})
    settled(world, path)
    space = path.split("/")[5]
    hard = {"limits.memory": "200Mi", "requests.memory": "1Gi"}
    counted = limit(world, space, "ResourceQuota", {"hard": hard})
    used = world.wire.get(counted)["status"]["used"]
    assert {name: amount(size) for name, size in used.items()} == dict.fromkeys(hard, 128 * MIB)
    one = container(world) | {"resources": {"limits": {"memory": "73Mi"}}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "more", "namespace": space}}
    pod["spec"] = {"containers": [one]}
    answer = world.wire.ask("POST", place("v1", "Pod", space), pod)
    assert answer.status == 403
    assert "exceeded quota: tight, requested: limits.memory=" in answer.message
    one["resources"]["limits"]["memory"] = "72Mi"
    assert world.wire.ask("POST", place("v1", "Pod", space), pod).status == 201


def test_what_a_human_raised_meanwhile_is_left_alone(world: World) -> None:
    path = made(world)
    before = settled(world, path)
    plan = plan_on(world, before, NAME, container="main", limit_mib=96)
    pods = before["spec"]["template"]
    memory_of(before)["limits"]["memory"] = "80Mi"
    world.wire.patch(path, {"spec": {"template": pods}})
    moved = settled(world, path)
    flown = fly(world, plan)
    seen = flown.ends_as(Outcome.REFUSED)
    assert seen.steps[0].message.startswith("the target is not as planned")
    assert world.wire.get(path)["spec"] == moved["spec"]
