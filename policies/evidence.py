"""No action on what was not seen, not seen lately, or has changed since."""

from datetime import datetime
from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from tiphys.policies.model import Source
from tiphys.policies.rule import ALLOWED, SETTINGS, Request, Rule, RuleName
from tiphys.policies.verdict import Denied, NeedsApproval, Verdict

Seconds = Annotated[int, Field(ge=0)]


@dataclass(frozen=True, config=SETTINGS)
class EvidencePresent(Rule):
    """Every piece of evidence that the proposal rests on is known and was answered."""

    name: ClassVar[RuleName] = RuleName.EVIDENCE_PRESENT

    one_of: tuple[Source, ...] = (Source.KUBERNETES,)
    """At least one piece comes from one of these sources."""

    def judge(self, request: Request) -> Verdict:
        """Deny without evidence, with unknown or failed evidence, or with none of a source."""
        known = {fact.id: fact for fact in request.facts.evidence}
        cited = request.proposal.evidence
        if not cited:
            return Denied(reason="the proposal names no evidence")
        for missing in (name for name in cited if name not in known):
            return Denied(reason=f"evidence {missing} is not on record")
        for failed in (known[name] for name in cited if not known[name].ok):
            return Denied(reason=f"evidence {failed.id}: {failed.source} did not answer")
        if not any(known[name].source in self.one_of for name in cited):
            return Denied(reason=f"no evidence comes from {' or '.join(self.one_of)}")
        return ALLOWED


@dataclass(frozen=True, config=SETTINGS)
class EvidenceFresh(Rule):
    """Old evidence needs a person who says that it still holds; very old evidence is none."""

    name: ClassVar[RuleName] = RuleName.EVIDENCE_FRESH

    max_age_seconds: Seconds = 300
    """Up to this age it speaks for itself."""
    max_age_approved_seconds: Seconds = 3600
    """Up to this age it counts for a person who saw it; the target is read again in any case."""
    skew_seconds: Seconds = 5
    """How far in the future it may be by our clock."""

    def judge(self, request: Request) -> Verdict:
        """Ask above the first age, deny above the second."""
        cited = set(request.proposal.evidence)
        ages = [
            (request.now - fact.asked_at).total_seconds()
            for fact in request.facts.evidence
            if fact.id in cited
        ]
        if not ages:
            return Denied(reason="there is no evidence whose age could be told")
        if min(ages) < -self.skew_seconds:
            return Denied(reason=f"evidence is from {-min(ages):.0f} s in the future")
        oldest = max(ages)
        if oldest > self.max_age_approved_seconds:
            limit = self.max_age_approved_seconds
            return Denied(reason=f"evidence is {oldest:.0f} s old, at most {limit} s may be")
        if oldest > self.max_age_seconds:
            return NeedsApproval(
                reason=f"evidence is {oldest:.0f} s old, unattended at most {self.max_age_seconds}"
            )
        return ALLOWED


@dataclass(frozen=True, config=SETTINGS)
class FactsFresh(Rule):
    """The alert and the target were read again just now."""

    name: ClassVar[RuleName] = RuleName.FACTS_FRESH

    max_age_seconds: Seconds = 30
    """How long ago they may have been read."""
    skew_seconds: Seconds = 5
    """How far in the future they may be by our clock."""

    def judge(self, request: Request) -> Verdict:
        """Deny what was read too long ago."""
        for what, read_at in (
            ("alert", request.alert.read_at),
            ("target", request.target.read_at),
        ):
            age = self._age(read_at, request.now)
            if not -self.skew_seconds <= age <= self.max_age_seconds:
                return Denied(
                    reason=f"the {what} was read {age:.0f} s ago, at most {self.max_age_seconds}"
                )
        return ALLOWED

    def _age(self, read_at: datetime, now: datetime) -> float:
        return (now - read_at).total_seconds()


@dataclass(frozen=True, config=SETTINGS)
class TargetUnmoved(Rule):
    """The target is the one that was proposed, and its values are still those."""

    name: ClassVar[RuleName] = RuleName.TARGET_UNMOVED

    def judge(self, request: Request) -> Verdict:
        """Deny another object or moved values; a new proposal must be made."""
        proposal, now = request.proposal, request.target
        if now.target != proposal.target:
            return Denied(reason=f"{proposal.target} is no longer the object that was diagnosed")
        if not proposal.changes:
            return Denied(reason="the proposal does not say what it would change")
        if now.changes != proposal.changes:
            paths = {change.place for change in proposal.changes}
            return Denied(
                reason=f"{proposal.target} has changed since it was diagnosed: "
                f"{', '.join(sorted(paths))}"
            )
        return ALLOWED


@dataclass(frozen=True, config=SETTINGS)
class AlertFiring(Rule):
    """The alert is not over; a person's undo, and just what a person asked for, need none."""

    name: ClassVar[RuleName] = RuleName.ALERT_FIRING

    def judge(self, request: Request) -> Verdict:
        """Deny when it is over."""
        if request.undo or request.wished:
            return ALLOWED
        if request.wish is not None:
            return Denied(reason=f"it is not what {request.wish.by} asked for")
        return ALLOWED if request.alert.firing else Denied(reason="the alert no longer fires")


@dataclass(frozen=True, config=SETTINGS)
class AlertNotSilenced(Rule):
    """Nobody asked for quiet."""

    name: ClassVar[RuleName] = RuleName.ALERT_NOT_SILENCED

    def judge(self, request: Request) -> Verdict:
        """Deny for a silenced or inhibited alert."""
        if request.alert.silenced:
            return Denied(reason="the alert is silenced")
        return Denied(reason="the alert is inhibited") if request.alert.inhibited else ALLOWED
