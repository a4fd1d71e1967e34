"""update-config in Argo's pods: fresh pods with the new value after it, or all as it was before."""

import pytest
from runs_made import fly

from tiphys.policies.model import Outcome
from tiphys.service.conform.runs import HOPELESS, plan_on, publish_all, shop
from tiphys.service.conform.wire import Json, place, place_of
from tiphys.service.conform.workloads import container, deployment, settled, template
from tiphys.service.conform.worlds import World
from tiphys.workflow_templates import mark
from tiphys.workflow_templates.action import Result, StepName

pytestmark = pytest.mark.together
PRECHECK, ACT, VERIFY, ROLLBACK = StepName
NAME = "update-config"
TO_40 = {"configmap": "fares", "key": "pool-size", "value": "40"}


def made(world: World, kind: str = "Deployment") -> tuple[str, str]:
    """Make a shop with a workload that says its pool's size; gives its path and the ConfigMap's."""
    space = shop(world)
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "fares",
            "namespace": space,
            "labels": {"tiphys.io/heal": "enabled"},
            "annotations": {"values.tiphys.io/pool-size": "20\n40"},
        },
        "data": {"pool-size": "20", "currency": "EUR"},
    }
    first = container(world)
    first["command"] = ["sh", "-c", 'echo "pool $POOL_SIZE"; exec sleep 3600']
    source = {"configMapKeyRef": {"name": "fares", "key": "pool-size"}}
    first["env"].append({"name": "POOL_SIZE", "valueFrom": source})
    body = deployment(space, template("cart", first), 2, kind)
    config_path = place_of(world.wire.create(config))
    return place_of(world.wire.create(body)), config_path


def sizes(world: World, path: str) -> set[str]:
    """Give what the pods say of their pool; the simulated kubelet starts no program."""
    space = path.split("/")[5]
    pods = world.wire.items(place("v1", "Pod", space))
    names = [p["metadata"]["name"] for p in pods if "deletionTimestamp" not in p["metadata"]]
    logs = [world.wire.ask("GET", place("v1", "Pod", space, n) + "/log").body for n in names]
    return {str(log).strip() for log in logs}


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet"])
def test_fresh_pods_read_the_new_value(world: World, kind: str) -> None:
    path, config = made(world, kind)
    before, old = settled(world, path), world.wire.get(config)
    flown = fly(world, plan_on(world, before, NAME, **TO_40))
    flown.ends_as(Outcome.VERIFIED)
    after = world.wire.get(config)
    assert after["data"] == {"pool-size": "40", "currency": "EUR"}
    notes: Json = {**old["metadata"]["annotations"], mark.ANNOTATION: f"{flown.digest}.kept"}
    assert after["metadata"]["annotations"] == notes
    assert mark.by_annotation(world.wire.get(path)) == f"{flown.digest}.kept"
    assert flown.events() == ["act", "acted", "kept"]
    if world.real:
        assert sizes(world, path) == {"pool 40"}


def test_what_does_not_help_is_put_back_and_read(world: World) -> None:
    path, config = made(world)
    before = settled(world, path)
    plan = plan_on(world, before, NAME, query="", hold=1, **TO_40)
    quota = {"apiVersion": "v1", "kind": "ResourceQuota"}
    meta = {"name": "full", "namespace": path.split("/")[5]}
    world.wire.create({**quota, "metadata": meta, "spec": {"hard": {"pods": "2"}}})
    flown = fly(world, plan, publish_all(world, variant="-hopeless", share=HOPELESS))
    flown.ends_as(Outcome.ROLLED_BACK)
    assert world.wire.get(config)["data"] == {"pool-size": "20", "currency": "EUR"}
    assert settled(world, path)["spec"] == before["spec"]
    assert flown.results() == {
        PRECHECK: Result.AS_PLANNED,
        ACT: Result.ACTED,
        VERIFY: Result.NOT_VERIFIED,
        ROLLBACK: Result.UNDONE,
    }
    if world.real:
        assert sizes(world, path) == {"pool 20"}


def test_a_config_map_that_came_to_be_shared_is_left_alone(world: World) -> None:
    path, config = made(world)
    plan = plan_on(world, settled(world, path), NAME, **TO_40)
    first = container(world)
    first["envFrom"] = [{"configMapRef": {"name": "fares"}}]
    world.wire.create(deployment(path.split("/")[5], template("till", first), 0))
    seen = fly(world, plan).ends_as(Outcome.REFUSED)
    words = seen.steps[0].message
    assert words == "ConfigMap fares is not its own: Deployment till take of it, too"
    assert world.wire.get(config)["data"]["pool-size"] == "20"


def test_a_run_started_again_after_act_changes_nothing_more(world: World) -> None:
    path, config = made(world)
    before = settled(world, path)
    flown = fly(world, plan_on(world, before, NAME, hold=world.hold, **TO_40))

    def done() -> bool:
        return mark.by_annotation(world.wire.get(path)).endswith(".act")

    world.until("it has acted", done)
    first = next(pod for pod in flown.pods() if "-run-" in pod["metadata"]["name"])
    flown.delete_pod(first, force=True)
    flown.ends_as(Outcome.VERIFIED)
    after = world.wire.get(config)
    assert mark.by_annotation(after) == f"{flown.digest}.kept"
    assert flown.events() == ["act", "acted", "kept"]
    assert after["data"]["pool-size"] == "40"
