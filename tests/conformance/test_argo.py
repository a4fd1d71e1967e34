"""What Argo does with Workflows of the shape that ours have, whatever their steps are."""

import time

import pytest
from argo_made import launch, outcome_of, template

from tiphys.service.conform.flights import Flight, submit
from tiphys.service.conform.wire import Json, place_of
from tiphys.service.conform.worlds import World

pytestmark = pytest.mark.together
RAN, UNDONE = "Succeeded", {"rollback": "Succeeded"}


def phases(flight: Flight) -> dict[str, str]:
    """Give the phase of each step, the rollback among them when there is one."""
    kinds = {"Container", "Skipped", "Pod"}
    found = [n for n in flight.nodes() if n["type"] in kinds and n["displayName"] != "run"]
    return {n["displayName"]: n["phase"] for n in found}


def rolled_back(flight: Flight) -> None:
    """See the run fail and its rollback run to its end."""
    ends = (flight.ended()["phase"], phases(flight).get("rollback"))
    assert ends == ("Failed", "Succeeded"), flight.brief()


# --- ends ---------------------------------------------------------------------------------------


def test_a_good_run_succeeds_and_skips_its_rollback(world: World) -> None:
    flight = launch(world, template(world, "good"))
    status = flight.ended()
    assert status["phase"] == "Succeeded"
    assert phases(flight) == {
        "precheck": "Succeeded", "act": "Succeeded", "main": "Succeeded", "rollback": "Skipped",
    }  # fmt: skip
    assert outcome_of(flight.node("run", "Pod")) == "said by verify"


def test_a_failed_verify_runs_the_exit_handler_which_knows_status_and_outputs(
    world: World,
) -> None:
    flight = launch(world, template(world, "verify-fails", FAILS="verify"))
    status = flight.ended()
    rolled_back(flight)
    assert status["message"] == f"child '{flight.node('run', 'Pod')['id']}' failed"
    assert outcome_of(flight.node("run", "Pod")) == "said by verify"
    back = outcome_of(flight.node("rollback", "Pod"))
    assert back == "said by rollback, told Failed and (said by verify)"


def test_of_a_pod_the_last_report_and_one_exit_code_are_kept(world: World) -> None:
    """Its containers' nodes say no more than their phase, and why they failed."""
    flight = launch(world, template(world, "act-fails", FAILS="act"))
    rolled_back(flight)
    pod = flight.node("run", "Pod")
    assert outcome_of(pod) == "said by act", "the steps share the file, and verify never ran"
    assert pod["outputs"]["exitCode"] == "64", "of main, which waited for act in vain"
    act, main = flight.node("act"), flight.node("main")
    assert act["message"] == "act: Error (exit code 4): words of act"
    why = 'dependency "act" exited with non-zero code: 4'
    assert (main["phase"], main["message"]) == ("Error", f"main: Error (exit code 64): {why}")
    assert not any("exitCode" in (node.get("outputs") or {}) for node in (act, main))
    assert {n["type"] for n in (act, main)} == {"Container"}
    assert {n["templateName"] for n in (act, main, pod)} == {"run"}


def test_a_failed_precheck_keeps_act_from_running(world: World) -> None:
    flight = launch(world, template(world, "precheck-fails", FAILS="precheck"))
    rolled_back(flight)
    assert phases(flight) == {
        "precheck": "Failed", "act": "Error", "main": "Error", "rollback": "Succeeded",
    }  # fmt: skip


def test_a_killed_process_fails_its_step(world: World) -> None:
    flight = launch(world, template(world, "killed", KILLED="act"))
    rolled_back(flight)
    assert flight.node("act")["message"] == "act: Error (exit code 137): words of act"


def test_the_deadline_ends_the_run_and_not_its_rollback(world: World) -> None:
    flight = launch(world, template(world, "late", SLOW="act", activeDeadlineSeconds=15))
    rolled_back(flight)
    assert "deadline" in flight.node("run", "Pod")["message"]


def test_stop_ends_the_run_and_not_its_rollback(world: World) -> None:
    flight = launch(world, template(world, "stopped", SLOW="verify"))
    flight.until_running("verify")
    flight.stop()
    status = flight.ended()
    rolled_back(flight)
    assert status["message"] == "Stopped with strategy 'Stop'"


def test_terminate_runs_no_rollback(world: World) -> None:
    """That is why admission refuses it."""
    flight = launch(world, template(world, "terminated", SLOW="verify"))
    flight.until_running("verify")
    flight.stop("Terminate")
    assert flight.ended()["phase"] == "Failed"
    assert "rollback" not in phases(flight)


def test_a_template_that_is_not_there_is_an_error(world: World) -> None:
    launch(world, template(world, "there"))
    flight = submit(world, "not-there")
    status = flight.ended()
    assert status["phase"] == "Error"
    assert "not found" in status["message"]
    assert "nodes" not in status or not status["nodes"]


def test_pods_go_when_their_workflow_has_ended(world: World) -> None:
    flight = launch(world, template(world, "collected"))
    flight.ended()
    world.until("its pods are gone", flight.pods, lambda pods: not pods)


# --- what happens to pods -----------------------------------------------------------------------


def test_a_pod_deleted_in_the_middle_of_act_is_rolled_back_or_started_again(world: World) -> None:
    """Argo sees how the pod ended, or it sees no pod and starts another.

    act takes longer than a pod's grace of 30 s: a pod that was not started again cannot succeed.
    """
    flight = launch(world, template(world, "deleted", SLOW="act", LONG="40"))
    pod = flight.until_running("act")
    flight.delete_pod(pod, force=False)
    ends = (flight.ended()["phase"], phases(flight)["rollback"])
    assert ends in {("Failed", "Succeeded"), ("Succeeded", "Skipped")}, flight.brief()
    if not world.real:
        assert ends[0] == "Failed", "the sandbox always sees it"


def test_a_pod_deleted_by_force_after_act_is_started_again(world: World) -> None:
    """Everything runs a second time; nothing in the Workflow says so."""
    flight = launch(world, template(world, "forced", SLOW="verify", LONG="20"))
    first = flight.until_running("verify")
    flight.delete_pod(first, force=True)
    second = flight.until_running("verify")
    assert second["metadata"]["name"] == first["metadata"]["name"]
    assert second["metadata"]["uid"] != first["metadata"]["uid"]

    def ended() -> Json:
        [pod] = flight.pods()
        return {
            status["name"]: status["state"]["terminated"]["exitCode"]
            for status in pod["status"]["containerStatuses"]
            if "terminated" in status["state"]
        }

    # The kubelet tells of them a little later than their words can be read.
    world.until("both have run again", ended, lambda codes: codes == {"precheck": 0, "act": 0})
    assert flight.ended()["phase"] == "Succeeded"
    assert phases(flight)["rollback"] == "Skipped"


def test_a_rollback_deleted_by_force_is_started_again(world: World) -> None:
    told = {"FAILS": "verify", "SLOW": "rollback", "LONG": "20"}
    flight = launch(world, template(world, "rollback-forced", **told))
    first = flight.until_running("rollback")
    flight.delete_pod(first, force=True)
    second = flight.until_running("rollback")
    assert second["metadata"]["uid"] != first["metadata"]["uid"]
    rolled_back(flight)


def test_a_rollback_that_failed_is_tried_again_unless_its_exit_code_is_final(world: World) -> None:
    again: Json = {"limit": "1", "retryPolicy": "Always", "backoff": {"duration": "1s"}}
    again["expression"] = "asInt(lastRetry.exitCode) not in [4, 5]"
    told = {"FAILS": "verify rollback"}
    final = launch(world, template(world, "final", {"retryStrategy": again}, **told))
    killed = {"FAILS": "verify", "KILLED": "rollback"}
    twice = launch(world, template(world, "twice", {"retryStrategy": again}, **killed))
    for flight, tries in ((final, 1), (twice, 2)):
        assert flight.ended()["phase"] == "Failed"
        assert flight.node("rollback", "Retry")["phase"] == "Failed"
        pods = [n for n in flight.nodes() if n["type"] == "Pod" and n["templateName"] == "rollback"]
        assert sorted(n["displayName"] for n in pods) == [f"rollback({n})" for n in range(tries)]


def test_a_rollback_that_no_node_takes_leaves_the_workflow_running(world: World) -> None:
    """Its deadline begins when it runs: so the service has one of its own."""
    nowhere = {"nodeSelector": {"tiphys.io/none": "such"}, "activeDeadlineSeconds": 3}
    flight = launch(world, template(world, "nowhere", nowhere, FAILS="verify"))

    def refused() -> str:
        found = [n for n in flight.nodes() if n.get("templateName") == "rollback"]
        return str(found[0].get("message") or "") if found else ""

    world.until("it is unschedulable", refused, lambda said: said.startswith("Unschedulable"))
    since = time.monotonic()
    world.until("its deadline has long passed", lambda: time.monotonic() - since > 9)
    workflow = flight.workflow()
    assert workflow["status"]["phase"] == "Running"
    assert "finishedAt" not in workflow["status"] or not workflow["status"]["finishedAt"]
    assert phases(flight)["rollback"] == "Pending"


# --- the mutex and the template -----------------------------------------------------------------


def test_a_mutex_makes_the_second_run_wait_for_the_first(world: World) -> None:
    mutex = {"mutexes": [{"name": "{{workflow.parameters.target}}"}]}
    made = template(world, "mutual", SLOW="act", LONG="8", synchronization=mutex)
    first = launch(world, made, target="one-target")
    first.until_running("act")
    second = submit(world, "mutual", target="one-target")

    def waits() -> str:
        return str(second.workflow().get("status", {}).get("message") or "")

    said = world.until("the second waits", waits)
    assert said.startswith("Waiting for ")
    assert "Mutex/one-target lock" in said
    ends = [flight.ended() for flight in (first, second)]
    assert [status["phase"] for status in ends] == ["Succeeded", "Succeeded"]
    assert ends[0]["finishedAt"] <= second.node("act")["startedAt"]


def test_a_template_deleted_during_a_run_does_not_matter(world: World) -> None:
    made = template(world, "deleted-template", SLOW="act", LONG="6", FAILS="verify")
    flight = launch(world, made)
    flight.until_running("act")
    assert world.wire.delete(place_of(made)).status == 200
    rolled_back(flight)
