"""What belongs to somebody else: fields, replicas, rollouts and long jobs."""

from typing import ClassVar

from pydantic.dataclasses import dataclass

from tiphys.policies.model import ActionName
from tiphys.policies.rule import ALLOWED, SETTINGS, Request, Rule, RuleName
from tiphys.policies.verdict import Denied, NeedsApproval, Verdict


@dataclass(frozen=True, config=SETTINGS)
class FieldOwner(Rule):
    """A field that a GitOps controller or an operator writes would only be written back."""

    name: ClassVar[RuleName] = RuleName.FIELD_OWNER

    def judge(self, request: Request) -> Verdict:
        """Deny, and say what to commit instead."""
        owner = request.target.field_owner
        if owner is None:
            return ALLOWED
        patch = "; ".join(
            f"{change.place} from {change.present} to {change.intended}"
            for change in request.proposal.changes
        )
        return Denied(
            reason=f"{owner} owns what would change: commit the patch there instead ({patch})"
        )


@dataclass(frozen=True, config=SETTINGS)
class ReplicasOwner(Rule):
    """Replicas that an autoscaler owns are its to set."""

    name: ClassVar[RuleName] = RuleName.REPLICAS_OWNER

    def judge(self, request: Request) -> Verdict:
        """Deny a change of replicas under an autoscaler."""
        autoscaler = request.target.autoscaler
        changes = request.proposal.changes
        if autoscaler is None or not any(
            c.of is None and c.path.endswith("/replicas") for c in changes
        ):
            return ALLOWED
        return Denied(reason=f"{autoscaler} owns the replicas of {request.proposal.target}")


@dataclass(frozen=True, config=SETTINGS)
class RolloutInProgress(Rule):
    """A rollout that is under way is not fought."""

    name: ClassVar[RuleName] = RuleName.ROLLOUT_IN_PROGRESS

    may_interrupt: tuple[ActionName, ...] = ("rollout-undo",)
    """Actions that are meant for a rollout that is stuck."""

    def judge(self, request: Request) -> Verdict:
        """Deny other actions during a rollout."""
        if not request.target.rollout_in_progress or request.proposal.action in self.may_interrupt:
            return ALLOWED
        return Denied(reason=f"a rollout of {request.proposal.target} is in progress")


@dataclass(frozen=True, config=SETTINGS)
class LongJob(Rule):
    """Hours of work are not thrown away without asking."""

    name: ClassVar[RuleName] = RuleName.LONG_JOB

    def judge(self, request: Request) -> Verdict:
        """Ask before the action ends a long job."""
        why = request.target.ends_long_job
        if why is None:
            return ALLOWED
        hours = request.target.gpu_hours_at_stake
        return NeedsApproval(reason=f"it would end a long job ({why}): {hours:.1f} GPU hours lost")
