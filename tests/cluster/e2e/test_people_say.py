"""People have the last word on a real cluster: yes, no, take it back, and stop.

That an approved plan is launched is in test_healing, which approves one.
"""

import json
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from bed import Bed
from kubectl import KubectlError, wait
from people import events, record
from shop import Shop

pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group("e2e")]

PATIENCE = 360
"""Seconds for an incident on a machine that runs the whole cluster beside it."""
STOP = "tiphys-stop"
INSTANCE = "workflows.argoproj.io/controller-instanceid"
LAUNCHER = "system:serviceaccount:tiphys-system:tiphys-launcher"
WITHIN_SECONDS = 1.0
"""From when a stop is there until the API server refuses."""

Shops = Mapping[str, Shop]


def say(bed: Bed, *words: str) -> str:
    return bed.tiphys.command(*words, "--url", bed.tiphys.url, "--by", "ann")


def workflows(bed: Bed) -> dict[str, dict[str, Any]]:
    found = bed.kubectl.every("workflows.argoproj.io", "tiphys-actions")
    return {one["metadata"]["name"]: one for one in found}


def test_a_plan_that_a_person_denies_is_not_launched(
    bed: Bed, shops: Shops, struck: Mapping[str, str]
) -> None:
    subject = "deployment e2e-denied/cart"
    asked = bed.tiphys.wait_for(subject, ("awaiting_approval", "escalated"), PATIENCE)
    assert asked["state"] == "awaiting_approval", asked["reason"]
    told = say(bed, "deny", asked["id"], "--reason", "not today")
    assert "acknowledged" in told, "it is in ann's hands"
    view = bed.tiphys.view(asked["id"])
    assert record(view, "approval_refused")["actor"] == "ann"
    assert not {"launch_intended", "workflow_created"} & set(events(view))
    pod = bed.kubectl.get("pod", struck["denied"], "e2e-denied")
    assert "deletionTimestamp" not in pod["metadata"]


def test_a_healing_is_undone_by_a_persons_word(
    bed: Bed, shops: Shops, struck: Mapping[str, str]
) -> None:
    healed = bed.tiphys.wait_for("deployment e2e-undone/search", ("monitoring", "closed"), PATIENCE)
    run = record(bed.tiphys.view(healed["id"]), "workflow_created")["body"]["workflow"]
    shop = shops["undone"]
    assert shop.kubectl.get("deployment", "search", shop.namespace)["spec"]["replicas"] == 3
    shop.unload()
    quiet = 'requests_waiting{namespace="e2e-undone"} < 5'
    wait("the queue to be short", lambda: bed.query(quiet), 120)
    told = say(bed, "undo", run, "--reason", "the sale is over")
    incident = told.split(":")[0]
    wait(
        "the undo to be over",
        lambda: bed.tiphys.view(incident)["incident"]["state"] in {"closed", "escalated"},
        PATIENCE,
    )
    view = bed.tiphys.view(incident)
    assert view["incident"]["outcome"] == "verified", view["incident"]["reason"]
    assert view["attempts"][0]["plan"]["undoes"] == run
    assert view["attempts"][0]["plan"]["decided_by"]["reasoner"] == "human"
    assert shop.kubectl.get("deployment", "search", shop.namespace)["spec"]["replicas"] == 2


def anew(bed: Bed) -> str:
    """Give a Workflow as the launcher made its last one, under a name that is not taken."""
    newest = max(workflows(bed).values(), key=lambda one: one["metadata"]["creationTimestamp"])
    spec = {key: newest["spec"][key] for key in ("workflowTemplateRef", "arguments")}
    given = newest["metadata"]["labels"]
    labels = {key: given[key] for key in ("tiphys.io/incident", INSTANCE)}
    meta = {"name": f"tiphys-{'a' * 40}", "namespace": "tiphys-actions", "labels": labels}
    return json.dumps(
        {
            "apiVersion": newest["apiVersion"],
            "kind": "Workflow",
            "metadata": meta,
            "spec": spec,
        }
    )


def refusal(bed: Bed, workflow: str) -> str:
    """Say why the API server would not take it from the launcher; empty: it would."""
    try:
        bed.kubectl("create", "--dry-run=server", f"--as={LAUNCHER}", "-f", "-", stdin=workflow)
    except KubectlError as error:
        return str(error)
    return ""


@contextmanager
def released(bed: Bed) -> Generator[None]:
    """Leave no stop behind, as a person: with the administrator's credentials."""
    try:
        yield
    finally:
        credentials = str(bed.kubectl.kubeconfig)
        bed.tiphys.command("resume", "--stop", "--kubeconfig", credentials)
        assert bed.kubectl.every("configmaps", STOP, "tiphys.io/stop") == []


def test_a_config_map_made_by_hand_stops_within_a_second(
    bed: Bed, struck: Mapping[str, str]
) -> None:
    """The API server itself refuses, whatever the label's value; the service sees it, too.

    The Workflow of the undo is minutes old: but for the stop, another like it would be taken.
    """
    workflow = anew(bed)
    assert refusal(bed, workflow) == ""
    with released(bed):
        bed.kubectl("create", "configmap", "halt", "-n", STOP, "--from-literal=reason=a drill")
        assert refusal(bed, workflow) == "", "without the label it is any ConfigMap"
        bed.kubectl("label", "configmap", "halt", "-n", STOP, "tiphys.io/stop=yes")
        stopped = time.monotonic()
        asked = stopped
        while not (why := refusal(bed, workflow)):
            asked = time.monotonic()
            assert asked - stopped < WITHIN_SECONDS
        assert "stopped by ConfigMap halt: a drill" in why
        assert bed.tiphys.get("/api/stop") == {
            "engaged": True, "reason": "a drill",
        }  # fmt: skip
    wait("the API server to take Workflows again", lambda: not refusal(bed, workflow), 30)


def test_while_a_person_says_stop_nothing_is_launched_and_a_human_is_told(
    bed: Bed, shops: Shops, struck: Mapping[str, str]
) -> None:
    with released(bed):
        say(bed, "stop", "--reason", "a drill by command")
        before = set(workflows(bed))
        pod = shops["stopped"].wedge()
        seen = bed.tiphys.wait_for("deployment e2e-stopped/cart", ("escalated",), PATIENCE)
        assert "a drill by command" in seen["reason"]
        assert set(workflows(bed)) == before
        view = bed.tiphys.view(seen["id"])
        assert "launch_intended" not in events(view)
        assert bed.kubectl.get("pod", pod, "e2e-stopped")
        own = {"tiphys_incident": seen["id"]}
        wait("the page at Alertmanager", lambda: bed.alert("TiphysEscalation", **own), 60)


def test_a_pause_of_a_namespace_is_listed_and_ends_by_a_word(
    bed: Bed, struck: Mapping[str, str]
) -> None:
    say(bed, "pause", "namespace:e2e-stopped", "30m", "--reason", "a drill")
    listed = bed.tiphys.command("holds", "--url", bed.tiphys.url)
    assert "namespace:e2e-stopped is paused by ann until" in listed
    assert "resumed" in say(bed, "resume", "namespace:e2e-stopped")
    assert bed.tiphys.get("/api/pauses") == []
