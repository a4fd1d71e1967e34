"""Two objects under one run: what happens when it is started twice, undone, or meddled with."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from in_process import Clock, InProcess, Obj, held_up, plan_of, run_of

from tiphys.policies.plan import short_digest
from tiphys.sandbox.store import Store
from tiphys.workflow_templates import mark
from tiphys.workflow_templates.action import Report, Result, Run
from tiphys.workflow_templates.cluster import REQUEST_SECONDS
from tiphys.workflow_templates.config_guards import VALUES
from tiphys.workflow_templates.mark import Trace
from tiphys.workflow_templates.rollout_restart import RESTART
from tiphys.workflow_templates.update_config import UpdateConfig, UpdateConfigParameters

ACTION = UpdateConfig()
WANTED = {"configmap": "fares", "key": "pool-size", "value": "40"}
BY_KEY = {"name": "SIZE", "valueFrom": {"configMapKeyRef": {"name": "fares", "key": "pool-size"}}}
COUNTS = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")


def cart() -> Obj:
    labels = {"app": "cart"}
    containers = [{"name": "main", "image": "cart:2", "env": [BY_KEY]}]
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "cart", "namespace": "shop"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}},
        },
        "status": {"observedGeneration": 99, **dict.fromkeys(COUNTS, 2)},
    }


def fares() -> Obj:
    meta = {
        "name": "fares",
        "namespace": "shop",
        "labels": {"tiphys.io/heal": "enabled"},
        "annotations": {f"{VALUES}/pool-size": "20\n40"},
    }
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"pool-size": "20"}}


@dataclass
class Shop:
    """A workload, its ConfigMap and a plan for both."""

    store: Store = field(default_factory=Store)
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.store.create({"kind": "Namespace", "metadata": {"name": "shop"}})
        self.config, self.target = self.store.create(fares()), self.store.create(cart())
        related = {"ConfigMap": [self.config]}
        changes = ACTION.changes(self.target, related, UpdateConfigParameters(**WANTED))
        self.plan = plan_of(ACTION.name, self.target, changes, **WANTED)

    def run(self) -> Run:
        return run_of(self.plan, self.store, self.clock)

    def written(self, step: Callable[[Run], Report]) -> tuple[Result, list[str]]:
        """Run a step; give its result and what it wrote."""
        run = self.run()
        report = step(run)
        assert isinstance(run.cluster, InProcess)
        return report.result, run.cluster.written

    def dies_after_the_first_write(self) -> None:
        run = self.run()
        assert isinstance(run.cluster, InProcess)
        run.cluster.after[1] = _die
        with pytest.raises(KeyboardInterrupt):
            ACTION.act(run)
        assert (self.size(), self.restarted()) == ("40", False)

    def size(self) -> str:
        return self.store.get("ConfigMap", "shop", "fares")["data"]["pool-size"]

    def restarted(self) -> bool:
        template = self.store.get("Deployment", "shop", "cart")["spec"]["template"]
        return RESTART in (template["metadata"].get("annotations") or {})

    def set_size(self, value: str) -> None:
        self.store.patch("ConfigMap", "shop", "fares", {"data": {"pool-size": value}})


def _die() -> None:
    raise KeyboardInterrupt


@pytest.fixture
def shop() -> Shop:
    return Shop()


BOTH = ["ConfigMap fares", "Deployment cart"]


def test_both_are_written_and_put_back(shop: Shop) -> None:
    assert shop.written(ACTION.precheck) == (Result.AS_PLANNED, [])
    assert shop.written(ACTION.act) == (Result.ACTED, BOTH)
    assert (shop.size(), shop.restarted()) == ("40", True)
    assert shop.written(ACTION.rollback) == (Result.UNDONE, BOTH)
    assert (shop.size(), shop.restarted()) == ("20", False)


def test_nothing_is_written_once_rollback_has_given_up_on_a_change_by_hand(shop: Shop) -> None:
    """A step that is started again later must not go on with the half that was left."""
    shop.dies_after_the_first_write()
    shop.set_size("30")
    assert shop.written(ACTION.rollback) == (Result.NOT_OURS, [])
    result, written = shop.written(ACTION.act)
    assert (result, written, shop.restarted()) == (Result.CRASHED, [], False)


def test_a_value_that_somebody_put_back_is_somebodys_change(shop: Shop) -> None:
    """Its mark is still there: whoever did it decided, and the restart is left to them, too."""
    assert ACTION.act(shop.run()).result is Result.ACTED
    shop.set_size("20")
    assert shop.written(ACTION.rollback) == (Result.NOT_OURS, [])
    assert shop.restarted()


def test_a_rollback_that_is_run_again_says_again_that_all_is_back(shop: Shop) -> None:
    assert ACTION.act(shop.run()).result is Result.ACTED
    assert ACTION.rollback(shop.run()).result is Result.UNDONE
    assert shop.written(ACTION.rollback) == (Result.UNDONE, [])


def test_rollback_waits_for_a_write_that_may_be_under_way(shop: Shop) -> None:
    """An act that passed the door just before may be heard by the API server a moment later."""
    run = shop.run()
    config, workload = (shop.store.get(k, "shop", n) for k, n in (w.split() for w in BOTH))
    assert mark.claim(run, config, workload)
    patch = [
        {"op": "replace", "path": "/data/pool-size", "value": "40"},
        *mark.annotating(config, f"{run.digest}.{Trace.ACT}"),
    ]
    shop.clock.meanwhile = [lambda: run.cluster.patch(config, patch)]
    assert ACTION.rollback(shop.run()).result is Result.UNDONE
    assert shop.size() == "20"
    assert (shop.clock.now() - run.now()).total_seconds() < 2 * (REQUEST_SECONDS + 1)


@pytest.mark.parametrize(("kind", "name"), [("ConfigMap", "fares"), ("Deployment", "cart")])
def test_where_somebody_deleted_one_of_the_two_the_other_is_left_alone(
    shop: Shop, kind: str, name: str
) -> None:
    assert ACTION.act(shop.run()).result is Result.ACTED
    shop.store.delete(kind, "shop", name)
    assert shop.written(ACTION.rollback) == (Result.NOT_OURS, [])


@pytest.mark.parametrize(("kind", "name"), [("ConfigMap", "fares"), ("Deployment", "cart")])
def test_what_was_deleted_before_this_run_began_is_no_change_of_its_own(
    shop: Shop, kind: str, name: str
) -> None:
    """Nobody is called: precheck refused, and rollback has nothing to put back."""
    shop.store.delete(kind, "shop", name)
    if kind == "ConfigMap":
        assert ACTION.precheck(shop.run()).result is Result.REFUSED
    assert shop.written(ACTION.rollback) == (Result.NOTHING_CHANGED, [])


def test_of_two_starts_of_one_run_the_later_says_that_it_wrote_nothing(shop: Shop) -> None:
    run = shop.run()
    assert isinstance(run.cluster, InProcess)
    run.cluster.claimed = [lambda: ACTION.act(shop.run())]
    report = ACTION.act(run)
    assert (report.result, run.cluster.written) == (Result.ALREADY_DONE, [])
    assert (shop.size(), shop.restarted()) == ("40", True)


@pytest.mark.parametrize(("kind", "name"), [("ConfigMap", "fares"), ("Deployment", "cart")])
def test_another_object_of_the_name_with_the_mark_is_not_put_back(
    shop: Shop, kind: str, name: str
) -> None:
    """A backup, or whoever deploys, brings it back as it last was: from then on it is theirs."""
    assert ACTION.act(shop.run()).result is Result.ACTED
    was = shop.store.get(kind, "shop", name)
    shop.store.delete(kind, "shop", name)
    found = shop.store.create(was)
    assert mark.by_annotation(found) == f"{short_digest(shop.plan)}.act"
    assert shop.written(ACTION.rollback) == (Result.NOT_OURS, [])


def test_a_workload_that_is_deleted_while_it_settles_is_not_back(shop: Shop) -> None:
    """What it had before was no restart; of nothing one could say the same."""
    assert ACTION.act(shop.run()).result is Result.ACTED
    run = shop.run()
    assert isinstance(run.cluster, InProcess)
    run.cluster.after[2] = lambda: shop.store.delete("Deployment", "shop", "cart")
    report = ACTION.rollback(run)
    assert report.result is Result.NOT_UNDONE
    assert "did not stay as put back" in report.message


@pytest.mark.parametrize("reads", range(3))
def test_a_second_write_that_comes_while_rollback_looks_is_this_runs_own(
    shop: Shop, reads: int
) -> None:
    """Whichever of its looks at the workload it comes after: all is put back, or nobody's."""
    go_on = held_up(ACTION.act, shop.run(), nth=2)
    run = shop.run()
    assert isinstance(run.cluster, InProcess)
    run.cluster.seen["Deployment"] = [*[lambda: None] * reads, go_on]
    assert ACTION.rollback(run).result is Result.UNDONE
    assert (shop.size(), shop.restarted()) == ("20", False)
