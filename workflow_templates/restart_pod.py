"""restart-pod: delete one pod whose owner recreates it."""

from collections.abc import Mapping, Sequence
from datetime import timedelta

from tiphys.policies.model import Change, Json, Object, Risk
from tiphys.workflow_templates import mark, verification
from tiphys.workflow_templates.action import (
    Action,
    Guard,
    NotApplicableError,
    Parameters,
    Related,
    Report,
    Result,
    Right,
    Run,
)
from tiphys.workflow_templates.cluster import REQUEST_SECONDS, Conflict, Gone, Unreachable
from tiphys.workflow_templates.fenced import PAUSE_SECONDS, deviation, refused
from tiphys.workflow_templates.mark import Trace
from tiphys.workflow_templates.pods import RECREATORS, owner_of, planned_pod, recreator
from tiphys.workflow_templates.pointers import at
from tiphys.workflow_templates.workloads import Health, controller_of, healthy


class RestartPodParameters(Parameters):
    """None: the target says it all."""


class RestartPod(Action):
    """Deletes exactly the pod that was diagnosed, by its uid."""

    name = "restart-pod"
    summary = "Delete one pod gracefully; its owner starts a new one."
    kinds = (("v1", "Pod"),)
    parameters = RestartPodParameters
    reads = tuple(Related(version, kind) for kind, version in RECREATORS.items())
    rights = (
        Right("", "pods", ("get", "delete")),
        Right("apps", "replicasets", ("get",)),
        Right("apps", "statefulsets", ("get",)),
        Right("apps", "daemonsets", ("get",)),
        Right("batch", "jobs", ("get",)),
    )
    guards = (
        Guard(
            "/pods",
            """has(request.options.preconditions) && has(request.options.preconditions.uid)""",
            "a pod is deleted by its uid only",
        ),
        Guard(
            "/pods",
            f"""has(oldObject.metadata.ownerReferences)
                && oldObject.metadata.ownerReferences.exists(o, has(o.controller) && o.controller
                && o.kind in {sorted(RECREATORS)})""",
            "a pod is deleted only where its owner recreates it",
        ),
        Guard(
            "/pods",
            """!has(request.options.gracePeriodSeconds) || request.options.gracePeriodSeconds > 0
               || !has(oldObject.spec.nodeName) || oldObject.status.phase in ['Failed', 'Succeeded']
               || oldObject.spec.terminationGracePeriodSeconds == 0""",
            "a pod gets its time to end",
        ),
    )
    reversible = False
    undo = "Nothing needs to be put back: the pod's owner recreates it."

    def changes(
        self, target: Object, related: Mapping[str, Sequence[Object]], parameters: Parameters
    ) -> tuple[Change, ...]:
        """Give the pod's end; raises `NotApplicableError` when nothing would recreate it."""
        del parameters
        reference = recreator(target, related)
        if at(target, "/metadata/deletionTimestamp"):
            raise NotApplicableError("the pod is being deleted already")
        if at(target, "/status/phase") == "Succeeded":
            raise NotApplicableError("the pod has done its work")
        owner: Json = {key: reference[key] for key in ("kind", "name", "uid")}
        present: Json = {"uid": at(target, "/metadata/uid"), "owner": owner}
        return (Change(path="", present=present, intended=None),)

    def risk(self, target: Object, parameters: Parameters) -> Risk:
        """Low: one pod that its owner recreates."""
        del target, parameters
        return Risk.LOW

    def blast_radius(self, target: Object, parameters: Parameters) -> str:
        """Name the pod and its owner."""
        del parameters
        owner = controller_of(target) or {"kind": "owner", "name": "unknown"}
        grace = at(target, "/spec/terminationGracePeriodSeconds") or 30
        return (
            f"1 pod: {at(target, '/metadata/namespace')}/{at(target, '/metadata/name')} ends "
            f"within {grace} s and {owner['kind']} {owner['name']} starts another."
        )

    def precheck(self, run: Run) -> Report:
        """Answer whether exactly this pod is still there and would be recreated."""
        seen = self._look(run)
        return seen or Report(Result.AS_PLANNED, f"{run.plan.target} is as planned", {})

    def act(self, run: Run) -> Report:
        """Claim, then delete by uid; a claimed pod that is gone was deleted by this run."""
        until = run.now() + timedelta(seconds=self.deadlines.act)
        target = run.plan.target
        while run.now() < until:
            if seen := self._look(run):
                return seen
            if not mark.claim(run):
                return refused("rollback of this run has begun")
            try:
                run.cluster.delete_pod(target.namespace, target.name, target.uid)
            except (Conflict, Gone, Unreachable):
                run.sleep(PAUSE_SECONDS)
                continue
            mark.tell(run, "Acted", f"tiphys-{run.digest}: deleted {target}")
            return Report(Result.ACTED, f"deleted {target}", {"uid": target.uid})
        return Report(Result.CRASHED, "the pod could not be deleted in time", {})

    def verify(self, run: Run) -> Report:
        """See the old pod gone and every replica of its owner ready."""
        reference = at(run.plan.changes[0].present, "/owner")

        def look() -> Health:
            if planned_pod(run, ending=True) is not None:
                return Health(False, f"{run.plan.target} has not ended yet")
            version = RECREATORS[reference["kind"]]
            place = (run.plan.target.namespace, reference["name"])
            return healthy(run.cluster.get(version, reference["kind"], *place))

        return verification.watch(run, look, self.deadlines.verify)

    def rollback(self, run: Run) -> Report:
        """Say whether this run deleted the pod; there is nothing to put back."""
        mark.close_door(run)
        claimed = mark.found(run, run.digest, Trace.ACT)
        settled = run.now() + timedelta(seconds=REQUEST_SECONDS + 1)
        while claimed and run.now() < settled and planned_pod(run, ending=False) is not None:
            run.sleep(PAUSE_SECONDS)
        if claimed and planned_pod(run, ending=False) is None:
            return Report(Result.NOTHING_TO_RESTORE, "the pod's owner recreates it", {})
        return Report(Result.NOTHING_CHANGED, "this run deleted nothing", {})

    def _look(self, run: Run) -> Report | None:
        """Give None when the pod may be deleted now, else why not."""
        target = run.plan.target
        pod = planned_pod(run, ending=False)
        if pod is None:
            if mark.found(run, run.digest, Trace.ACT):
                return Report(Result.ALREADY_DONE, "this run deleted the pod before", {})
            return refused(f"{target} is gone, and not by this run")
        if mark.found(run, run.digest, Trace.UNDONE):
            return refused("this run has ended; it does not act again")
        if run.now() >= run.not_after:
            return refused("notAfter has passed")
        if mark.under_another(run, pod):
            return refused("another run has not finished with this target")
        related = owner_of(run, pod)
        why = deviation(run.plan, lambda: self.changes(pod, related, RestartPodParameters()))
        return refused(why) if why else None
