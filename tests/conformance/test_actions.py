"""The catalogue's own steps in Argo's pods: each acts once, and what does not help is undone."""

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from runs_made import fly

from tiphys.policies.model import Outcome
from tiphys.service.argo import Argo
from tiphys.service.conform.flights import Flight
from tiphys.service.conform.runs import HOPELESS, plan_on, publish_all, shop
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
from tiphys.service.outcomes import outcome
from tiphys.workflow_templates import mark
from tiphys.workflow_templates.action import Result, StepName

pytestmark = pytest.mark.together
POD = ("v1", "Pod")
PRECHECK, ACT, VERIFY, ROLLBACK = StepName
SCALE, UNDO, RESTART = "scale-workload", "rollout-undo", "restart-pod"
LATE = 40
"""Seconds after a refused act within which its rollback has looked: its pod, and the request that
may still be under way, which it waits for."""


def cart(world: World, fare: str = "ready", replicas: int = 2) -> str:
    """Make a shop with one Deployment; gives its path."""
    pods = template("cart", container(world, fare, RELEASE="1"))
    made = world.wire.create(deployment(shop(world), pods, replicas))
    return place_of(made)


def release(world: World, path: str, number: str, fare: str = "ready") -> Json:
    """Roll out another pod template; gives the Deployment when it is healthy."""
    pods = template("cart", container(world, fare, RELEASE=number))
    world.wire.patch(path, {"spec": {"template": pods}})
    return settled(world, path)


def space_of(path: str) -> str:
    return path.split("/")[5]


def pods_of(world: World, path: str) -> list[Json]:
    """Give the pods that are not about to end, oldest name first."""
    found = world.wire.items(place(*POD, space_of(path)))
    return [
        {"apiVersion": "v1", "kind": "Pod", **pod}
        for pod in found
        if "deletionTimestamp" not in pod["metadata"]
    ]


def uids(world: World, path: str) -> set[str]:
    return {pod["metadata"]["uid"] for pod in pods_of(world, path)}


def full(world: World, space: str, pods: int) -> None:
    """Let no more pods into a namespace."""
    meta = {"name": "full", "namespace": space}
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta}
    world.wire.create({**quota, "spec": {"hard": {"pods": str(pods)}}})


# --- it helps -----------------------------------------------------------------------------------


def test_restart_pod_replaces_exactly_one_pod(world: World) -> None:
    path = cart(world)
    settled(world, path)
    before = uids(world, path)
    flown = fly(world, plan_on(world, pods_of(world, path)[0], RESTART))
    flown.ends_as(Outcome.VERIFIED, "verified")
    gone = before - uids(world, path)
    assert gone == {flown.plan.target.uid}
    assert len(uids(world, path)) == 2
    assert flown.events() == ["act", "acted", "kept"]


def test_rollout_undo_puts_the_earlier_template_back(world: World) -> None:
    path = cart(world)
    first = settled(world, path)["spec"]["template"]
    second = release(world, path, "2")
    flown = fly(world, plan_on(world, second, UNDO))
    flown.ends_as(Outcome.VERIFIED)
    after = world.wire.get(path)
    assert after["spec"]["template"] == first
    assert after["metadata"]["annotations"][mark.ANNOTATION] == f"{flown.digest}.kept"
    assert flown.results() == {
        PRECHECK: Result.AS_PLANNED,
        ACT: Result.ACTED,
        VERIFY: Result.VERIFIED,
    }


def test_scale_workload_scales_and_leaves_its_mark(world: World) -> None:
    path = cart(world)
    before = settled(world, path)
    flown = fly(world, plan_on(world, before, SCALE, replicas=3))
    flown.ends_as(Outcome.VERIFIED)
    after = world.wire.get(path)
    assert after["status"]["readyReplicas"] == 3
    assert after["metadata"]["generation"] == before["metadata"]["generation"] + 1
    owners = [
        entry["manager"]
        for entry in after["metadata"]["managedFields"]
        if "f:replicas" in entry["fieldsV1"].get("f:spec", {})
    ]
    assert owners == [f"tiphys-{flown.digest}"]


def test_a_stateful_set_is_scaled_too(world: World) -> None:
    pods = template("db", container(world))
    made = world.wire.create(deployment(shop(world), pods, 1, "StatefulSet"))
    before = settled(world, place_of(made))
    flown = fly(world, plan_on(world, before, SCALE, replicas=2))
    flown.ends_as(Outcome.VERIFIED)
    assert world.wire.get(place_of(made))["spec"]["replicas"] == 2


# --- it does not help ---------------------------------------------------------------------------


def hopeless(world: World) -> str:
    """Publish templates that give up soon; gives what their names end in."""
    return publish_all(world, variant="-hopeless", share=HOPELESS)


def test_replicas_that_do_not_come_up_are_taken_back(world: World) -> None:
    path = cart(world)
    before = settled(world, path)
    full(world, space_of(path), 2)
    flown = fly(world, plan_on(world, before, SCALE, replicas=3), hopeless(world))
    flown.ends_as(Outcome.ROLLED_BACK, "rolled-back")
    after = world.wire.get(path)
    assert after["spec"] == before["spec"]
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert flown.results() == {
        PRECHECK: Result.AS_PLANNED,
        ACT: Result.ACTED,
        VERIFY: Result.NOT_VERIFIED,
        ROLLBACK: Result.UNDONE,
    }
    assert mark.by_manager(after) == f"{flown.digest}.undone"


def test_an_earlier_release_that_is_worse_is_left_again(world: World) -> None:
    path = cart(world, CRASH)
    world.until(
        "the first revision is there",
        lambda: world.wire.get(path)["metadata"].get("annotations"),
    )
    before = release(world, path, "2")
    flown = fly(world, plan_on(world, before, UNDO), hopeless(world))
    flown.ends_as(Outcome.ROLLED_BACK)
    after = settled(world, path)
    assert after["spec"] == before["spec"]
    assert after["metadata"]["annotations"][mark.ANNOTATION] == f"{flown.digest}.undone"


def test_a_restart_that_does_not_help_has_nothing_to_put_back(world: World) -> None:
    path = cart(world, NOT_READY, 1)
    world.until("its pod is there", lambda: pods_of(world, path))
    flown = fly(world, plan_on(world, pods_of(world, path)[0], RESTART), hopeless(world))
    flown.ends_as(Outcome.INEFFECTIVE, "ineffective")
    assert flown.plan.target.uid not in uids(world, path)


def test_what_prometheus_cannot_tell_is_kept_and_unknown(world: World) -> None:
    path = cart(world)
    before = settled(world, path)
    deaf = publish_all(world, variant="-deaf", share=HOPELESS, prometheus_url="http://127.0.0.1:9")
    flown = fly(world, plan_on(world, before, SCALE, replicas=3, query="up == 0"), deaf)
    seen = flown.ends_as(Outcome.UNKNOWN, "unknowable")
    assert seen.phase == "Succeeded"
    assert seen.result(VERIFY) is Result.UNKNOWABLE
    assert world.wire.get(path)["spec"]["replicas"] == 3


def test_what_somebody_else_changed_meanwhile_is_left_alone(world: World) -> None:
    path = cart(world)
    before = settled(world, path)
    flown = fly(world, plan_on(world, before, SCALE, replicas=3, hold=world.hold))
    replicas_are(world, path, 3)
    world.wire.patch(path, {"spec": {"replicas": 1}}, fieldManager="kubectl-edit")
    seen = flown.ends_as(Outcome.ROLLBACK_FAILED, "not-ours")
    assert seen.result(ROLLBACK) is Result.NOT_OURS
    assert world.wire.get(path)["spec"]["replicas"] == 1


# --- it does not begin --------------------------------------------------------------------------


def test_a_target_that_moved_since_is_refused(world: World) -> None:
    path = cart(world)
    plan = plan_on(world, settled(world, path), SCALE, replicas=3)
    world.wire.patch(path, {"spec": {"replicas": 1}}, fieldManager="kubectl-edit")
    moved = settled(world, path)
    flown = fly(world, plan)
    seen = flown.ends_as(Outcome.REFUSED, "refused")
    assert seen.steps[0].message == "the target is not as planned: /spec/replicas"
    assert seen.result(PRECHECK) is Result.REFUSED
    assert seen.result(ROLLBACK) is Result.NOTHING_CHANGED
    assert world.wire.get(path)["spec"] == moved["spec"]


def test_a_plan_whose_time_is_over_is_refused(world: World) -> None:
    path = cart(world)
    before = settled(world, path)
    flown = fly(world, plan_on(world, before, SCALE, replicas=3), seconds=-1)
    seen = flown.ends_as(Outcome.REFUSED, "too-late")
    assert seen.steps[0].message == "notAfter has passed"
    assert world.wire.get(path)["spec"] == before["spec"]


def test_a_plan_that_somebody_else_signed_is_refused(world: World) -> None:
    path = cart(world)
    before = settled(world, path)
    other = Ed25519PrivateKey.generate()
    flown = fly(world, plan_on(world, before, SCALE, replicas=3), key=other)
    seen = flown.ends_as(
        Outcome.UNKNOWN, "forged"
    )  # not even its rollback works for it: a human looks
    assert "signature" in seen.steps[0].message
    assert world.wire.get(path)["spec"] == before["spec"]


# --- it is disturbed ----------------------------------------------------------------------------


def replicas_are(world: World, path: str, number: int) -> None:
    world.until(
        f"{number} replicas are wanted",
        lambda: world.wire.get(path)["spec"]["replicas"],
        lambda seen: seen == number,
    )


def run_pod(flown: Flight) -> Json:
    """Give the pod in which the steps run."""
    return next(pod for pod in flown.pods() if "-run-" in pod["metadata"]["name"])


def test_a_run_started_again_after_act_changes_nothing_more(world: World) -> None:
    path = cart(world)
    before = settled(world, path)
    flown = fly(world, plan_on(world, before, SCALE, replicas=3, hold=world.hold))
    replicas_are(world, path, 3)
    first = run_pod(flown)
    flown.delete_pod(first, force=True)
    flown.ends_as(Outcome.VERIFIED, "started-again")
    after = world.wire.get(path)
    assert after["metadata"]["generation"] == before["metadata"]["generation"] + 1
    assert flown.events() in (["act", "acted", "kept"], ["act", "kept"])
    assert flown.node("run", "Pod").get("podUID", "another") != first["metadata"]["uid"]


def test_a_restart_started_again_deletes_no_second_pod(world: World) -> None:
    path = cart(world)
    settled(world, path)
    before = uids(world, path)
    flown = fly(world, plan_on(world, pods_of(world, path)[0], RESTART, hold=world.hold))

    def replaced() -> bool:
        now = uids(world, path)
        return len(now) == 2 and flown.plan.target.uid not in now

    world.until("the pod is replaced", replaced)
    between = uids(world, path)
    flown.delete_pod(run_pod(flown), force=True)
    flown.ends_as(Outcome.VERIFIED)
    assert uids(world, path) == between
    assert before - between == {flown.plan.target.uid}


def test_a_run_whose_pod_is_deleted_is_rolled_back_or_goes_on(world: World) -> None:
    path = cart(world)
    before = settled(world, path)
    flown = fly(world, plan_on(world, before, SCALE, replicas=3, hold=world.hold))
    replicas_are(world, path, 3)
    flown.delete_pod(run_pod(flown), force=False)
    flown.ended()
    flown.keep("pod-deleted")
    after, began = world.wire.get(path), before["metadata"]["generation"]
    seen = outcome(flown.view())[0], after["spec"]["replicas"], after["metadata"]["generation"]
    # Argo sees how the pod ended, or it sees no pod and starts another.
    assert seen in {
        (Outcome.ROLLED_BACK, 2, began + 2),
        (Outcome.VERIFIED, 3, began + 1),
    }


def test_a_run_that_is_stopped_is_rolled_back(world: World) -> None:
    path = cart(world)
    settled(world, path)
    before = release(world, path, "2")
    flown = fly(world, plan_on(world, before, UNDO, hold=world.hold))

    def marked() -> str | None:
        return world.wire.get(path)["metadata"]["annotations"].get(mark.ANNOTATION)

    world.until("it has acted", marked)
    world.ask(lambda api: Argo(api, world.actions).stop(flown.name))
    seen = flown.ends_as(Outcome.ROLLED_BACK, "stopped")
    assert seen.message == "Stopped with strategy 'Stop'"
    assert settled(world, path)["spec"] == before["spec"]


def test_a_run_past_its_deadline_is_rolled_back(world: World) -> None:
    path = cart(world)
    before = settled(world, path)

    def hurry(spec: Json) -> None:
        # Pods start slowly on a busy machine, and this begins with the Workflow.
        spec["activeDeadlineSeconds"] = 75 if world.real else 8

    short = publish_all(world, hurry, "-short")
    flown = fly(world, plan_on(world, before, SCALE, replicas=3, hold=120), short)
    flown.ends_as(Outcome.ROLLED_BACK, "past-its-deadline")
    assert world.wire.get(path)["spec"] == before["spec"]


def test_a_rollback_that_is_killed_goes_on_in_its_next_pod(world: World) -> None:
    path = cart(world)
    before = settled(world, path)
    full(world, space_of(path), 2)
    plan = plan_on(world, before, SCALE, replicas=3, hold=world.hold)
    flown = fly(world, plan, hopeless(world))
    replicas_are(world, path, 3)
    replicas_are(world, path, 2)
    first = next(pod for pod in flown.pods() if "rollback" in pod["metadata"]["name"])
    flown.delete_pod(first, force=True)
    flown.ends_as(Outcome.ROLLED_BACK, "rollback-killed")
    after = world.wire.get(path)
    assert after["spec"] == before["spec"]
    assert after["metadata"]["generation"] == before["metadata"]["generation"] + 2


def test_a_rollback_that_cannot_work_is_tried_again(world: World) -> None:
    """Here its rights are gone for a while; a drained node or a deaf API server are no better."""
    path = cart(world)
    before = settled(world, path)
    space = space_of(path)
    full(world, space, 2)
    binding = place("rbac.authorization.k8s.io/v1", "RoleBinding", space, f"tiphys-act-{SCALE}")
    flown = fly(world, plan_on(world, before, SCALE, replicas=3), hopeless(world))
    replicas_are(world, path, 3)
    granted = world.wire.get(binding)
    world.wire.delete(binding)

    def crashed() -> list[Any]:
        return [n["phase"] for n in flown.nodes() if n["displayName"] == "rollback(0)"]

    world.until("its first try has failed", crashed, lambda phases: phases == ["Failed"])
    assert world.wire.get(path)["spec"]["replicas"] == 3
    del granted["metadata"]["resourceVersion"]
    world.wire.create(granted)
    flown.ends_as(Outcome.ROLLED_BACK, "rollback-tried-again")
    assert world.wire.get(path)["spec"] == before["spec"]


def test_of_two_runs_at_once_one_acts_though_the_mutex_is_lost(world: World) -> None:
    path = cart(world)
    before = settled(world, path)

    def forget(spec: Json) -> None:
        del spec["synchronization"]

    loose = publish_all(world, forget, "-loose")
    # Long enough that one is still watching its change when the other's rollback looks. Two that
    # had both claimed cannot tell later, from a mark that was verified since, who wrote what: the
    # other would call for a human then, which is right and not what is asked here.
    hold = world.hold + LATE
    plans = [plan_on(world, before, SCALE, n, replicas=3, hold=hold) for n in (1, 2)]
    flights = [fly(world, plan, loose) for plan in plans]
    for flown in flights:
        flown.ended()
    ends = [outcome(flown.view())[0] for flown in flights]
    assert sorted(ends) == [Outcome.REFUSED, Outcome.VERIFIED], [f.results() for f in flights]
    after = world.wire.get(path)
    assert after["spec"]["replicas"] == 3
    assert after["metadata"]["generation"] == before["metadata"]["generation"] + 1


def test_a_rollback_that_no_node_takes_never_ends_for_the_service(world: World) -> None:
    path = cart(world)
    before = settled(world, path)
    full(world, space_of(path), 2)

    def nowhere(spec: Json) -> None:
        [back] = [t for t in spec["templates"] if t["name"] == "rollback"]
        back["nodeSelector"] = {"tiphys.io/none": "such"}

    lost = publish_all(world, nowhere, "-nowhere", share=HOPELESS)
    flown = fly(world, plan_on(world, before, SCALE, replicas=3), lost)

    def unschedulable() -> Any:
        return [s.message for s in flown.view().steps if s.step is ROLLBACK]

    said = world.until("its rollback is unschedulable", unschedulable, lambda s: s and s[0])
    assert said[0].startswith("Unschedulable")
    flown.keep("rollback-unschedulable")
    seen = flown.view()
    assert (seen.ended, seen.phase, seen.result(ROLLBACK)) == (False, "Running", None)


def test_a_template_deleted_in_the_middle_is_rolled_back_all_the_same(world: World) -> None:
    path = cart(world)
    before = settled(world, path)
    full(world, space_of(path), 2)
    gone = publish_all(world, variant="-gone", share=0.05)
    flown = fly(world, plan_on(world, before, SCALE, replicas=3), gone)
    replicas_are(world, path, 3)
    for one in world.wire.items(place("argoproj.io/v1alpha1", "WorkflowTemplate", world.actions)):
        if one["metadata"]["name"].endswith(gone):
            world.wire.delete(place_of(one))
    flown.ends_as(Outcome.ROLLED_BACK)
    assert world.wire.get(path)["spec"] == before["spec"]
