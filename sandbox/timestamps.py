"""Instants as Prometheus and Alertmanager write them: RFC 3339, no trailing zeros."""

from datetime import UTC, datetime

NEVER = "0001-01-01T00:00:00Z"
"""Go's zero time: how Alertmanager writes the end of an alert that still fires."""


def rfc3339(at: float) -> str:
    """Write unix seconds, to the microsecond."""
    instant = datetime.fromtimestamp(at, UTC)
    fraction = f".{instant.microsecond:06d}".rstrip("0").rstrip(".")
    return f"{instant:%Y-%m-%dT%H:%M:%S}{fraction}Z"


def from_rfc3339(text: str) -> float:
    """Read unix seconds; raises ValueError for what is not an instant with an offset."""
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError(f"{text!r} has no UTC offset")
    return 0.0 if instant.year == 1 else instant.timestamp()
