"""What the model may cost: calls, tokens, money and seconds, per incident, hour and day.

Invariant: a call is counted before it is made, at its estimated size, so that calls made at once
cannot exceed a limit together. Counts live in this process and begin anew with it: two replicas
may spend twice as much (docs/model.md says why, and what to set).
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol, TypeGuard

_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)
MOST_TOKENS: Final = 10_000_000
"""A larger figure for one call is no figure."""


@dataclass(frozen=True)
class Budget:
    """The limits; each is reached by the call that would exceed it."""

    calls_per_incident: int = 6
    tokens_per_incident: int = 100_000
    seconds_per_incident: float = 40.0
    money_per_incident: float = 1.0
    calls_per_hour: int = 120
    tokens_per_hour: int = 1_500_000
    seconds_per_hour: float = 3_600.0
    money_per_hour: float = 10.0
    calls_per_day: int = 1_000
    tokens_per_day: int = 10_000_000
    seconds_per_day: float = 36_000.0
    money_per_day: float = 50.0
    calls_per_cause: int = 5
    """While a storm of one kind of trouble lasts, or in its ten minutes where there is none."""


@dataclass(frozen=True)
class Prices:
    """Money for 1,000 tokens, in whatever currency the limits are; both 0: unknown."""

    given: float = 0.0
    said: float = 0.0

    @property
    def known(self) -> bool:
        """Whether money can be counted at all."""
        return self.given > 0 or self.said > 0

    def of(self, given: int, said: int) -> float:
        """Price so many tokens of a prompt and of an answer."""
        return (given * self.given + said * self.said) / 1_000


class OverBudgetError(Exception):
    """Another call would exceed a limit; the message says which."""


@dataclass(frozen=True)
class Purpose:
    """What a call is for."""

    incident: str
    cause: str = ""
    """The kind of trouble, whose calls count together; empty: nobody counts them."""
    since: datetime | None = None
    """From when on they count."""


@dataclass
class Call:
    """One call that was admitted; `settle` replaces the estimates by what it really took."""

    at: datetime
    purpose: Purpose
    given: int
    """Tokens of the prompt."""
    said: int
    """Tokens of the answer."""
    money: float
    seconds: float

    @property
    def tokens(self) -> int:
        """Both together."""
        return self.given + self.said


class Tally(Protocol):
    """Counts for whoever watches; see docs/metrics.md."""

    def spent(self, call: Call) -> None:
        """Note a call that has ended."""
        ...

    def failed(self, kind: str) -> None:
        """Note why an investigation gave no answer."""
        ...

    def answered(self, how: str) -> None:
        """Note how an incident came by its answer."""
        ...


def _now() -> datetime:
    return datetime.now(UTC)


class Meter:
    """Counts what was spent."""

    def __init__(
        self,
        budget: Budget | None = None,
        clock: Callable[[], datetime] = _now,
        prices: Prices | None = None,
        tally: Tally | None = None,
    ) -> None:
        self.budget = budget or Budget()
        self.prices = prices or Prices()
        self.tally = tally
        self._clock = clock
        self._calls: deque[Call] = deque()

    def now(self) -> datetime:
        """Give the time by which is counted."""
        return self._clock()

    def admit(self, purpose: Purpose, given: int, said: int, seconds: float) -> Call:
        """Count a call of an estimated size; raises `OverBudgetError`."""
        now, limits = self._clock(), self.budget
        while self._calls and self._calls[0].at <= now - _DAY:
            self._calls.popleft()
        left = self.seconds_left(purpose.incident)
        if left <= 0:
            raise OverBudgetError(f"{limits.seconds_per_incident:g} s per incident are used up")
        money = self.prices.of(given, said)
        call = Call(now, purpose, given, said, money, min(seconds, left))
        ours = [one for one in self._calls if one.purpose.incident == purpose.incident]
        hour = [one for one in self._calls if one.at > now - _HOUR]
        for spent, span in ((ours, "incident"), (hour, "hour"), ([*self._calls], "day")):
            self._hold(spent, call, span)
        if purpose.cause and len(self._alike(purpose)) >= limits.calls_per_cause:
            raise OverBudgetError(f"{limits.calls_per_cause} calls for one cause are used up")
        self._calls.append(call)
        return call

    def calls_left(self, purpose: Purpose) -> int:
        """Tell how many more calls the incident and its cause leave."""
        ours = sum(1 for one in self._calls if one.purpose.incident == purpose.incident)
        left = self.budget.calls_per_incident - ours
        if purpose.cause:
            left = min(left, self.budget.calls_per_cause - len(self._alike(purpose)))
        return left

    def seconds_left(self, incident: str) -> float:
        """Tell how long further calls for this incident may take together."""
        ours = (call.seconds for call in self._calls if call.purpose.incident == incident)
        return self.budget.seconds_per_incident - sum(ours)

    def settle(
        self, call: Call, *, given: object = None, said: object = None, seconds: float
    ) -> None:
        """Note what a call took; where the endpoint told no such number, the estimate stands."""
        call.seconds = seconds
        call.given = given if _is_count(given) else call.given
        call.said = said if _is_count(said) else call.said
        call.money = self.prices.of(call.given, call.said)
        if self.tally:
            self.tally.spent(call)

    def _alike(self, purpose: Purpose) -> Sequence[Call]:
        same = [one for one in self._calls if one.purpose.cause == purpose.cause]
        return [one for one in same if purpose.since is None or one.at >= purpose.since]

    def _hold(self, spent: Sequence[Call], call: Call, span: str) -> None:
        """Raise `OverBudgetError` where the call would exceed one of the span's limits."""

        def limit(what: str) -> float:
            return float(getattr(self.budget, f"{what}_per_{span}"))

        if len(spent) + 1 > limit("calls"):
            raise OverBudgetError(f"{limit('calls'):.0f} calls per {span} are used up")
        if sum(one.tokens for one in spent) + call.tokens > limit("tokens"):
            raise OverBudgetError(f"{limit('tokens'):.0f} tokens per {span} would be exceeded")
        if sum(one.seconds for one in spent) + call.seconds > limit("seconds") + 1e-6:
            raise OverBudgetError(f"{limit('seconds'):g} s per {span} would be exceeded")
        money = sum(one.money for one in spent) + call.money
        if self.prices.known and money > limit("money"):
            raise OverBudgetError(f"{limit('money'):g} of money per {span} would be exceeded")


def _is_count(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 < value <= MOST_TOKENS
