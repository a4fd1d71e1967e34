"""delete-failed-pods: delete the pods that a Deployment's nodes ended and that it has replaced."""

from collections.abc import Mapping, Sequence

from tiphys.policies.model import Change, Object, ObjectReference, Risk
from tiphys.workflow_templates import mark, verification
from tiphys.workflow_templates.action import (
    Action,
    Guard,
    NotApplicableError,
    Parameters,
    Related,
    Report,
    Right,
    Run,
)
from tiphys.workflow_templates.cluster import Gone
from tiphys.workflow_templates.deleting import Deleting, exactly, name_and_uid
from tiphys.workflow_templates.garbage_pods import GUARD, MOST, OWNED, garbage_of, reason_of
from tiphys.workflow_templates.pointers import at
from tiphys.workflow_templates.workloads import Health, controller_of, healthy

_POD = ("v1", "Pod")


class DeleteFailedPodsParameters(Parameters):
    """None: the plan lists each pod."""


class DeleteFailedPods(Action):
    """Deletes exactly the planned pods, each by its uid, while their Deployment is whole."""

    name = "delete-failed-pods"
    summary = "Delete a Deployment's evicted pods and those that a node's shutdown left behind."
    kinds = (("apps/v1", "Deployment"),)
    parameters = DeleteFailedPodsParameters
    reads = (Related("apps/v1", "ReplicaSet"), Related(*_POD))
    rights = (
        Right("", "pods", ("get", "delete")),
        Right("apps", "deployments", ("get",)),
        Right("apps", "replicasets", ("get",)),
    )
    guards = (
        Guard(
            "/pods",
            """has(request.options.preconditions) && has(request.options.preconditions.uid)""",
            "a pod is deleted by its uid only",
        ),
        Guard("/pods", GUARD, "only a pod that its node has ended is garbage"),
        Guard("/pods", OWNED, "only a ReplicaSet's pod is garbage once it has failed"),
    )
    reversible = False
    undo = "Nothing is put back: each pod had ended and its Deployment has replaced it."

    def changes(
        self, target: Object, related: Mapping[str, Sequence[Object]], parameters: Parameters
    ) -> tuple[Change, ...]:
        """Name each pod with its uid; raises `NotApplicableError` while the Deployment is ill."""
        del parameters
        if unwell := _unwell(target):
            raise NotApplicableError(unwell)
        found = garbage_of(target, related)
        if not found:
            raise NotApplicableError("there are no pods that their nodes have ended")
        if len(found) > MOST:
            why = f"{len(found)} pods have been ended by their nodes: that is more than {MOST}"
            raise NotApplicableError(f"{why}, so something goes on ending them")
        return tuple(
            Change(
                of=_reference(pod),
                path="",
                present={"reason": reason_of(pod)},
                intended=None,
            )
            for pod in found
        )

    def risk(self, target: Object, parameters: Parameters) -> Risk:
        """Low: nothing that runs is touched."""
        del target, parameters
        return Risk.LOW

    def blast_radius(self, target: Object, parameters: Parameters) -> str:
        """Say that only ended pods go."""
        del parameters
        place = f"{at(target, '/metadata/namespace')}/{at(target, '/metadata/name')}"
        return (
            f"No process ends: at most {MOST} pod objects of Deployment {place} go, with what is "
            "left of their logs."
        )

    def precheck(self, run: Run) -> Report:
        """Answer whether the planned pods are still there as garbage of a healthy Deployment."""
        return self._deleting(run).precheck()

    def act(self, run: Run) -> Report:
        """Delete one after the other."""
        return self._deleting(run).act()

    def verify(self, run: Run) -> Report:
        """See all of them gone, the Deployment still whole and the alert over."""
        left = [*_planned(run)]

        def look() -> Health:
            left[:] = [one for one in left if exactly(run, _POD, *one) is not None]
            if left:
                return Health(False, f"{len(left)} of the planned pods are still there")
            return healthy(_deployment(run))

        return verification.watch(run, look, self.deadlines.verify)

    def rollback(self, run: Run) -> Report:
        """Say whether this run deleted any; there is nothing to put back."""
        return self._deleting(run).rollback()

    def _deleting(self, run: Run) -> Deleting:
        def left() -> Sequence[Object]:
            found = [exactly(run, _POD, *one) for one in _planned(run)]
            return [pod for pod in found if pod and not at(pod, "/metadata/deletionTimestamp")]

        def delete(pod: Object) -> None:
            run.cluster.delete_pod(run.plan.target.namespace, *name_and_uid(pod))

        planned = len(run.plan.changes)
        return Deleting(run, self.deadlines, planned, left, lambda p: _deviation(run, p), delete)


def _planned(run: Run) -> Sequence[tuple[str, str]]:
    """Give the planned pods' names and uids."""
    return [(change.of.name, change.of.uid) for change in run.plan.changes if change.of]


def _reference(pod: Object) -> ObjectReference:
    name, uid = name_and_uid(pod)
    space = str(at(pod, "/metadata/namespace"))
    return ObjectReference(api_version="v1", kind="Pod", namespace=space, name=name, uid=uid)


def _deployment(run: Run) -> Object:
    target = run.plan.target
    return run.cluster.get("apps/v1", target.kind, target.namespace, target.name)


def _deviation(run: Run, pods: Sequence[Object]) -> str | None:
    """Judge the Deployment, and each pod that is left with the ReplicaSet that made it."""
    wanted, space = run.plan.target, run.plan.target.namespace
    try:
        target = _deployment(run)
        owners = {owner["name"] for pod in pods if (owner := controller_of(pod))}
        sets = [run.cluster.get("apps/v1", "ReplicaSet", space, name) for name in sorted(owners)]
    except Gone:
        return f"{wanted} or a ReplicaSet of its pods is gone"
    if at(target, "/metadata/uid") != wanted.uid:
        return f"{wanted} is another object of that name"
    if mark.under_another(run, target):
        return "another run has not finished with this target"
    if unwell := _unwell(target):
        return unwell
    known = {
        at(pod, "/metadata/uid") for pod in garbage_of(target, {"ReplicaSet": sets, "Pod": pods})
    }
    other = [
        str(at(pod, "/metadata/name")) for pod in pods if at(pod, "/metadata/uid") not in known
    ]
    return f"no longer garbage of {wanted}: {', '.join(other[:5])}" if other else None


def _unwell(deployment: Object) -> str | None:
    """Say what a Deployment lacks: while pods fail, the failed ones are evidence."""
    health = healthy(deployment)
    return None if health.ok else f"the Deployment is not whole: {health.sentence}"
