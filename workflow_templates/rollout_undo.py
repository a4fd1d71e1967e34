"""rollout-undo: give a Deployment the pod template of its previous revision."""

from collections.abc import Mapping, Sequence

from tiphys.policies.model import Change, Object, Risk
from tiphys.workflow_templates import template_guards
from tiphys.workflow_templates.action import (
    Action,
    NotApplicableError,
    Parameters,
    Related,
    Report,
    Right,
    Run,
)
from tiphys.workflow_templates.object_patch import ObjectPatch
from tiphys.workflow_templates.pointers import at, differences
from tiphys.workflow_templates.rollouts import obstacle
from tiphys.workflow_templates.workloads import (
    caught_up,
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

    def hindrance(self, target: Object, related: Mapping[str, Sequence[Object]]) -> str | None:
        """Say why the earlier pod template would not reach every pod now."""
        del related
        return obstacle(target)

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
        return self._patch(run).precheck()

    def act(self, run: Run) -> Report:
        """Set the earlier values and the mark in one fenced patch."""
        return self._patch(run).act()

    def verify(self, run: Run) -> Report:
        """See every pod run the earlier template and the alert over."""
        return self._patch(run).verify()

    def rollback(self, run: Run) -> Report:
        """Put back the values that act replaced."""
        return self._patch(run).rollback()

    def _patch(self, run: Run) -> ObjectPatch:
        def plan_on(target: Object) -> Sequence[Change]:
            sets = run.cluster.list("apps/v1", "ReplicaSet", run.plan.target.namespace)
            return self.changes(target, {"ReplicaSet": sets}, RolloutUndoParameters())

        return ObjectPatch(run, self.deadlines, plan_on, hindrance=obstacle)
