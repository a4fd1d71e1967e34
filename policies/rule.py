"""What every rule of the gate is: frozen settings, a name, and a verdict on one request.

Invariant: a fact that could not be read raises where a rule asks for it, and the gate takes that
for a denial; no rule can mistake "unknown" for "fine".
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import ClassVar, Final, TypeVar

from pydantic import ConfigDict

from tiphys.policies.model import AlertFacts, Facts, HistoryFacts, Proposal, StopFacts, TargetFacts
from tiphys.policies.parts import Wish
from tiphys.policies.verdict import Allowed, Verdict

SETTINGS: Final = ConfigDict(extra="forbid")
"""For the rules' dataclasses: a setting that does not exist is refused."""

ALLOWED: Final = Allowed()

T = TypeVar("T")


class RuleName(StrEnum):
    """Every rule, as the policy, the audit and the judgement spell it."""

    ALERT_FIRING = "alert-firing"
    ALERT_NOT_SILENCED = "alert-not-silenced"
    ALWAYS_ASK = "always-ask"
    AUTONOMY = "autonomy"
    BLAST_RADIUS = "blast-radius"
    BREAKER = "breaker"
    BUDGET = "budget"
    CLUSTER_CONCURRENCY = "cluster-concurrency"
    CONFIDENCE = "confidence"
    CONFIG_VALUES = "config-values"
    COOLDOWN = "cooldown"
    CUSTOM = "custom"
    EVIDENCE_FRESH = "evidence-fresh"
    EVIDENCE_PRESENT = "evidence-present"
    FACTS_FRESH = "facts-fresh"
    FIELD_OWNER = "field-owner"
    FREEZE_WINDOWS = "freeze-windows"
    FROZEN_TARGET = "frozen-target"
    HANDS_OFF = "hands-off"
    LAUNCH_RATE = "launch-rate"
    LONG_JOB = "long-job"
    MANAGED_CLUSTER = "managed-cluster"
    NAMESPACE_CONCURRENCY = "namespace-concurrency"
    NAMESPACE_SHARE = "namespace-share"
    NODES_AT_ONCE = "nodes-at-once"
    ONE_PER_TARGET = "one-per-target"
    OPEN_MARK = "open-mark"
    OPTED_IN = "opted-in"
    OSCILLATION = "oscillation"
    OWN_ALERTS = "own-alerts"
    OWN_PARTS = "own-parts"
    PAUSED = "paused"
    POOL_SHARE = "pool-share"
    PROTECTED_NAMESPACES = "protected-namespaces"
    REPEATED_INEFFECTIVE = "repeated-ineffective"
    REPLICAS_OWNER = "replicas-owner"
    RISK = "risk"
    ROLLOUT_IN_PROGRESS = "rollout-in-progress"
    STOP_SWITCH = "stop-switch"
    TARGET_UNMOVED = "target-unmoved"


class FactsMissingError(Exception):
    """A fact that the rule judges by could not be read."""


@dataclass(frozen=True)
class Request:
    """What the rules judge: a proposal, what is known, and the time."""

    proposal: Proposal
    facts: Facts
    now: datetime
    memo: dict[str, object] = field(default_factory=dict[str, object], compare=False, repr=False)
    """What one rule has derived from this request and the next would derive again."""

    @property
    def undo(self) -> bool:
        """Whether a person has a run undone: then no alert is needed, and no rest."""
        return bool(self.proposal.undoes) and self.proposal.decided_by.reasoner == "human"

    @property
    def wish(self) -> Wish | None:
        """What a person asked for, where the incident is about that and no undo."""
        return self.facts.incident.wants if self.facts.incident else None

    @property
    def wished(self) -> bool:
        """Whether it is just what a person asked for: then no alert is needed."""
        wish, given = self.wish, self.proposal
        by_hand = given.decided_by.reasoner == "human"
        wanted = (given.action, given.target, given.parameters)
        return wish is not None and by_hand and wish.is_for(*wanted)

    @property
    def alert(self) -> AlertFacts:
        """The alerts as they are now; raises `FactsMissingError`."""
        if self.facts.alert is None:
            raise FactsMissingError("the state of the alert could not be read")
        return self.facts.alert

    @property
    def target(self) -> TargetFacts:
        """The target as it is now; raises `FactsMissingError`."""
        if self.facts.target is None:
            raise FactsMissingError("the target could not be read")
        return self.facts.target

    @property
    def history(self) -> HistoryFacts:
        """Runs, breakers and freezes; raises `FactsMissingError`."""
        if self.facts.history is None:
            raise FactsMissingError("the history of runs and breakers could not be read")
        return self.facts.history

    @property
    def stop(self) -> StopFacts:
        """The stop switch; raises `FactsMissingError`."""
        if self.facts.stop is None:
            raise FactsMissingError("the stop switch could not be read")
        return self.facts.stop


def known(fact: T | None, what: str) -> T:
    """Give a fact that may be missing; raises `FactsMissingError`."""
    if fact is None:
        raise FactsMissingError(f"{what} could not be read")
    return fact


class Rule(ABC):
    """One rule; its fields are the settings that the policy may give under the rule's name."""

    name: ClassVar[RuleName]

    @property
    def title(self) -> str:
        """The name under which the verdict is recorded."""
        return self.name

    @abstractmethod
    def judge(self, request: Request) -> Verdict:
        """Give a verdict; may raise, which denies."""
