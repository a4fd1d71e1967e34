"""delete-failed-job, tried on a CronJob's failed run that a later one has made up for."""

import time

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


TRIAL = Trial(
    action="delete-failed-job",
    build=_build,
    violations={
        "the last run failed again": _failed_again,
        "the CronJob is suspended": _suspended,
        "the Job is gone": _cleared,
    },
)
