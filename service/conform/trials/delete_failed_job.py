"""delete-failed-job, tried on a CronJob's failed run that a later one has made up for."""

import time
from collections.abc import Callable

from tiphys.service.conform.planner import Edit, Related
from tiphys.service.conform.readings import going, spec, status
from tiphys.service.conform.trial import Stage, Trial
from tiphys.service.conform.wire import Json, place_of
from tiphys.service.conform.workloads import CRASH, SUCCEEDS, container
from tiphys.workflow_templates.scheduled_runs import end_of

_CRON_JOB = ("batch/v1", "CronJob", "report")


def _ran(stage: Stage, name: str, fare: str, ending: str) -> Json:
    """Let a run come to its end; each begins in a second of its own."""
    maker = stage.wire.get(stage.place(*_CRON_JOB))["metadata"]
    owner = {"apiVersion": "batch/v1", "kind": "CronJob", "controller": True}
    owner |= {key: maker[key] for key in ("name", "uid")}
    pods = {"spec": {"restartPolicy": "Never", "containers": [container(stage.world, fare)]}}
    meta = {"name": name, "namespace": stage.namespace, "ownerReferences": [owner]}
    body: Json = {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta}
    time.sleep(1.1)
    made = stage.wire.create({**body, "spec": {"backoffLimit": 0, "template": pods}})

    def end() -> str:
        return end_of(stage.wire.get(place_of(made)))

    stage.world.until(f"{name} has ended", end, lambda said: said == ending)
    return {"apiVersion": "batch/v1", "kind": "Job", **stage.wire.get(place_of(made))}


def _build(stage: Stage) -> Json:
    pods = {"restartPolicy": "Never", "containers": [container(stage.world)]}
    spec = {
        "schedule": "0 0 1 1 *",
        "suspend": False,
        "failedJobsHistoryLimit": 9,
        "jobTemplate": {"spec": {"template": {"spec": pods}}},
    }
    meta = {"name": "report", "namespace": stage.namespace}
    maker = {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": meta, "spec": spec}
    stage.wire.create(maker)
    failed = _ran(stage, "report-1", CRASH, "Failed")
    _ran(stage, "report-2", SUCCEEDS, "Complete")
    return failed


def _failed_again(stage: Stage, target: Json) -> None:
    del target
    _ran(stage, "report-3", CRASH, "Failed")


def _suspended(stage: Stage, target: Json) -> None:
    del target
    stage.wire.patch(stage.place(*_CRON_JOB), {"spec": {"suspend": True}})


def _cleared(stage: Stage, target: Json) -> None:
    stage.wire.delete(place_of(target))
    stage.world.until("it is gone", lambda: stage.wire.find(place_of(target)) is None)


def _maker(**values: object) -> Edit:
    """Change the CronJob that was read; without anything, there is none."""

    def edit(target: Json, related: Related) -> None:
        del target
        related["CronJob"] = [one for one in related["CronJob"] if values]
        for one in related["CronJob"]:
            one["metadata"] |= values

    return edit


def _owner(**values: object) -> Edit:
    def edit(target: Json, related: Related) -> None:
        del related
        target["metadata"]["ownerReferences"][0] |= values

    return edit


def _later(change: Callable[[Json], object]) -> Edit:
    """Change the run that made up for it, as it was read."""

    def edit(target: Json, related: Related) -> None:
        name = target["metadata"]["name"]
        for one in related["Job"]:
            if one["metadata"]["name"] != name:
                change(one)

    return edit


def _conditions(*named: tuple[str, str]) -> Json:
    return {"conditions": [{"type": kind, "status": said} for kind, said in named]}


def _alive(target: Json, related: Related) -> None:
    owner = {"kind": "Job", "controller": True, "uid": target["metadata"]["uid"]}
    meta = {"name": "alive", "ownerReferences": [owner]}
    related["Pod"].append({"metadata": meta, "status": {"phase": "Running"}})


def _anothers_pod(target: Json, related: Related) -> None:
    _alive(target, related)
    related["Pod"][-1]["metadata"]["ownerReferences"][0]["uid"] = "another"


def _suspended_maker(target: Json, related: Related) -> None:
    del target
    related["CronJob"][0]["spec"]["suspend"] = True


_GOING = {"deletionTimestamp": "2026-01-01T00:00:00Z"}
_OLD = "2020-01-01T00:00:00Z"

TRIAL = Trial(
    action="delete-failed-job",
    build=_build,
    violations={
        "the last run failed again": _failed_again,
        "the CronJob is suspended": _suspended,
        "the Job is gone": _cleared,
    },
    unplannable={
        "it has not failed": status(**_conditions(("Complete", "True"))),
        "it may yet fail": status(**_conditions(("Failed", "False"))),
        "it is being deleted": going,
        "it is suspended": spec(suspend=True),
        "its CronJob is suspended": _suspended_maker,
        "its pods are at work": status(active=1),
        "its pods are about to end": status(terminating=1),
        "a pod of it lives": _alive,
        "nobody controls it": _owner(controller=False),
        "another kind made it": _owner(kind="Workflow"),
        "its CronJob is gone": _maker(),
        "its CronJob is another": _maker(uid="another"),
        "its CronJob is being deleted": _maker(**_GOING),
        "no run came later": _later(lambda one: one["metadata"].update(creationTimestamp=_OLD)),
        "the later run is at work": _later(lambda one: one.update(status={})),
        "the later run may yet complete": _later(
            lambda one: one.update(status=_conditions(("Complete", "False")))
        ),
        "the later run failed": _later(
            lambda one: one.update(status=_conditions(("Failed", "True")))
        ),
        "the later run is another's": _later(
            lambda one: one["metadata"]["ownerReferences"][0].update(uid="another")
        ),
        "the later run is nobody's": _later(lambda one: one["metadata"].pop("ownerReferences")),
    },
    plannable={"a pod of another lives": _anothers_pod},
)
