"""How often and how much at once: cooldown, concurrency, rate, breakers and freezes."""

from datetime import timedelta
from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from tiphys.policies.rule import ALLOWED, SETTINGS, Request, Rule, RuleName
from tiphys.policies.verdict import Denied, Verdict


@dataclass(frozen=True, config=SETTINGS)
class StopSwitch(Rule):
    """Nothing new starts while somebody has said stop."""

    name: ClassVar[RuleName] = RuleName.STOP_SWITCH

    def judge(self, request: Request) -> Verdict:
        """Deny while it is engaged."""
        if not request.stop.engaged:
            return ALLOWED
        return Denied(reason=f"the stop switch is engaged: {request.stop.reason or 'no reason'}")


@dataclass(frozen=True, config=SETTINGS)
class Cooldown(Rule):
    """A target rests after a run, but for a person who has that run undone."""

    name: ClassVar[RuleName] = RuleName.COOLDOWN

    seconds: Annotated[int, Field(ge=0)] = 900
    """From the end of the last run on the target or its owner."""

    def judge(self, request: Request) -> Verdict:
        """Deny until the rest is over."""
        ended = request.history.last_run_ended_at
        if ended is None or request.undo:
            return ALLOWED
        left = (ended + timedelta(seconds=self.seconds) - request.now).total_seconds()
        if left <= 0:
            return ALLOWED
        return Denied(reason=f"{request.proposal.target} rests for another {left:.0f} s")


@dataclass(frozen=True, config=SETTINGS)
class OnePerTarget(Rule):
    """One action at a time on one target."""

    name: ClassVar[RuleName] = RuleName.ONE_PER_TARGET

    def judge(self, request: Request) -> Verdict:
        """Deny while another run is open."""
        if request.history.open_runs_on_target == 0:
            return ALLOWED
        return Denied(reason=f"another run works on {request.proposal.target}")


@dataclass(frozen=True, config=SETTINGS)
class ClusterConcurrency(Rule):
    """Few actions at a time in one cluster."""

    name: ClassVar[RuleName] = RuleName.CLUSTER_CONCURRENCY

    limit: Annotated[int, Field(ge=1)] = 3
    """Runs that may be open at once."""

    def judge(self, request: Request) -> Verdict:
        """Deny at the limit."""
        count = request.history.open_runs_in_cluster
        if count < self.limit:
            return ALLOWED
        return Denied(reason=f"{count} runs are open in the cluster, at most {self.limit} may be")


@dataclass(frozen=True, config=SETTINGS)
class LaunchRate(Rule):
    """Few launches in a row in one namespace; whoever counts the last one trips the breaker."""

    name: ClassVar[RuleName] = RuleName.LAUNCH_RATE

    limit: Annotated[int, Field(ge=1)] = 5
    """Launches that may happen within the window."""
    window_seconds: Annotated[int, Field(ge=1)] = 600
    """The window that `recent_launches_in_namespace` is counted over."""

    def judge(self, request: Request) -> Verdict:
        """Deny at the limit."""
        count = request.history.recent_launches_in_namespace
        if count < self.limit:
            return ALLOWED
        return Denied(
            reason=f"{count} launches in namespace {request.proposal.target.namespace or '(none)'} "
            f"within {self.window_seconds} s, at most {self.limit} may be"
        )


@dataclass(frozen=True, config=SETTINGS)
class Breaker(Rule):
    """A tripped breaker stays tripped until a person resets it."""

    name: ClassVar[RuleName] = RuleName.BREAKER

    def judge(self, request: Request) -> Verdict:
        """Deny while one covers the target."""
        tripped = request.history.breakers
        return Denied(reason="; ".join(tripped)) if tripped else ALLOWED


@dataclass(frozen=True, config=SETTINGS)
class FrozenTarget(Rule):
    """A target whose rollback did not hold waits for a person."""

    name: ClassVar[RuleName] = RuleName.FROZEN_TARGET

    def judge(self, request: Request) -> Verdict:
        """Deny while it is frozen."""
        why = request.history.frozen
        if why is None:
            return ALLOWED
        return Denied(reason=f"{request.proposal.target} is frozen: {why}")


@dataclass(frozen=True, config=SETTINGS)
class OpenMark(Rule):
    """No other run has left the target half done."""

    name: ClassVar[RuleName] = RuleName.OPEN_MARK

    def judge(self, request: Request) -> Verdict:
        """Deny while another run's mark is on the target."""
        mark = request.target.open_mark
        if mark is None:
            return ALLOWED
        return Denied(
            reason=f"{request.proposal.target} bears the unfinished mark of another run: {mark}"
        )
