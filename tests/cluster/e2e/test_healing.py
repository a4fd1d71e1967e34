"""Fault, real alert, decision, real Workflow, healed: each kind of end, all at the same time."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from bed import Bed
from kubectl import wait
from people import events, record
from shop import Shop

pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group("e2e")]

DECIDED = ("monitoring", "escalated", "acknowledged", "closed")
PATIENCE = 360
"""Seconds for an incident on a machine that runs the whole cluster beside it."""

Shops = Mapping[str, Shop]


def decided(bed: Bed, subject: str, states: tuple[str, ...] = DECIDED) -> dict[str, Any]:
    """Wait until an incident has come to its end, or to one of these states; give it whole."""
    return bed.tiphys.view(bed.tiphys.wait_for(subject, states, PATIENCE)["id"])


def healed_by(bed: Bed, subject: str, action: str) -> dict[str, Any]:
    """Wait for a verified run of an action and check that all of it is in the record."""
    view = decided(bed, subject)
    incident = view["incident"]
    assert incident["outcome"] == "verified", (incident["reason"], events(view))
    launched = [one for one in view["timeline"] if one["event"] == "launch_intended"]
    assert len(launched) == 1, "no decided action runs twice"
    order = [one for one in events(view) if one in STORY]
    assert [one for at, one in enumerate(order) if one not in order[:at]] == list(STORY)
    # Later looks, when another alert joined, decided to do nothing.
    proposal = view["attempts"][0]["decision"]
    assert (proposal["answer"], proposal["action"]) == ("proposal", action)
    workflow = record(view, "workflow_created")["body"]["workflow"]
    real = bed.kubectl.get("workflows.argoproj.io", workflow, "tiphys-actions")
    assert real["status"]["phase"] == "Succeeded"
    assert real["spec"]["workflowTemplateRef"]["name"] == f"{action}-v1"
    steps = {r["body"]["step"]["step"] for r in view["timeline"] if r["event"] == "run_step"}
    assert steps == {"precheck", "act", "verify"}
    return view


STORY = (
    "incident_opened", "decided", "judged", "planned", "launch_intended", "workflow_created",
    "run_step", "run_ended",
)  # fmt: skip


def test_a_bad_release_is_undone(bed: Bed, shops: Shops, struck: Mapping[str, str]) -> None:
    view = healed_by(bed, "deployment e2e-release/cart", "rollout-undo")
    found = shops["release"].kubectl.get("deployment", "cart", "e2e-release")
    (container,) = found["spec"]["template"]["spec"]["containers"]
    assert container["env"] == [{"name": "RELEASE", "value": "1.7.3"}]
    assert "tiphys.io/run" in found["metadata"]["annotations"]
    shops["release"].wait_for_pods("cart", 2)
    made_by = {alert["labels"]["job"] for alert in view["alerts"]}
    assert made_by == {"kube-state-metrics"}, "the alerts were real"
    assert all(a["generator_url"].startswith(bed.prometheus) for a in view["alerts"])


def test_a_wedged_pod_is_replaced(bed: Bed, shops: Shops, struck: Mapping[str, str]) -> None:
    healed_by(bed, "deployment e2e-wedged/cart", "restart-pod")
    shops["wedged"].wait_for_pods("cart", 2)
    pods = shops["wedged"].kubectl.every("pods", "e2e-wedged")
    assert struck["wedged"] not in {pod["metadata"]["name"] for pod in pods}


def test_a_service_too_small_for_its_load_grows(
    bed: Bed, shops: Shops, struck: Mapping[str, str]
) -> None:
    view = healed_by(bed, "deployment e2e-overload/search", "scale-workload")
    shops["overload"].wait_for_pods("search", 3)
    assert view["attempts"][0]["decision"]["decided_by"]["playbook"] == "queue-is-long"
    query = 'requests_waiting{namespace="e2e-overload"} <= 20'
    wait("the queue to be short", lambda: bed.query(query), 60)


def test_what_needs_approval_waits_for_a_person(
    bed: Bed, shops: Shops, struck: Mapping[str, str]
) -> None:
    subject = "deployment e2e-approval/cart"
    view = decided(bed, subject, ("awaiting_approval", *DECIDED))
    incident = view["incident"]
    assert incident["state"] == "awaiting_approval", incident["reason"]
    assert "launch_intended" not in events(view)
    assert bed.kubectl.get("pod", struck["approval"], "e2e-approval")

    page = wait(
        "the question at Alertmanager",
        lambda: bed.alert("TiphysApprovalWanted", tiphys_incident=incident["id"]),
        60,
    )
    assert page["status"]["state"] == "active"
    wait(
        "somebody to hear of the question",
        lambda: bed.human.heard_of("TiphysApprovalWanted", tiphys_incident=incident["id"]),
        60,
    )

    bed.tiphys.command(
        "approve", incident["id"], "--url", bed.tiphys.url, "--by", "ann", "--reason", "go on"
    )
    view = healed_by(bed, subject, "restart-pod")
    given = record(view, "approval_given")
    assert given["actor"] == "ann"
    intended = record(view, "launch_intended")
    assert intended["seq"] > given["seq"]
    assert intended["body"]["approved_by"] == "ann"
    pods = shops["approval"].kubectl.every("pods", "e2e-approval")
    assert struck["approval"] not in {pod["metadata"]["name"] for pod in pods}


@pytest.mark.parametrize(
    ("subject", "told"),
    [
        ("deployment e2e-missing/catalog", "image"),
        ("KubeSchedulerDown", "control plane"),
    ],
)
def test_what_no_action_mends_goes_to_a_human(
    bed: Bed, struck: Mapping[str, str], subject: str, told: str
) -> None:
    view = decided(bed, subject)
    incident = view["incident"]
    assert incident["state"] == "escalated", incident["reason"]
    assert told in incident["reason"]
    assert not {"planned", "launch_intended", "workflow_created"} & set(events(view))
    own = {"tiphys_incident": incident["id"]}
    page = wait("the page at Alertmanager", lambda: bed.alert("TiphysEscalation", **own), 60)
    assert told in page["annotations"]["description"]
    wait("somebody to hear of it", lambda: bed.human.heard_of("TiphysEscalation", **own), 60)
    assert "paged" in events(bed.tiphys.view(incident["id"]))


def test_people_hear_of_an_alert_that_is_not_ended_in_time(
    bed: Bed, struck: Mapping[str, str]
) -> None:
    """The human route goes on behind ours: a dead Tiphys swallows no page."""
    wait(
        "somebody to hear of the alert itself",
        lambda: bed.human.heard_of("KubePodNotReady", namespace="e2e-missing"),
        PATIENCE,
    )


def test_what_was_not_broken_was_not_touched(
    bed: Bed, shops: Shops, struck: Mapping[str, str]
) -> None:
    """After all of the above: every Workflow is one that the record intended."""
    exported = bed.tiphys.get("/api/audit?limit=10000")
    intended = {r["body"]["workflow"] for r in exported if r["event"] == "launch_intended"}
    found = bed.kubectl.every("workflows.argoproj.io", "tiphys-actions")
    assert {one["metadata"]["name"] for one in found} <= intended
    targets = {
        json.dumps(r["body"]["plan"]["target"]["namespace"])
        for r in exported
        if r["event"] == "planned"
    }
    assert targets <= {json.dumps(shop.namespace) for shop in shops.values()}
