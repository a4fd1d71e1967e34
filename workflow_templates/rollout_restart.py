"""rollout-restart: replace every pod of a workload by a fresh one, in the workload's own way."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from tiphys.policies.model import Change, Object, Risk
from tiphys.policies.plan import canonical
from tiphys.workflow_templates import template_guards
from tiphys.workflow_templates.action import (
    Action,
    NotApplicableError,
    Parameters,
    Report,
    Right,
    Run,
)
from tiphys.workflow_templates.object_patch import ObjectPatch
from tiphys.workflow_templates.pointers import at, differences
from tiphys.workflow_templates.rollouts import obstacle, turnover

RESTART = "tiphys.io/restart"
"""The annotation of the pod template whose change makes the controller replace the pods."""
_RESOURCES = ("daemonsets", "deployments", "statefulsets")


class RolloutRestartParameters(Parameters):
    """None: the target says it all."""


class RolloutRestart(Action):
    """Changes nothing of what runs, so that the revision before is as good as this one."""

    name = "rollout-restart"
    summary = "Replace all pods of a Deployment, StatefulSet or DaemonSet, step by step."
    kinds = (("apps/v1", "Deployment"), ("apps/v1", "StatefulSet"), ("apps/v1", "DaemonSet"))
    parameters = RolloutRestartParameters
    rights = tuple(Right("apps", resource, ("get", "patch")) for resource in _RESOURCES)
    terms = template_guards.NOTES
    guards = tuple(
        guard
        for resource in _RESOURCES
        for guard in template_guards.annotation_guards(f"apps/{resource}", RESTART)
    )
    reversible = True
    undo = "Put the earlier annotation, or none, back: that is the revision before."

    def changes(
        self, target: Object, related: Mapping[str, Sequence[Object]], parameters: Parameters
    ) -> tuple[Change, ...]:
        """Give the change of one annotation; raises `NotApplicableError`."""
        del related, parameters
        return restart(target)

    def hindrance(self, target: Object, related: Mapping[str, Sequence[Object]]) -> str | None:
        """Say why the earlier pod template would not reach every pod now."""
        del related
        return obstacle(target)

    def risk(self, target: Object, parameters: Parameters) -> Risk:
        """Low; medium where every pod may end before a new one is ready."""
        del parameters
        return Risk.MEDIUM if turnover(target).all_at_once else Risk.LOW

    def blast_radius(self, target: Object, parameters: Parameters) -> str:
        """Say how many pods are replaced and how many may be missing meanwhile."""
        del parameters
        return replaced(target)

    def precheck(self, run: Run) -> Report:
        """Answer whether the pod template is still the plan's and would reach every pod."""
        return self._patch(run).precheck()

    def act(self, run: Run) -> Report:
        """Set the annotation and the mark in one fenced patch."""
        return self._patch(run).act()

    def verify(self, run: Run) -> Report:
        """See every pod replaced and ready, and the alert over."""
        return self._patch(run).verify()

    def rollback(self, run: Run) -> Report:
        """Put the earlier annotation back."""
        return self._patch(run).rollback()

    def _patch(self, run: Run) -> ObjectPatch:
        nothing = RolloutRestartParameters()

        def plan_on(found: Object) -> Sequence[Change]:
            return self.changes(found, {}, nothing)

        return ObjectPatch(run, self.deadlines, plan_on, hindrance=obstacle)


def restart(target: Object) -> tuple[Change, ...]:
    """Give the change that replaces every pod of a workload; raises `NotApplicableError`."""
    if why := obstacle(target):
        raise NotApplicableError(why)
    present = at(target, "/spec/template")
    return tuple(differences(present, _restarted(present), "/spec/template"))


def replaced(target: Object) -> str:
    """Say what that does to the number of pods."""
    place = f"{at(target, '/metadata/namespace')}/{at(target, '/metadata/name')}"
    seen = turnover(target)
    return (
        f"All {seen.pods} pods of {target.get('kind')} {place} are replaced step by step: at "
        f"most {seen.missing} are missing and {seen.surplus} too many at any moment."
    )


def _restarted(template: Any) -> Any:
    """Give the template with a value that it never had: ten letters and digits made from itself.

    Known without a clock, and the same as long as the template is: neither scaling nor a new label
    makes a plan void, a release does. The pods' own `pod-template-hash` says no less.
    """
    fresh = sha256(canonical(template)).hexdigest()[:10]
    meta = template.get("metadata") or {}
    notes = {**(meta.get("annotations") or {}), RESTART: fresh}
    return {**template, "metadata": {**meta, "annotations": notes}}
