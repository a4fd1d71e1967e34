"""Whether somebody starts an evicted pod again, judged by exactly who owns it. Pure."""

from typing import Any

import pytest

from tiphys.workflow_templates.evictable import refusal

Obj = dict[str, Any]
SHOP: Obj = {"metadata": {"name": "shop", "labels": {"tiphys.io/heal": "enabled"}}}


def pod() -> Obj:
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "cart", "uid": "u-cart"}
    meta = {"name": "a", "namespace": "shop", "ownerReferences": [{**owner, "controller": True}]}
    return {"metadata": meta, "spec": {}}


def replica_set(uid: str, **meta: str) -> Obj:
    return {"metadata": {"name": "cart", "uid": uid, **meta}, "spec": {"replicas": 2}}


def test_a_pod_whose_owner_is_there_may_go() -> None:
    others = [replica_set("u-other"), replica_set("u-cart")]
    assert refusal(pod(), {"Namespace": [SHOP], "ReplicaSet": others}) is None


@pytest.mark.parametrize(
    "others",
    [
        [],
        [replica_set("u-cart", deletionTimestamp="2026-01-01T00:00:00Z")],
        [replica_set("u-other")],
    ],
)
def test_another_owner_of_the_name_starts_nothing_again(others: list[Obj]) -> None:
    why = refusal(pod(), {"Namespace": [SHOP], "ReplicaSet": others})
    assert why == "belongs to ReplicaSet cart, which is gone"


@pytest.mark.parametrize(("space", "may_go"), [("shop", False), ("market", True)])
def test_only_a_budget_of_the_pods_own_namespace_covers_it(space: str, may_go: bool) -> None:
    # An empty selector takes every pod, of the budget's namespace alone.
    guard = {
        "metadata": {"name": "guard", "namespace": space},
        "spec": {"selector": {}},
        "status": {"disruptionsAllowed": 0},
    }
    have = {"Namespace": [SHOP], "ReplicaSet": [replica_set("u-cart")]}
    why = refusal(pod(), {**have, "PodDisruptionBudget": [guard]})
    assert (why is None) == may_go, why
