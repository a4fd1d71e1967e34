"""rollout-undo: give a Deployment the pod template of its previous revision."""

from collections.abc import Mapping, Sequence

from tiphys.policies.model import Change, Object, Risk
from tiphys.workflow_templates import mark, template_guards, verification
from tiphys.workflow_templates.action import (
    Action,
    NotApplicableError,
    Parameters,
    Related,
    Report,
    Result,
    Right,
    Run,
)
from tiphys.workflow_templates.cluster import ClusterError
from tiphys.workflow_templates.fenced import Fenced, Values, deviation
from tiphys.workflow_templates.mark import Trace
from tiphys.workflow_templates.pointers import at, differences, operations
from tiphys.workflow_templates.workloads import (
    Health,
    caught_up,
    healthy,
    replicas,
    revision,
    revisions,
    template_of,
)


class RolloutUndoParameters(Parameters):
    """None: always to the revision before."""


class RolloutUndo(Action):
    """Puts single fields back, so that a plan shows exactly what a release changed."""

    name = "rollout-undo"
    summary = "Put a Deployment's pod template back to its previous revision."
    kinds = (("apps/v1", "Deployment"),)
    parameters = RolloutUndoParameters
    reads = (Related("apps/v1", "ReplicaSet"),)
    rights = (
        Right("apps", "deployments", ("get", "patch")),
        Right("apps", "replicasets", ("list",)),
    )
    terms = template_guards.TERMS
    guards = template_guards.guards("apps/deployments")
    reversible = True
    undo = "Put back the revision that was left, field by field."

    def changes(
        self, target: Object, related: Mapping[str, Sequence[Object]], parameters: Parameters
    ) -> tuple[Change, ...]:
        """Give each field of the pod template that differs from the previous revision's."""
        del parameters
        if at(target, "/spec/paused"):
            raise NotApplicableError("the rollout is paused")
        if not caught_up(target):
            raise NotApplicableError("the controller has not seen the newest revision yet")
        current = revision(target)
        known = revisions(target, related.get("ReplicaSet", ()))
        earlier = [(number, one) for number, one in known if current and number < current]
        if not earlier:
            raise NotApplicableError("there is no earlier revision")
        present, intended = at(target, "/spec/template"), template_of(earlier[-1][1])
        found = tuple(differences(present, intended, "/spec/template"))
        if not found:
            raise NotApplicableError("the previous revision has the same pod template")
        if moved := template_guards.moved(at(present, "/spec"), at(intended, "/spec")):
            why = f"the previous revision differs in {moved}, which this action may not change"
            raise NotApplicableError(why)
        return found

    def risk(self, target: Object, parameters: Parameters) -> Risk:
        """Medium: every pod is replaced by what ran before."""
        del target, parameters
        return Risk.MEDIUM

    def blast_radius(self, target: Object, parameters: Parameters) -> str:
        """Say how many pods are replaced."""
        del parameters
        place = f"{at(target, '/metadata/namespace')}/{at(target, '/metadata/name')}"
        number = revision(target)
        return (
            f"All {replicas(target)} pods of Deployment {place} are replaced step by step, "
            f"from revision {number} to the one before."
        )

    def precheck(self, run: Run) -> Report:
        """Answer whether the template and its history are still the plan's."""
        seen = self._fenced(run).look(lambda target: self._deviation(run, target))
        if isinstance(seen, Report):
            return seen
        return Report(Result.AS_PLANNED, f"{run.plan.target} is as planned", {})

    def act(self, run: Run) -> Report:
        """Set the earlier values and the mark in one fenced patch."""
        return self._fenced(run).act(lambda target: self._deviation(run, target))

    def verify(self, run: Run) -> Report:
        """See every pod run the earlier template and the alert over."""
        fenced = self._fenced(run)

        def look() -> Health:
            target = fenced.read()
            if not fenced.holds_intended(target):
                return Health(False, "somebody else changed the pod template", hopeless=True)
            return healthy(target)

        report = verification.watch(run, look, self.deadlines.verify)
        if report.result is Result.VERIFIED:
            _keep(run, fenced)
        return report

    def rollback(self, run: Run) -> Report:
        """Put back the values that act replaced."""
        return self._fenced(run).rollback()

    def _deviation(self, run: Run, target: Object) -> str | None:
        sets = run.cluster.list("apps/v1", "ReplicaSet", run.plan.target.namespace)
        related = {"ReplicaSet": sets}
        return deviation(run.plan, lambda: self.changes(target, related, RolloutUndoParameters()))

    def _fenced(self, run: Run) -> Fenced:
        place = run.plan.target.namespace, run.plan.target.name

        def write(target: Object, values: Values, trace: Trace) -> None:
            text = f"{run.digest}.{trace}"
            run.cluster.patch_deployment(
                target, [*operations(values), *mark.annotating(target, text)]
            )

        return Fenced(
            run=run,
            deadlines=self.deadlines,
            read=lambda: run.cluster.get("apps/v1", "Deployment", *place),
            mark_of=mark.by_annotation,
            write=write,
        )


def _keep(run: Run, fenced: Fenced) -> None:
    """Mark the change as verified, so that later runs may act; as good as it goes."""
    try:
        target = fenced.read()
        if mark.by_annotation(target) == f"{run.digest}.{Trace.ACT}":
            fenced.write(target, (), Trace.KEPT)
    except ClusterError:
        return
