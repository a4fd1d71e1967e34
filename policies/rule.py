"""What every rule of the gate is: frozen settings, a name, and a verdict on one request.

Invariant: a fact that could not be read raises where a rule asks for it, and the gate takes that
for a denial; no rule can mistake "unknown" for "fine".
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import ClassVar, Final

from pydantic import ConfigDict

from tiphys.policies.model import AlertFacts, Facts, HistoryFacts, Proposal, StopFacts, TargetFacts
from tiphys.policies.verdict import Allowed, Verdict

SETTINGS: Final = ConfigDict(extra="forbid")
"""For the rules' dataclasses: a setting that does not exist is refused."""

ALLOWED: Final = Allowed()


class RuleName(StrEnum):
    """Every rule, as the policy, the audit and the judgement spell it."""

    ALERT_FIRING = "alert-firing"
    ALERT_NOT_SILENCED = "alert-not-silenced"
    ALWAYS_ASK = "always-ask"
    AUTONOMY = "autonomy"
    BREAKER = "breaker"
    CLUSTER_CONCURRENCY = "cluster-concurrency"
    CONFIDENCE = "confidence"
    CONFIG_VALUES = "config-values"
    COOLDOWN = "cooldown"
    CUSTOM = "custom"
    EVIDENCE_FRESH = "evidence-fresh"
    EVIDENCE_PRESENT = "evidence-present"
    FACTS_FRESH = "facts-fresh"
    FIELD_OWNER = "field-owner"
    FROZEN_TARGET = "frozen-target"
    HANDS_OFF = "hands-off"
    LAUNCH_RATE = "launch-rate"
    LONG_JOB = "long-job"
    MANAGED_CLUSTER = "managed-cluster"
    ONE_PER_TARGET = "one-per-target"
    OPEN_MARK = "open-mark"
    OPTED_IN = "opted-in"
    OWN_ALERTS = "own-alerts"
    OWN_PARTS = "own-parts"
    PAUSED = "paused"
    PROTECTED_NAMESPACES = "protected-namespaces"
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
