"""The acting half of the actions that change a workload's pod template: one patch, fenced and
marked; healthy pods of the new template; the same patch backwards.

Invariants are those of `fenced`. An action says only what it plans on the object just read.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tiphys.policies.model import Change, Object
from tiphys.workflow_templates import mark, verification
from tiphys.workflow_templates.action import Deadlines, Report, Result, Run
from tiphys.workflow_templates.cluster import ClusterError
from tiphys.workflow_templates.fenced import Fenced, Values, deviation
from tiphys.workflow_templates.mark import Trace
from tiphys.workflow_templates.pointers import operations
from tiphys.workflow_templates.workloads import Health, healthy


@dataclass(frozen=True)
class TemplatePatch:
    """One Deployment, StatefulSet or DaemonSet under one run."""

    run: Run
    deadlines: Deadlines
    plan_on: Callable[[Object], Sequence[Change]]
    """Plan again on the object just read; raises `NotApplicableError`."""

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
        """See every pod run the new template and ready, and the alert over."""
        fenced = self._fenced()

        def look() -> Health:
            target = fenced.read()
            if not fenced.holds_intended(target):
                return Health(False, "somebody else changed the pod template", hopeless=True)
            return healthy(target)

        report = verification.watch(self.run, look, self.deadlines.verify)
        if report.result is Result.VERIFIED:
            self._keep(fenced)
        return report

    def rollback(self) -> Report:
        """Put back the values that act replaced."""
        return self._fenced().rollback()

    def _deviation(self, target: Object) -> str | None:
        return deviation(self.run.plan, lambda: self.plan_on(target))

    def _fenced(self) -> Fenced:
        run, target = self.run, self.run.plan.target

        def write(workload: Object, values: Values, trace: Trace) -> None:
            text = f"{run.digest}.{trace}"
            patch = [*operations(values), *mark.annotating(workload, text)]
            run.cluster.patch_workload(workload, patch)

        return Fenced(
            run=run,
            deadlines=self.deadlines,
            read=lambda: run.cluster.get("apps/v1", target.kind, target.namespace, target.name),
            mark_of=mark.by_annotation,
            write=write,
        )

    def _keep(self, fenced: Fenced) -> None:
        """Mark the change as verified, so that later runs may act; as good as it goes."""
        try:
            target = fenced.read()
            if mark.by_annotation(target) == f"{self.run.digest}.{Trace.ACT}":
                fenced.write(target, (), Trace.KEPT)
        except ClusterError:
            return
