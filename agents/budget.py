"""What the model may cost: calls, tokens and seconds, per incident, hour and day.

Invariant: a call is counted before it is made, at its estimated size, so that calls made at once
cannot exceed a limit together. Counts live in this process and begin anew with it.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True)
class Budget:
    """The limits; each is reached by the call that would exceed it."""

    calls_per_incident: int = 6
    tokens_per_incident: int = 100_000
    seconds_per_incident: float = 120.0
    calls_per_hour: int = 120
    tokens_per_hour: int = 1_500_000
    calls_per_day: int = 1_000
    tokens_per_day: int = 10_000_000


class OverBudgetError(Exception):
    """Another call would exceed a limit; the message says which."""


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Call:
    """One call that was admitted; `settle` replaces the estimate by what it really took."""

    at: datetime
    incident: str
    tokens: int
    seconds: float = 0.0


class Meter:
    """Counts what was spent."""

    def __init__(self, budget: Budget | None = None, clock: Callable[[], datetime] = _now) -> None:
        self.budget = budget or Budget()
        self._clock = clock
        self._calls: deque[Call] = deque()

    def admit(self, incident: str, tokens: int) -> Call:
        """Count a call of an estimated size; raises `OverBudgetError`."""
        now, limits = self._clock(), self.budget
        while self._calls and self._calls[0].at <= now - _DAY:
            self._calls.popleft()
        ours = [call for call in self._calls if call.incident == incident]
        hour = [call for call in self._calls if call.at > now - _HOUR]
        for spent, calls, size, span in (
            (ours, limits.calls_per_incident, limits.tokens_per_incident, "incident"),
            (hour, limits.calls_per_hour, limits.tokens_per_hour, "hour"),
            ([*self._calls], limits.calls_per_day, limits.tokens_per_day, "day"),
        ):
            if len(spent) + 1 > calls:
                raise OverBudgetError(f"{calls} calls per {span} are used up")
            if sum(call.tokens for call in spent) + tokens > size:
                raise OverBudgetError(f"{size} tokens per {span} would be exceeded")
        if self.seconds_left(incident) <= 0:
            raise OverBudgetError(f"{limits.seconds_per_incident:g} s per incident are used up")
        call = Call(now, incident, tokens)
        self._calls.append(call)
        return call

    def seconds_left(self, incident: str) -> float:
        """Tell how long further calls for this incident may take together."""
        spent = sum(call.seconds for call in self._calls if call.incident == incident)
        return self.budget.seconds_per_incident - spent

    def settle(self, call: Call, *, tokens: int | None, seconds: float) -> None:
        """Note what a call took; None: the endpoint did not say, the estimate stands."""
        call.seconds = seconds
        if tokens is not None:
            call.tokens = tokens
