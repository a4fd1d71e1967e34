"""Actions that delete garbage, in Argo's pods: what is planned goes once, and nothing else."""

import time

import pytest
from runs_made import Flown, fly

from tiphys.policies.model import Outcome
from tiphys.service.conform.flights import Flight
from tiphys.service.conform.nodes import evicted
from tiphys.service.conform.runs import HOPELESS, plan_on, publish_all, shop
from tiphys.service.conform.wire import Json, place, place_of
from tiphys.service.conform.workloads import (
    CRASH,
    SUCCEEDS,
    container,
    deployment,
    settled,
    template,
)
from tiphys.service.conform.worlds import World
from tiphys.workflow_templates.action import Result, StepName
from tiphys.workflow_templates.scheduled_runs import end_of

pytestmark = pytest.mark.together
POD = ("v1", "Pod")
PRECHECK, ACT, VERIFY, ROLLBACK = StepName
PODS, JOB = "delete-failed-pods", "delete-failed-job"


def pods_of(world: World, space: str) -> list[Json]:
    return world.wire.items(place(*POD, space))


def names(world: World, space: str) -> set[str]:
    return {pod["metadata"]["name"] for pod in pods_of(world, space)}


def with_evicted(world: World, count: int = 2) -> tuple[Json, set[str]]:
    """Make a Deployment that has replaced its evicted pods; give it and their names."""
    space = shop(world)
    made = world.wire.create(deployment(space, template("cart", container(world)), count))
    settled(world, place_of(made))
    gone = evicted(world, space, count)
    return settled(world, place_of(made)), {pod["metadata"]["name"] for pod in gone}


def run_pod(flown: Flight) -> Json:
    return next(pod for pod in flown.pods() if "-run-" in pod["metadata"]["name"])


def space_of(flown: Flown) -> str:
    return flown.plan.target.namespace


# --- pods ---------------------------------------------------------------------------------------


def test_evicted_pods_go_and_the_others_stay(world: World) -> None:
    target, gone = with_evicted(world)
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
    target, gone = with_evicted(world)
    space = target["metadata"]["namespace"]
    flown = fly(world, plan_on(world, target, PODS, hold=world.hold))
    world.until("they are gone", lambda: not names(world, space) & gone)
    kept = names(world, space)
    flown.delete_pod(run_pod(flown), force=True)
    flown.ends_as(Outcome.VERIFIED)
    assert names(world, space) == kept
    # Killed before it could tell of its deletions, it tells of none.
    assert flown.events() in (["act", "acted", "kept"], ["act", "kept"])


def test_pods_that_are_gone_already_are_refused(world: World) -> None:
    target, gone = with_evicted(world)
    plan = plan_on(world, target, PODS)
    for name in gone:
        world.wire.delete(f"{place(*POD, target['metadata']['namespace'])}/{name}")
    flown = fly(world, plan)
    seen = flown.ends_as(Outcome.REFUSED)
    assert seen.result(ROLLBACK) is Result.NOTHING_CHANGED
    assert flown.events() == ["undone"]


def test_a_deletion_that_does_not_help_has_nothing_to_put_back(world: World) -> None:
    target, gone = with_evicted(world)
    space = target["metadata"]["namespace"]
    hopeless = publish_all(world, variant="-hopeless", share=HOPELESS)
    flown = fly(world, plan_on(world, target, PODS, hold=world.hold * 3), hopeless)
    world.until("they are gone", lambda: not names(world, space) & gone)
    pods = template("cart", container(world, "not-ready"))
    world.wire.patch(place_of(target), {"spec": {"template": pods}})
    seen = flown.ends_as(Outcome.INEFFECTIVE)
    assert seen.result(ROLLBACK) is Result.NOTHING_TO_RESTORE


# --- a CronJob's failed run ---------------------------------------------------------------------


def ran(world: World, maker: Json, name: str, fare: str, ending: str) -> Json:
    """Let a run of a CronJob come to its end; each begins in a second of its own."""
    meta = maker["metadata"]
    owner = {"apiVersion": "batch/v1", "kind": "CronJob", "controller": True}
    owner |= {key: meta[key] for key in ("name", "uid")}
    pods = {"spec": {"restartPolicy": "Never", "containers": [container(world, fare)]}}
    named = {"name": name, "namespace": meta["namespace"], "ownerReferences": [owner]}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": named}
    time.sleep(1.1)
    path = place_of(world.wire.create({**job, "spec": {"backoffLimit": 0, "template": pods}}))
    world.until(f"{path} has ended", lambda: end_of(world.wire.get(path)), lambda s: s == ending)
    return world.wire.get(path)


def failed_run(world: World) -> tuple[Json, Json]:
    """Make a CronJob that never runs by itself, and a run of it that fails."""
    space, labels = shop(world), {"app": "report"}
    pods = {"restartPolicy": "Never", "containers": [container(world)]}
    spec = {
        "schedule": "0 0 1 1 *",
        "suspend": False,
        "failedJobsHistoryLimit": 9,
        "jobTemplate": {"spec": {"template": {"metadata": {"labels": labels}, "spec": pods}}},
    }
    meta = {"name": "report", "namespace": space}
    maker = {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": meta, "spec": spec}
    made = world.wire.create(maker)
    return made, ran(world, made, "report-1", CRASH, "Failed")


def jobs(world: World, space: str) -> set[str]:
    return {job["metadata"]["name"] for job in world.wire.items(place("batch/v1", "Job", space))}


def test_a_failed_run_that_was_made_up_for_goes_with_its_pods(world: World) -> None:
    maker, failed = failed_run(world)
    space = maker["metadata"]["namespace"]
    ran(world, maker, "report-2", SUCCEEDS, "Complete")
    flown = fly(world, plan_on(world, failed, JOB))
    flown.ends_as(Outcome.VERIFIED)
    assert jobs(world, space) == {"report-2"}
    assert all(name.startswith("report-2-") for name in names(world, space))
    assert flown.events() == ["act", "acted", "kept"]
    after = world.wire.get(place_of(maker))
    assert after["spec"] == maker["spec"]


def test_a_run_that_fails_again_meanwhile_is_refused(world: World) -> None:
    maker, failed = failed_run(world)
    ran(world, maker, "report-2", SUCCEEDS, "Complete")
    plan = plan_on(world, failed, JOB)
    ran(world, maker, "report-3", CRASH, "Failed")
    flown = fly(world, plan)
    seen = flown.ends_as(Outcome.REFUSED)
    assert seen.steps[0].message == "the last run of CronJob report is no later success"
    assert jobs(world, maker["metadata"]["namespace"]) == {"report-1", "report-2", "report-3"}


def test_a_deleted_run_started_again_deletes_nothing_more(world: World) -> None:
    maker, failed = failed_run(world)
    space = maker["metadata"]["namespace"]
    ran(world, maker, "report-2", SUCCEEDS, "Complete")
    flown = fly(world, plan_on(world, failed, JOB, hold=world.hold))
    world.until("it is gone", lambda: jobs(world, space), lambda found: found == {"report-2"})
    flown.delete_pod(run_pod(flown), force=True)
    flown.ends_as(Outcome.VERIFIED)
    assert jobs(world, space) == {"report-2"}
