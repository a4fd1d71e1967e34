"""scale-gpu-pool: give a pool of GPU machines another size; nothing is evicted for it."""

from collections.abc import Mapping, Sequence
from typing import cast

from pydantic import Field

from tiphys.policies.model import Change, Object, Risk
from tiphys.workflow_templates import mark, node_guards, pool_guards, verification
from tiphys.workflow_templates.action import (
    Action,
    Deadlines,
    Parameters,
    Related,
    Report,
    Result,
    Right,
    Run,
    Scope,
)
from tiphys.workflow_templates.cluster import Gone
from tiphys.workflow_templates.cluster_api import MachineDeployments
from tiphys.workflow_templates.departures import Departures, NotEmptyError
from tiphys.workflow_templates.fenced import Fenced, Values, deviation
from tiphys.workflow_templates.gpu_demand import has_gpus
from tiphys.workflow_templates.mark import Trace
from tiphys.workflow_templates.nodes import UNSCHEDULABLE, name_of, ready
from tiphys.workflow_templates.pointers import at, escape
from tiphys.workflow_templates.pool_sizes import made_since, resized
from tiphys.workflow_templates.pools import Member, PoolKind
from tiphys.workflow_templates.workloads import Health, replicas

_CAPI = MachineDeployments()
KINDS: Mapping[tuple[str, str], PoolKind] = {_CAPI.kind: _CAPI}
"""The kinds of pools that there are adapters for."""
_AROUND = (
    Related("v1", "Node", Scope.CLUSTER),
    Related("v1", "Pod", Scope.CLUSTER),
    Related("v1", "ResourceQuota"),
)
_GROUP = "cluster.x-k8s.io"


class ScaleGpuPoolParameters(Parameters):
    """How many machines there shall be."""

    replicas: int = Field(ge=1, le=1000, strict=True)
    """Absolute, so that doing it twice is doing it once; the pool's owners bound it further."""


class ScaleGpuPool(Action):
    """Writes the size through `scale` alone; before it is lowered, nodes are closed and empty."""

    name = "scale-gpu-pool"
    summary = "Give a pool of GPU machines more of them, or take empty ones away."
    kinds = tuple(KINDS)
    works_on_nodes = True
    parameters = ScaleGpuPoolParameters
    reads = (*_CAPI.reads, *_AROUND)
    rights = (
        Right(_GROUP, "machinedeployments", ("get",)),
        Right(_GROUP, "machinedeployments/scale", ("update",)),
        Right(_GROUP, "machinesets", ("list",)),
        Right(_GROUP, "machines", ("get", "list", "patch")),
        Right("", "resourcequotas", ("list",)),
        Right("", "nodes", ("get", "list", "patch"), Scope.CLUSTER),
        Right("", "pods", ("list",), Scope.CLUSTER),
    )
    terms = node_guards.TERMS
    guards = (
        *pool_guards.GUARDS,
        *(guard for guard in node_guards.GUARDS if guard.resource == node_guards.NODES),
    )
    reversible = True
    undo = "Set the earlier size; machines that came go again once they are closed and empty."
    deadlines = Deadlines(precheck=60, act=120, verify=1200, rollback=300)

    def changes(
        self, target: Object, related: Mapping[str, Sequence[Object]], parameters: Parameters
    ) -> tuple[Change, ...]:
        """Give the size, and of each machine that goes what lets it go."""
        sizes = replicas(target), _wanted(parameters)
        return resized(KINDS[_kind_of(target)], target, related, sizes)

    def risk(self, target: Object, parameters: Parameters) -> Risk:
        """High: machines cost, and what is taken away may not be had again."""
        del target, parameters
        return Risk.HIGH

    def blast_radius(self, target: Object, parameters: Parameters) -> str:
        """Say from how many to how many."""
        wanted, present = _wanted(parameters), replicas(target)
        place = f"{at(target, '/metadata/namespace')}/{name_of(target)}"
        what = "are started, and cost" if wanted > present else "on which nothing runs go"
        return (
            f"{target.get('kind')} {place} goes from {present} to {wanted} machines: "
            f"{abs(wanted - present)} {what}."
        )

    def precheck(self, run: Run) -> Report:
        """Answer whether the pool is as planned, and the reason to change it still there."""
        seen = self._fenced(run).look(lambda pool: self._deviation(run, pool))
        if isinstance(seen, Report):
            return seen
        return Report(Result.AS_PLANNED, f"{run.plan.target} is as planned", {})

    def act(self, run: Run) -> Report:
        """Let the planned machines go, if any, then set the size of exactly what was read."""
        try:
            return self._fenced(run).act(lambda pool: self._deviation(run, pool))
        except NotEmptyError as error:
            return Report(Result.CRASHED, f"the size was not changed: {error}", {})

    def verify(self, run: Run) -> Report:
        """See the pool whole at its new size, each node ready with its GPUs, the alert over."""
        fenced = self._fenced(run)

        def look() -> Health:
            pool = fenced.read()
            if not fenced.holds_intended(pool):
                return Health(False, "somebody else changed the size", hopeless=True)
            return self._whole(run, pool)

        return verification.watch(run, look, self.deadlines.verify)

    def rollback(self, run: Run) -> Report:
        """Set the earlier size, if this run's is there, and open what it had closed."""
        report = self._fenced(run).rollback()
        if report.result not in {Result.UNDONE, Result.NOTHING_CHANGED}:
            return report
        opened = Departures(run, _of(run)).release(_planned(run, self._related(run)))
        if not opened:
            return report
        said = f"{report.message}; what was closed is open again"
        return Report(Result.UNDONE, said, {**report.observed, "opened": opened})

    # --- inside -----------------------------------------------------------------------------------

    def _whole(self, run: Run, pool: Object) -> Health:
        kind = _of(run)
        if why := kind.refusal(pool):
            return Health(False, why)
        related = self._related(run)
        members = kind.members(pool, related)
        if isinstance(members, str):
            return Health(False, members)
        if _planned(run, related):
            return Health(False, "machines that were to go are still there")
        for one in members:
            node = one.node or {}
            if not ready(node):
                return Health(False, f"machine {one.name} has no ready node")
            if not has_gpus(node):
                return Health(False, f"node {name_of(node)} does not offer its GPUs yet")
        return Health(True, f"{len(members)} machines are ready with their GPUs")

    def _related(self, run: Run) -> dict[str, Sequence[Object]]:
        space = run.plan.target.namespace
        return {
            one.kind: run.cluster.list(one.api_version, one.kind, one.place(space))
            for one in self.reads
        }

    def _deviation(self, run: Run, pool: Object) -> str | None:
        """Plan again, as if this run had not closed anything yet."""
        wanted = ScaleGpuPoolParameters.model_validate(run.plan.parameters)
        ours, related = Departures(run, _of(run)).ours, self._related(run)
        for kind in ("Node", "Machine"):
            related[kind] = [_before(one, run) if ours(one) else one for one in related[kind]]
        return deviation(run.plan, lambda: self.changes(pool, related, wanted))

    def _fenced(self, run: Run) -> Fenced:
        """Fence the pool alone: machines and nodes are no fields of it."""
        target = run.plan.target

        def read() -> Object:
            version, kind = target.api_version, target.kind
            return run.cluster.get(version, kind, target.namespace, target.name)

        def write(pool: Object, values: Values, trace: Trace) -> None:
            ((_, before, after),) = values
            if cast("int", after) < cast("int", before):
                self._let_go(run, pool, cast("int", after), trace)
            ending = "" if trace is Trace.ACT else f".{trace}"
            run.cluster.put_scale(pool, cast("int", after), ending)

        return Fenced(run, self.deadlines, read, mark.by_manager, write)

    def _let_go(self, run: Run, pool: Object, size: int, trace: Trace) -> None:
        """Prepare the planned machines, or to put a size back those that came by it."""
        kind, related = _of(run), self._related(run)
        if trace is Trace.ACT:
            Departures(run, kind).prepare(_planned(run, related), lambda: _door_open(run))
            return
        members = kind.members(pool, related)
        if isinstance(members, str):
            raise NotEmptyError(members)
        surplus = max(0, len(members) - size)
        undone = str(run.plan.undoes).removeprefix("tiphys-")
        came = made_since(members, _claimed_at(run, undone if trace is Trace.BACK else run.digest))
        if len(came) < surplus:
            raise NotEmptyError("which machines came by this run cannot be told")
        going = came[len(came) - surplus :] if surplus else []
        anytime = trace is not Trace.BACK
        Departures(run, kind).prepare(going, lambda: None if anytime else _door_open(run))


def _wanted(parameters: Parameters) -> int:
    return cast("ScaleGpuPoolParameters", parameters).replicas


def _kind_of(pool: Object) -> tuple[str, str]:
    return str(pool.get("apiVersion")), str(pool.get("kind"))


def _of(run: Run) -> PoolKind:
    return KINDS[run.plan.target.api_version, run.plan.target.kind]


def _planned(run: Run, related: Mapping[str, Sequence[Object]]) -> list[Member]:
    """Give the planned machines that are still there, each with the planned node."""
    named = {change.of.uid for change in run.plan.changes if change.of}
    machines, nodes = (
        [one for one in related.get(kind, ()) if at(one, "/metadata/uid") in named]
        for kind in ("Machine", "Node")
    )
    of = {at(node, "/metadata/name"): node for node in nodes}
    return [Member(one, of.get(at(one, "/status/nodeRef/name"))) for one in machines]


def _before(obj: Object, run: Run) -> Object:
    """Give an object as it was before this run closed or marked it."""
    paths = {c.path for c in run.plan.changes if c.of and c.of.uid == at(obj, "/metadata/uid")}
    if UNSCHEDULABLE in paths:
        spec = cast("dict[str, object]", obj["spec"])
        kept = {k: v for k, v in spec.items() if k != "unschedulable"}
        return cast("Object", {**obj, "spec": kept})
    meta = cast("dict[str, object]", obj["metadata"])
    notes = {
        k: v
        for k, v in cast("dict[str, object]", meta.get("annotations") or {}).items()
        if f"/metadata/annotations/{escape(k)}" not in paths
    }
    return cast("Object", {**obj, "metadata": {**meta, "annotations": notes}})


def _door_open(run: Run) -> None:
    """Raise once this run is to act no more: letting machines go takes longer than one write."""
    if mark.found(run, run.digest, Trace.UNDONE) or run.now() >= run.not_after:
        raise NotEmptyError("this run was ended")


def _claimed_at(run: Run, digest: str) -> str:
    """Give when a run claimed the pool, by the API server's clock."""
    name = f"tiphys-{digest}.{Trace.ACT}"
    try:
        claim = run.cluster.get("v1", "Event", run.plan.target.namespace, name)
    except Gone:
        raise NotEmptyError("when the machines came is no longer known") from None
    return str(at(claim, "/metadata/creationTimestamp"))
