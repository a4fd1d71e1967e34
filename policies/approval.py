"""How far it may go alone: autonomy by action and namespace, risk and confidence."""

from collections.abc import Mapping
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from tiphys.policies.model import Risk
from tiphys.policies.rule import ALLOWED, SETTINGS, Request, Rule, RuleName
from tiphys.policies.verdict import Denied, NeedsApproval, Verdict

Share = Annotated[float, Field(ge=0, le=1)]


class Level(StrEnum):
    """How much is left to Tiphys."""

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

    def covers(self, action: str, namespace: str) -> bool:
        """Tell whether it speaks of this action there."""
        if action not in self.actions and "*" not in self.actions:
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
        return _verdict(
            self.level(action, namespace), f"{action} in {namespace or 'the whole cluster'}"
        )

    def level(self, action: str, namespace: str) -> Level:
        """Give the level that counts."""
        fitting = (grant.level for grant in self.grants if grant.covers(action, namespace))
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
    return Denied(reason=f"suggest only: {what} may be shown, not launched")
