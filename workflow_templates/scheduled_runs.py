"""What the runs of one CronJob say of each other: which failed, and whether one made up for it.

https://kubernetes.io/docs/concepts/workloads/controllers/job/#job-termination-and-cleanup
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, cast

from tiphys.policies.model import Object
from tiphys.workflow_templates.action import Guard, NotApplicableError
from tiphys.workflow_templates.pointers import at
from tiphys.workflow_templates.workloads import controller_of

CRON_JOB = ("batch/v1", "CronJob")
_OVER = {"Failed", "Succeeded"}
"""Phases of pods that have ended."""


def maker_of(job: Object) -> Mapping[str, str] | None:
    """Give the reference to the CronJob that made a Job, or None."""
    owner = controller_of(job)
    if owner is None or (owner.get("apiVersion"), owner["kind"]) != CRON_JOB:
        return None
    return owner


def end_of(job: Object) -> str:
    """Give `Complete` or `Failed` for a Job that has ended, else an empty string."""
    conditions = cast("list[dict[str, Any]]", at(job, "/status/conditions") or [])
    true = [str(c.get("type")) for c in conditions if c.get("status") == "True"]
    return next((kind for kind in true if kind in {"Complete", "Failed"}), "")


def failed_because(job: Object) -> str:
    """Give the reason of a Job's condition Failed, or an empty string."""
    conditions = cast("list[dict[str, Any]]", at(job, "/status/conditions") or [])
    failed = [c for c in conditions if c.get("type") == "Failed" and c.get("status") == "True"]
    return str(failed[0].get("reason") or "Failed") if failed else ""


def later_success(job: Object, jobs: Sequence[Object]) -> Object | None:
    """Give the CronJob's last run that ended, where it began after this one and succeeded.

    `jobs`: the namespace's. A success with another failure after it proves nothing: None.
    """
    maker = maker_of(job)
    if maker is None:
        return None
    runs = [one for one in jobs if (owner := maker_of(one)) and owner["uid"] == maker["uid"]]
    ended = [one for one in runs if end_of(one)]
    last = max(ended, key=_began, default=job)
    if end_of(last) != "Complete" or _began(last)[0] <= _began(job)[0]:
        return None
    return last


def still_at_work(job: Object, pods: Sequence[Object]) -> str | None:
    """Say what of a Job has not ended yet, or None; `pods`: the namespace's."""
    for field in ("active", "terminating"):
        if count := int(at(job, f"/status/{field}") or 0):
            return f"{count} of its pods are {field}"
    alive = [pod for pod in pods_of(job, pods) if at(pod, "/status/phase") not in _OVER]
    return f"pod {at(alive[0], '/metadata/name')} has not ended" if alive else None


def pods_of(job: Object, pods: Sequence[Object]) -> Sequence[Object]:
    """Give a Job's own pods."""
    uid = at(job, "/metadata/uid")
    return [pod for pod in pods if (owner := controller_of(pod)) and owner["uid"] == uid]


def _began(job: Object) -> tuple[datetime, str]:
    born = datetime.fromisoformat(str(at(job, "/metadata/creationTimestamp")))
    return born, str(at(job, "/metadata/name"))


def living_maker(job: Object, cron_jobs: Sequence[Object]) -> Object:
    """Give the CronJob that made a Job and still is there; else `NotApplicableError`."""
    maker = maker_of(job)
    if maker is None:
        raise NotApplicableError("no CronJob made this Job, so no later run can make up for it")
    found = next((one for one in cron_jobs if at(one, "/metadata/uid") == maker["uid"]), None)
    if found is None or at(found, "/metadata/deletionTimestamp"):
        raise NotApplicableError(f"CronJob {maker['name']} is gone")
    return found


GUARDS = (
    Guard(
        "batch/jobs",
        """has(request.options.preconditions) && has(request.options.preconditions.uid)""",
        "a Job is deleted by its uid only",
    ),
    Guard(
        "batch/jobs",
        """has(request.options.propagationPolicy)
           && request.options.propagationPolicy == 'Background'""",
        "a Job's pods go with it",
    ),
    Guard(
        "batch/jobs",
        """has(oldObject.status.conditions) && oldObject.status.conditions.exists(c,
           c.type == 'Failed' && c.status == 'True')
           && (!has(oldObject.status.active) || oldObject.status.active == 0)
           && (!has(oldObject.status.terminating) || oldObject.status.terminating == 0)""",
        "only a Job that has failed and runs nothing is deleted",
    ),
    Guard(
        "batch/jobs",
        """has(oldObject.metadata.ownerReferences)
           && oldObject.metadata.ownerReferences.exists(o, has(o.controller) && o.controller
           && o.kind == 'CronJob' && o.apiVersion == 'batch/v1')""",
        "only a CronJob's run is deleted",
    ),
)
"""Only what has ended as a CronJob's failed run may be deleted."""
