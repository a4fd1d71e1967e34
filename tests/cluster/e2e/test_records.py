"""What is left when everything is over: undone, closed, and proven by the record. Runs last."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from bed import Bed
from kubectl import wait
from people import events, record
from shop import Shop

pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group("e2e")]

VERIFY_SECONDS = 300
"""What an action may take to be verified, by its module, before it is rolled back."""
PATIENCE = VERIFY_SECONDS + 300
CLOSING_SECONDS = 360
"""An incident closes after its alerts are missing from three listings, a minute apart."""
HEALED = ("release", "wedged", "overload", "approval")

Shops = Mapping[str, Shop]


def settled(deployment: dict[str, Any]) -> dict[str, Any]:
    """Give what a person sets in a Deployment: its spec, labels and own annotations."""
    meta = deployment["metadata"]
    annotations = {
        key: value
        for key, value in meta["annotations"].items()
        if not key.startswith(("deployment.kubernetes.io/", "tiphys.io/"))
    }
    return {
        "uid": meta["uid"],
        "labels": meta["labels"],
        "annotations": annotations,
        "spec": deployment["spec"],
    }


def test_what_does_not_help_is_undone(bed: Bed, shops: Shops, struck: Mapping[str, Any]) -> None:
    subject = "deployment e2e-ineffective/search"
    seen = bed.tiphys.wait_for(subject, ("escalated",), PATIENCE)
    view = bed.tiphys.view(seen["id"])
    first = view["attempts"][0]
    assert first["decision"]["action"] == "scale-workload"
    assert first["run"]["outcome"] == "rolled_back", (seen["reason"], events(view))
    steps = [r["body"]["step"] for r in view["timeline"] if r["event"] == "run_step"]
    said = {step["step"]: step["result"] for step in steps if step["result"]}
    assert (said["act"], said["verify"], said["rollback"]) == ("acted", "not_verified", "undone")
    assert "rolled back" in seen["reason"], "the human is told what was tried"
    runs = [one for one in view["timeline"] if one["event"] == "launch_intended"]
    assert len(runs) == 1, "what did not help is not tried again"

    now = shops["ineffective"].kubectl.get("deployment", "search", "e2e-ineffective")
    assert settled(now) == settled(json.loads(struck["before"]))
    written_by = [entry["manager"] for entry in now["metadata"]["managedFields"]]
    assert any(name.startswith("tiphys-") for name in written_by), "it was changed in between"


@pytest.mark.parametrize("name", HEALED)
def test_a_healed_incident_closes_when_its_alerts_have_ended(
    bed: Bed, shops: Shops, struck: Mapping[str, Any], name: str
) -> None:
    workload = "search" if name == "overload" else "cart"
    subject = f"deployment e2e-{name}/{workload}"
    seen = bed.tiphys.wait_for(subject, ("closed",), CLOSING_SECONDS)
    assert seen["outcome"] == "verified"
    view = bed.tiphys.view(seen["id"])
    assert record(view, "alert_ended")
    alerts = {alert["labels"]["alertname"] for alert in view["alerts"]}
    still = [a for a in bed.alerts() if a["labels"].get("namespace") == f"e2e-{name}"]
    assert not [a for a in still if a["labels"]["alertname"] in alerts]
    own = {"tiphys_incident": seen["id"]}
    wait(
        "our own page to have ended",
        lambda: not bed.alert("TiphysApprovalWanted", **own),
        60,
    )


def test_the_record_is_whole(bed: Bed, struck: Mapping[str, Any], tmp_path: Path) -> None:
    exported = tmp_path / "audit.jsonl"
    bed.tiphys.command("audit", "export", str(exported), "--url", bed.tiphys.url, seconds=120)
    told = bed.tiphys.command("audit", "verify", str(exported))
    assert "unbroken" in told
    records = [json.loads(line) for line in exported.read_text().splitlines()]
    assert [one["seq"] for one in records] == sorted(one["seq"] for one in records)
    created = {r["body"]["workflow"] for r in records if r["event"] == "workflow_created"}
    found = bed.kubectl.every("workflows.argoproj.io", "tiphys-actions")
    assert {one["metadata"]["name"] for one in found} == created
    intended = {r["body"]["workflow"]: r["seq"] for r in records if r["event"] == "launch_intended"}
    for one in records:
        if one["event"] == "workflow_created":
            assert intended[one["body"]["workflow"]] < one["seq"], "audit before act"
    people = {"ann"}
    actors = {r["actor"] for r in records}
    assert actors <= people | {
        "agents", "argo", "gate", "intake", "launcher", "reconcile", "tiphys", "gateway",
    }  # fmt: skip
