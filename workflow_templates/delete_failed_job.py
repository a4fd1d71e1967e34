"""delete-failed-job: delete a CronJob's failed run once a later run has made up for it.

The alert on a failed Job fires until the Job is deleted, so deleting hides the failure. That is
right only where the same work was done since. Only a CronJob's next run can prove it: hence no
annotation lets another Job go, since whoever makes a Job could put it there.
"""

from collections.abc import Mapping, Sequence

from tiphys.policies.model import Change, Json, Object, Risk
from tiphys.workflow_templates import mark, verification
from tiphys.workflow_templates.action import (
    Action,
    NotApplicableError,
    Parameters,
    Related,
    Report,
    Right,
    Run,
)
from tiphys.workflow_templates.cluster import Gone
from tiphys.workflow_templates.deleting import Deleting, exactly, name_and_uid
from tiphys.workflow_templates.fenced import deviation
from tiphys.workflow_templates.pointers import at
from tiphys.workflow_templates.scheduled_runs import (
    CRON_JOB,
    GUARDS,
    failed_because,
    later_success,
    living_maker,
    maker_of,
    pods_of,
    still_at_work,
)
from tiphys.workflow_templates.workloads import Health

_JOB = ("batch/v1", "Job")
_POD = ("v1", "Pod")


class DeleteFailedJobParameters(Parameters):
    """None: the target says it all."""


class DeleteFailedJob(Action):
    """Deletes exactly the failed Job that was diagnosed, and with it its ended pods."""

    name = "delete-failed-job"
    summary = "Delete a CronJob's failed run after a later run has succeeded."
    kinds = (_JOB,)
    parameters = DeleteFailedJobParameters
    reads = (Related(*CRON_JOB), Related(*_JOB), Related(*_POD))
    rights = (
        Right("", "pods", ("get", "list")),
        Right("batch", "cronjobs", ("get",)),
        Right("batch", "jobs", ("get", "list", "delete")),
    )
    guards = GUARDS
    reversible = False
    undo = "Nothing is put back: the run had failed, and a later run has done its work."

    def changes(
        self, target: Object, related: Mapping[str, Sequence[Object]], parameters: Parameters
    ) -> tuple[Change, ...]:
        """Give the Job's end; raises `NotApplicableError` where the failure is not made up for."""
        del parameters
        maker = living_maker(target, related.get("CronJob", ()))
        why = failed_because(target)
        if not why:
            raise NotApplicableError("the Job has not failed")
        if at(target, "/metadata/deletionTimestamp"):
            raise NotApplicableError("the Job is being deleted already")
        if at(target, "/spec/suspend") or at(maker, "/spec/suspend"):
            raise NotApplicableError("it is suspended: somebody is at it")
        if work := still_at_work(target, related.get("Pod", ())):
            raise NotApplicableError(f"the Job has not come to rest: {work}")
        name = at(maker, "/metadata/name")
        if later_success(target, related.get("Job", ())) is None:
            raise NotApplicableError(f"the last run of CronJob {name} is no later success")
        present: Json = {
            "uid": at(target, "/metadata/uid"),
            "created": at(target, "/metadata/creationTimestamp"),
            "failed": why,
            "cronjob": {"name": name, "uid": at(maker, "/metadata/uid")},
        }
        return (Change(path="", present=present, intended=None),)

    def risk(self, target: Object, parameters: Parameters) -> Risk:
        """Low: nothing that runs is touched."""
        del target, parameters
        return Risk.LOW

    def blast_radius(self, target: Object, parameters: Parameters) -> str:
        """Say what goes with the Job."""
        del parameters
        failed = int(at(target, "/status/failed") or 0)
        place = f"{at(target, '/metadata/namespace')}/{at(target, '/metadata/name')}"
        maker = maker_of(target) or {"name": "unknown"}
        return (
            f"No process ends: Job {place} and its {failed} failed pods go, with what is left of "
            f"their logs. CronJob {maker['name']} and its other runs stay."
        )

    def precheck(self, run: Run) -> Report:
        """Answer whether the Job is still the failed one, and a later run has made up for it."""
        return self._deleting(run).precheck()

    def act(self, run: Run) -> Report:
        """Delete it by its uid, its pods behind it."""
        return self._deleting(run).act()

    def verify(self, run: Run) -> Report:
        """See the Job and its pods gone, the last run still a success and the alert over."""
        space, job = run.plan.target.namespace, _planned(run)
        pods: Sequence[Object] | None = None

        def look() -> Health:
            nonlocal pods
            if _read(run):
                return Health(False, f"{run.plan.target} is still there")
            if pods is None:
                pods = pods_of(job, run.cluster.list(*_POD, space))
            pods = [pod for pod in pods if exactly(run, _POD, *name_and_uid(pod))]
            if pods:
                return Health(False, f"{len(pods)} of its pods are still there")
            last = later_success(job, run.cluster.list(*_JOB, space))
            maker = f"CronJob {at(run.plan.changes[0].present, '/cronjob/name')}"
            if last is None:
                return Health(False, f"the last run of {maker} is no success", hopeless=True)
            return Health(True, f"{maker}: {at(last, '/metadata/name')} has succeeded")

        return verification.watch(run, look, self.deadlines.verify)

    def rollback(self, run: Run) -> Report:
        """Say whether this run deleted the Job; there is nothing to put back."""
        return self._deleting(run).rollback()

    def _deleting(self, run: Run) -> Deleting:
        target = run.plan.target

        def left() -> Sequence[Object]:
            job = _read(run)
            return [job] if job and not at(job, "/metadata/deletionTimestamp") else []

        def delete(job: Object) -> None:
            run.cluster.delete_job(target.namespace, *name_and_uid(job))

        return Deleting(
            run, self.deadlines, 1, left, lambda jobs: self._deviation(run, jobs), delete
        )

    def _deviation(self, run: Run, jobs: Sequence[Object]) -> str | None:
        (job,), space = jobs, run.plan.target.namespace
        if mark.under_another(run, job):
            return "another run has not finished with this target"
        maker = maker_of(job)
        try:
            makers = [run.cluster.get(*CRON_JOB, space, maker["name"])] if maker else []
        except Gone:
            makers = []
        found = [run.cluster.list(*kind, space) for kind in (_JOB, _POD)]
        related = {"CronJob": makers, "Job": found[0], "Pod": found[1]}
        return deviation(run.plan, lambda: self.changes(job, related, DeleteFailedJobParameters()))


def _planned(run: Run) -> Object:
    """Give what the plan says of the Job, which need not be there any more."""
    (change,) = run.plan.changes
    by = {key: at(change.present, f"/cronjob/{key}") for key in ("name", "uid")}
    owner: Json = {"apiVersion": CRON_JOB[0], "kind": CRON_JOB[1], "controller": True, **by}
    meta: Json = {
        "uid": at(change.present, "/uid"),
        "creationTimestamp": at(change.present, "/created"),
        "ownerReferences": [owner],
    }
    return {"metadata": meta}


def _read(run: Run) -> Object | None:
    target = run.plan.target
    return exactly(run, _JOB, target.name, target.uid)
