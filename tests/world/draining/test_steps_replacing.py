"""Replacing a GPU node against a live API: where its undo ends, and what comes in between."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

import pytest
from draining_world import NODE, NS, Obj, Watched, World, shop

from tiphys.policies.model import Check, DecidedBy, Plan, Target
from tiphys.policies.plan import short_digest
from tiphys.workflow_templates import mark
from tiphys.workflow_templates.action import Report, Result, Run, StepName
from tiphys.workflow_templates.catalogue import find
from tiphys.workflow_templates.cluster import Connection

PRECHECK, ACT, VERIFY, ROLLBACK = StepName
ACTION = "replace-gpu-node"
VERSION = "cluster.x-k8s.io/v1beta2"
_SETS = "namespaces/shop/machinesets"
"""Read once when act looks at the world, and again just before the machine goes."""


def _noop() -> None:
    return None


class Pool:
    """The three nodes as machines of one pool, and runs with the action's own rights."""

    def __init__(self, world: World) -> None:
        self.world = world

    def make(self) -> None:
        names = ["worker-1", "worker-2", "worker-3"]
        counts: dict[str, int] = {"replicas": 3, "readyReplicas": 3, "upToDateReplicas": 3}
        pool = self._group("MachineDeployment", "gpus", [], counts)
        one = self._group("MachineSet", "gpus-1", [pool], counts)
        for name in names:
            self.make_machine(name, _owner(one))

    def make_machine(self, name: str, owner: Obj) -> None:
        """Make the machine of a node that is there already."""
        store = self.world.store
        meta = {"name": name, "namespace": NS, "finalizers": ["machine.cluster.x-k8s.io"]}
        made = store.create(
            {"apiVersion": VERSION, "kind": "Machine", "spec": {"providerID": f"c://{name}"},
             "metadata": {**meta, "ownerReferences": [owner]},
             "status": {"nodeRef": {"name": name}, "phase": "Running"}}
        )  # fmt: skip
        made["status"] = {"nodeRef": {"name": name}, "phase": "Running"}
        store.update(made, subresource="status")
        notes = {"cluster.x-k8s.io/machine": name, "cluster.x-k8s.io/cluster-namespace": NS}
        room = {"cpu": "8", "memory": "32Gi", "pods": "110", "nvidia.com/gpu": "8"}
        told = {"metadata": {"annotations": notes}, "spec": {"providerID": f"c://{name}"}}
        self.world.change_node(told, name)
        self.say(name, capacity=room, allocatable=room)

    def say(self, name: str = NODE, **status: Any) -> None:
        """Let a node say something of itself."""
        node = self.world.node(name)
        node["status"] |= status
        self.world.store.update(node, subresource="status")

    def _group(self, kind: str, name: str, owners: list[Obj], counts: dict[str, int]) -> Obj:
        meta: Obj = {"name": name, "namespace": NS}
        meta |= {"ownerReferences": [_owner(one) for one in owners]} if owners else {}
        made = self.world.store.create(
            {"apiVersion": VERSION, "kind": kind, "metadata": meta, "spec": {"replicas": 3}}
        )
        made["status"] = {**counts, "observedGeneration": 9}
        return self.world.store.update(made, subresource="status")

    def machine(self) -> Obj:
        return self.world.store.get("Machine", NS, NODE)

    def plan(self, *, reasoner: str = "playbooks", **parameters: Any) -> Plan:
        action, node = find(ACTION), self.world.node()
        related = {r.kind: self.world.store.list(r.kind, "") for r in action.reads}
        given = parameters or {"device": "0000:3b:00", "xids": [79]}
        typed = action.parameters.model_validate(given)
        return Plan(
            incident="inc-2",
            attempt=1,
            action=ACTION,
            version=action.version,
            target=Target(
                cluster="c", api_version="v1", kind="Node", namespace="",
                name=NODE, uid=node["metadata"]["uid"],
            ),
            parameters=typed.model_dump(mode="json"),
            changes=action.changes(node, related, typed),
            check=Check(hold_seconds=1),
            policy="test",
            evidence_hash="0" * 64,
            decided_by=DecidedBy.model_validate({"reasoner": reasoner}),
        )  # fmt: skip

    def run(self, plan: Plan, minutes: float = 10) -> Run:
        here, digest = self.world, short_digest(plan)
        token = here.folder / "replacing"
        token.write_text(here.tokens.service_account("tiphys-actions", f"act-{ACTION}"))
        usual = here.run(plan)
        return Run(
            plan=plan,
            digest=digest,
            not_after=here.now() + timedelta(minutes=minutes),
            cluster=Watched(Connection(here.url, token, None), digest),
            metrics=None,
            now=usual.now,
            sleep=usual.sleep,
        )


def _owner(obj: Obj) -> Obj:
    named = {key: obj["metadata"][key] for key in ("name", "uid")}
    return {"apiVersion": VERSION, "kind": obj["kind"], "controller": True, **named}


def watched(run: Run) -> Watched:
    return cast(Watched, run.cluster)


@pytest.fixture
async def pool(world: World) -> Pool:
    await shop(world)
    found = Pool(world)
    found.make()
    return found


async def test_the_node_is_emptied_and_its_machine_goes(pool: Pool) -> None:
    world, plan = pool.world, pool.plan()
    gone = world.names()
    assert [c.place for c in plan.changes] == [
        "/spec/unschedulable", *(f"Pod {NS}/{name}" for name in gone), f"Machine {NS}/{NODE}"
    ]  # fmt: skip
    run = pool.run(plan)
    assert (await world.step(PRECHECK, run)).result is Result.AS_PLANNED
    assert (await world.step(ACT, run)).result is Result.ACTED
    assert world.pods() == []
    assert "deletionTimestamp" in pool.machine()["metadata"]
    sent = [what.partition(" ")[0] for what in watched(run).sent if "/events" not in what]
    assert sent == ["PATCH", "POST", "POST", "DELETE"]
    again = pool.run(plan)
    assert (await world.step(PRECHECK, again)).result is Result.ALREADY_DONE
    assert (await world.step(ACT, again)).result is Result.ALREADY_DONE
    assert watched(again).sent == []


async def test_people_are_told_on_the_node_that_its_machine_goes(pool: Pool) -> None:
    world = pool.world
    assert (await world.step(ACT, pool.run(pool.plan()))).result is Result.ACTED
    events = {e["reason"]: e for e in world.store.list("Event", "default")}
    assert f"deleted Machine {NS}/{NODE}" in events["Replaced"]["message"]
    assert events["Replaced"]["involvedObject"]["name"] == NODE


async def test_another_machine_of_that_name_does_not_bring_the_old_one_back(pool: Pool) -> None:
    world, run = pool.world, pool.run(pool.plan())
    assert (await world.step(ACT, run)).result is Result.ACTED
    old = pool.machine()
    old["metadata"]["finalizers"] = []
    world.store.update(old)
    meta = {"name": NODE, "namespace": NS, "ownerReferences": old["metadata"]["ownerReferences"]}
    world.store.create({**old, "metadata": meta})
    again = pool.run(run.plan)
    assert (await world.step(PRECHECK, again)).result is Result.ALREADY_DONE
    assert (await world.step(ROLLBACK, again)).result is Result.NOTHING_TO_RESTORE
    assert world.node()["spec"]["unschedulable"] is True
    assert "deletionTimestamp" not in pool.machine()["metadata"]


async def test_once_its_rollback_has_begun_the_machine_stays(pool: Pool) -> None:
    world, run, said = pool.world, pool.run(pool.plan()), list[Report]()
    late = pool.run(run.plan)
    watched(run).before[f"machines/{NODE}"] = [lambda: said.append(find(ACTION).act(late))]
    report = await world.step(ROLLBACK, run)
    assert [one.result for one in said] == [Result.REFUSED]
    assert report.result is Result.NOTHING_CHANGED
    assert "deletionTimestamp" not in pool.machine()["metadata"]


async def test_after_the_deletion_there_is_nothing_to_put_back(pool: Pool) -> None:
    world, run = pool.world, pool.run(pool.plan())
    await world.step(ACT, run)
    report = await world.step(ROLLBACK, run)
    assert report.result is Result.NOTHING_TO_RESTORE
    assert "cannot be brought back" in report.message
    assert world.node()["spec"]["unschedulable"] is True
    assert (await world.step(ACT, run)).result is Result.ALREADY_DONE


async def test_rollback_before_the_deletion_opens_the_node(pool: Pool) -> None:
    world, run = pool.world, pool.run(pool.plan())

    def closed() -> None:
        mark.close_door(pool.run(run.plan))

    watched(run).before[_SETS] = [_noop, closed]
    report = await world.step(ACT, run)
    assert (report.result, "rollback" in report.message) == (Result.CRASHED, True)
    assert "deletionTimestamp" not in pool.machine()["metadata"]
    assert (await world.step(ROLLBACK, run)).result is Result.UNDONE
    assert "unschedulable" not in world.node()["spec"]


async def test_an_act_that_is_overtaken_as_it_looks_a_last_time_has_nothing_left_to_do(
    pool: Pool,
) -> None:
    world, run, said = pool.world, pool.run(pool.plan()), list[Report]()
    other = pool.run(run.plan)
    watched(run).before[_SETS] = [_noop, lambda: said.append(find(ACTION).act(other))]
    report = await world.step(ACT, run)
    assert said[0].result is Result.ACTED
    assert report.result is Result.ALREADY_DONE
    assert not [what for what in watched(run).sent if what.startswith("DELETE")]


async def test_a_machine_that_somebody_else_deletes_is_left_to_them(pool: Pool) -> None:
    world, run = pool.world, pool.run(pool.plan())
    delete = world.inside(lambda: world.store.delete("Machine", NS, NODE))
    watched(run).before[_SETS] = [_noop, delete]
    report = await world.step(ACT, run)
    assert (report.result, "deleted already" in report.message) == (Result.CRASHED, True)
    assert (await world.step(ROLLBACK, run)).result is Result.NOT_OURS
    assert world.node()["spec"]["unschedulable"] is True


async def test_a_machine_that_goes_while_its_node_is_drained_is_not_called_ours(
    pool: Pool,
) -> None:
    world, run = pool.world, pool.run(pool.plan())
    delete = world.inside(lambda: world.store.delete("Machine", NS, NODE))
    watched(run).before[f"machines/{NODE}"] = [delete]
    report = await world.step(ACT, run)
    assert (report.result, "somebody else" in report.message) == (Result.CRASHED, True)
    assert (await world.step(ROLLBACK, run)).result is Result.NOT_OURS


async def test_a_run_that_only_claimed_the_node_has_changed_nothing(pool: Pool) -> None:
    world, run = pool.world, pool.run(pool.plan())

    def claim() -> None:
        mark.claim(run, run.cluster.get("v1", "Node", "", NODE))

    await asyncio.to_thread(claim)
    world.store.delete("Machine", NS, NODE)
    assert (await world.step(ROLLBACK, run)).result is Result.NOTHING_CHANGED


async def test_a_run_that_never_acted_has_not_taken_the_node_away(pool: Pool) -> None:
    world, run = pool.world, pool.run(pool.plan())
    world.store.delete("Machine", NS, NODE)
    world.store.delete("Node", "", NODE)
    assert (await world.step(ROLLBACK, run)).result is Result.NOTHING_CHANGED


async def test_a_pod_that_comes_at_the_last_moment_keeps_the_machine(pool: Pool) -> None:
    world, run = pool.world, pool.run(pool.plan())
    late: Obj = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "late", "namespace": NS},
        "spec": {"nodeName": NODE, "containers": [{"name": "main", "image": "late:1"}]},
    }  # fmt: skip
    come = world.inside(lambda: world.store.create(late))
    watched(run).before[_SETS] = [_noop, come]
    report = await world.step(ACT, run)
    assert (report.result, "does not name" in report.message) == (Result.CRASHED, True)
    assert "deletionTimestamp" not in pool.machine()["metadata"]


async def test_the_machine_stays_until_the_last_planned_pod_has_ended(pool: Pool) -> None:
    world, run, left = pool.world, pool.run(pool.plan()), list[str]()
    slow = world.pods()[0]
    slow["metadata"]["finalizers"] = ["example.org/slow"]
    world.store.update(slow)

    def end() -> None:
        held = world.store.get("Pod", NS, slow["metadata"]["name"])
        held["metadata"]["finalizers"] = []
        world.store.update(held)

    def look() -> None:
        pods = world.store.list("Pod", NS)
        left.extend(p["metadata"]["name"] for p in pods if p["spec"].get("nodeName") == NODE)

    watched(run).before[_SETS] = [_noop, _noop, world.inside(end)]
    watched(run).before["DELETE"] = [world.inside(look)]
    assert (await world.step(ACT, run)).result is Result.ACTED
    assert (left, watched(run).before["DELETE"]) == ([], [])


ANOTHERS = {"metadata": {"annotations": {mark.ANNOTATION: f"{'b' * 40}.act"}}}
TAKEN: dict[str, Obj] = {
    "somebody opened it": {"spec": {"unschedulable": None}},
    "another run has it": ANOTHERS,
}


@pytest.mark.parametrize("name", TAKEN)
async def test_a_drained_node_that_is_not_this_runs_any_more_keeps_its_machine(
    name: str, pool: Pool
) -> None:
    world, run = pool.world, pool.run(pool.plan())
    taken = world.inside(lambda: world.change_node(TAKEN[name]))
    # Read for the first time once every pod has been evicted.
    watched(run).before[f"machines/{NODE}"] = [taken]
    report = await world.step(ACT, run)
    assert (report.result, "closed by this run" in report.message) == (Result.CRASHED, True)
    assert "deletionTimestamp" not in pool.machine()["metadata"]


MOVES: dict[str, Callable[[World], object]] = {
    "another machine goes": lambda w: w.store.delete("Machine", NS, "worker-2"),
    "a node of it is closed": lambda w: w.change_node(
        {"spec": {"unschedulable": True}}, "worker-2"
    ),
    "the node has rebooted": lambda w: Pool(w).say(nodeInfo={"bootID": "another"}),
    "somebody opened the node": lambda w: w.change_node({"spec": {"unschedulable": None}}),
}


@pytest.mark.parametrize("name", MOVES)
async def test_what_moves_while_it_is_drained_keeps_the_machine(name: str, pool: Pool) -> None:
    world, run = pool.world, pool.run(pool.plan())
    watched(run).before["eviction"] = [_noop, world.inside(lambda: MOVES[name](world))]
    report = await world.step(ACT, run)
    assert report.result is Result.CRASHED
    assert "deletionTimestamp" not in pool.machine()["metadata"]


async def test_a_deletion_without_an_answer_is_looked_after(pool: Pool) -> None:
    world, run = pool.world, pool.run(pool.plan())
    watched(run).lost = ["DELETE /apis/cluster.x-k8s.io"]
    assert (await world.step(ACT, run)).result is Result.ACTED
    assert len([what for what in watched(run).sent if what.startswith("DELETE")]) == 1


async def test_without_an_xid_only_a_human_may_ask(pool: Pool) -> None:
    by_book = pool.run(pool.plan(device="x"))
    report = await pool.world.step(PRECHECK, by_book)
    assert (report.result, "no human" in report.message) == (Result.REFUSED, True)
    by_hand = pool.run(pool.plan(reasoner="human", device="x"))
    assert (await pool.world.step(PRECHECK, by_hand)).result is Result.AS_PLANNED


async def test_past_its_time_the_machine_stays(pool: Pool) -> None:
    """Though act would have time left to delete it."""
    world, run = pool.world, pool.run(pool.plan(), minutes=5)
    late = run.not_after + timedelta(minutes=1)
    ahead = [_noop, lambda: object.__setattr__(run, "now", lambda: late)]
    watched(run).before[_SETS] = ahead
    report = await world.step(ACT, run)
    assert (report.result, "notAfter" in report.message) == (Result.CRASHED, True)
    assert "deletionTimestamp" not in pool.machine()["metadata"]


async def test_a_node_that_an_earlier_run_has_closed_is_taken_over(pool: Pool) -> None:
    world, drain = pool.world, pool.world.plan()
    await world.step(ACT, drain)
    await world.until(lambda: not world.pods())
    run = pool.run(pool.plan())
    report = await world.step(PRECHECK, run)
    assert (report.result, "another run" in report.message) == (Result.REFUSED, True)
    mark.keep(world.run(drain))
    # Of its own connection: an idle one may be closed in the very moment it is used.
    again = pool.run(run.plan)
    assert (await world.step(ACT, again)).result is Result.ACTED
    assert "deletionTimestamp" in pool.machine()["metadata"]
