"""A policy's own tests: what a case leaves out, what it may expect, and what a failure says."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tiphys.policies.gate import RULES
from tiphys.policies.parse import PolicyUnreadableError, built_in, parse, read
from tiphys.policies.policy import Policy
from tiphys.policies.policy_cases import Answer, CaseEntry, answer_of, case_of
from tiphys.service.errors import BadInputError
from tiphys.service.main import app
from tiphys.service.policy_file import read_policy

BAD = Path(__file__).resolve().parent.parent / "data" / "policies" / "bad"
HEAD = "format: tiphys/policy/v1\nname: ours\nversion: 1\n"
GOOD = (
    HEAD
    + """
rules: {autonomy: {default: auto}}
custom:
  - name: not-at-night
    expression: now.hour > 6
    message: not at night
tests:
  - name: by-day
    at: 2026-03-04T12:00:00Z
    expect: allowed
  - name: at-night
    at: 2026-03-04T03:00:00Z
    expect: denied
    rules: {custom/not-at-night: denied, risk: allowed}
  - name: medium-risk-asks
    request: {action: {risk: medium}}
    expect: needs_approval
  - name: approved
    request: {action: {risk: medium}}
    approved_by: ada
    expect: allowed
"""
)


def asked(policy: Policy, **given: Any) -> Answer:
    case = case_of(CaseEntry.model_validate({"name": "here", **given}), policy)
    return answer_of(case.run(policy).judgement)


# --- what a case leaves out -----------------------------------------------------------------------


def test_to_a_case_that_says_nothing_only_autonomy_objects() -> None:
    case = case_of(CaseEntry(name="empty"), built_in())
    assert case.run(built_in()).judgement.denied_by == {"autonomy"}
    auto = parse(HEAD + "rules: {autonomy: {default: auto}}", "p.yaml")
    assert asked(auto) is Answer.ALLOWED
    assert asked(auto, request={"target": {"namespace": "", "kind": "Node"}}) is Answer.ALLOWED


def test_it_opts_in_as_the_policy_wants_it() -> None:
    rules = "rules: {autonomy: {default: auto}, opted-in: {label: heal, value: please}}"
    assert asked(parse(HEAD + rules, "p.yaml")) is Answer.ALLOWED


@pytest.mark.parametrize(
    ("request_", "rule"),
    [
        ({"stop": {"engaged": True}}, "stop-switch"),
        ({"target": {"namespace_labels": {}}}, "opted-in"),
        ({"target": {"namespace": "kube-system"}}, "protected-namespaces"),
        ({"target": {"changes": []}}, "target-unmoved"),
        ({"alert": {"firing": False}}, "alert-firing"),
        ({"alert": {"names": ["TiphysDown"]}}, "own-alerts"),
        ({"evidence": []}, "evidence-present"),
        ({"evidence": [{"ok": False}]}, "evidence-present"),
        ({"evidence": [{"age_seconds": 9999}]}, "evidence-fresh"),
        ({"history": {"open_runs_on_target": 1}}, "one-per-target"),
        ({"history": {"last_run_ended_at": "2026-03-04T11:59:00Z"}}, "cooldown"),
        ({"unreadable": ["history"]}, "breaker"),
        ({"unreadable": ["stop"]}, "stop-switch"),
    ],
)
def test_it_may_say_what_any_built_in_rule_judges_by(request_: dict[str, Any], rule: str) -> None:
    policy = parse(HEAD + "rules: {autonomy: {default: auto}}", "p.yaml")
    assert asked(policy, request=request_, rules={rule: "denied"}) is Answer.DENIED
    case = case_of(CaseEntry.model_validate({"name": "x", "request": request_}), policy)
    assert rule in case.run(policy).judgement.denied_by


def test_an_undo_needs_no_alert() -> None:
    policy = parse(HEAD + "rules: {autonomy: {default: auto}}", "p.yaml")
    silent = {"alert": {"firing": False}, "action": {"undoes": True}}
    assert asked(policy, request=silent) is Answer.ALLOWED


# --- run at load ----------------------------------------------------------------------------------


def test_a_policy_that_passes_its_tests_is_used() -> None:
    file = read(GOOD, "p.yaml")
    assert [result.passed for result in file.results()] == [True] * 4
    assert len(file.results()[0].judgement.verdicts) == len(RULES) + 1
    assert parse(GOOD, "p.yaml").identity == file.policy.identity


def test_one_that_fails_a_test_is_refused_with_every_failure() -> None:
    text = GOOD.replace("now.hour > 6", "now.hour > 2").replace("approved_by: ada", "")
    with pytest.raises(PolicyUnreadableError) as caught:
        parse(text, "p.yaml")
    night, rule, approved = caught.value.problems
    assert night.startswith("p.yaml:14: tests[1]: the test at-night fails: expected denied, got")
    assert rule.endswith("expected denied of custom/not-at-night, got allowed")
    assert approved.startswith("p.yaml:21: tests[3]: the test approved fails: expected allowed, ")
    assert approved.endswith("got needs_approval: risk: medium risk needs approval")


def test_the_service_refuses_it_too() -> None:
    with pytest.raises(BadInputError, match="the test nothing-may-restart fails"):
        read_policy(BAD / "test_that_fails.yaml")


# --- tiphys policy test ---------------------------------------------------------------------------


def test_the_command_says_each_and_fails_with_one(tmp_path: Path) -> None:
    file = tmp_path / "ours.yaml"
    file.write_text(GOOD)
    answer = CliRunner().invoke(app, ["policy", "test", str(file)])
    assert answer.exit_code == 0
    assert answer.stdout.count("passed ") == 4
    assert "4 tests, 0 failed" in " ".join(answer.stdout.split())
    file.write_text(GOOD.replace("now.hour > 6", "now.hour > 2"))
    answer = CliRunner().invoke(app, ["policy", "test", str(file)])
    assert answer.exit_code == 1
    assert "failed at-night" in " ".join(answer.stdout.split())
    assert "4 tests, 1 failed" in " ".join(answer.stdout.split())


def test_the_command_gives_json(tmp_path: Path) -> None:
    file = tmp_path / "ours.yaml"
    file.write_text(GOOD.replace("now.hour > 6", "now.hour > 2"))
    answer = CliRunner().invoke(app, ["policy", "test", str(file), "--json"])
    assert answer.exit_code == 1
    told = json.loads(answer.stdout)
    assert [one["passed"] for one in told] == [True, False, True, True]
    assert told[1]["answer"] == "allowed"
    assert len(told[1]["faults"]) == 2


def test_the_command_ends_with_2_where_the_policy_cannot_be_read() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tiphys.service.main", "policy", "test", str(BAD / "empty.yaml")],
        check=False,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 2
    assert "empty.yaml:1: the policy: expected keys and values" in ended.stderr
