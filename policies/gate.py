"""The gate: every rule over one proposal; pure, so the same question has the same answer for ever.

Invariants: every rule is asked every time, so all reasons are known; a rule that raises denies;
no rule, no policy and no approval turns a denial into a yes.
"""

from datetime import datetime
from typing import Final

from tiphys.policies.approval import AlwaysAsk, Autonomy, Confidence, RiskLevel
from tiphys.policies.blast_radius import BlastRadius, NamespaceShare, NodesAtOnce, PoolShare
from tiphys.policies.config_values import ConfigValues
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
from tiphys.policies.policy import Policy
from tiphys.policies.protected import (
    HandsOff,
    ManagedCluster,
    OptedIn,
    OwnAlerts,
    OwnParts,
    ProtectedNamespaces,
)
from tiphys.policies.rule import FactsMissingError, Request, Rule
from tiphys.policies.verdict import ApprovalFact, Denied, Judgement, RuleVerdict, Verdict

RULES: Final[tuple[type[Rule], ...]] = (
    StopSwitch,
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
    approval: ApprovalFact | None = None,
) -> Judgement:
    """Ask every rule; never raises.

    An approval counts only for the very plan it was given for and until it expires; it meets every
    need for approval and no denial.
    """
    request = Request(proposal=proposal, facts=facts, now=now)
    void = _void(approval, now)
    return Judgement(
        verdicts=tuple(
            RuleVerdict(rule=rule.title, verdict=_ask(rule, request)) for rule in rules_of(policy)
        ),
        policy=policy.identity,
        approved_by=approval.by if approval and not void else "",
        approval_void=void,
    )


def _ask(rule: Rule, request: Request) -> Verdict:
    try:
        return rule.judge(request)
    except FactsMissingError as missing:
        return Denied(reason=str(missing))
    except Exception as error:
        return Denied(reason=f"the rule failed: {type(error).__name__}: {error}")


def _void(approval: ApprovalFact | None, now: datetime) -> str:
    if approval is None:
        return ""
    if not approval.by:
        return "the approval names nobody"
    if not approval.plan_digest or approval.approved_digest != approval.plan_digest:
        return f"{approval.by} approved another plan than this one"
    if now >= approval.expires_at:
        return f"the approval by {approval.by} has expired"
    return ""
