"""Letting machines of a pool go: their nodes are closed, seen empty, and they are made the first.

Nothing is evicted. A node that is not empty once it is closed keeps its machine: what this run
closed is opened again. So no job ends because a pool gets smaller.
Invariant: the pool's size is lowered only while as many of its machines are marked here as go.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tiphys.policies.model import Json, Object
from tiphys.workflow_templates import mark
from tiphys.workflow_templates.action import Run
from tiphys.workflow_templates.cluster import ClusterError, Conflict, Gone
from tiphys.workflow_templates.gpu_demand import busy
from tiphys.workflow_templates.mark import Trace
from tiphys.workflow_templates.nodes import UNSCHEDULABLE, cordoned, name_of
from tiphys.workflow_templates.pointers import at
from tiphys.workflow_templates.pools import Member, PoolKind

NODE, POD = ("v1", "Node"), ("v1", "Pod")
_BINDING_SECONDS = 2.0
"""How long a scheduler may still bind a pod to a node that it saw open."""
_TRIES = 5


class NotEmptyError(ClusterError):
    """A machine that was to go runs something; the message says what."""


@dataclass(frozen=True)
class Departures:
    """The machines that one run lets go."""

    run: Run
    kind: PoolKind

    def prepare(self, members: Sequence[Member], go_on: Callable[[], None]) -> None:
        """Close, look, mark; raises `NotEmptyError` with everything opened again.

        `go_on` is asked before each write, and once more in the end; it raises when it must stop.
        """
        for member in members:
            if member.node is not None:
                go_on()
                self._again(self._close, member)
        self.run.sleep(_BINDING_SECONDS if members else 0)
        pods = self.run.cluster.list(*POD, "")
        for member in members:
            found = busy(member.node, pods) if member.node is not None else []
            if found:
                self.release(members)
                where, what = name_of(found[0]), name_of(member.node or {})
                raise NotEmptyError(f"pod {where} runs on node {what}: nothing is evicted")
        for member in members:
            go_on()
            self._again(self._mark, member)
        go_on()

    def release(self, members: Sequence[Member]) -> int:
        """Take back what this run did to machines that are still there; give how many it was."""
        count = 0
        for member in members:
            count += self._again(self._unmark, member)
            if member.node is not None:
                count += self._again(self._open, member)
        return count

    def ours(self, obj: Object) -> bool:
        """Say whether this run has closed or marked it."""
        return mark.by_annotation(obj) == f"{self.run.digest}.{Trace.ACT}"

    # --- single writes --------------------------------------------------------------------------

    def _again(self, write: Callable[[Member], bool], member: Member) -> bool:
        """Read and write anew after a conflict; what is gone needs nothing."""
        for _ in range(_TRIES - 1):
            try:
                return write(member)
            except Conflict:
                continue
            except Gone:
                return False
        return write(member)

    def _close(self, member: Member) -> bool:
        node = self._node(member)
        if cordoned(node):
            return False
        self._patch_node(node, {"op": "add", "path": UNSCHEDULABLE, "value": True}, Trace.ACT)
        return True

    def _open(self, member: Member) -> bool:
        node = self._node(member)
        if not self.ours(node) or not cordoned(node):
            return False
        self._patch_node(node, {"op": "remove", "path": UNSCHEDULABLE}, Trace.UNDONE)
        return True

    def _patch_node(self, node: Object, operation: Json, trace: Trace) -> None:
        """Test value and mark, not the resourceVersion, which moves when its kubelet reports."""
        notes = at(node, "/metadata/annotations")
        seen = "/metadata/annotations" if notes is None else mark.POINTER
        test: list[Json] = [
            {"op": "test", "path": UNSCHEDULABLE, "value": at(node, UNSCHEDULABLE)},
            {"op": "test", "path": seen, "value": at(node, seen)},
        ]
        noted = mark.annotating(node, f"{self.run.digest}.{trace}")
        self.run.cluster.patch_node(node, [*test, operation, *noted])

    def _mark(self, member: Member) -> bool:
        machine = self._machine(member)
        change = self.kind.leaving(Member(machine, None))
        if change.present is not None:
            return False
        operation: Json = {"op": "add", "path": change.path, "value": change.intended}
        noted = mark.annotating(machine, f"{self.run.digest}.{Trace.ACT}")
        self.run.cluster.patch(machine, [*noted, operation])
        return True

    def _unmark(self, member: Member) -> bool:
        machine = self._machine(member)
        change = self.kind.leaving(Member(machine, None))
        going = at(machine, "/metadata/deletionTimestamp")
        if going or not self.ours(machine) or change.present != change.intended:
            return False
        noted = mark.annotating(machine, f"{self.run.digest}.{Trace.UNDONE}")
        operation: Json = {"op": "remove", "path": change.path}
        self.run.cluster.patch(machine, [operation, *noted])
        return True

    def _node(self, member: Member) -> Object:
        """Read it again, by its uid."""
        old = member.node or {}
        found = self.run.cluster.get(*NODE, "", name_of(old))
        if at(found, "/metadata/uid") != at(old, "/metadata/uid"):
            raise Gone(f"Node {name_of(old)} is another one of that name")
        return found

    def _machine(self, member: Member) -> Object:
        """Read it again, by its uid."""
        old = member.machine
        version, kind = str(old["apiVersion"]), str(old["kind"])
        space = str(at(old, "/metadata/namespace"))
        found = self.run.cluster.get(version, kind, space, member.name)
        if at(found, "/metadata/uid") != at(old, "/metadata/uid"):
            raise Gone(f"{kind} {member.name} is another one of that name")
        return found
