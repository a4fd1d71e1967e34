"""Policies that deny everything, allow everything, loop, or are huge: harmless, or refused."""

import time
from pathlib import Path

import pytest

from tiphys.policies.expressions import compile_expression
from tiphys.policies.gate import RULES
from tiphys.policies.model import Facts
from tiphys.policies.parse import MAX_COST, MAX_CUSTOM, PolicyUnreadableError, load, parse, read
from tiphys.policies.policy import Policy
from tiphys.policies.policy_cases import MAX_CASES, CaseEntry, PolicyCase, case_of
from tiphys.policies.verdict import Judgement

HEAD = "format: tiphys/policy/v1\nname: hostile\nversion: 1\n"
AUTO = "rules: {autonomy: {default: auto}}\n"


def rule(at: int, expression: str, effect: str = "deny") -> str:
    return (
        f"  - name: rule-{at}\n    expression: '{expression}'\n    message: no\n"
        f"    effect: {effect}\n"
    )


def busiest(policy: Policy) -> PolicyCase:
    """A request with as much to loop over as one can have."""
    request = {
        "evidence": [{"age_seconds": at} for at in range(100)],
        "alerts": [
            {"name": f"A{at}", "severity": "info", "labels": {"pod": f"p-{at}"}}
            for at in range(100)
        ],
        "target": {"labels": {f"label-{at}": "a" * 60 for at in range(60)}},
    }
    return case_of(CaseEntry.model_validate({"name": "busy", "request": request}), policy)


def judged(policy: Policy, case: PolicyCase) -> tuple[Judgement, float]:
    """Judge; give the processor's seconds too, which a busy machine does not spoil much."""
    began = time.thread_time()
    result = case.run(policy)
    return result.judgement, time.thread_time() - began


# --- denies or allows everything ------------------------------------------------------------------


def test_a_policy_that_denies_everything_starts_nothing_and_says_why() -> None:
    policy = parse(HEAD + AUTO + "custom:\n" + rule(0, "1 == 2"), "p.yaml")
    judgement, _ = judged(policy, busiest(policy))
    assert judgement.denied_by == {"custom/rule-0"}
    assert len(judgement.verdicts) == len(RULES) + 1, "every reason is known all the same"


ALLOWS_ALL = (
    HEAD
    + """
rules:
  opted-in: {label: kubernetes.io/metadata.name, value: kube-system}
  protected-namespaces: {patterns: []}
  own-parts: {label: none, value: none}
  own-alerts: {prefix: none}
  autonomy: {default: auto}
  risk: {low: auto, medium: auto, high: auto}
  confidence: {low: 0, medium: 0, high: 0}
custom:
"""
    + rule(0, "1 == 1", "allow")
)


@pytest.mark.parametrize(
    ("request_", "by"),
    [
        ({"stop": {"engaged": True}}, "stop-switch"),
        ({"target": {"managed_cluster": False}}, "managed-cluster"),
        ({"target": {"annotations": {"tiphys.io/hands-off": ""}}}, "hands-off"),
        ({"target": {"open_mark": "x.act"}}, "open-mark"),
        ({"target": {"field_owner": "argocd"}}, "field-owner"),
        ({"history": {"frozen": "it did not hold"}}, "frozen-target"),
        ({"history": {"breakers": ["tripped"]}}, "breaker"),
        ({"history": {"open_runs_on_target": 1}}, "one-per-target"),
        ({"alert": {"firing": False}}, "alert-firing"),
        ({"evidence": []}, "evidence-present"),
        ({"unreadable": ["target"]}, "target-unmoved"),
        ({"action": {"always_asks": True}}, "always-ask"),
    ],
)
def test_a_policy_that_allows_everything_lifts_no_fence(
    request_: dict[str, object], by: str
) -> None:
    policy = parse(ALLOWS_ALL, "p.yaml")
    case = case_of(CaseEntry.model_validate({"name": "x", "request": request_}), policy)
    judgement, _ = judged(policy, case)
    assert not judgement.allowed
    assert any(text.startswith(f"{by}:") for text in judgement.denials + judgement.approvals)


# --- loops ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "expression",
    [
        "evidence.all(a, evidence.all(b, evidence.all(c, true)))",
        "evidence.map(a, evidence.map(b, evidence.map(c, c))).size() > 0",
        "[[[1]]].all(a, a.all(b, b.all(c, true)))",
    ],
)
def test_three_loops_inside_one_another_are_refused(expression: str) -> None:
    with pytest.raises(PolicyUnreadableError, match="loops are 3 deep, at most 2 may be"):
        parse(HEAD + "custom:\n" + rule(0, expression), "p.yaml")


SLOW = {
    "nested": "alerts.all(a, evidence.all(b, a.name != b.id))",
    "patterns": 'alerts.all(a, a.labels.pod.matches("^(p*)*-[0-9]+$"))',
    "nested patterns": 'alerts.all(a, evidence.all(b, !a.name.matches("^(e*)*-[0-9]+$")))',
    "patterns put together": r'!target.name.matches("\\w{130}" + target.name)',
    "many loops": " && ".join(['alerts.all(a, a.name != "")'] * 60),
    "a long list": "[{0}].all(a, [{0}].all(b, a == b))".format(",".join(["1"] * 400)),
    "lists put together": "({0}).all(a, ({0}).all(b, b.ok))".format(" + ".join(["evidence"] * 2)),
}


@pytest.mark.parametrize("kind", SLOW)
def test_the_slowest_policy_that_is_read_is_still_judged_in_bounded_time(kind: str) -> None:
    """As many such rules as the load lets pass, over as much as there can be."""
    head, each = HEAD + AUTO + "custom:\n", compile_expression(SLOW[kind], where="x").cost
    few = min(MAX_CUSTOM, MAX_COST // each)
    policy = parse(head + "".join(rule(at, SLOW[kind]) for at in range(few)), "p.yaml")
    if few < MAX_CUSTOM:
        with pytest.raises(PolicyUnreadableError, match="at most 5000000 may be: spare loops"):
            parse(head + "".join(rule(at, SLOW[kind]) for at in range(few + 1)), "p.yaml")
    judgement, seconds = judged(policy, busiest(policy))
    assert judgement.allowed, judgement.denials
    assert seconds < 5


def test_200_ordinary_rules_are_judged_in_milliseconds() -> None:
    ordinary = (
        'target.namespace != "shop" || now.weekday < 6',
        'has(target.labels.tier) || action.risk == "low"',
        "evidence.exists(e, e.cited && e.age_seconds < 60)",
        'alert.severity != "critical" || incident.opened_minutes_ago < 30',
    )
    rules = "".join(rule(at, ordinary[at % 4]) for at in range(MAX_CUSTOM))
    policy = parse(HEAD + AUTO + "custom:\n" + rules, "p.yaml")
    case = case_of(CaseEntry(name="x"), policy)
    times = sorted(judged(policy, case)[1] for _ in range(50))
    assert times[25] < 0.02, "ten times what bench/gate.py reaches"


# --- size -----------------------------------------------------------------------------------------


def test_10_megabytes_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    huge = HEAD + "custom:\n" + rule(0, "1 == 1") + "#" * 10_000_000
    file = tmp_path / "huge.yaml"
    file.write_text(huge)
    began = time.thread_time()
    with pytest.raises(PolicyUnreadableError, match=r"huge\.yaml: at most 1048576 bytes may be"):
        load(file)
    with pytest.raises(PolicyUnreadableError, match=r"huge\.yaml:1: \d+ bytes, at most 1048576"):
        parse(huge, "huge.yaml")
    assert time.thread_time() - began < 1


def test_more_rules_or_tests_than_may_be_are_refused() -> None:
    rules = "".join(rule(at, "1 == 1") for at in range(MAX_CUSTOM + 1))
    with pytest.raises(PolicyUnreadableError, match=r"custom: .* at most 200"):
        parse(HEAD + "custom:\n" + rules, "p.yaml")
    tests = "".join(f"  - {{name: t-{at}, expect: denied}}\n" for at in range(MAX_CASES + 1))
    with pytest.raises(PolicyUnreadableError, match=r"tests: .* at most 200"):
        parse(HEAD + "tests:\n" + tests, "p.yaml")


def test_as_many_tests_as_may_be_are_run_in_bounded_time() -> None:
    rules = "".join(rule(at, "evidence.exists(e, e.cited)") for at in range(MAX_CUSTOM))
    tests = "".join(f"  - {{name: t-{at}, expect: allowed}}\n" for at in range(MAX_CASES))
    began = time.thread_time()
    file = read(HEAD + AUTO + "custom:\n" + rules + "tests:\n" + tests, "p.yaml")
    assert all(result.passed for result in file.results())
    assert time.thread_time() - began < 20


def test_a_request_of_a_test_is_bounded_so_that_loops_over_it_are() -> None:
    facts: Facts = busiest(parse(HEAD, "p.yaml")).facts
    assert len(facts.evidence) == 100
    many = ", ".join("{age_seconds: 1}" for _ in range(1_000))
    text = HEAD + f"tests:\n  - {{name: t, expect: denied, request: {{evidence: [{many}]}}}}\n"
    with pytest.raises(PolicyUnreadableError, match=r"a test of .* bytes, at most 16384 may be"):
        parse(text, "p.yaml")
