"""What rollback says of a write that comes just after it has read the target."""

from contextlib import suppress
from datetime import timedelta

import pytest
from in_process import Clock, InProcess, Obj, held_up, plan_of, run_of

from tiphys.sandbox.store import Store
from tiphys.workflow_templates.action import Result
from tiphys.workflow_templates.cluster import REQUEST_SECONDS, Unreachable
from tiphys.workflow_templates.cordon_drain_node import CordonDrainNode, CordonDrainNodeParameters
from tiphys.workflow_templates.expand_volume import ExpandVolume, ExpandVolumeParameters
from tiphys.workflow_templates.mark import EVENTS_OF_NODES
from tiphys.workflow_templates.rollout_restart import RolloutRestart, RolloutRestartParameters

RESTART, EXPAND, DRAIN = RolloutRestart(), ExpandVolume(), CordonDrainNode()
COUNTS = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")


def named(name: str, version: str, kind: str, **more: Obj | str | bool) -> Obj:
    meta = {"name": name, "namespace": "shop"}
    return {"apiVersion": version, "kind": kind, "metadata": meta, **more}


def stored(*objects: Obj) -> tuple[Store, Obj]:
    """Give a store, and the first object as it is there."""
    store = Store()
    for space in ("shop", EVENTS_OF_NODES):
        store.create({"kind": "Namespace", "metadata": {"name": space}})
    first, *_ = [store.create(one) for one in objects]
    return store, first


def cart() -> Obj:
    labels = {"app": "cart"}
    containers = [{"name": "main", "image": "cart:2"}]
    template = {"metadata": {"labels": labels}, "spec": {"containers": containers}}
    spec = {"replicas": 2, "selector": {"matchLabels": labels}, "template": template}
    status = {"observedGeneration": 99, **dict.fromkeys(COUNTS, 2)}
    return named("cart", "apps/v1", "Deployment", spec=spec, status=status)


def node(name: str) -> Obj:
    meta = {"name": name, "labels": {"tiphys.io/heal": "enabled"}}
    status = {"conditions": [{"type": "Ready", "status": "True"}]}
    return {"apiVersion": "v1", "kind": "Node", "metadata": meta, "spec": {}, "status": status}


class Killed(BaseException):
    """The step's process ends here."""


def killed() -> None:
    raise Killed


def lost() -> None:
    raise Unreachable("the answer was lost")


def test_a_write_between_its_looks_at_the_target_and_at_the_events_is_put_back() -> None:
    """The Event that act leaves is newer than the target then: nobody took the mark away."""
    store, target = stored(cart())
    plan = plan_of(RESTART.name, target, RESTART.changes(target, {}, RolloutRestartParameters()))
    go_on = held_up(RESTART.act, run_of(plan, store))
    run = run_of(plan, store)
    assert isinstance(run.cluster, InProcess)
    run.cluster.seen["Deployment"] = [go_on]
    assert RESTART.rollback(run).result is Result.UNDONE
    assert store.get("Deployment", "shop", "cart")["spec"] == target["spec"]


def test_a_mark_that_somebody_took_away_is_still_missed() -> None:
    store, target = stored(cart())
    plan = plan_of(RESTART.name, target, RESTART.changes(target, {}, RolloutRestartParameters()))
    assert RESTART.act(run_of(plan, store)).result is Result.ACTED
    store.patch("Deployment", "shop", "cart", {"metadata": {"annotations": None}})
    assert RESTART.rollback(run_of(plan, store)).result is Result.NOT_OURS


def test_a_look_at_the_target_before_the_last_write_may_have_come_is_not_the_last() -> None:
    """Reading the Events takes its time, and act need not have left its own yet."""
    store, target = stored(cart())
    plan = plan_of(RESTART.name, target, RESTART.changes(target, {}, RolloutRestartParameters()))
    late, clock = run_of(plan, store), Clock()
    go_on = held_up(RESTART.act, late)

    def slowly() -> None:
        go_on()
        store.delete("Event", "shop", f"tiphys-{late.digest}.acted")
        clock.moment += timedelta(seconds=REQUEST_SECONDS + 2)

    run = run_of(plan, store, clock)
    assert isinstance(run.cluster, InProcess)
    run.cluster.seen["Deployment"] = [slowly]
    assert RESTART.rollback(run).result is Result.UNDONE


def test_a_node_that_is_closed_although_somebody_changed_it_since_the_claim_is_opened() -> None:
    """No version holds that write off, so what somebody changed does not say that it never came."""
    store, target = stored(node("n1"), node("n2"))
    changes = DRAIN.changes(target, {"Node": store.list("Node")}, CordonDrainNodeParameters())
    plan = plan_of(DRAIN.name, target, changes)
    clock = Clock()
    go_on = held_up(DRAIN.act, run_of(plan, store))
    taint = {"key": "slow", "effect": "PreferNoSchedule"}
    store.patch("Node", "", "n1", {"spec": {"taints": [taint]}})
    clock.meanwhile = [go_on]
    assert DRAIN.rollback(run_of(plan, store, clock)).result is Result.UNDONE
    assert store.get("Node", "", "n1")["spec"] == {"taints": [taint]}


@pytest.mark.parametrize("asked_again", [False, True], ids=["at-once", "later"])
def test_a_node_that_somebody_opened_is_missed_although_the_answer_to_closing_it_was_lost(
    asked_again: bool,
) -> None:
    """A node has no generation: but for the Event that act leaves, nothing would tell."""
    store, target = stored(node("n1"), node("n2"))
    changes = DRAIN.changes(target, {"Node": store.list("Node")}, CordonDrainNodeParameters())
    plan = plan_of(DRAIN.name, target, changes)
    run = run_of(plan, store)
    assert isinstance(run.cluster, InProcess)
    with suppress(Killed):
        run.cluster.after[1] = killed if asked_again else lost
        assert DRAIN.act(run).result is Result.ALREADY_DONE
    if asked_again:
        assert DRAIN.act(run_of(plan, store)).result is Result.ALREADY_DONE
    opened = {"metadata": {"annotations": None}, "spec": {"unschedulable": None}}
    store.patch("Node", "", "n1", opened)
    assert DRAIN.rollback(run_of(plan, store)).result is Result.NOT_OURS


def test_a_claim_that_is_raised_while_rollback_looks_was_raised_by_this_run() -> None:
    sizes = {"resources": {"requests": {"storage": "10Gi"}}, "storageClassName": "fast"}
    bound = {"phase": "Bound", "capacity": {"storage": "10Gi"}}
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    mounts = {"containers": [{"name": "main", "image": "db:1"}], "volumes": volumes}
    store, target = stored(
        named("data", "v1", "PersistentVolumeClaim", spec=sizes, status=bound),
        named("db", "v1", "Pod", spec=mounts, status={"phase": "Running"}),
        named("fast", "storage.k8s.io/v1", "StorageClass", allowVolumeExpansion=True),
    )
    wanted = {"percent": 150, "ceiling_gib": 20}
    related = {kind: store.list(kind) for kind in ("Pod", "StorageClass")}
    changes = EXPAND.changes(target, related, ExpandVolumeParameters(**wanted))
    plan = plan_of(EXPAND.name, target, changes, **wanted)
    go_on = held_up(EXPAND.act, run_of(plan, store))
    run = run_of(plan, store)
    assert isinstance(run.cluster, InProcess)
    run.cluster.seen["PersistentVolumeClaim"] = [go_on]
    report = EXPAND.rollback(run)
    assert report.result is Result.NOT_UNDONE
    assert "its expansion hangs" in report.message
