"""The stand-in for a machine provider does with Cluster API's kinds what their controllers do."""

import pytest

from tiphys.service.conform import pools
from tiphys.service.conform.wire import Json, place, place_of
from tiphys.service.conform.worlds import World

pytestmark = pytest.mark.together


def names(objects: list[Json]) -> list[str]:
    return [one["metadata"]["name"] for one in objects]


def scale(world: World, pool: Json, replicas: int) -> Json:
    """Set the size through the subresource."""
    path = f"{place_of(pool)}/scale"
    meta = {key: pool["metadata"][key] for key in ("name", "namespace")}
    body = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": meta}
    return world.wire.want("PUT", path, {**body, "spec": {"replicas": replicas}})


def test_a_pool_becomes_machines_and_machines_ready_nodes_with_gpus(world: World) -> None:
    pool = pools.made(world, pools.gpu_pool(world.namespace(), 2))
    machines, nodes = pools.machines(world, pool), pools.nodes(world, pool)
    assert [one["status"]["phase"] for one in machines] == ["Running", "Running"]
    assert names(nodes) == [one["status"]["nodeRef"]["name"] for one in machines]
    for machine, node in zip(machines, nodes, strict=True):
        assert node["status"]["allocatable"][pools.GPU] == str(pools.GPUS)
        assert node["spec"]["providerID"] == machine["spec"]["providerID"]
        assert node["metadata"]["annotations"]["cluster.x-k8s.io/machine"] in names(machines)
    [owner] = {r["uid"] for m in machines for r in m["metadata"]["ownerReferences"]}
    [one] = world.wire.items(place(*pools.SET, pool["metadata"]["namespace"]))
    assert one["metadata"]["uid"] == owner
    assert one["metadata"]["ownerReferences"][0]["uid"] == pool["metadata"]["uid"]


def test_a_pool_grows_and_loses_the_annotated_machine_first(world: World) -> None:
    pool = pools.made(world, pools.gpu_pool(world.namespace(), 2))
    scale(world, pool, 3)
    pool = pools.settled(world, place_of(pool))
    machines = pools.machines(world, pool)
    assert len(machines) == len(pools.nodes(world, pool)) == 3
    chosen = machines[1]
    note = {"metadata": {"annotations": {"cluster.x-k8s.io/delete-machine": ""}}}
    world.wire.patch(place_of(chosen), note)
    scale(world, pool, 2)
    pool = pools.settled(world, place_of(pool))
    left = {*names(machines)} - {chosen["metadata"]["name"]}
    assert {*names(pools.machines(world, pool))} == left
    assert {*names(pools.nodes(world, pool))} == left


def test_a_machine_that_the_cloud_does_not_have_stays_on_its_way(world: World) -> None:
    pool = pools.made(world, pools.gpu_pool(world.namespace(), 1))
    pools.exhausted(world, pool, 1)
    scale(world, pool, 2)
    found = world.until(
        "one waits",
        lambda: pools.machines(world, pool),
        lambda some: "Provisioning" in [m.get("status", {}).get("phase") for m in some],
    )
    assert sorted(one["status"]["phase"] for one in found) == ["Provisioning", "Running"]
    assert len(pools.nodes(world, pool)) == 1
    pools.exhausted(world, pool, 2)
    pools.settled(world, place_of(pool))
    assert len(pools.nodes(world, pool)) == 2


def test_a_deleted_machine_is_drained_and_replaced(world: World) -> None:
    """A scale-down, or a deletion, ends what runs there: nobody asks a second time."""
    pool = pools.made(world, pools.gpu_pool(world.namespace(), 1))
    [machine] = pools.machines(world, pool)
    pod = pools.gpu_pod(world, pool, node=machine["metadata"]["name"])
    world.wire.delete(place_of(machine))
    found = world.until(
        "another machine runs",
        lambda: pools.machines(world, pool),
        lambda some: machine["metadata"]["uid"] not in [m["metadata"]["uid"] for m in some],
    )
    pools.settled(world, place_of(pool))
    assert names(found) != names([machine])
    assert world.wire.find(place_of(pod)) is None
    assert names(pools.nodes(world, pool)) == names(found)


def test_a_paused_pool_is_left_alone(world: World) -> None:
    pool = pools.made(world, pools.gpu_pool(world.namespace(), 1))
    note = {"metadata": {"annotations": {"cluster.x-k8s.io/paused": "true"}}}
    world.wire.patch(place_of(pool), note)
    scale(world, pool, 2)
    world.until(
        "the status is told",
        lambda: world.wire.get(place_of(pool)),
        lambda one: one["status"]["observedGeneration"] == one["metadata"]["generation"],
    )
    assert len(pools.machines(world, pool)) == 1


def test_a_new_template_is_rolled_out(world: World) -> None:
    pool = pools.made(world, pools.gpu_pool(world.namespace(), 1))
    [before] = pools.machines(world, pool)
    change = {"spec": {"template": {"spec": {"version": "v1.35.5"}}}}
    world.wire.patch(place_of(pool), change)
    pool = pools.settled(world, place_of(pool))
    assert pool["status"]["upToDateReplicas"] == 1
    [after] = pools.machines(world, pool)
    assert after["metadata"]["uid"] != before["metadata"]["uid"]
    assert after["spec"]["version"] == "v1.35.5"


def test_the_scale_of_a_pool_heeds_a_uid_in_put_and_not_in_a_merge_patch(world: World) -> None:
    pool = pools.made(world, pools.gpu_pool(world.namespace(), 1))
    path = f"{place_of(pool)}/scale"
    wrong = {**{k: pool["metadata"][k] for k in ("name", "namespace")}, "uid": "0" * 8}
    scale = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": wrong}
    put = world.wire.ask("PUT", path, {**scale, "spec": {"replicas": 2}}, fieldManager="tiphys-x")
    assert put.status == 409
    body = {"metadata": wrong, "spec": {"replicas": 2}}
    assert world.wire.ask("PATCH", path, body, "application/merge-patch+json").status == 200
    fine = {**wrong, "uid": pool["metadata"]["uid"]}
    body = {**scale, "metadata": fine, "spec": {"replicas": 1}}
    world.wire.want("PUT", path, body, fieldManager="tiphys-x")
    owners = [
        entry["manager"]
        for entry in world.wire.get(place_of(pool))["metadata"]["managedFields"]
        if "f:replicas" in entry["fieldsV1"].get("f:spec", {})
    ]
    assert owners == ["tiphys-x"]
