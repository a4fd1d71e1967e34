"""What the gate answers: a verdict per rule, the judgement over all, the approval it weighed."""

from typing import Annotated, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from tiphys.policies.model import Instant, Json, Noun


class ApprovalFact(Noun):
    """A person's yes, and the plan it is now held against; the gate compares the two."""

    approved_digest: str
    """`plan.digest` of the plan that the person saw."""
    plan_digest: str
    """`plan.digest` of the plan that would be launched now."""
    by: str
    teams: tuple[str, ...] = ()
    """Theirs when they agreed; a policy may name one of them."""
    proposer: str = ""
    """Who proposed the plan, where a person did: their own yes does not count."""
    break_glass: bool = False
    """Given alone, in an emergency: it counts for two and may be the proposer's; it is reviewed."""
    expires_at: Instant


class Allowed(Noun):
    """The rule has no objection."""

    verdict: Literal["allowed"] = "allowed"
    reason: str = ""
    """Why, where a rule of the policy's own allows it; else empty."""

    @model_serializer(mode="wrap")
    def _without_nothing(self, given: SerializerFunctionWrapHandler) -> dict[str, Json]:
        """Leave an empty reason out: most of a judgement is that."""
        plain: dict[str, Json] = given(self)
        return plain if self.reason else {"verdict": self.verdict}


class NeedsApproval(Noun):
    """The rule lets it pass when a human agrees."""

    verdict: Literal["needs_approval"] = "needs_approval"
    reason: str
    people: int = Field(default=1, ge=1, le=2)
    """How many different people must agree."""
    by: tuple[str, ...] = ()
    """Names or teams of whom one must be among them; empty: any approver of that namespace."""


class Denied(Noun):
    """The rule forbids it."""

    verdict: Literal["denied"] = "denied"
    reason: str
    observed: bool = False
    """Whether it is refused because Tiphys only observes there, and so tells nobody."""


Verdict = Annotated[Allowed | NeedsApproval | Denied, Field(discriminator="verdict")]


class RuleVerdict(Noun):
    """One rule's answer."""

    rule: str
    verdict: Verdict


class Judgement(Noun):
    """Every rule's answer; the strictest decides."""

    verdicts: tuple[RuleVerdict, ...]
    policy: str
    """Name and version of the policy, with the SHA-256 of its text."""
    approved_by: str = ""
    """Who approved exactly this plan, `alice, bob`; empty while that is not enough."""
    approval_lacks: str = ""
    """What the approvals that count lack, such as `1 of 2: alice; one more is needed`."""
    approval_void: str = ""
    """Why an approval that was brought along does not count, where the others are not enough."""
    at: Instant | None = None
    """The time that was judged by; None where a clock without a zone was, or nobody kept it."""
    calendars: dict[str, str] = Field(default={}, exclude_if=lambda given: not given)
    """The policy's calendars by name, each with the SHA-256 of the file that was judged by, or
    `unreadable`. No part of `policy`: an approval outlives a calendar that changes, the launch is
    judged by the one that is there then."""

    @property
    def allowed(self) -> bool:
        """Whether it may be launched now; no verdicts at all allow nothing."""
        return bool(self.verdicts) and not self.denied and not self.needs_approval

    @property
    def needs_approval(self) -> bool:
        """Whether a person's yes is all that it lacks."""
        return not self.denied and bool(self.approvals) and not self.approved_by

    @property
    def needs(self) -> tuple[NeedsApproval, ...]:
        """Every need for approval."""
        return tuple(v.verdict for v in self.verdicts if isinstance(v.verdict, NeedsApproval))

    @property
    def denied(self) -> bool:
        """Whether it may not be launched, approved or not."""
        return bool(self.denials)

    @property
    def observed(self) -> bool:
        """Whether Tiphys only observes there: what it would do is recorded and nobody is told."""
        return any(isinstance(v.verdict, Denied) and v.verdict.observed for v in self.verdicts)

    def unobserved(self) -> "Judgement":
        """Give what would be the judgement if Tiphys did more than observe there."""
        kept = (
            v for v in self.verdicts if not isinstance(v.verdict, Denied) or not v.verdict.observed
        )
        return self.model_copy(update={"verdicts": tuple(kept)})

    @property
    def denied_by(self) -> frozenset[str]:
        """The names of the rules that deny."""
        return frozenset(v.rule for v in self.verdicts if isinstance(v.verdict, Denied))

    @property
    def denials(self) -> tuple[str, ...]:
        """Each denial as `rule: reason`."""
        return self._reasons("denied")

    @property
    def approvals(self) -> tuple[str, ...]:
        """Each need for approval as `rule: reason`."""
        return self._reasons("needs_approval")

    def _reasons(self, verdict: str) -> tuple[str, ...]:
        return tuple(
            f"{v.rule}: {v.verdict.reason}"
            for v in self.verdicts
            if v.verdict.verdict == verdict and not isinstance(v.verdict, Allowed)
        )
