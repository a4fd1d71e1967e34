"""Whether somebody has changed a target since it was claimed, where its mark is silent."""

from typing import Any

import pytest
from in_process import Obj, plan_of, run_of

from tiphys.sandbox.store import Store
from tiphys.workflow_templates import mark
from tiphys.workflow_templates.action import Run
from tiphys.workflow_templates.mark import Standing

EARLIER, LATER = "2026-01-01T11:00:00Z", "2026-01-01T12:00:05Z"


def wrote(manager: str, time: str = EARLIER, field: str = "f:spec", **more: str) -> Obj:
    return {"manager": manager, "time": time, "fieldsV1": {field: {}}, **more}


def target(kind: str, *writers: Obj, **meta: Any) -> Obj:
    version, space = ("v1", "") if kind == "Node" else ("apps/v1", "shop")
    named = {"name": "one", "uid": "u-one", "namespace": space, "managedFields": [*writers]}
    return {"apiVersion": version, "kind": kind, "metadata": {**named, **meta}, "spec": {}}


def run_on(found: Obj) -> Run:
    store = Store()
    for name in ("shop", mark.EVENTS_OF_NODES):
        store.create({"kind": "Namespace", "metadata": {"name": name}})
    action = "cordon-drain-node" if found["kind"] == "Node" else "rollout-restart"
    return run_of(plan_of(action, found), store)


def stands(claimed: Obj, now: Obj) -> Standing:
    """Claim an object as it was, and judge it as it is."""
    run = run_on(claimed)
    assert mark.standing(run, claimed, "") is Standing.UNTOUCHED
    assert mark.claim(run, claimed)
    return mark.standing(run, now, "")


HELM = wrote("helm")


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (target("Deployment", HELM, generation=5), Standing.UNTOUCHED),
        (target("Deployment", wrote("helm", LATER), generation=5), Standing.UNTOUCHED),
        # What was changed and put back within one second: nothing else tells it.
        (target("Deployment", HELM, generation=7), Standing.LOST),
    ],
)
def test_a_generation_says_all(now: Obj, expected: Standing) -> None:
    assert stands(target("Deployment", HELM, generation=5), now) is expected


def kubelet(time: str) -> Obj:
    return wrote("kubelet", time, "f:status", subresource="status")


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        # A kubelet reports every few minutes, and a step may be started again after it did.
        (target("Node", HELM, kubelet(LATER)), Standing.UNTOUCHED),
        (target("Node", HELM, kubelet(EARLIER), wrote("team", LATER, "f:metadata")),
         Standing.UNTOUCHED),
        (target("Node", wrote("helm", LATER), kubelet(EARLIER)), Standing.LOST),
        (target("Node", HELM, kubelet(EARLIER), wrote("kubectl", LATER)), Standing.LOST),
    ],
)  # fmt: skip
def test_where_there_is_no_generation_a_report_of_its_status_is_no_change(
    now: Obj, expected: Standing
) -> None:
    assert stands(target("Node", HELM, kubelet(EARLIER)), now) is expected
