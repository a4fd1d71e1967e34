"""Rules of a team's own: what each effect does, what it never does, and what they may read."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiphys.policies.custom import relieved
from tiphys.policies.gate import judge
from tiphys.policies.model import AlertFacts, Facts
from tiphys.policies.parse import parse
from tiphys.policies.policy import Policy
from tiphys.policies.policy_cases import WHEN, CaseEntry, PolicyCase, case_of
from tiphys.policies.rule import RuleName
from tiphys.policies.verdict import (
    Allowed,
    Denied,
    Judgement,
    NeedsApproval,
    RuleVerdict,
    Verdict,
)

HEAD = "format: tiphys/policy/v1\nname: ours\nversion: 1\n"
AUTO = "rules: {autonomy: {default: auto}}\n"
APPROVE = "rules: {autonomy: {default: approve}}\n"


def policy_with(*rules: str, levels: str = AUTO) -> Policy:
    """Read a policy with these custom rules, each a flow mapping without its name and braces."""
    entries = "".join(f"  - {{name: rule-{at}, {rule}}}\n" for at, rule in enumerate(rules))
    return parse(HEAD + levels + ("custom:\n" + entries if rules else ""), "p.yaml")


def a_case(policy: Policy, **request: Any) -> PolicyCase:
    return case_of(CaseEntry.model_validate({"name": "here", "request": request}), policy)


def judged(policy: Policy, **request: Any) -> Judgement:
    return a_case(policy, **request).run(policy).judgement


def verdict_of(judgement: Judgement, rule: str) -> Verdict:
    [found] = [v.verdict for v in judgement.verdicts if v.rule == rule]
    return found


# --- deny and ask ---------------------------------------------------------------------------------

HOLDS = 'expression: target.name == "web", message: not web'
FAILS = 'expression: target.name == "cart", message: not cart'


def test_an_expression_that_holds_objects_to_nothing() -> None:
    for effect in ("deny", "ask"):
        judgement = judged(policy_with(f"{HOLDS}, effect: {effect}"))
        assert judgement.allowed
        assert verdict_of(judgement, "custom/rule-0") == Allowed()


def test_an_expression_that_does_not_hold_denies_or_asks_whom_it_names() -> None:
    assert judged(policy_with(FAILS)).denials == ("custom/rule-0: not cart",)
    asks = judged(policy_with(f"{FAILS}, effect: ask"))
    assert verdict_of(asks, "custom/rule-0") == NeedsApproval(reason="not cart")
    asks = judged(policy_with(f"{FAILS}, effect: ask, people: 2, by: [sre, ada]"))
    assert asks.needs_approval
    assert verdict_of(asks, "custom/rule-0") == NeedsApproval(
        reason="not cart", people=2, by=("sre", "ada")
    )


def test_where_when_does_not_hold_the_rule_says_nothing() -> None:
    policy = policy_with(f'when: target.namespace == "shop", {FAILS}')
    assert judged(policy).allowed
    assert judged(policy, target={"namespace": "shop"}).denied_by == {"custom/rule-0"}


@pytest.mark.parametrize("effect", ["deny", "ask", "allow"])
@pytest.mark.parametrize("key", ["expression", "when"])
def test_an_expression_that_errors_denies_whatever_its_effect(effect: str, key: str) -> None:
    other = "" if key == "expression" else "expression: 1 == 1, "
    rule = f'{other}{key}: target.labels.absent == "x", message: m, effect: {effect}'
    judgement = judged(policy_with(rule))
    assert judgement.denied_by == {"custom/rule-0"}
    assert "there is no fact 'absent'" in judgement.denials[0]


# --- messages -------------------------------------------------------------------------------------


def test_a_message_may_be_made_of_the_request() -> None:
    said = "'target.name + \" at \" + string(now.hour)'"
    judgement = judged(policy_with(f"{FAILS}, messageExpression: {said}"))
    assert judgement.denials == ("custom/rule-0: web at 12",)


@pytest.mark.parametrize(
    "expression", ["target.labels.absent", "now.hour", "'\" \"'", "target.labels.text"]
)
def test_a_message_that_cannot_be_made_is_the_written_one(expression: str) -> None:
    policy = policy_with(f"{FAILS}, messageExpression: {expression}")
    hostile = {"labels": {"text": "two\nlines \x1b[31m"}}
    assert judged(policy, target=hostile).denials == ("custom/rule-0: not cart",)


def test_a_message_is_bounded() -> None:
    policy = policy_with(f"{FAILS}, messageExpression: target.labels.text")
    [denial] = judged(policy, target={"labels": {"text": "x" * 5000}}).denials
    assert len(denial) == len("custom/rule-0: ") + 500
    assert denial.endswith("x…")


# --- allow ----------------------------------------------------------------------------------------

ALLOW = "expression: 1 == 1, message: it is harmless, effect: allow"


def test_a_rule_that_allows_meets_what_autonomy_and_risk_ask_of_one_person() -> None:
    request = {"action": {"risk": "medium"}}
    without = judged(policy_with(levels=APPROVE), **request)
    assert {v.split(":")[0] for v in without.approvals} == {"autonomy", "risk"}
    judgement = judged(policy_with(ALLOW, levels=APPROVE), **request)
    assert judgement.allowed
    assert verdict_of(judgement, "custom/rule-0") == Allowed(reason="it is harmless")
    met = verdict_of(judgement, RuleName.RISK)
    assert met == Allowed(reason="custom/rule-0 allows it, although medium risk needs approval")


def test_a_rule_that_allows_does_not_meet_what_two_people_must() -> None:
    judgement = judged(policy_with(ALLOW, levels=APPROVE), action={"risk": "high"})
    assert {v.split(":")[0] for v in judgement.approvals} == {"risk"}


def test_where_it_does_not_hold_it_says_nothing() -> None:
    policy = policy_with(ALLOW.replace("1 == 1", "1 == 2"), levels=APPROVE)
    assert judged(policy).needs_approval
    assert verdict_of(judged(policy), "custom/rule-0") == Allowed()
    absent = policy_with(f'when: target.namespace == "shop", {ALLOW}', levels=APPROVE)
    assert judged(absent).needs_approval


@pytest.mark.parametrize(
    ("request_", "rule"),
    [
        ({"action": {"always_asks": True}}, RuleName.ALWAYS_ASK),
        ({"action": {"confidence": 0.1}}, RuleName.CONFIDENCE),
        ({"target": {"ends_long_job": "a Job"}}, RuleName.LONG_JOB),
        ({"evidence": [{"age_seconds": 400}]}, RuleName.EVIDENCE_FRESH),
    ],
)
def test_it_meets_no_other_rules_need(request_: dict[str, Any], rule: RuleName) -> None:
    judgement = judged(policy_with(ALLOW), **request_)
    assert isinstance(verdict_of(judgement, rule), NeedsApproval)
    assert judgement.needs_approval


def test_it_meets_no_need_that_another_custom_rule_has() -> None:
    for need in (f"{FAILS}, effect: ask", f"{FAILS}, effect: ask, people: 2"):
        assert judged(policy_with(ALLOW, need)).needs_approval
        assert judged(policy_with(need, ALLOW)).needs_approval
    assert judged(policy_with(ALLOW, FAILS)).denied


@pytest.mark.parametrize("need", [{"people": 2}, {"by": ("sre",)}])
def test_it_meets_no_need_for_two_or_for_somebody_by_name(need: dict[str, Any]) -> None:
    asked = RuleVerdict(rule=RuleName.RISK, verdict=NeedsApproval(reason="high risk", **need))
    allows = RuleVerdict(rule="custom/quiet", verdict=Allowed(reason="it is harmless"))
    assert relieved([asked, allows]) == (asked, allows)


def test_only_a_rule_of_the_policys_own_can_allow() -> None:
    asked = RuleVerdict(rule=RuleName.RISK, verdict=NeedsApproval(reason="high risk"))
    other = RuleVerdict(rule=RuleName.COOLDOWN, verdict=Allowed(reason="it has rested"))
    assert relieved([asked, other]) == (asked, other)


REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "action": st.fixed_dictionaries(
            {
                "risk": st.sampled_from(["low", "medium", "high"]),
                "always_asks": st.booleans(),
                "confidence": st.sampled_from([0.1, 0.6, 1.0]),
            }
        ),
        "target": st.fixed_dictionaries(
            {
                "namespace": st.sampled_from(["", "shop", "kube-system"]),
                "rollout_in_progress": st.booleans(),
                "ends_long_job": st.none() | st.just("a Job"),
            }
        ),
        "alert": st.fixed_dictionaries({"firing": st.booleans(), "silenced": st.booleans()}),
        "stop": st.fixed_dictionaries({"engaged": st.booleans()}),
        "history": st.fixed_dictionaries({"open_runs_in_cluster": st.sampled_from([0, 9])}),
        "unreadable": st.sampled_from([[], ["history"], ["stop", "alert"]]),
    },
)
LEVELS = st.sampled_from(["suggest", "approve", "auto"])


@settings(max_examples=120, deadline=None)
@given(REQUESTS, LEVELS)
def test_no_rule_that_allows_lifts_a_denial_or_weakens_another_need(
    request: dict[str, Any], level: str
) -> None:
    levels = f"rules: {{autonomy: {{default: {level}}}}}\n"
    without, having = policy_with(levels=levels), policy_with(ALLOW, levels=levels)
    before, after = judged(without, **request), judged(having, **request)
    assert before.denied_by <= after.denied_by
    spared = {RuleName.AUTONOMY, RuleName.RISK}
    for verdict in before.verdicts:
        if verdict.rule not in spared or isinstance(verdict.verdict, Denied):
            assert verdict in after.verdicts


# --- what they may read ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "request_"),
    [
        ('alert.severity == "critical"', {"alert": {"severity": "critical"}}),
        ('alert.labels.team == "web"', {"alert": {"labels": {"team": "web"}}}),
        ('alerts.exists(a, a.name == "TestAlert")', {}),
        ('incident.severity == "warning" && incident.attempt == 1', {}),
        ("incident.opened_minutes_ago == 7", {"incident": {"opened_minutes_ago": 7}}),
        ("parameters.replicas == 4", {"parameters": {"replicas": 4}}),
        ('changes.all(c, c.path == "/spec/replicas" && c.intended == 2)', {}),
        ('target.api_version == "apps/v1" && size(target.owners) == 0', {}),
        ("evidence.exists(e, e.cited && e.age_seconds < 60)", {}),
        ('now.date == "2026-03-04" && now.weekday == 3', {}),
        ("action.always_asks == false && !action.undoes", {}),
        ("history.open_runs_in_cluster == 2", {"history": {"open_runs_in_cluster": 2}}),
    ],
)
def test_the_request_holds(expression: str, request_: dict[str, Any]) -> None:
    policy = policy_with(f"expression: '{expression}', message: m")
    assert judged(policy, **request_).allowed


def test_labels_are_those_that_all_alerts_have_in_common() -> None:
    alerts = [
        {"name": "A", "severity": "info", "labels": {"team": "web", "pod": "a"}},
        {"name": "B", "severity": "critical", "labels": {"team": "web", "pod": "b"}},
    ]
    policy = policy_with(
        'expression: \'alert.labels == {"team": "web"} && alert.severity == "critical"\', '
        "message: m"
    )
    assert judged(policy, alerts=alerts).allowed
    assert judged(policy, alerts=[]).denied_by >= {"custom/rule-0"}


def test_facts_that_nobody_kept_are_not_made_up() -> None:
    for path in ("alert.severity", "alert.labels.team", "incident.id"):
        policy = policy_with(f'expression: {path} != "x", message: m')
        case = a_case(policy, alert={"labels": {"team": "web"}})
        assert judge(case.proposal, case.facts, policy, WHEN).allowed
        forgotten: AlertFacts | None = case.facts.alert
        assert forgotten
        older = case.facts.model_copy(
            update={"incident": None, "alert": forgotten.model_copy(update={"alerts": None})}
        )
        assert judge(case.proposal, older, policy, WHEN).denied_by == {"custom/rule-0"}


def test_facts_recorded_before_these_were_known_keep_their_bytes() -> None:
    policy = policy_with()
    facts = a_case(policy).facts
    assert facts.alert
    older = facts.model_copy(
        update={"incident": None, "alert": facts.alert.model_copy(update={"alerts": None})}
    )
    plain = older.model_dump(mode="json")
    assert "incident" not in plain
    assert "alerts" not in plain["alert"]
    assert Facts.model_validate(plain) == older
