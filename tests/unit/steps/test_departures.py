"""Machines that go: what is closed and marked when the run ends in between."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from in_process import InProcess, Obj, plan_of, run_of

from tiphys.sandbox.store import Store
from tiphys.workflow_templates.cluster_api import MachineDeployments
from tiphys.workflow_templates.departures import Departures, NotEmptyError
from tiphys.workflow_templates.nodes import cordoned
from tiphys.workflow_templates.pools import Member

POOL = MachineDeployments()
WRITES = ["Node n1", "Node n2", "Machine m1", "Machine m2"]


@dataclass
class Pool:
    """Two machines that are to go, each with a node."""

    store: Store = field(default_factory=Store)

    def __post_init__(self) -> None:
        self.store.create({"kind": "Namespace", "metadata": {"name": "research"}})
        self.members = [self._member(n) for n in (1, 2)]
        version, kind = POOL.kind
        pool = {"name": "h100", "namespace": "research", "uid": "u-pool"}
        target = {"apiVersion": version, "kind": kind, "metadata": pool}
        self.run = run_of(plan_of("scale-gpu-pool", target, replicas=1), self.store)

    def _member(self, number: int) -> Member:
        node = self.store.create({"kind": "Node", "metadata": {"name": f"n{number}"}, "spec": {}})
        meta = {"name": f"m{number}", "namespace": "research"}
        machine: Obj = {"kind": "Machine", "metadata": meta, "spec": {"clusterName": "c"}}
        return Member(self.store.create(machine), node)

    def written(self) -> list[str]:
        assert isinstance(self.run.cluster, InProcess)
        return self.run.cluster.written

    def ended_after(self, count: int) -> Callable[[], None]:
        """Let rollback begin once so many writes are done."""

        def go_on() -> None:
            if len(self.written()) >= count:
                raise NotEmptyError("this run was ended")

        return go_on


@pytest.fixture
def pool() -> Pool:
    return Pool()


def test_nodes_are_closed_before_a_machine_is_marked(pool: Pool) -> None:
    Departures(pool.run, POOL).prepare(pool.members, pool.ended_after(99))
    assert pool.written() == WRITES
    assert all(cordoned(node) for node in pool.store.list("Node"))


@pytest.mark.parametrize("count", range(len(WRITES) + 1))
def test_once_the_run_was_ended_no_node_is_closed_no_machine_marked_and_no_size_set(
    pool: Pool, count: int
) -> None:
    """Rollback has looked by then: what is closed after it stays closed."""
    with pytest.raises(NotEmptyError, match="was ended"):
        Departures(pool.run, POOL).prepare(pool.members, pool.ended_after(count))
    assert pool.written() == WRITES[:count]
