"""When a node counts as emptied: its pods have ended, and nobody else's are there."""

from draining_world import NODE, NS, World, shop

from tiphys.policies.model import Change, ObjectReference, Plan
from tiphys.workflow_templates import draining
from tiphys.workflow_templates.action import Result, StepName
from tiphys.workflow_templates.workloads import Health, healthy


async def _drained(world: World, *, held: bool = False) -> Plan:
    """Drain the node, and wait until its pods have ended and their owner is whole elsewhere.

    `held`: a finalizer keeps the pods from ending.
    """
    await shop(world)
    plan = world.plan()
    for pod in world.pods() if held else ():
        pod["metadata"]["finalizers"] = ["example.com/held"]
        world.store.update(pod)
    assert (await world.step(StepName.ACT, plan)).result is Result.ACTED

    def whole() -> bool:
        [owner] = world.store.list("ReplicaSet", NS)
        elsewhere = len(world.names("worker-2") + world.names("worker-3"))
        ended = len(world.store.list("Pod", NS)) == 6
        return elsewhere == 6 and healthy(owner).ok and ended is not held

    await world.until(whole)
    return plan


async def _said(world: World, plan: Plan) -> Health:
    said: list[Health] = []
    run = world.run(plan)
    await world.loop.run_in_executor(None, lambda: said.append(draining.emptied(run)))
    return said[0]


async def test_it_is_empty_when_its_pods_are_gone_and_their_owners_are_whole(world: World) -> None:
    plan = await _drained(world)
    assert (await _said(world, plan)).ok


async def test_only_pods_count_among_what_a_plan_ends(world: World) -> None:
    plan = await _drained(world)
    machine = ObjectReference(
        api_version="cluster.x-k8s.io/v1beta1", kind="Machine", namespace=NS, name=NODE, uid="u-m"
    )
    more = Change(of=machine, path="", present={"owner": {}}, intended=None)
    said = await _said(world, plan.model_copy(update={"changes": (*plan.changes, more)}))
    assert (said.ok, said.sentence) == (True, "2 planned pods are gone, and their owners are whole")


async def test_pods_that_have_not_ended_are_still_there(world: World) -> None:
    plan = await _drained(world, held=True)
    said = await _said(world, plan)
    assert not said.ok
    assert "2 of 2 planned pods have not ended" in said.sentence
    for pod in world.store.list("Pod", NS):
        if "deletionTimestamp" in pod["metadata"]:
            pod["metadata"]["finalizers"] = []
            world.store.update(pod)


async def test_a_pod_that_the_plan_does_not_name_is_there(world: World) -> None:
    plan = await _drained(world)
    pod = world.store.list("Pod", NS)[0]
    meta = {"name": "late", "namespace": NS, "labels": {"app": "late"}}
    spec = {"containers": pod["spec"]["containers"], "nodeName": NODE}
    world.store.create({"kind": "Pod", "metadata": meta, "spec": spec})
    said = await _said(world, plan)
    assert not said.ok
    assert "late is on the node, which the plan does not name" in said.sentence
