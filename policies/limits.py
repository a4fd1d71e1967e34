"""How often and how much at once: cooldown, concurrency, rate, budget, breakers, freezes."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from math import ceil
from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from tiphys.policies.model import HistoryFacts, Outcome
from tiphys.policies.parts import PastRun
from tiphys.policies.rule import ALLOWED, SETTINGS, Request, Rule, RuleName, known
from tiphys.policies.verdict import Denied, Verdict

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[int, Field(ge=1, le=2_592_000)]
"""At most thirty days."""


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
    """A target rests after a run, longer each time that health did not last.

    That does not hold for a person who has a run undone.
    """

    name: ClassVar[RuleName] = RuleName.COOLDOWN

    seconds: Annotated[int, Field(ge=0)] = 900
    """From the end of the last run on the target or its owner."""
    factor: Annotated[int, Field(ge=1, le=10)] = 2
    """By which the rest grows with each run that followed another without a quiet time between."""
    max_seconds: Annotated[int, Field(ge=0, le=604_800)] = 14_400
    """It grows no further; a larger `seconds` stays as it is."""
    quiet_seconds: Annotated[int, Field(ge=0, le=1_209_600)] = 21_600
    """After so long without a run the next one counts as the first; never less than the rest."""

    def judge(self, request: Request) -> Verdict:
        """Deny until the rest is over."""
        ended = request.history.last_run_ended_at
        if ended is None or request.undo:
            return ALLOWED
        past = known(request.history.past, "the last runs on the target")
        runs = self._in_a_row(past)
        rest = self._rest(runs)
        left = (ended + timedelta(seconds=rest) - request.now).total_seconds()
        if left <= 0:
            return ALLOWED
        after = f" after {runs} runs in a row" if runs > 1 else ""
        return Denied(reason=f"{request.proposal.target} rests for another {left:.0f} s{after}")

    def _rest(self, runs: int) -> int:
        rest, most = self.seconds, max(self.seconds, self.max_seconds)
        for _ in range(runs - 1):
            if rest >= most:
                break
            rest *= self.factor
        return min(rest, most)

    def _in_a_row(self, past: Sequence[PastRun]) -> int:
        """Count the last runs between which there was no quiet time: none made health last."""
        quiet = timedelta(seconds=max(self.quiet_seconds, self.seconds, self.max_seconds))
        ended = [run for run in past if run.ended_at is not None]
        count = 0
        following: datetime | None = None
        for run in reversed(ended):
            if following is not None and run.ended_at and following - run.ended_at > quiet:
                break
            count, following = count + 1, run.began_at
        return count


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
class NamespaceConcurrency(Rule):
    """Few actions at a time in one namespace, so that one does not take the cluster's whole share.

    Targets outside any namespace, such as nodes, count as one.
    """

    name: ClassVar[RuleName] = RuleName.NAMESPACE_CONCURRENCY

    limit: Count = 2
    """Runs that may be open at once."""

    def judge(self, request: Request) -> Verdict:
        """Deny at the limit."""
        count = known(request.history.open_runs_in_namespace, "the open runs of the namespace")
        if count < self.limit:
            return ALLOWED
        place = request.proposal.target.namespace or "(none)"
        return Denied(
            reason=f"{count} runs are open in namespace {place}, at most {self.limit} may be"
        )


@dataclass(frozen=True, config=SETTINGS)
class LaunchRate(Rule):
    """Few launches in a row on one target, in one namespace and in the cluster.

    Whoever counts the namespace's last one trips its breaker. Undos that a person asks for count,
    and are not held up.
    """

    name: ClassVar[RuleName] = RuleName.LAUNCH_RATE

    limit: Count = 5
    """Launches that may happen in one namespace within the window."""
    window_seconds: Seconds = 600
    """The window that `recent_launches_in_namespace` is counted over."""
    target_limit: Count = 6
    """Launches on one target or its owner."""
    target_window_seconds: Seconds = 21_600
    cluster_limit: Count = 15
    """Launches in the whole cluster."""
    cluster_window_seconds: Seconds = 600

    def judge(self, request: Request) -> Verdict:
        """Deny at a limit."""
        history, target = request.history, request.proposal.target
        if request.undo:
            return ALLOWED
        on_target = known(history.recent_launches_on_target, "the launches on the target")
        in_cluster = known(history.recent_launches_in_cluster, "the launches in the cluster")
        place = target.namespace or "(none)"
        counted = [
            (history.recent_launches_in_namespace, self.limit, self.window_seconds,
             f"in namespace {place}"),
            (on_target, self.target_limit, self.target_window_seconds, f"on {target}"),
            (in_cluster, self.cluster_limit, self.cluster_window_seconds, "in the cluster"),
        ]  # fmt: skip
        reasons = [
            f"{count} launches {where} within {window} s, at most {limit} may be"
            for count, limit, window, where in counted
            if count >= limit
        ]
        return Denied(reason="; ".join(reasons)) if reasons else ALLOWED

    def namespace_is_over(self, history: HistoryFacts) -> bool:
        """Whether the namespace's own limit is reached, which trips its breaker."""
        return history.recent_launches_in_namespace >= self.limit


@dataclass(frozen=True, config=SETTINGS)
class Budget(Rule):
    """So many launches and no more, of which a share is kept for undoing them."""

    name: ClassVar[RuleName] = RuleName.BUDGET

    window_seconds: Seconds = 3600
    namespace_limit: Annotated[int, Field(ge=2)] = 20
    """Launches in one namespace within the window, undos that a person asks for among them."""
    cluster_limit: Annotated[int, Field(ge=2)] = 60
    """The same in the whole cluster."""
    reserve_percent: Annotated[int, Field(ge=1, le=90)] = 25
    """The share of both that only such undos may use; rounded up, and never all of it."""

    def judge(self, request: Request) -> Verdict:
        """Deny when all that this kind of launch may use is spent."""
        history = request.history
        spent = known(history.spent_in_namespace, "what the namespace has spent")
        in_all = known(history.spent_in_cluster, "what the cluster has spent")
        place = f"namespace {request.proposal.target.namespace or '(none)'}"
        reasons = [
            f"{count} of {limit} launches of {where} within {self.window_seconds} s are spent"
            + ("" if request.undo else f", and {limit - free} are kept for undoing")
            for count, limit, where in (
                (spent, self.namespace_limit, place),
                (in_all, self.cluster_limit, "the cluster"),
            )
            if count >= (free := limit if request.undo else self.ordinary(limit))
        ]
        return Denied(reason="; ".join(reasons)) if reasons else ALLOWED

    def ordinary(self, limit: int) -> int:
        """Give how many of a limit may be used for anything."""
        return max(1, limit - ceil(limit * self.reserve_percent / 100))


@dataclass(frozen=True, config=SETTINGS)
class Breaker(Rule):
    """A tripped breaker stays tripped until a person resets it.

    A namespace's trips by `launch-rate`, by runs that failed or by runs in a row without effect;
    the cluster's by the namespaces whose breakers have tripped.
    """

    name: ClassVar[RuleName] = RuleName.BREAKER

    failures: Count = 3
    """Runs of one namespace that ended `rollback_failed` or `unknown` within the window."""
    failures_window_seconds: Seconds = 3600
    ineffective: Count = 5
    """Runs of one namespace in a row that ended otherwise than `verified`, within the window."""
    ineffective_window_seconds: Seconds = 86_400
    namespaces: Count = 3
    """Namespaces whose breakers tripped within the window, after which the cluster's does."""
    namespaces_window_seconds: Seconds = 3600

    def judge(self, request: Request) -> Verdict:
        """Deny while one covers the target."""
        tripped = request.history.breakers
        return Denied(reason="; ".join(tripped)) if tripped else ALLOWED

    @property
    def memory(self) -> timedelta:
        """How far back ended runs count."""
        return timedelta(seconds=max(self.failures_window_seconds, self.ineffective_window_seconds))

    def trips(self, ended: Sequence[tuple[datetime, Outcome]], now: datetime) -> str | None:
        """Say why a namespace's breaker trips after these runs, oldest first; None: it does not.

        A run that refused, and so did nothing, is passed over.
        """
        acted = [(at, outcome) for at, outcome in ended if outcome is not Outcome.REFUSED]
        since = now - timedelta(seconds=self.failures_window_seconds)
        failed = [o for at, o in acted if at >= since and o in FAILURES]
        if len(failed) >= self.failures:
            return f"{len(failed)} runs failed within {self.failures_window_seconds} s"
        since = now - timedelta(seconds=self.ineffective_window_seconds)
        recent = [outcome for at, outcome in acted if at >= since]
        row = next((i for i, o in enumerate(reversed(recent)) if o is Outcome.VERIFIED), None)
        count = len(recent) if row is None else row
        return f"{count} runs in a row did not help" if count >= self.ineffective else None


FAILURES = {Outcome.ROLLBACK_FAILED, Outcome.UNKNOWN}
"""Ends after which nobody knows how the target is."""


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
