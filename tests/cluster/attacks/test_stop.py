"""The stop switch, with no service anywhere: nothing new starts, what runs goes on."""

import time

from against_runs import PODS, RESULTS, STOPS, result, stop
from against_workflows import NEW, RUNNING, WORKFLOWS
from asking import Answer, Request, until
from attack import merge, post
from fort import Fort
from garrison import ACTORS, OTHER_RUN, RUN, step_pod, workflow
from legitimate import STOPPED, stored

WITHIN = 1.0
"""Seconds until every new Workflow is refused."""
PLAN = post(WORKFLOWS, workflow(NEW))


def launch(fort: Fort) -> Answer:
    return fort.ask(PLAN, "launcher", wide=False)


def test_a_stop_refuses_all_that_is_new_and_leaves_alone_what_runs(fort: Fort) -> None:
    assert launch(fort).status == 201
    path = f"{STOPS}/stop-drill"
    try:
        engaged = fort.ask(stored(post(STOPS, stop("stop-drill"))), "gateway", wide=False)
        assert engaged.status == 201, engaged.message
        since = time.monotonic()
        until("the stop", lambda: launch(fort).wall.startswith("stop: "), 5)
        assert time.monotonic() - since < WITHIN
        refusal = launch(fort)
        assert refusal.wall == "stop: stopped by ConfigMap stop-drill: drill"
        assert refusal.status == 403
        what_runs_goes_on(fort)
        gone = fort.ask(stored(Request("DELETE", path)), "gateway", wide=False)
        assert gone.wall == "RBAC"
    finally:
        fort.wire.ask(Request("DELETE", path, stored=True))
    until("work to go on", lambda: launch(fort).status == 201, 5)


def what_runs_goes_on(fort: Fort) -> None:
    """Argo's controller and a run's pod do what they do when a run fails and rolls back."""
    failed = {"status": {"phase": "Running", "message": "verify failed; the exit handler runs"}}
    steps = [
        (merge(RUNNING, failed), "controller", True),
        (post(PODS, step_pod("restart-pod", 777, RUN)), "controller", True),
        (merge(f"{PODS}/{OTHER_RUN}-run-9", {}), "controller", True),
        (post(RESULTS, result(f"{RUN}-101", RUN)), "act-restart-pod", False),
        (merge(RUNNING, STOPPED), "launcher", False),
    ]
    for request, who, wide in steps:
        answer = fort.ask(request, who, wide=wide)
        assert answer.status in {200, 201, 404}, f"{who}: {request.path}: {answer.message}"
        assert not answer.wall


def test_a_stop_with_another_value_is_a_stop_too(fort: Fort) -> None:
    """The service counts the label's presence, whatever its value; so does the API server."""
    labelled = {**stop("stop-odd")}
    labelled["metadata"]["labels"] = {"tiphys.io/stop": "perhaps"}
    path = f"{STOPS}/stop-odd"
    try:
        fort.wire.want("POST", STOPS, labelled)
        until("the stop", lambda: launch(fort).wall.startswith("stop: "), 5)
    finally:
        fort.wire.ask(Request("DELETE", path, stored=True))
    until("work to go on", lambda: launch(fort).status == 201, 5)


def test_every_action_may_still_be_stopped_for(fort: Fort) -> None:
    """No action's account can engage or release the stop: only the gateway, only people."""
    for name in ACTORS:
        for request in (post(STOPS, stop()), Request("DELETE", f"{STOPS}/stop-old")):
            assert fort.ask(request, f"act-{name}", wide=True).wall
