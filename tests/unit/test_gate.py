"""The gate: one test per rule, and what must hold whatever the facts are."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiphys.policies.approval import Autonomy, Confidence, Grant, Level, RiskLevel
from tiphys.policies.custom import CustomRule, Effect, facts_of
from tiphys.policies.evidence import EvidenceFresh
from tiphys.policies.expressions import compile_expression
from tiphys.policies.gate import RULES, judge, lacking, rules_of
from tiphys.policies.limits import Cooldown, LaunchRate
from tiphys.policies.model import (
    AlertFacts,
    Change,
    Check,
    DecidedBy,
    EvidenceFact,
    Facts,
    HistoryFacts,
    ObjectReference,
    Owner,
    Proposal,
    Risk,
    Source,
    StopFacts,
    Target,
    TargetFacts,
)
from tiphys.policies.policy import Policy
from tiphys.policies.rule import ALLOWED, Request, Rule, RuleName
from tiphys.policies.verdict import Allowed, ApprovalFact, Denied, NeedsApproval, Verdict

NOW = datetime(2026, 3, 4, 3, 0, tzinfo=UTC)
TARGET = Target(
    cluster="c1", api_version="apps/v1", kind="Deployment", namespace="shop", name="cart", uid="u1"
)
CHANGE = Change(path="/spec/replicas", present=2, intended=4)
SETTING = Change(
    of=ObjectReference(api_version="v1", kind="ConfigMap", namespace="shop", name="x", uid="u2"),
    path="/data/key",
    present="1",
    intended="2",
)
PROPOSAL = Proposal(
    action="scale-workload",
    version=1,
    target=TARGET,
    parameters={"replicas": 4},
    changes=(CHANGE,),
    risk=Risk.LOW,
    reversible=True,
    blast_radius="two more pods",
    undo="the earlier replicas",
    reason="overload",
    check=Check(),
    evidence=("ev-1",),
    decided_by=DecidedBy(reasoner="playbooks", playbook="overload"),
)
FACTS = Facts(
    alert=AlertFacts(
        firing=True, silenced=False, inhibited=False, names=("CPUThrottlingHigh",), read_at=NOW
    ),
    target=TargetFacts(
        target=TARGET,
        changes=(CHANGE,),
        managed_cluster=True,
        namespace_labels={"tiphys.io/heal": "enabled"},
        labels={"app": "cart"},
        annotations={},
        rollout_in_progress=False,
        read_at=NOW,
    ),
    history=HistoryFacts(
        open_runs_on_target=0, open_runs_in_cluster=2, recent_launches_in_namespace=4
    ),
    stop=StopFacts(engaged=False),
    evidence=(
        EvidenceFact(id="ev-1", source=Source.KUBERNETES, asked_at=NOW, ok=True),
        EvidenceFact(id="ev-2", source=Source.LOGS, asked_at=NOW, ok=True),
        EvidenceFact(id="ev-3", source=Source.KUBERNETES, asked_at=NOW, ok=False),
    ),
)
AUTO = Grant(actions=("*",), namespaces=("*", "-"), level=Level.AUTO)
POLICY = Policy(name="test", settings={RuleName.AUTONOMY: Autonomy(grants=(AUTO,))})


@dataclass(frozen=True)
class Case:
    """Facts that exactly one rule refuses."""

    rule: RuleName
    facts: dict[str, dict[str, Any]]
    proposal: dict[str, Any]
    policy: Policy
    asks: bool

    def __str__(self) -> str:
        return self.rule


def case(
    rule: RuleName,
    *,
    policy: Policy = POLICY,
    asks: bool = False,
    proposal: dict[str, Any] | None = None,
    **facts: dict[str, Any],
) -> Case:
    return Case(rule, facts, proposal or {}, policy, asks)


def altered(facts: Facts, changes: dict[str, Any]) -> Facts:
    parts = {
        name: getattr(facts, name).model_copy(update=change) if isinstance(change, dict) else change
        for name, change in changes.items()
    }
    return facts.model_copy(update=parts)


def target_in(namespace: str) -> dict[str, dict[str, Any]]:
    moved = TARGET.model_copy(update={"namespace": namespace})
    return {"target": {"target": moved}, "proposal": {"target": moved}}


def old_evidence(seconds: float) -> Facts:
    fact = FACTS.evidence[0].model_copy(update={"asked_at": NOW - timedelta(seconds=seconds)})
    return FACTS.model_copy(update={"evidence": (fact,)})


R = RuleName
NEVER_BACK = {"always_ask": "nothing takes it back"}
LATE = NOW - timedelta(seconds=31)
ONLY_THIS_RULE_REFUSES = [
    case(R.STOP_SWITCH, stop={"engaged": True}),
    case(R.PAUSED, history={"pauses": ({"scope": "cluster", "by": "ada", "until": NOW},)}),
    case(R.MANAGED_CLUSTER, target={"managed_cluster": False}),
    case(R.OPTED_IN, target={"namespace_labels": {"tiphys.io/heal": "yes"}}),
    case(R.OPTED_IN, **target_in("")),
    case(R.PROTECTED_NAMESPACES, **target_in("kube-system")),
    case(R.HANDS_OFF, target={"annotations": {"tiphys.io/hands-off": ""}}),
    case(R.OWN_PARTS, target={"labels": {"app.kubernetes.io/part-of": "tiphys"}}),
    case(R.OWN_ALERTS, alert={"names": ("A", "TiphysDown")}),
    case(R.ALERT_FIRING, alert={"firing": False}),
    case(R.ALERT_NOT_SILENCED, alert={"silenced": True}),
    case(R.ALERT_NOT_SILENCED, alert={"inhibited": True}),
    case(R.EVIDENCE_PRESENT, proposal={"evidence": ("ev-1", "ev-3")}),
    case(R.EVIDENCE_PRESENT, proposal={"evidence": ("ev-1", "ev-unknown")}),
    case(R.EVIDENCE_PRESENT, proposal={"evidence": ("ev-2",)}),
    case(R.FACTS_FRESH, target={"read_at": LATE}),
    case(R.FACTS_FRESH, alert={"read_at": LATE}),
    case(R.FACTS_FRESH, target={"read_at": NOW + timedelta(seconds=6)}),
    case(R.TARGET_UNMOVED, target={"changes": (CHANGE.model_copy(update={"present": 3}),)}),
    case(R.TARGET_UNMOVED, target={"target": TARGET.model_copy(update={"uid": "u2"})}),
    case(R.TARGET_UNMOVED, target={"changes": ()}, proposal={"changes": ()}),
    case(R.FROZEN_TARGET, history={"frozen": "the rollback did not hold"}),
    case(R.OPEN_MARK, target={"open_mark": "abc.act"}),
    case(R.ONE_PER_TARGET, history={"open_runs_on_target": 1}),
    case(R.CLUSTER_CONCURRENCY, history={"open_runs_in_cluster": 3}),
    case(R.LAUNCH_RATE, history={"recent_launches_in_namespace": 5}),
    case(R.BREAKER, history={"breakers": ("namespace:c1/shop: too many launches",)}),
    case(R.COOLDOWN, history={"last_run_ended_at": NOW - timedelta(seconds=899)}),
    case(R.FIELD_OWNER, target={"field_owner": "argocd-controller"}),
    case(R.REPLICAS_OWNER, target={"autoscaler": "HorizontalPodAutoscaler cart"}),
    case(R.ROLLOUT_IN_PROGRESS, target={"rollout_in_progress": True}),
    case(R.LONG_JOB, asks=True, target={"ends_long_job": "GPU", "gpu_hours_at_stake": 4.25}),
    case(R.CONFIG_VALUES, proposal={"changes": (SETTING,)}, target={"changes": (SETTING,)}),
    case(R.AUTONOMY, policy=Policy()),
    case(
        R.AUTONOMY,
        asks=True,
        policy=Policy(settings={R.AUTONOMY: Autonomy(default=Level.APPROVE)}),
    ),
    case(R.RISK, asks=True, proposal={"risk": Risk.MEDIUM}),
    case(R.RISK, asks=True, proposal={"risk": Risk.HIGH}),
    case(R.CONFIDENCE, asks=True, proposal={"confidence": 0.49}),
    case(R.ALWAYS_ASK, asks=True, proposal=NEVER_BACK),
]


def test_a_good_proposal_is_allowed_by_every_rule() -> None:
    judgement = judge(PROPOSAL, FACTS, POLICY, NOW)
    assert judgement.allowed, judgement.denials + judgement.approvals
    assert not judgement.needs_approval
    assert not judgement.denied
    assert len(judgement.verdicts) == len(RULES)
    assert judgement.policy == POLICY.identity


@pytest.mark.parametrize("refused", ONLY_THIS_RULE_REFUSES, ids=str)
def test_each_rule_refuses_what_only_it_refuses(refused: Case) -> None:
    proposal = PROPOSAL.model_copy(update=refused.proposal)
    judgement = judge(proposal, altered(FACTS, refused.facts), refused.policy, NOW)
    against = [v for v in judgement.verdicts if not isinstance(v.verdict, Allowed)]
    assert [v.rule for v in against] == [refused.rule]
    assert isinstance(against[0].verdict, NeedsApproval if refused.asks else Denied)
    assert judgement.needs_approval == refused.asks
    assert judgement.denied != refused.asks
    assert not judgement.allowed


UNDO = PROPOSAL.model_copy(
    update={"undoes": "tiphys-" + "a" * 40, "decided_by": DecidedBy(reasoner="human")}
)


@pytest.mark.parametrize("refused", ONLY_THIS_RULE_REFUSES, ids=str)
def test_a_persons_undo_passes_every_rule_but_two(refused: Case) -> None:
    """It needs no alert and no rest; asked for by anybody else it is like any other."""
    spared = refused.rule in {R.ALERT_FIRING, R.COOLDOWN}
    by_us = DecidedBy(reasoner="playbooks", playbook="sly")
    for proposal, free in ((UNDO, spared), (UNDO.model_copy(update={"decided_by": by_us}), False)):
        facts = altered(FACTS, refused.facts)
        asked = proposal.model_copy(update=refused.proposal)
        judgement = judge(asked, facts, refused.policy, NOW)
        assert judgement.allowed == free
        assert judgement.needs_approval == (refused.asks and not free)


def test_evidence_that_ages_is_asked_about_and_then_refused() -> None:
    assert judge(PROPOSAL, old_evidence(300), POLICY, NOW).allowed
    middling = judge(PROPOSAL, old_evidence(301), POLICY, NOW)
    assert [text.split(":")[0] for text in middling.approvals] == [R.EVIDENCE_FRESH]
    assert judge(PROPOSAL, old_evidence(3601), POLICY, NOW).denied_by == {R.EVIDENCE_FRESH}
    assert judge(PROPOSAL, old_evidence(-6), POLICY, NOW).denied_by == {R.EVIDENCE_FRESH}


def test_without_evidence_nothing_is_allowed() -> None:
    bare = PROPOSAL.model_copy(update={"evidence": ()})
    assert judge(bare, FACTS, POLICY, NOW).denied_by == {R.EVIDENCE_PRESENT, R.EVIDENCE_FRESH}


def test_the_table_covers_every_rule_and_every_rule_stands_in_the_literal() -> None:
    tested = {c.rule for c in ONLY_THIS_RULE_REFUSES} | {R.EVIDENCE_FRESH}
    assert tested == {kind.name for kind in RULES} == set(RuleName) - {R.CUSTOM}
    assert len(RULES) == len({kind.name for kind in RULES})


@pytest.mark.parametrize("missing", ["alert", "target", "history", "stop"])
def test_facts_that_could_not_be_read_are_denied(missing: str) -> None:
    judgement = judge(PROPOSAL, altered(FACTS, {missing: None}), POLICY, NOW)
    assert judgement.denied
    assert any("could not be read" in denial for denial in judgement.denials)


def test_an_autoscaler_forbids_only_a_change_of_replicas() -> None:
    image = (Change(path="/spec/template", present="a", intended="b"),)
    facts = altered(FACTS, {"target": {"autoscaler": "HPA", "changes": image}})
    assert judge(PROPOSAL.model_copy(update={"changes": image}), facts, POLICY, NOW).allowed


def test_an_undo_may_interrupt_the_rollout_it_undoes() -> None:
    facts = altered(FACTS, {"target": {"rollout_in_progress": True}})
    undo = PROPOSAL.model_copy(update={"action": "rollout-undo"})
    assert judge(undo, facts, POLICY, NOW).allowed


def test_reasons_tell_what_a_person_needs() -> None:
    facts = altered(
        FACTS,
        {"target": {"field_owner": "flux", "ends_long_job": "a Job", "gpu_hours_at_stake": 4.25}},
    )
    judgement = judge(PROPOSAL, facts, POLICY, NOW)
    assert "flux" in judgement.denials[0]
    assert "/spec/replicas from 2 to 4" in judgement.denials[0]
    assert "4.2 GPU hours" in judgement.approvals[0]


def test_a_cluster_scoped_target_opts_in_itself() -> None:
    node = target_in("")
    labels = {"labels": {"tiphys.io/heal": "enabled"}, "namespace_labels": {}}
    facts = altered(FACTS, {"target": {**node["target"], **labels}})
    assert judge(PROPOSAL.model_copy(update=node["proposal"]), facts, POLICY, NOW).allowed


def test_settings_of_the_policy_count() -> None:
    policy = replace(
        POLICY,
        settings={
            **POLICY.settings,
            R.COOLDOWN: Cooldown(seconds=10),
            R.LAUNCH_RATE: LaunchRate(limit=9),
            R.RISK: RiskLevel(medium=Level.AUTO),
            R.CONFIDENCE: Confidence(medium=0.2),
        },
    )
    history = {"last_run_ended_at": NOW - timedelta(seconds=11), "recent_launches_in_namespace": 8}
    proposal = PROPOSAL.model_copy(update={"risk": Risk.MEDIUM, "confidence": 0.3})
    assert judge(proposal, altered(FACTS, {"history": history}), policy, NOW).allowed
    assert policy.rule(EvidenceFresh) == EvidenceFresh()


@pytest.mark.parametrize(
    ("action", "namespace", "level"),
    [
        ("restart-pod", "shop", Level.AUTO),
        ("restart-pod", "team-a", Level.APPROVE),
        ("restart-pod", "other", Level.SUGGEST),
        ("restart-pod", "", Level.SUGGEST),
        ("cordon-drain-node", "", Level.APPROVE),
        ("scale-workload", "shop", Level.SUGGEST),
    ],
)
def test_the_first_grant_that_fits_counts(action: str, namespace: str, level: Level) -> None:
    autonomy = Autonomy(
        grants=(
            Grant(actions=("restart-pod",), namespaces=("shop",), level=Level.AUTO),
            Grant(actions=("restart-pod",), namespaces=("shop", "team-*"), level=Level.APPROVE),
            Grant(actions=("cordon-drain-node",), namespaces=("-",), level=Level.APPROVE),
        )
    )
    assert autonomy.level(action, namespace) is level


# --- approval -----------------------------------------------------------------------------------

RISKY = PROPOSAL.model_copy(update={"risk": Risk.HIGH})
APPROVAL = ApprovalFact(
    approved_digest="d" * 64, plan_digest="d" * 64, by="ada", expires_at=NOW + timedelta(seconds=1)
)
SECOND = APPROVAL.model_copy(update={"by": "bob"})


def test_an_approval_of_exactly_this_plan_meets_every_need() -> None:
    assert judge(RISKY, FACTS, POLICY, NOW).needs_approval
    judgement = judge(RISKY, FACTS, POLICY, NOW, (APPROVAL, SECOND))
    assert judgement.allowed
    assert judgement.approved_by == "ada, bob"
    assert judgement.approvals, "the need stays on record"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"plan_digest": "e" * 64}, "another plan"),
        ({"approved_digest": "", "plan_digest": ""}, "another plan"),
        ({"expires_at": NOW}, "expired"),
        ({"by": ""}, "names nobody"),
    ],
)
def test_any_other_approval_is_void_and_says_why(change: dict[str, Any], says: str) -> None:
    judgement = judge(RISKY, FACTS, POLICY, NOW, (APPROVAL.model_copy(update=change), SECOND))
    assert judgement.needs_approval
    assert not judgement.allowed
    assert says in judgement.approval_void


def of(*given: ApprovalFact) -> Any:
    return judge(RISKY, FACTS, POLICY, NOW, given)


def test_two_approvals_of_one_person_are_one() -> None:
    again = APPROVAL.model_copy(update={"by": " ADA"})
    judgement = of(APPROVAL, again)
    assert judgement.needs_approval
    assert judgement.approval_lacks == "1 of 2: ada; one more is needed"
    assert not judgement.approval_void


def test_the_proposers_own_counts_only_with_the_glass_broken() -> None:
    own_yes = APPROVAL.model_copy(update={"proposer": "Ada"})
    second = SECOND.model_copy(update={"proposer": "Ada"})
    assert of(own_yes, second).needs_approval
    assert "ada proposed this plan" in of(own_yes, second).approval_void
    alone = own_yes.model_copy(update={"break_glass": True})
    assert of(alone).allowed
    assert of(alone).approved_by == "ada"
    assert not of(alone.model_copy(update={"expires_at": NOW})).allowed


def test_who_breaks_the_glass_is_still_not_whom_a_need_names() -> None:
    needs = [NeedsApproval(reason="", people=2, by=("sre", "dba"))]
    alone = APPROVAL.model_copy(update={"break_glass": True})
    assert lacking(needs, [alone]) == "1 of 2: ada; one must be of sre or dba"
    assert not lacking(needs, [alone.model_copy(update={"teams": ("dba",)})])
    assert lacking(needs, [APPROVAL, SECOND]) == "2 of 2: ada, bob; one must be of sre or dba"
    assert lacking(needs, []).startswith("0 of 2; 2 are needed")


@pytest.mark.parametrize("refused", [c for c in ONLY_THIS_RULE_REFUSES if not c.asks], ids=str)
def test_no_approval_turns_a_denial(refused: Case) -> None:
    proposal = PROPOSAL.model_copy(update=refused.proposal)
    facts = altered(FACTS, refused.facts)
    assert judge(proposal, facts, refused.policy, NOW, (APPROVAL, SECOND)).denied


# --- rules of a team's own ----------------------------------------------------------------------


def own(expression: str, effect: Effect = Effect.DENY) -> Policy:
    compiled = compile_expression(expression, where="custom/night")
    return replace(POLICY, custom=(CustomRule("night", compiled, "not at night", effect),))


def test_a_custom_expression_must_hold_or_its_message_denies_or_asks() -> None:
    night = 'now.hour > 6 || target.namespace != "shop"'
    assert judge(PROPOSAL, FACTS, own(night), NOW).denials == ("custom/night: not at night",)
    assert judge(PROPOSAL, FACTS, own(night), NOW + timedelta(hours=5)).denied_by == {
        R.FACTS_FRESH,
        R.EVIDENCE_FRESH,
    }
    assert judge(PROPOSAL, FACTS, own(night, Effect.ASK), NOW).approvals == (
        "custom/night: not at night",
    )
    assert judge(PROPOSAL, FACTS, own('action.name == "scale-workload"'), NOW).allowed


@pytest.mark.parametrize("expression", ["action.nope", "action.version", "1 / 0 == 0"])
@pytest.mark.parametrize("effect", list(Effect))
def test_a_custom_expression_that_fails_denies(expression: str, effect: Effect) -> None:
    assert judge(PROPOSAL, FACTS, own(expression, effect), NOW).denied_by == {"custom/night"}


def test_every_path_that_a_custom_rule_may_name_exists() -> None:
    from tiphys.policies.custom import REQUEST_PATHS

    owner = Owner(api_version="v1", kind="K", name="n", uid="u")
    facts = altered(FACTS, {"target": {"owners": (owner,)}})
    for path in REQUEST_PATHS:
        value: Any = facts_of(Request(PROPOSAL, facts, NOW))
        for key in path.removesuffix(".*").split("."):
            value = value[key]


# --- whatever the facts are ---------------------------------------------------------------------


class Explodes(Rule):
    """Raises."""

    name: ClassVar[RuleName] = RuleName.CUSTOM

    def judge(self, request: Request) -> Verdict:
        """Raise."""
        raise ZeroDivisionError(request.proposal.action)


def with_rule(rule: Rule) -> Policy:
    return replace(POLICY, custom=(rule,))


def test_a_rule_that_raises_denies() -> None:
    judgement = judge(PROPOSAL, FACTS, with_rule(Explodes()), NOW)
    assert judgement.denials == ("custom: the rule failed: ZeroDivisionError: scale-workload",)


def test_a_policy_cannot_leave_a_rule_out() -> None:
    class Lax(Rule):
        name: ClassVar[RuleName] = RuleName.STOP_SWITCH

        def judge(self, request: Request) -> Verdict:  # noqa: ARG002
            return ALLOWED

    lax = replace(POLICY, settings={**POLICY.settings, R.STOP_SWITCH: Lax()})
    assert [type(rule) for rule in rules_of(lax)] == list(RULES)
    assert judge(PROPOSAL, altered(FACTS, {"stop": {"engaged": True}}), lax, NOW).denied


TEXT = st.text(max_size=6)
MOMENTS = st.datetimes(timezones=st.just(UTC)) | st.just(NOW)
CHANGES = st.lists(
    st.builds(Change, path=TEXT, present=st.none() | st.integers() | TEXT, intended=st.integers()),
    max_size=2,
).map(tuple)
ANY_FACTS = st.builds(
    Facts,
    alert=st.none()
    | st.builds(
        AlertFacts,
        firing=st.booleans(),
        silenced=st.booleans(),
        inhibited=st.booleans(),
        names=st.lists(TEXT, max_size=2).map(tuple),
        read_at=MOMENTS,
    ),
    target=st.none()
    | st.builds(
        TargetFacts,
        target=st.just(TARGET),
        changes=CHANGES | st.just((CHANGE,)),
        managed_cluster=st.booleans(),
        namespace_labels=st.just({"tiphys.io/heal": "enabled"}) | st.just({}),
        labels=st.dictionaries(TEXT, TEXT, max_size=2),
        annotations=st.dictionaries(TEXT, TEXT, max_size=2),
        rollout_in_progress=st.booleans(),
        gpu_hours_at_stake=st.floats(),
        read_at=MOMENTS,
    ),
    history=st.none()
    | st.builds(
        HistoryFacts,
        open_runs_on_target=st.integers(-1, 2),
        open_runs_in_cluster=st.integers(-1, 4),
        recent_launches_in_namespace=st.integers(-1, 6),
        last_run_ended_at=st.none() | MOMENTS,
    ),
    stop=st.none() | st.builds(StopFacts, engaged=st.booleans()),
    evidence=st.lists(
        st.builds(
            EvidenceFact,
            id=st.sampled_from(["ev-1", "ev-2"]),
            source=st.sampled_from(Source),
            asked_at=MOMENTS,
            ok=st.booleans(),
        ),
        max_size=3,
    ).map(tuple),
)
ANY_PROPOSAL = st.builds(
    lambda changes, risk, confidence: PROPOSAL.model_copy(
        update={"changes": changes, "risk": risk, "confidence": confidence}
    ),
    CHANGES | st.just((CHANGE,)),
    st.sampled_from(Risk),
    st.floats(0, 1),
)
FREELY = settings(max_examples=150, deadline=None)


@FREELY
@given(ANY_PROPOSAL, ANY_FACTS, MOMENTS, st.sampled_from([(), (APPROVAL,), (APPROVAL, SECOND)]))
def test_it_never_raises_and_missing_facts_never_allow(
    proposal: Proposal, facts: Facts, now: datetime, approvals: tuple[ApprovalFact, ...]
) -> None:
    judgement = judge(proposal, facts, POLICY, now, approvals)
    assert sum((judgement.allowed, judgement.needs_approval, judgement.denied)) == 1
    if None in (facts.alert, facts.target, facts.history, facts.stop) or not facts.evidence:
        assert judgement.denied


@FREELY
@given(ANY_PROPOSAL, ANY_FACTS)
def test_another_denial_never_allows(proposal: Proposal, facts: Facts) -> None:
    assert judge(proposal, facts, with_rule(Explodes()), NOW, (APPROVAL, SECOND)).denied


@FREELY
@given(st.permutations(RULES), st.sampled_from(ONLY_THIS_RULE_REFUSES))
def test_the_order_of_the_verdicts_decides_nothing(order: list[type[Rule]], refused: Case) -> None:
    proposal = PROPOSAL.model_copy(update=refused.proposal)
    judgement = judge(proposal, altered(FACTS, refused.facts), refused.policy, NOW)
    by_rule = {verdict.rule: verdict for verdict in judgement.verdicts}
    shuffled = judgement.model_copy(
        update={"verdicts": tuple(by_rule[kind.name] for kind in order)}
    )
    assert shuffled.denied_by == judgement.denied_by
    assert (shuffled.allowed, shuffled.needs_approval) == (
        judgement.allowed,
        judgement.needs_approval,
    )


def test_a_judgement_without_verdicts_allows_nothing() -> None:
    assert not judge(PROPOSAL, FACTS, POLICY, NOW).model_copy(update={"verdicts": ()}).allowed


def test_a_clock_without_a_zone_denies() -> None:
    assert judge(PROPOSAL, FACTS, POLICY, NOW.replace(tzinfo=None)).denied
