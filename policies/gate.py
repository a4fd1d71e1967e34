"""The gate: every rule over one proposal; pure, so the same question has the same answer for ever.

Invariants: every rule is asked every time, so all reasons are known; a rule that raises denies;
no rule, no policy and no approval turns a denial into a yes.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Final

from tiphys.policies.approval import AlwaysAsk, Autonomy, Confidence, RiskLevel
from tiphys.policies.blast_radius import BlastRadius, NamespaceShare, NodesAtOnce, PoolShare
from tiphys.policies.config_values import ConfigValues
from tiphys.policies.custom import relieved
from tiphys.policies.evidence import (
    AlertFiring,
    AlertNotSilenced,
    EvidenceFresh,
    EvidencePresent,
    FactsFresh,
    TargetUnmoved,
)
from tiphys.policies.freeze import FreezeWindows
from tiphys.policies.limits import (
    Breaker,
    Budget,
    ClusterConcurrency,
    Cooldown,
    FrozenTarget,
    LaunchRate,
    NamespaceConcurrency,
    OnePerTarget,
    OpenMark,
    StopSwitch,
)
from tiphys.policies.model import Facts, Proposal
from tiphys.policies.oscillation import Oscillation, RepeatedIneffective
from tiphys.policies.ownership import FieldOwner, LongJob, ReplicasOwner, RolloutInProgress
from tiphys.policies.paused import Paused
from tiphys.policies.people import Person, same_person
from tiphys.policies.policy import Policy
from tiphys.policies.protected import (
    HandsOff,
    ManagedCluster,
    OptedIn,
    OwnAlerts,
    OwnParts,
    ProtectedNamespaces,
)
from tiphys.policies.rule import ALLOWED, FactsMissingError, Request, Rule
from tiphys.policies.verdict import (
    ApprovalFact,
    Denied,
    Judgement,
    NeedsApproval,
    RuleVerdict,
    Verdict,
)

RULES: Final[tuple[type[Rule], ...]] = (
    StopSwitch,
    Paused,
    ManagedCluster,
    OptedIn,
    ProtectedNamespaces,
    HandsOff,
    OwnParts,
    OwnAlerts,
    AlertFiring,
    AlertNotSilenced,
    EvidencePresent,
    EvidenceFresh,
    FactsFresh,
    TargetUnmoved,
    FreezeWindows,
    FrozenTarget,
    OpenMark,
    OnePerTarget,
    NamespaceConcurrency,
    ClusterConcurrency,
    LaunchRate,
    Budget,
    Breaker,
    Cooldown,
    Oscillation,
    RepeatedIneffective,
    BlastRadius,
    NamespaceShare,
    NodesAtOnce,
    PoolShare,
    FieldOwner,
    ReplicasOwner,
    RolloutInProgress,
    LongJob,
    ConfigValues,
    Autonomy,
    RiskLevel,
    Confidence,
    AlwaysAsk,
)
"""Every rule there is, in the order in which a person reads the reasons; order decides nothing."""


def rules_of(policy: Policy) -> tuple[Rule, ...]:
    """Give every rule with the policy's settings, then the policy's own."""
    return (*(policy.rule(kind) for kind in RULES), *policy.custom)


def judge(
    proposal: Proposal,
    facts: Facts,
    policy: Policy,
    now: datetime,
    approvals: Sequence[ApprovalFact] = (),
) -> Judgement:
    """Ask every rule; never raises.

    An approval counts only for the very plan it was given for, until it expires, and not from the
    plan's own proposer; enough of them, from different people, meet every need for approval and no
    denial.
    """
    request = Request(proposal=proposal, facts=facts, now=now)
    verdicts = relieved([_answer(rule.title, _ask(rule, request)) for rule in rules_of(policy)])
    needs = [v.verdict for v in verdicts if isinstance(v.verdict, NeedsApproval)]
    void = [why_void(approval, now) for approval in approvals]
    valid = [approval for approval, why in zip(approvals, void, strict=True) if not why]
    lack = lacking(needs, valid)
    return Judgement(
        verdicts=verdicts,
        policy=policy.identity,
        approved_by="" if lack else approvers(valid),
        approval_lacks=lack if valid else "",
        approval_void=next(filter(None, void), "") if lack or not valid else "",
        at=now if now.tzinfo else None,
        calendars=policy.rule(FreezeWindows).hashes,
    )


def lacking(needs: Iterable[NeedsApproval], valid: Sequence[ApprovalFact]) -> str:
    """Say what approvals that count lack to meet every need; empty when nothing.

    Each need counts different people; one approval that broke the glass counts for all of them, but
    for nobody whom the need names.
    """
    people = _different(valid)
    alone = any(approval.break_glass for approval in valid)
    wanted = max((need.people for need in needs), default=0)
    lacks: list[str] = []
    if len(people) < wanted and not alone:
        more = "one more is" if wanted - len(people) == 1 else f"{wanted - len(people)} are"
        lacks.append(f"{more} needed")
    who = [Person(name=approval.by, teams=approval.teams) for approval in valid]
    lacks += [
        f"one must be of {' or '.join(named)}"
        for named in dict.fromkeys(need.by for need in needs if need.by)
        if not any(person.is_one_of(named) for person in who)
    ]
    if not lacks:
        return ""
    agreed = f"{len(people)} of {max(wanted, len(people))}"
    return f"{agreed}{': ' if people else ''}{', '.join(people)}; {'; '.join(lacks)}"


def approvers(valid: Sequence[ApprovalFact]) -> str:
    """Name them, as `alice, bob`."""
    return ", ".join(_different(valid))


def _different(valid: Sequence[ApprovalFact]) -> list[str]:
    people: list[str] = []
    for approval in valid:
        if not any(same_person(approval.by, other) for other in people):
            people.append(approval.by)
    return people


def _answer(title: str, verdict: Verdict) -> RuleVerdict:
    return _no_objection(title) if verdict is ALLOWED else RuleVerdict(rule=title, verdict=verdict)


@lru_cache(maxsize=1024)
def _no_objection(title: str) -> RuleVerdict:
    """Give what most rules answer most of the time; making it costs more than many a rule."""
    return RuleVerdict(rule=title, verdict=ALLOWED)


def _ask(rule: Rule, request: Request) -> Verdict:
    try:
        return rule.judge(request)
    except FactsMissingError as missing:
        return Denied(reason=str(missing))
    except Exception as error:
        return Denied(reason=f"the rule failed: {type(error).__name__}: {error}")


def why_void(approval: ApprovalFact, now: datetime) -> str:
    """Say why an approval does not count; empty when it does."""
    if not approval.by:
        return "the approval names nobody"
    if not approval.plan_digest or approval.approved_digest != approval.plan_digest:
        return f"{approval.by} approved another plan than this one"
    if now >= approval.expires_at:
        return f"the approval by {approval.by} has expired"
    if same_person(approval.by, approval.proposer) and not approval.break_glass:
        return f"{approval.by} proposed this plan; somebody else must approve it"
    return ""
