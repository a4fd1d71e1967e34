"""From a Workflow's nodes, in Argo's shape, to how the run ended; doubt is never a success."""

import json
from typing import Any

import pytest

from tiphys.policies.model import Outcome
from tiphys.service.outcomes import outcome, view
from tiphys.workflow_templates.action import EXIT_CODES, Result, StepName

Json = dict[str, Any]
STARTED, FINISHED = "2026-03-04T03:00:01Z", "2026-03-04T03:00:05Z"
CONTAINERS = {"precheck": "precheck", "act": "act", "verify": "main"}


def node(kind: str, name: str, phase: str, **more: Any) -> Json:
    times: Json = {} if phase in {"", "Pending"} else {"startedAt": STARTED}
    if phase in {"Succeeded", "Failed", "Error"}:
        times["finishedAt"] = FINISHED
    return {"type": kind, "displayName": name, "phase": phase, **times, **more}


def report(step: str, result: str, message: str = "") -> Json:
    value = json.dumps({"step": step, "result": result, "message": message})
    return {"parameters": [{"name": "outcome", "value": value}]}


def told(container: str, code: int, words: str) -> str:
    """What Argo says of a container that failed."""
    return f"{container}: Error (exit code {code}): {words}"


def workflow(phase: str, message: str = "", **said: Any) -> Json:
    """A Workflow whose steps said these results; a step that is not given never ran."""
    nodes: dict[str, Json] = {"wf": node("Steps", "wf", phase, templateName="steps")}
    verify = said.get("verify")
    outputs = report("verify", verify, "verify's words") if verify else {}
    nodes["pod"] = node("Pod", "run", phase, templateName="run", outputs=outputs)
    for step, container in CONTAINERS.items():
        result = said.get(step)
        if result:
            code = EXIT_CODES[Result(result)]
            nodes[step] = node(
                "Container",
                container,
                "Failed" if code else "Succeeded",
                message=told(container, code, f"{result}: {step}'s words") if code else "",
            )
    if rollback := said.get("rollback"):
        code = EXIT_CODES[Result(rollback)]
        ended = "Failed" if code else "Succeeded"
        nodes["rollback"] = node(
            "Pod",
            "rollback",
            ended,
            templateName="rollback",
            outputs={**report("rollback", rollback, "rollback's words"), "exitCode": str(code)},
        )
    nodes["skipped"] = node("Skipped", "rollback", "Skipped", templateName="rollback")
    return {"status": {"phase": phase, "message": message, "nodes": nodes}}


ACTED = {"precheck": "as_planned", "act": "acted"}


@pytest.mark.parametrize(
    ("phase", "said", "expected", "words"),
    [
        ("Succeeded", {**ACTED, "verify": "verified"}, Outcome.VERIFIED, "stayed so"),
        (
            "Succeeded",
            {"precheck": "already_done", "act": "already_done", "verify": "verified"},
            Outcome.VERIFIED,
            "",
        ),
        ("Succeeded", {**ACTED, "verify": "unknowable"}, Outcome.UNKNOWN, "change is kept"),
        ("Succeeded", ACTED, Outcome.UNKNOWN, "verify did not say so"),
        ("Succeeded", {}, Outcome.UNKNOWN, "verify did not say so"),
        (
            "Failed",
            {"precheck": "refused", "rollback": "nothing_changed"},
            Outcome.REFUSED,
            "precheck's words",
        ),
        (
            "Failed",
            {"precheck": "as_planned", "act": "refused", "rollback": "nothing_changed"},
            Outcome.REFUSED,
            "act's words",
        ),
        ("Failed", {"rollback": "nothing_changed"}, Outcome.REFUSED, "nothing was changed"),
        (
            "Failed",
            {**ACTED, "verify": "not_verified", "rollback": "undone"},
            Outcome.ROLLED_BACK,
            "values are back",
        ),
        (
            "Failed",
            {**ACTED, "verify": "verified", "rollback": "undone"},
            Outcome.ROLLED_BACK,
            "",
        ),
        ("Error", {**ACTED, "rollback": "undone"}, Outcome.ROLLED_BACK, ""),
        (
            "Failed",
            {**ACTED, "verify": "not_verified", "rollback": "nothing_to_restore"},
            Outcome.INEFFECTIVE,
            "did not help",
        ),
        (
            "Failed",
            {**ACTED, "verify": "not_verified", "rollback": "not_ours"},
            Outcome.ROLLBACK_FAILED,
            "rollback's words",
        ),
        (
            "Failed",
            {**ACTED, "verify": "not_verified", "rollback": "not_undone"},
            Outcome.ROLLBACK_FAILED,
            "rollback's words",
        ),
        (
            "Failed",
            {**ACTED, "verify": "not_verified", "rollback": "crashed"},
            Outcome.UNKNOWN,
            "silent",
        ),
        ("Failed", {**ACTED, "verify": "not_verified"}, Outcome.UNKNOWN, "rollback is silent"),
        ("Failed", ACTED, Outcome.UNKNOWN, "rollback is silent"),
        ("Error", {}, Outcome.UNKNOWN, "rollback is silent"),
    ],
)
def test_every_ending(phase: str, said: Json, expected: Outcome, words: str) -> None:
    seen = view(workflow(phase, "the message", **said))
    assert seen.ended
    result, why = outcome(seen)
    assert result is expected
    assert words in why


@pytest.mark.parametrize("phase", ["", "Pending", "Running", "unreadable"])
def test_what_has_not_ended_has_not_ended(phase: str) -> None:
    assert not view(workflow(phase, **ACTED)).ended


def test_no_status_at_all_is_a_workflow_that_nobody_has_looked_at() -> None:
    seen = view({"metadata": {"name": "x"}})
    assert (seen.phase, seen.ended, seen.steps) == ("Pending", False, ())


@pytest.mark.parametrize(
    "status",
    [
        "Succeeded",
        ["Succeeded"],
        {"phase": "Succeeded", "nodes": ["x"]},
        {"phase": "Succeeded", "nodes": {"x": None}},
        {"phase": "Succeeded", "nodes": {"x": {"type": "Pod", "outputs": "none"}}},
        {"phase": "Succeeded", "nodes": {"x": {"type": "Pod", "outputs": {"parameters": [7]}}}},
    ],
)
def test_a_status_that_is_not_argos_has_not_ended_for_all_we_know(status: Any) -> None:
    """Its deadline decides, and a human; it is not an error that ends the watching."""
    seen = view({"status": status})
    assert (seen.phase, seen.ended, seen.steps) == ("unreadable", False, ())


@pytest.mark.parametrize("value", ["", "not json", "[]", '{"result": "healed"}', '{"result": 1}'])
def test_a_report_that_makes_no_sense_verifies_nothing(value: str) -> None:
    given = workflow("Succeeded", **ACTED)
    given["status"]["nodes"]["pod"]["outputs"] = {
        "parameters": [{"name": "outcome", "value": value}]
    }
    assert outcome(view(given))[0] is Outcome.UNKNOWN


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (told("main", 3, ""), Result.REFUSED),
        ("main: Error (exit code 4)", Result.NOT_VERIFIED),
        ("Error (exit code 1): some words", Result.CRASHED),
        (told("main", 137, ""), None),
        (told("main", 143, "verified: it is well"), Result.VERIFIED),
        (told("main", 4, "not_verified: not better in time: 1 of 2"), Result.NOT_VERIFIED),
        ("Pod Failed whilst container running", None),
    ],
)
def test_without_a_report_the_message_speaks(message: str, expected: Result | None) -> None:
    """A container's node has no exit code and no outputs, only what Argo says of it."""
    given = workflow("Failed")
    given["status"]["nodes"]["main"] = node("Container", "main", "Failed", message=message)
    assert view(given).result(StepName.VERIFY) is expected


def test_a_report_is_of_the_step_that_wrote_it() -> None:
    """The steps of one pod write to one file; where verify never ran, another's report is there."""
    given = workflow("Failed", precheck="as_planned", act="refused", rollback="nothing_changed")
    nodes = given["status"]["nodes"]
    nodes["pod"]["outputs"] = report("act", "refused", "somebody was faster")
    nodes["main"] = node("Container", "main", "Error", message=told("main", 64, "dependency"))
    seen = view(given)
    assert seen.result(StepName.VERIFY) is None
    assert [s.message for s in seen.steps if s.step is StepName.ACT] == ["somebody was faster"]
    nodes["pod"]["outputs"] = report("rollback", "undone")
    nodes["rollback"]["outputs"] = report("verify", "verified")
    seen = view(given)
    assert seen.result(StepName.VERIFY) is None
    assert seen.result(StepName.ROLLBACK) is None


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (5, Outcome.ROLLBACK_FAILED),
        (6, Outcome.ROLLBACK_FAILED),
        (0, Outcome.UNKNOWN),
        (137, Outcome.UNKNOWN),
    ],
)
def test_a_rollback_that_says_nothing_counts_for_success_never(
    code: int, expected: Outcome
) -> None:
    given = workflow("Failed", **ACTED, verify="not_verified")
    phase = "Failed" if code else "Succeeded"
    given["status"]["nodes"]["rollback"] = node(
        "Pod", "rollback", phase, templateName="rollback", outputs={"exitCode": str(code)}
    )
    assert outcome(view(given))[0] is expected


def test_steps_are_told_in_their_order_with_what_they_said() -> None:
    steps = view(workflow("Failed", **ACTED, verify="not_verified", rollback="undone")).steps
    assert [(s.step, s.result, s.phase) for s in steps] == [
        (StepName.PRECHECK, Result.AS_PLANNED, "Succeeded"),
        (StepName.ACT, Result.ACTED, "Succeeded"),
        (StepName.VERIFY, Result.NOT_VERIFIED, "Failed"),
        (StepName.ROLLBACK, Result.UNDONE, "Succeeded"),
    ]
    assert steps[2].message == "verify's words"
    assert json.loads(json.dumps(steps[0].as_json())) == {
        "step": "precheck",
        "phase": "Succeeded",
        "result": "as_planned",
        "message": "",
        "started_at": STARTED,
        "finished_at": FINISHED,
    }


def test_whether_a_step_ran() -> None:
    seen = view(workflow("Running", precheck="as_planned"))
    assert seen.ran(StepName.PRECHECK)
    assert not seen.ran(StepName.ACT)
