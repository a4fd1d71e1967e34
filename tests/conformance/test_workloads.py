"""What controllers do with Deployments, StatefulSets, pods and budgets, as the steps read it."""

from typing import Any

import pytest

from tiphys.service.conform.wire import Json, place, place_of
from tiphys.service.conform.workloads import (
    CRASH,
    NOT_READY,
    container,
    deployment,
    settled,
    template,
)
from tiphys.service.conform.worlds import World
from tiphys.workflow_templates.pointers import differences
from tiphys.workflow_templates.workloads import (
    controller_of,
    healthy,
    revision,
    revisions,
    rolling_out,
    template_of,
)

APPS, SET, POD = "apps/v1", ("apps/v1", "ReplicaSet"), ("v1", "Pod")
pytestmark = pytest.mark.together


def cart(world: World, fare: str = "ready", replicas: int = 2, **variables: str) -> str:
    """Make a namespace with one Deployment; gives its path."""
    pods = template("cart", container(world, fare, **variables))
    made = world.wire.create(deployment(world.namespace(), pods, replicas))
    return place_of(made)


def space_of(path: str) -> str:
    return path.split("/namespaces/")[1].split("/", maxsplit=1)[0]


def living(world: World, space: str) -> list[Json]:
    pods = world.wire.items(place(*POD, space))
    return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]


def test_a_pod_leads_to_its_workload_by_its_controllers(world: World) -> None:
    path = cart(world)
    whole = settled(world, path)
    space = space_of(path)
    pods = living(world, space)
    assert len(pods) == 2
    for pod in pods:
        reference = controller_of(pod)
        assert reference is not None
        assert (reference["apiVersion"], reference["kind"]) == SET
        owner = world.wire.get(place(*SET, space, reference["name"]))
        assert owner["metadata"]["uid"] == reference["uid"]
        top = controller_of(owner)
        assert top is not None
        assert (top["kind"], top["uid"]) == ("Deployment", whole["metadata"]["uid"])
        ready = [c for c in pod["status"]["conditions"] if c["type"] == "Ready"]
        assert [c["status"] for c in ready] == ["True"]
        assert pod["status"]["phase"] == "Running"
        assert pod["spec"]["nodeName"]


def test_a_deleted_pod_ends_in_grace_and_its_owner_starts_another(world: World) -> None:
    path = cart(world)
    settled(world, path)
    space = space_of(path)
    pod = living(world, space)[0]
    uid, name = pod["metadata"]["uid"], pod["metadata"]["name"]
    options = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": uid}}
    answer = world.wire.ask("DELETE", place(*POD, space, name), options)
    assert answer.status == 200
    assert answer.body["kind"] == "Pod", "a pod in its grace is answered as it is"
    assert answer.body["metadata"]["deletionTimestamp"]

    def successor() -> bool:
        uids = {one["metadata"]["uid"] for one in living(world, space)}
        return len(uids) == 2 and uid not in uids

    world.until("another pod has started", successor)
    world.until("the old one is gone", lambda: world.wire.find(place(*POD, space, name)) is None)
    settled(world, path)


def test_a_pod_whose_labels_leave_its_owner_is_let_go_and_replaced(world: World) -> None:
    path = cart(world)
    settled(world, path)
    space = space_of(path)
    pod = place(*POD, space, living(world, space)[0]["metadata"]["name"])
    world.wire.patch(pod, {"metadata": {"labels": {"app": "nobodys"}}})
    world.until(
        "nobody owns it",
        lambda: world.wire.get(pod)["metadata"].get("ownerReferences"),
        lambda owners: not owners,
    )
    world.until("its owner has another", lambda: len(living(world, space)) == 3)


def test_a_replica_set_tells_of_its_pods_though_a_quota_lets_no_more_in(world: World) -> None:
    path = cart(world)
    settled(world, path)
    space = space_of(path)
    quota: Json = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "full"}}
    quota["metadata"]["namespace"] = space
    world.wire.create({**quota, "spec": {"hard": {"pods": "1"}}})
    world.wire.delete(place(*POD, space, living(world, space)[0]["metadata"]["name"]))

    def counted() -> list[int]:
        return [
            one["status"].get("readyReplicas", 0) for one in world.wire.items(place(*SET, space))
        ]

    world.until("one is counted", counted, lambda seen: seen == [1])


def test_a_rollout_makes_a_revision_and_going_back_reuses_the_old_one(world: World) -> None:
    path = cart(world, RELEASE="1")
    space = space_of(path)
    first = settled(world, path)
    assert revision(first) == 1

    def release(number: str) -> Json:
        pods = template("cart", container(world, RELEASE=number))
        patched = world.wire.patch(path, {"spec": {"template": pods}})
        assert rolling_out(patched), "a change that no controller has seen is a rollout"
        return settled(world, path)

    second = release("2")
    assert revision(second) == 2
    known = revisions(second, world.wire.items(place(*SET, space)))
    assert [number for number, _ in known] == [1, 2]
    [old, new] = [template_of(one) for _, one in known]
    assert new == second["spec"]["template"]
    change = list(differences(new, old, ""))
    assert [(c.path, c.present, c.intended) for c in change] == [
        ("/spec/containers/0/env/1/value", "2", "1")
    ]
    third = release("1")
    assert revision(third) == 3
    again = revisions(third, world.wire.items(place(*SET, space)))
    assert [number for number, _ in again] == [2, 3], "the first ReplicaSet has the new number"
    assert again[1][1]["metadata"]["uid"] == known[0][1]["metadata"]["uid"]


def test_a_bad_release_stays_a_rollout_and_keeps_the_old_pods(world: World) -> None:
    path = cart(world)
    settled(world, path)
    pods = template("cart", container(world, CRASH))
    world.wire.patch(path, {"spec": {"template": pods}})

    def surged(found: Json) -> Any:
        return found["status"].get("observedGeneration") == 2 and found["status"].get("replicas")

    found = world.until("it surges", lambda: world.wire.get(path), lambda f: surged(f) == 3)
    seen = healthy(found)
    assert not seen.ok
    assert "2 of 2 ready" in seen.sentence
    assert rolling_out(found) == "a rollout is in progress: 1 of 2 replicas are updated"
    conditions = {c["type"]: c for c in found["status"]["conditions"]}
    assert conditions["Available"]["status"] == "True"
    assert conditions["Progressing"]["reason"] in {"ReplicaSetUpdated", "NewReplicaSetCreated"}
    assert found["status"]["unavailableReplicas"] == 1


def test_pods_that_are_not_ready_are_counted_and_not_available(world: World) -> None:
    path = cart(world, NOT_READY)

    def counted(found: Json) -> bool:
        status = found.get("status", {})
        return (status.get("unavailableReplicas"), status.get("updatedReplicas")) == (2, 2)

    found = world.until("both are counted", lambda: world.wire.get(path), counted)
    assert found["status"].get("readyReplicas", 0) == 0
    assert healthy(found).sentence == "Deployment cart: 0 of 2 ready"
    conditions = {c["type"]: c for c in found["status"]["conditions"]}
    assert conditions["Available"]["reason"] == "MinimumReplicasUnavailable"


def test_the_pods_of_a_deleted_deployment_go_with_it(world: World) -> None:
    path = cart(world)
    settled(world, path)
    space = space_of(path)
    assert world.wire.delete(path).status == 200
    pods, sets = place(*POD, space), place(*SET, space)
    world.until("every pod is gone", lambda: world.wire.items(pods), lambda left: not left)
    world.until("every ReplicaSet is gone", lambda: world.wire.items(sets), lambda left: not left)


def test_a_stateful_sets_pod_comes_back_by_its_name_with_another_uid(world: World) -> None:
    space = world.namespace()
    pods = template("db", container(world))
    path = place_of(world.wire.create(deployment(space, pods, 2, "StatefulSet")))
    settled(world, path)
    first = world.wire.get(place(*POD, space, "db-0"))
    world.wire.delete(place_of({**first, "apiVersion": "v1", "kind": "Pod"}))

    def back() -> bool:
        found = world.wire.find(place(*POD, space, "db-0"))
        return found is not None and found["metadata"]["uid"] != first["metadata"]["uid"]

    world.until("db-0 is back", back)
    whole = settled(world, path)
    assert rolling_out(whole) is None
    scale = world.wire.get(path + "/scale")
    scale["spec"]["replicas"] = 3
    world.wire.want("PUT", path + "/scale", scale, fieldManager="tiphys-x")
    assert settled(world, path)["status"]["readyReplicas"] == 3


def evict(world: World, space: str, name: str, **options: Any) -> Any:
    meta = {"name": name, "namespace": space}
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": meta, **options}
    return world.wire.ask("POST", place(*POD, space, name) + "/eviction", body)


def test_an_eviction_heeds_the_budget_and_the_uid(world: World) -> None:
    path = cart(world)
    settled(world, path)
    space = space_of(path)
    budget = world.wire.create(
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": "cart", "namespace": space},
            "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "cart"}}},
        }
    )
    guard = place_of(budget)

    def allowed(number: int) -> None:
        def seen(found: Json) -> bool:
            status = found.get("status", {})
            known = status.get("observedGeneration") == found["metadata"]["generation"]
            return (
                known
                and status.get("disruptionsAllowed", 0) == number
                and status["expectedPods"] == 2
            )

        world.until(f"{number} may go", lambda: world.wire.get(guard), seen)

    allowed(0)
    pod = living(world, space)[0]["metadata"]
    refused = evict(world, space, pod["name"])
    assert (refused.status, refused.reason) == (429, "TooManyRequests")
    assert "disruption budget" in refused.message
    [cause] = refused.body["details"]["causes"]
    assert cause["reason"] == "DisruptionBudget"
    assert "cart needs 2 healthy pods and has 2 currently" in cause["message"]
    # Two may go, since a real server takes one off the budget before it looks at the uid.
    world.wire.patch(guard, {"spec": {"minAvailable": 0}})
    allowed(2)
    other = {"preconditions": {"uid": "00000000-0000-0000-0000-000000000000"}}
    stale = evict(world, space, pod["name"], deleteOptions=other)
    assert (stale.status, stale.reason) == (409, "Conflict")
    assert evict(world, space, pod["name"]).status == 201

    def gone() -> bool:
        return pod["uid"] not in {one["metadata"]["uid"] for one in living(world, space)}

    world.until("it is evicted", gone)
