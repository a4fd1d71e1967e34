"""How far it may go alone: autonomy by action and namespace, risk and confidence."""

from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Annotated, ClassVar, Final

from pydantic import Field
from pydantic.dataclasses import dataclass

from tiphys.policies.model import Risk
from tiphys.policies.rule import ALLOWED, SETTINGS, Request, Rule, RuleName
from tiphys.policies.verdict import Denied, NeedsApproval, Verdict

Share = Annotated[float, Field(ge=0, le=1)]
_NO_LABELS: Final[Mapping[str, str]] = MappingProxyType({})


class Level(StrEnum):
    """How much is left to Tiphys, from the least on."""

    OBSERVE = "observe"
    """It is recorded; nobody is told, and it cannot be launched."""
    SUGGEST = "suggest"
    """It is shown and cannot be launched."""
    APPROVE = "approve"
    """A person's click launches it."""
    AUTO = "auto"
    """Nobody is asked, unless another rule asks."""


@dataclass(frozen=True, config=SETTINGS)
class Grant:
    """Autonomy for some actions in some namespaces."""

    actions: tuple[str, ...]
    """Names from the catalogue, or `*`."""
    namespaces: tuple[str, ...]
    """Names, `*` standing for anything; `-` for targets outside any namespace, such as nodes."""
    level: Level
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    """Labels that the target itself must bear, all of them; whoever may label it may thus choose
    this grant."""

    def covers(self, action: str, namespace: str, labels: Mapping[str, str] = _NO_LABELS) -> bool:
        """Tell whether it speaks of this action there, on a target that bears these labels."""
        if action not in self.actions and "*" not in self.actions:
            return False
        if any(labels.get(key) != value for key, value in self.labels.items()):
            return False
        if not namespace:
            return "-" in self.namespaces
        return any(fnmatchcase(namespace, pattern) for pattern in self.namespaces)


@dataclass(frozen=True, config=SETTINGS)
class Autonomy(Rule):
    """What is granted, by action and namespace; out of the box nothing is."""

    name: ClassVar[RuleName] = RuleName.AUTONOMY

    default: Level = Level.SUGGEST
    """Where no grant fits."""
    grants: tuple[Grant, ...] = ()
    """The first that fits counts."""

    def judge(self, request: Request) -> Verdict:
        """Deny, ask or allow as granted."""
        action, namespace = request.proposal.action, request.proposal.target.namespace
        asked = any(grant.labels for grant in self.grants)
        labels = request.target.labels if asked else _NO_LABELS
        return _verdict(
            self.level(action, namespace, labels),
            f"{action} in {namespace or 'the whole cluster'}",
        )

    def level(self, action: str, namespace: str, labels: Mapping[str, str] = _NO_LABELS) -> Level:
        """Give the level that counts."""
        fitting = (grant.level for grant in self.grants if grant.covers(action, namespace, labels))
        return next(fitting, self.default)


@dataclass(frozen=True, config=SETTINGS)
class RiskLevel(Rule):
    """The higher the risk, the sooner a person is asked."""

    name: ClassVar[RuleName] = RuleName.RISK

    low: Level = Level.AUTO
    medium: Level = Level.APPROVE
    high: Level = Level.APPROVE
    high_people: Annotated[int, Field(ge=1, le=2)] = 2
    """How many different people must agree to high risk, where it asks."""

    def judge(self, request: Request) -> Verdict:
        """Deny, ask or allow by the proposal's risk."""
        levels: Mapping[Risk, Level] = {
            Risk.LOW: self.low,
            Risk.MEDIUM: self.medium,
            Risk.HIGH: self.high,
        }
        verdict = _verdict(levels[request.proposal.risk], f"{request.proposal.risk} risk")
        if isinstance(verdict, NeedsApproval) and request.proposal.risk is Risk.HIGH:
            return verdict.model_copy(update={"people": self.high_people})
        return verdict


@dataclass(frozen=True, config=SETTINGS)
class AlwaysAsk(Rule):
    """What nothing takes back is never done without a person, whatever is granted."""

    name: ClassVar[RuleName] = RuleName.ALWAYS_ASK

    def judge(self, request: Request) -> Verdict:
        """Ask where the action's contract says so."""
        why = request.proposal.always_ask
        if not why:
            return ALLOWED
        return NeedsApproval(reason=f"{request.proposal.action} always needs approval: {why}")


@dataclass(frozen=True, config=SETTINGS)
class Confidence(Rule):
    """Whoever proposes without being sure asks a person."""

    name: ClassVar[RuleName] = RuleName.CONFIDENCE

    low: Share = 0.5
    """The least confidence, 0 to 1, that acts alone at low risk."""
    medium: Share = 0.7
    """The same at medium risk."""
    high: Share = 0.9
    """The same at high risk."""

    def judge(self, request: Request) -> Verdict:
        """Ask below the floor."""
        floors: Mapping[Risk, float] = {
            Risk.LOW: self.low,
            Risk.MEDIUM: self.medium,
            Risk.HIGH: self.high,
        }
        proposal = request.proposal
        floor = floors[proposal.risk]
        if proposal.confidence >= floor:
            return ALLOWED
        return NeedsApproval(
            reason=f"confidence {proposal.confidence:.2f} is below {floor:.2f}, "
            f"the floor for {proposal.risk} risk"
        )


def _verdict(level: Level, what: str) -> Verdict:
    if level is Level.AUTO:
        return ALLOWED
    if level is Level.APPROVE:
        return NeedsApproval(reason=f"{what} needs approval")
    if level is Level.SUGGEST:
        return Denied(reason=f"suggest only: {what} may be shown, not launched")
    return Denied(reason=f"observe only: {what} is recorded, not launched", observed=True)
