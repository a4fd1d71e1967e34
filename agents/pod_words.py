"""What a pod itself says, its log and its events, with secrets hidden and lengths bounded."""

from collections.abc import Sequence
from typing import Final

from tiphys.agents.notebook import short
from tiphys.agents.objects import text
from tiphys.agents.redact import redact
from tiphys.policies.model import Json, Object

LOG_LINES: Final = 40
MAX_EVENTS: Final = 20
MAX_LINE: Final = 300


def log_lines(log: str) -> list[str]:
    """Give the last lines of a log, redacted before they are cut.

    Only a newline ends one, as for the kubelet: a progress bar's returns are no lines, or they
    would push the others out.
    """
    last = [line for line in log.split("\n") if line.strip()][-LOG_LINES:]
    return [short(redact(line), MAX_LINE) for line in last]


def log_told(log: str) -> tuple[Json, str]:
    """Give the record and the summary of a log."""
    lines = log_lines(log)
    return [*lines], f"the log ends: {lines[-1]}" if lines else "there is no log yet"


def event_lines(events: Sequence[Object]) -> list[str]:
    """Give the latest events as `reason: message`, redacted."""

    def seen(event: Object) -> str:
        return text(event, "lastTimestamp") or text(event, "eventTime")

    latest = sorted(events, key=seen)[-MAX_EVENTS:]
    return [short(redact(f"{text(e, 'reason')}: {text(e, 'message')}"), MAX_LINE) for e in latest]


def events_told(events: Sequence[Object]) -> tuple[Json, str]:
    """Give the record and the summary of events."""
    lines = event_lines(events)
    return [*lines], f"{len(events)} event{'s' * (len(events) != 1)}" + (
        f", the last: {lines[-1]}" if lines else ""
    )
