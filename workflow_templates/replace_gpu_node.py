"""replace-gpu-node: drain a GPU node whose GPU needs another machine, and have its pool make one.

Its undo ends where the machine is deleted: until then the node is opened again, after that there is
nothing to put back. An Event of the run says before the deletion that it is about to be.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta

from pydantic import Field

from tiphys.policies.model import Change, Object, Risk
from tiphys.policies.xid import RECOVERY_ACTION_CHANGED, Recovery, Remedy, remedy_for
from tiphys.workflow_templates import draining, machine_guards, mark, verification
from tiphys.workflow_templates import machine_replacement as machines
from tiphys.workflow_templates.action import (
    Action,
    Deadlines,
    NotApplicableError,
    Parameters,
    Report,
    Result,
    Run,
)
from tiphys.workflow_templates.cluster import (
    REQUEST_SECONDS,
    Conflict,
    Gone,
    Unreachable,
)
from tiphys.workflow_templates.cordon_drain_node import patch_of, unfit
from tiphys.workflow_templates.draining import NODE, Draining, InterruptedDrainError
from tiphys.workflow_templates.evictable import on_node
from tiphys.workflow_templates.fenced import PAUSE_SECONDS, Fenced, Values, deviation
from tiphys.workflow_templates.mark import Standing, Trace
from tiphys.workflow_templates.nodes import UNSCHEDULABLE, cordoned, name_of
from tiphys.workflow_templates.pointers import at
from tiphys.workflow_templates.workloads import Health


class ReplaceGpuNodeParameters(Parameters):
    """Which GPU it is for, and the Xids that ask for it; without Xids a human has to ask."""

    device: str = Field(default="", max_length=100, pattern=r"^[0-9A-Za-z:._/-]*$")
    xids: tuple[int, ...] = Field(default=(), max_length=20)


class ReplaceGpuNode(Action):
    """Closes the node, evicts the planned pods, then deletes exactly the planned Machine."""

    name = "replace-gpu-node"
    summary = "Drain a GPU node and delete its machine, so that its pool makes another."
    kinds = (NODE,)
    works_on_nodes = True
    parameters = ReplaceGpuNodeParameters
    reads = (*draining.READS, *machines.READS)
    rights = (*draining.RIGHTS, *machines.RIGHTS)
    terms = machine_guards.TERMS
    guards = machine_guards.GUARDS
    reversible = False
    undo = (
        "The node is opened again as long as its machine is not deleted; a machine that is deleted "
        "cannot be brought back, and its pool makes another."
    )
    deadlines = Deadlines(precheck=60, act=600, verify=1500, rollback=120)

    def changes(
        self, target: Object, related: Mapping[str, Sequence[Object]], parameters: Parameters
    ) -> tuple[Change, ...]:
        """Name the field, each pod and the machine; `NotApplicableError` where one must not go."""
        assert isinstance(parameters, ReplaceGpuNodeParameters)
        if why := _not_asked_for(parameters) or unfit(_as_opened(target)):
            raise NotApplicableError(why)
        close: tuple[Change, ...] = ()
        if not cordoned(target):
            close = (Change(path=UNSCHEDULABLE, present=None, intended=True),)
        gone = machines.departure(target, related)
        return (*close, *draining.evictions(target, related), gone)

    def risk(self, target: Object, parameters: Parameters) -> Risk:
        """High: a machine that is deleted does not come back."""
        del target, parameters
        return Risk.HIGH

    def blast_radius(self, target: Object, parameters: Parameters) -> str:
        """Name the node and its GPUs; the plan names the pods and the machine."""
        del parameters
        return (
            f"Node {name_of(target)} with {machines.gpus(target)} GPUs goes for good with "
            "everything on its disks; each pod that the plan names ends once and starts elsewhere. "
            "Until its pool has made another machine, those GPUs are missing."
        )

    # --- the steps ------------------------------------------------------------------------------

    def precheck(self, run: Run) -> Report:
        """Answer whether node, pods, machine and pool are as the plan says."""
        if done := self._started_twice(run):
            return done
        seen = self._fenced(run).look(lambda node: self._deviation(run, node))
        if isinstance(seen, Report):
            return seen
        return Report(
            Result.AS_PLANNED, f"{run.plan.target}, its pods and machine are as planned", {}
        )

    def act(self, run: Run) -> Report:
        """Close, evict, then delete the machine; a second time goes on where it was left."""
        if done := self._started_twice(run):
            return done
        closed = self._fenced(run).act(lambda node: self._deviation(run, node))
        if closed.result not in {Result.ACTED, Result.ALREADY_DONE}:
            return self._started_twice(run) or closed
        until = run.now() + timedelta(seconds=self.deadlines.act)
        try:
            drained = Draining(run, self.deadlines.act).act()
            while run.now() < until:
                if self._delete(run):
                    mark.tell(run, "Replaced", f"tiphys-{run.digest}: deleted {_machine(run).of}")
                    said = f"{drained.message}; deleted {_machine(run).of}"
                    return Report(Result.ACTED, said, drained.observed)
                run.sleep(PAUSE_SECONDS)
        except InterruptedDrainError as error:
            crashed = Report(Result.CRASHED, f"closed, but not replaced: {error}", {})
            return self._started_twice(run) or crashed
        return Report(Result.CRASHED, "closed, but its pods have not ended in time", {})

    def _started_twice(self, run: Run) -> Report | None:
        """Say so where this very run, started a second time, has come to the end meanwhile."""
        if not self._committed(run):
            return None
        return Report(Result.ALREADY_DONE, "this run has deleted the machine before", {})

    def verify(self, run: Run) -> Report:
        """See the pool whole without the machine, every GPU there, the pods at home elsewhere."""

        def look() -> Health:
            pool = machines.whole_again(_machine(run), run.plan.target.name, self._around(run))
            return pool if not pool.ok else _both(pool, draining.emptied(run))

        return verification.watch(run, look, self.deadlines.verify)

    def rollback(self, run: Run) -> Report:
        """Open the node again while its machine is there; say so where it is not."""
        mark.close_door(run)
        settled = run.now() + timedelta(seconds=REQUEST_SECONDS + 1)
        committed = mark.found(run, run.digest, Trace.ENDS)
        # An act that passed the door just before may still have one request under way.
        while committed and not self._leaves(run) and run.now() < settled:
            run.sleep(PAUSE_SECONDS)
        if not self._leaves(run):
            return self._fenced(run).rollback()
        if committed:
            said = f"{_machine(run).of} was deleted and cannot be brought back: see its pool"
            return Report(Result.NOTHING_TO_RESTORE, said, {})
        if self._ours(run):
            said = f"somebody else deletes {_machine(run).of}: the node stays closed"
            return Report(Result.NOT_OURS, said, {})
        return Report(Result.NOTHING_CHANGED, "this run changed nothing", {})

    # --- inside ---------------------------------------------------------------------------------

    def _delete(self, run: Run) -> bool:
        """Delete the machine once the planned pods have ended; True when it is on its way out."""
        if self._leaves(run):
            if not mark.found(run, run.digest, Trace.ENDS):
                raise InterruptedDrainError("somebody else deletes its machine")
            return True
        node = run.cluster.get(*NODE, "", run.plan.target.name)
        if why := self._unready(run, node):
            raise InterruptedDrainError(why)
        pods = run.cluster.list("v1", "Pod", "", f"spec.nodeName={name_of(node)}")
        if on_node(pods, name_of(node)):
            raise InterruptedDrainError("a pod is there, which the plan does not name")
        wanted = {pod.uid for pod in draining.planned(run)}
        if any(at(pod, "/metadata/uid") in wanted for pod in pods):
            return False
        if not mark.commit(run):
            raise InterruptedDrainError("rollback of this run has begun")
        machine = _machine(run).of
        assert machine is not None
        try:
            run.cluster.delete_machine(machine)
        except (Conflict, Gone, Unreachable):
            return False
        return True

    def _unready(self, run: Run, node: Object) -> str | None:
        """Say why the machine must not be deleted just now, or None."""
        if mark.by_annotation(node) != f"{run.digest}.{Trace.ACT}" or not cordoned(node):
            return "the node is not closed by this run any more"
        try:
            now = machines.departure(node, self._around(run))
        except NotApplicableError as error:
            return str(error)
        if now != _machine(run):
            return "the machine is not as planned any more"
        return "notAfter has passed" if run.now() >= run.not_after else None

    def _leaves(self, run: Run) -> bool:
        """Whether the planned machine is gone, or about to."""
        machine = _machine(run).of
        assert machine is not None
        try:
            found = run.cluster.get(
                machine.api_version, machine.kind, machine.namespace, machine.name
            )
        except Gone:
            return True
        other = at(found, "/metadata/uid") != machine.uid
        return other or bool(at(found, "/metadata/deletionTimestamp"))

    def _committed(self, run: Run) -> bool:
        return mark.found(run, run.digest, Trace.ENDS) and self._leaves(run)

    def _ours(self, run: Run) -> bool:
        """Whether this run has closed the node, which may be gone."""
        if not mark.found(run, run.digest, Trace.ACT):
            return False
        try:
            node = run.cluster.get(*NODE, "", run.plan.target.name)
        except Gone:
            return True
        return mark.standing(run, node, mark.by_annotation(node)) is not Standing.UNTOUCHED

    def _around(self, run: Run) -> Mapping[str, Sequence[Object]]:
        """Read the pool, where the machine is, and the nodes."""
        machine, cluster = _machine(run).of, run.cluster
        space = machine.namespace if machine else ""
        kinds = (machines.POOL, machines.SET, machines.MACHINE, machines.QUOTA)
        found = {kind[1]: cluster.list(*kind, space) for kind in kinds}
        wide = {kind: cluster.list("v1", kind, "") for kind in ("Node", "Namespace")}
        return {**found, **wide}

    def _fenced(self, run: Run) -> Fenced:
        """Fence the node alone: pods and machine are no fields of it."""
        target = run.plan.target

        def read() -> Object:
            return run.cluster.get(*NODE, "", target.name)

        def write(node: Object, values: Values, trace: Trace) -> None:
            run.cluster.patch_node(node, patch_of(node, values, f"{run.digest}.{trace}"))

        return Fenced(run, self.deadlines, read, mark.by_annotation, write)

    def _deviation(self, run: Run, node: Object) -> str | None:
        parameters = ReplaceGpuNodeParameters.model_validate(run.plan.parameters)
        if not parameters.xids and run.plan.decided_by.reasoner != "human":
            return "no Xid asks for it, and no human does"
        related = {**draining.surroundings(run), **self._around(run)}
        return deviation(run.plan, lambda: self.changes(node, related, parameters))


def _machine(run: Run) -> Change:
    """Give the end of the machine that the plan names."""
    [found] = [c for c in run.plan.changes if c.of is not None and c.of.kind == "Machine"]
    return found


def _not_asked_for(parameters: ReplaceGpuNodeParameters) -> str | None:
    """Say why the Xids do not ask for another machine, or None; without any a human does."""
    asked = {code: _remedy(code) for code in parameters.xids}
    if not asked or set(asked.values()) == {Remedy.REPLACE_NODE}:
        return None
    words = ", ".join(f"Xid {c}: {r.name.lower().replace('_', ' ')}" for c, r in asked.items())
    return f"the table does not ask for another machine ({words})"


def _remedy(code: int) -> Remedy:
    """Give what a code asks for; 154 under the text with which it asks for the most."""
    return remedy_for(code, Recovery.NODE_REBOOT if code == RECOVERY_ACTION_CHANGED else None)


def _as_opened(node: Object) -> Object:
    """Give a node that an earlier run has drained as if it were open: a stronger remedy goes on.

    Whether that run has ended is judged by its mark.
    """
    ending = mark.by_annotation(node).rpartition(".")[2]
    if ending not in mark.LEFT:
        return node
    spec = node.get("spec")
    kept = spec if isinstance(spec, dict) else {}
    return {**node, "spec": {k: v for k, v in kept.items() if k != "unschedulable"}}


def _both(one: Health, other: Health) -> Health:
    sentence = f"{one.sentence}; {other.sentence}"
    return Health(one.ok and other.ok, sentence, one.hopeless or other.hopeless)
