"""cordon-drain-node: close a node for new pods and move its pods to the others."""

from collections.abc import Mapping, Sequence

from tiphys.policies.model import Change, Json, Object, Risk
from tiphys.workflow_templates import draining, mark, node_guards, verification
from tiphys.workflow_templates.action import (
    Action,
    Deadlines,
    NotApplicableError,
    Parameters,
    Report,
    Result,
    Run,
)
from tiphys.workflow_templates.draining import NODE, Draining, InterruptedDrainError
from tiphys.workflow_templates.fenced import Fenced, Values, deviation
from tiphys.workflow_templates.mark import Trace
from tiphys.workflow_templates.nodes import (
    UNSCHEDULABLE,
    bears_control_plane,
    cordoned,
    name_of,
    opted_in,
    ready,
)
from tiphys.workflow_templates.pointers import at, operations
from tiphys.workflow_templates.workloads import Health


class CordonDrainNodeParameters(Parameters):
    """None: the plan lists each pod that goes."""


class CordonDrainNode(Action):
    """Sets `spec.unschedulable`, then evicts exactly the planned pods as their budgets allow."""

    name = "cordon-drain-node"
    summary = "Close a node for new pods and evict those that are there, as their budgets allow."
    kinds = (NODE,)
    works_on_nodes = True
    parameters = CordonDrainNodeParameters
    reads = draining.READS
    rights = draining.RIGHTS
    terms = node_guards.TERMS
    guards = node_guards.GUARDS
    reversible = True
    undo = "The node is opened again; the pods stay where their owners have started new ones."
    deadlines = Deadlines(precheck=60, act=300, verify=300, rollback=120)

    def changes(
        self, target: Object, related: Mapping[str, Sequence[Object]], parameters: Parameters
    ) -> tuple[Change, ...]:
        """Name the field and each pod; raises `NotApplicableError` where one must not go."""
        del parameters
        if why := unfit(target):
            raise NotApplicableError(why)
        close = Change(path=UNSCHEDULABLE, present=at(target, UNSCHEDULABLE), intended=True)
        return (close, *draining.evictions(target, related))

    def risk(self, target: Object, parameters: Parameters) -> Risk:
        """High: it ends every process of a node that can be moved."""
        del target, parameters
        return Risk.HIGH

    def blast_radius(self, target: Object, parameters: Parameters) -> str:
        """Name the node; the plan names the pods."""
        del parameters
        return (
            f"Node {name_of(target)} takes no new pods, and each pod that the plan names ends once "
            "and starts on another node; what it kept in empty folders is lost."
        )

    def precheck(self, run: Run) -> Report:
        """Answer whether the node and exactly the planned pods are as the plan says."""
        seen = self._fenced(run).look(lambda node: self._deviation(run, node))
        if isinstance(seen, Report):
            return seen
        return Report(Result.AS_PLANNED, f"{run.plan.target} and its pods are as planned", {})

    def act(self, run: Run) -> Report:
        """Close the node with a fence, then evict; a second time goes on where it was left."""
        closed = self._fenced(run).act(lambda node: self._deviation(run, node))
        if closed.result not in {Result.ACTED, Result.ALREADY_DONE}:
            return closed
        try:
            drained = Draining(run, self.deadlines.act).act()
        except InterruptedDrainError as error:
            return Report(Result.CRASHED, f"closed, but not drained: {error}", {})
        acted = Result.ACTED in {closed.result, drained.result}
        said = f"{closed.message}; {drained.message}"
        return Report(Result.ACTED if acted else Result.ALREADY_DONE, said, drained.observed)

    def verify(self, run: Run) -> Report:
        """See the planned pods gone, their owners whole, the node still closed, the alert over."""
        fenced = self._fenced(run)

        def look() -> Health:
            if not fenced.holds_intended(fenced.read()):
                return Health(False, "somebody has opened or closed the node since", hopeless=True)
            if run.plan.undoes:
                return Health(True, "the node takes pods again")
            return draining.emptied(run)

        report = verification.watch(run, look, self.deadlines.verify)
        if report.result is Result.VERIFIED:
            fenced.keep()
        return report

    def rollback(self, run: Run) -> Report:
        """Open the node again if this run closed it; what was evicted stays where it is now."""
        report = self._fenced(run).rollback()
        if report.result is not Result.UNDONE or not draining.planned(run):
            return report
        said = f"{report.message}; pods that were evicted are not brought back"
        return Report(report.result, said, report.observed)

    def _fenced(self, run: Run) -> Fenced:
        """Fence the node alone: its pods are no fields of it."""
        target = run.plan.target

        def read() -> Object:
            return run.cluster.get(*NODE, "", target.name)

        def write(node: Object, values: Values, trace: Trace) -> None:
            run.cluster.patch_node(node, patch_of(node, values, f"{run.digest}.{trace}"))

        return Fenced(run, self.deadlines, read, mark.by_annotation, write)

    def _deviation(self, run: Run, node: Object) -> str | None:
        parameters = CordonDrainNodeParameters()
        return deviation(
            run.plan, lambda: self.changes(node, draining.surroundings(run), parameters)
        )


def unfit(node: Object) -> str | None:
    """Say why a node is not to be closed, or None."""
    if not opted_in(node):
        return "the node did not opt in"
    if bears_control_plane(node):
        return "the node bears the control plane"
    if cordoned(node):
        return "somebody has closed the node already"
    if not ready(node):
        return "the node's kubelet does not answer: nobody would see its pods end"
    if at(node, "/metadata/deletionTimestamp"):
        return "the node is being removed"
    return None


def patch_of(node: Object, values: Values, text: str) -> list[Json]:
    """Give the JSON patch that changes a node as it was read, and leaves the mark.

    Its tests are of the values and the mark, not of the resourceVersion, which moves whenever the
    kubelet reports.
    """
    tests: list[Json] = [{"op": "test", "path": path, "value": old} for path, old, _ in values]
    if at(node, "/metadata/annotations") is None:
        tests.append({"op": "test", "path": "/metadata/annotations", "value": None})
    else:
        tests.append({"op": "test", "path": mark.POINTER, "value": at(node, mark.POINTER)})
    return [*tests, *operations(values), *mark.annotating(node, text)]
