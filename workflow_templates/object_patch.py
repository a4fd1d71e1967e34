"""The acting half of the actions that change fields of one object: one patch, fenced and marked;
a look whether it is well with them; the same patch backwards.

Invariants are those of `fenced`. An action says only what it plans on the object just read, and,
where that is no workload's health, when it is well.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tiphys.policies.model import Change, Object
from tiphys.workflow_templates import mark, verification
from tiphys.workflow_templates.action import Deadlines, Report, Result, Run
from tiphys.workflow_templates.fenced import Fenced, Values, deviation
from tiphys.workflow_templates.mark import Trace
from tiphys.workflow_templates.pointers import operations
from tiphys.workflow_templates.workloads import Health, healthy


@dataclass(frozen=True)
class ObjectPatch:
    """One object, which keeps its identity and may be patched, under one run."""

    run: Run
    deadlines: Deadlines
    plan_on: Callable[[Object], Sequence[Change]]
    """Plan again on the object just read; raises `NotApplicableError`."""
    well: Callable[[Object], Health] = healthy
    """Judge the object as it is with the plan's values."""
    hindrance: Callable[[Object], str | None] = lambda _: None
    """For an undo, which plans nothing again: say why it would not do here now, or None."""

    def precheck(self) -> Report:
        """Answer whether the same would be planned now."""
        seen = self._fenced().look(self._deviation)
        if isinstance(seen, Report):
            return seen
        return Report(Result.AS_PLANNED, f"{self.run.plan.target} is as planned", {})

    def act(self) -> Report:
        """Set the plan's values and the mark."""
        return self._fenced().act(self._deviation)

    def verify(self) -> Report:
        """See the plan's values in place, the object well with them, and the alert over."""
        fenced = self._fenced()

        def look() -> Health:
            target = fenced.read()
            if not fenced.holds_intended(target):
                return Health(False, "somebody else changed what this run changed", hopeless=True)
            return self.well(target)

        report = verification.watch(self.run, look, self.deadlines.verify)
        if report.result is Result.VERIFIED:
            fenced.keep()
        return report

    def rollback(self) -> Report:
        """Put back the values that act replaced."""
        return self._fenced().rollback()

    def _deviation(self, target: Object) -> str | None:
        return deviation(self.run.plan, lambda: self.plan_on(target))

    def _fenced(self) -> Fenced:
        return fenced_patch(self.run, self.deadlines, self.hindrance)


def fenced_patch(
    run: Run, deadlines: Deadlines, hindrance: Callable[[Object], str | None] = lambda _: None
) -> Fenced:
    """Give the plan's target, of which its changes and the mark are written in one patch."""
    target = run.plan.target

    def write(found: Object, values: Values, trace: Trace) -> None:
        text = f"{run.digest}.{trace}"
        patch = [*operations(values), *mark.annotating(found, text)]
        run.cluster.patch(found, patch)

    return Fenced(
        run=run,
        deadlines=deadlines,
        read=lambda: run.cluster.get(
            target.api_version, target.kind, target.namespace, target.name
        ),
        mark_of=mark.by_annotation,
        write=write,
        hindrance=hindrance,
    )
