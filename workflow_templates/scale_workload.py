"""scale-workload: set the replicas of a Deployment or a StatefulSet to an absolute number."""

from collections.abc import Mapping, Sequence
from typing import cast

from pydantic import Field

from tiphys.policies.model import Change, Object, Risk
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
from tiphys.workflow_templates.fenced import Fenced, Values, deviation
from tiphys.workflow_templates.mark import Trace
from tiphys.workflow_templates.pointers import at
from tiphys.workflow_templates.workloads import (
    Health,
    autoscaler_of,
    healthy,
    replicas,
    rolling_out,
)

_AUTOSCALER = Related("autoscaling/v2", "HorizontalPodAutoscaler")


_SCALES = ("apps/deployments/scale", "apps/statefulsets/scale")
_MOST = 100
"""Replicas, for what the action intends; what was there before may be more."""


class ScaleWorkloadParameters(Parameters):
    """How many replicas there shall be."""

    replicas: int = Field(ge=0, le=_MOST, strict=True)
    """Absolute, so that doing it twice is doing it once."""


class ScaleWorkload(Action):
    """Writes through the `scale` subresource alone."""

    name = "scale-workload"
    summary = "Set the replicas of a Deployment or StatefulSet."
    kinds = (("apps/v1", "Deployment"), ("apps/v1", "StatefulSet"))
    parameters = ScaleWorkloadParameters
    reads = (_AUTOSCALER,)
    rights = (
        Right("apps", "deployments", ("get",)),
        Right("apps", "statefulsets", ("get",)),
        Right("apps", "deployments/scale", ("update",)),
        Right("apps", "statefulsets/scale", ("update",)),
        Right("autoscaling", "horizontalpodautoscalers", ("list",)),
    )
    guards = tuple(
        guard
        for scale in _SCALES
        for guard in (
            Guard(
                scale,
                """has(request.options.fieldManager)
                   && request.options.fieldManager in [variables.run, variables.run + '.undone',
                   variables.run + '.back']""",
                "the field manager is the run: it is the mark of who set the replicas",
            ),
            Guard(
                scale,
                f"""object.spec.replicas <= {_MOST}
                    || request.options.fieldManager != variables.run""",
                f"at most {_MOST} replicas, unless put back",
            ),
        )
    )
    reversible = True
    undo = "Set the earlier number of replicas."

    def changes(
        self, target: Object, related: Mapping[str, Sequence[Object]], parameters: Parameters
    ) -> tuple[Change, ...]:
        """Give the change of `spec.replicas`; refuses under an autoscaler and in a rollout."""
        wanted, present = _wanted(parameters), replicas(target)
        if why := self.hindrance(target, related):
            raise NotApplicableError(why)
        if wanted == present:
            raise NotApplicableError(f"there are {present} replicas already")
        return (Change(path="/spec/replicas", present=present, intended=wanted),)

    def hindrance(self, target: Object, related: Mapping[str, Sequence[Object]]) -> str | None:
        """Name an autoscaler that has come to own the replicas, or a rollout."""
        owner = autoscaler_of(target, related.get(_AUTOSCALER.kind, ()))
        if owner:
            return f"HorizontalPodAutoscaler {owner} owns the replicas"
        return rolling_out(target)

    def risk(self, target: Object, parameters: Parameters) -> Risk:
        """Low up to half as many again, high below half, else medium."""
        wanted, present = _wanted(parameters), replicas(target)
        if present < wanted <= present * 1.5:
            return Risk.LOW
        return Risk.HIGH if wanted < present / 2 else Risk.MEDIUM

    def blast_radius(self, target: Object, parameters: Parameters) -> str:
        """Say from how many to how many."""
        wanted, present = _wanted(parameters), replicas(target)
        place = f"{at(target, '/metadata/namespace')}/{at(target, '/metadata/name')}"
        verb = "start" if wanted > present else "end"
        return (
            f"{target.get('kind')} {place} goes from {present} to {wanted} replicas: "
            f"{abs(wanted - present)} pods {verb}."
        )

    def precheck(self, run: Run) -> Report:
        """Answer whether the replicas are still the plan's and nobody else steers them."""
        seen = self._fenced(run).look(lambda target: self._deviation(run, target))
        if isinstance(seen, Report):
            return seen
        return Report(Result.AS_PLANNED, f"{run.plan.target} is as planned", {})

    def act(self, run: Run) -> Report:
        """Set the replicas of exactly the object that was read; the field manager is the mark."""
        return self._fenced(run).act(lambda target: self._deviation(run, target))

    def verify(self, run: Run) -> Report:
        """See every replica ready and the alert over."""
        fenced = self._fenced(run)

        def look() -> Health:
            target = fenced.read()
            if not fenced.holds_intended(target):
                return Health(False, "somebody else changed the replicas", hopeless=True)
            return healthy(target)

        return verification.watch(run, look, self.deadlines.verify)

    def rollback(self, run: Run) -> Report:
        """Set the earlier number again, if this run's is still there."""
        return self._fenced(run).rollback()

    def _deviation(self, run: Run, target: Object) -> str | None:
        wanted = ScaleWorkloadParameters.model_validate(run.plan.parameters)
        return deviation(run.plan, lambda: self.changes(target, _scalers(run), wanted))

    def _fenced(self, run: Run) -> Fenced:
        target = run.plan.target

        def write(workload: Object, values: Values, trace: Trace) -> None:
            ((_, _, number),) = values
            ending = "" if trace is Trace.ACT else f".{trace}"
            run.cluster.put_scale(workload, cast("int", number), ending)

        return Fenced(
            run=run,
            deadlines=self.deadlines,
            read=lambda: run.cluster.get("apps/v1", target.kind, target.namespace, target.name),
            mark_of=mark.by_manager,
            write=write,
            hindrance=lambda target: self.hindrance(target, _scalers(run)),
        )


def _scalers(run: Run) -> Mapping[str, Sequence[Object]]:
    kind, version = _AUTOSCALER.kind, _AUTOSCALER.api_version
    return {kind: run.cluster.list(version, kind, run.plan.target.namespace)}


def _wanted(parameters: Parameters) -> int:
    return cast("ScaleWorkloadParameters", parameters).replicas
