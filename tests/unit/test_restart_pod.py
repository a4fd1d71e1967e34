"""restart-pod while the pod that it has deleted takes its time to end."""

from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tiphys.policies.model import Check, DecidedBy, Plan, Target
from tiphys.workflow_templates.action import Result, Run
from tiphys.workflow_templates.cluster import Cluster, Exists, Gone
from tiphys.workflow_templates.restart_pod import RestartPod, RestartPodParameters

Obj = dict[str, Any]
ACTION = RestartPod()
BEGAN = datetime(2026, 1, 1, 12, tzinfo=UTC)
OWNER = {"kind": "ReplicaSet", "name": "cart", "uid": "u-set", "controller": True}
POD: Obj = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "cart-1", "namespace": "shop", "uid": "u-pod", "ownerReferences": [OWNER]},
    "status": {"phase": "Running"},
}
SET: Obj = {
    "apiVersion": "apps/v1",
    "kind": "ReplicaSet",
    "metadata": {"name": "cart", "namespace": "shop", "uid": "u-set"},
    "spec": {"replicas": 1},
    "status": {"replicas": 1, "readyReplicas": 1, "availableReplicas": 1},
}


class Shop(Cluster):
    """An API server with one pod, whose successor is ready at once, and a clock."""

    def __init__(self) -> None:
        self.now = BEGAN
        self.there = {("Pod", "cart-1"): deepcopy(POD), ("ReplicaSet", "cart"): SET}
        self.deleted: list[str] = []

    def get(self, api_version: str, kind: str, namespace: str, name: str) -> Any:
        del api_version, namespace
        if (kind, name) not in self.there:
            raise Gone("404")
        return self.there[kind, name]

    def create_event(self, event: Any) -> None:
        if ("Event", event["metadata"]["name"]) in self.there:
            raise Exists("409")
        self.there["Event", event["metadata"]["name"]] = event

    def delete_pod(self, namespace: str, name: str, uid: str) -> None:
        """As with a grace: it stays until it has ended."""
        del namespace, uid
        self.deleted.append(name)
        self.there["Pod", name]["metadata"]["deletionTimestamp"] = self.now.isoformat()

    def sleep(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def run(shop: Shop) -> Run:
    target = Target(
        cluster="c", api_version="v1", kind="Pod", namespace="shop", name="cart-1", uid="u-pod"
    )
    plan = Plan(
        incident="i",
        attempt=1,
        action=ACTION.name,
        version=ACTION.version,
        target=target,
        parameters={},
        changes=ACTION.changes(POD, {"ReplicaSet": [SET]}, RestartPodParameters()),
        check=Check(hold_seconds=10),
        policy="p",
        evidence_hash="0" * 64,
        decided_by=DecidedBy(reasoner="human"),
    )
    end = BEGAN + timedelta(minutes=5)
    return Run(plan, "d" * 40, end, shop, None, now=lambda: shop.now, sleep=shop.sleep)


def test_it_is_not_deleted_again_and_its_end_is_this_run_s(shop: Shop, run: Run) -> None:
    assert ACTION.act(run).result is Result.ACTED
    assert [ACTION.precheck(run).result, ACTION.act(run).result] == [Result.ALREADY_DONE] * 2
    assert ACTION.rollback(run).result is Result.NOTHING_TO_RESTORE
    assert shop.deleted == ["cart-1"]


def test_it_is_not_verified_before_it_has_ended_though_its_successor_is_ready(
    shop: Shop, run: Run
) -> None:
    """It may still serve, or hold what the next one needs."""
    assert ACTION.act(run).result is Result.ACTED
    report = ACTION.verify(run)
    assert (report.result, "has not ended yet" in report.message) == (Result.NOT_VERIFIED, True)
    del shop.there["Pod", "cart-1"]
    assert ACTION.verify(run).result is Result.VERIFIED
