"""What a simulated Alertmanager keeps: alerts, silences and their matchers.

A fingerprint is Prometheus' own: 64-bit FNV-1a over the sorted labels, so equal label sets have
equal fingerprints in every process and release.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any
from uuid import uuid4

from tiphys.sandbox.timestamps import from_rfc3339, rfc3339

_OFFSET, _PRIME = 0xCBF29CE484222325, 0x100000001B3


class InvalidError(Exception):
    """The request is not what Alertmanager's API takes; the message says why."""


def fingerprint(labels: Mapping[str, str]) -> str:
    """16 hex digits that depend on the label set only."""
    digest = _OFFSET
    for name in sorted(labels):
        for byte in b"%b\xff%b\xff" % (name.encode(), labels[name].encode()):
            digest = (digest ^ byte) * _PRIME & 0xFFFFFFFFFFFFFFFF
    return f"{digest:016x}"


@dataclass(frozen=True)
class HeldAlert:
    """One alert as it was last pushed; times are unix seconds."""

    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    starts_at: float
    ends_at: float
    """In the future while it fires."""
    generator_url: str
    updated_at: float
    timed_out: bool = False
    """`ends_at` was not given: it is the resolve timeout's."""

    @cached_property
    def fingerprint(self) -> str:
        """The identity of its label set."""
        return fingerprint(self.labels)

    def resolved(self, at: float) -> bool:
        """Say whether it has ended by then."""
        return self.ends_at <= at

    def after(self, older: "HeldAlert", at: float) -> "HeldAlert":
        """This alert, pushed after `older` of the same labels: where they overlap, they join."""
        overlaps = (
            older.starts_at < self.ends_at < older.ends_at
            or older.starts_at < self.starts_at < older.ends_at
        )
        if not overlaps:
            return self
        ends = self.ends_at
        if self.resolved(at):
            ends = max(ends, older.ends_at) if older.resolved(at) else ends
        elif not older.timed_out:
            ends = max(ends, older.ends_at)
        return replace(self, starts_at=min(self.starts_at, older.starts_at), ends_at=ends)


def alert_from(body: Any, at: float, resolve_timeout: float) -> HeldAlert:
    """Read one alert of `POST /api/v2/alerts`; raises InvalidError."""
    try:
        labels = {str(k): str(v) for k, v in body["labels"].items() if v != ""}
        annotations = {str(k): str(v) for k, v in (body.get("annotations") or {}).items()}
        starts = from_rfc3339(body["startsAt"]) if body.get("startsAt") else 0.0
        ends = from_rfc3339(body["endsAt"]) if body.get("endsAt") else 0.0
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InvalidError(f"invalid alert: {error!r}") from error
    if not labels:
        raise InvalidError("at least one label pair required")
    starts = starts or (min(at, ends) if ends else at)
    if ends and ends < starts:
        raise InvalidError("start time must be before end time")
    return HeldAlert(
        labels=labels,
        annotations=annotations,
        starts_at=starts,
        ends_at=ends or at + resolve_timeout,
        generator_url=str(body.get("generatorURL") or ""),
        updated_at=at,
        timed_out=not ends,
    )


@dataclass(frozen=True)
class LabelMatch:
    """One matcher of a silence or a filter; a regex is anchored."""

    name: str
    value: str
    is_regex: bool = False
    is_equal: bool = True

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Say whether these labels satisfy it; a missing label counts as empty."""
        given = labels.get(self.name, "")
        found = bool(re.fullmatch(self.value, given)) if self.is_regex else given == self.value
        return found is self.is_equal

    def shown(self) -> dict[str, Any]:
        """In the API's shape."""
        return {
            "name": self.name,
            "value": self.value,
            "isRegex": self.is_regex,
            "isEqual": self.is_equal,
        }


def match_from(text: str) -> LabelMatch:
    """Read a filter such as `namespace="shop"`; raises InvalidError."""
    found = re.fullmatch(r'\s*([^\s=!~{}]+)\s*(=~|!~|!=|=)\s*"?(.*?)"?\s*', text, re.DOTALL)
    if not found:
        raise InvalidError(f"bad matcher format: {text}")
    return LabelMatch(found[1], found[3], is_regex="~" in found[2], is_equal="!" not in found[2])


@dataclass
class Silence:
    """One silence; times are unix seconds."""

    matchers: Sequence[LabelMatch]
    starts_at: float
    ends_at: float
    created_by: str = "sandbox"
    comment: str = ""
    updated_at: float = 0.0
    id: str = field(default_factory=lambda: str(uuid4()))

    def state(self, at: float) -> str:
        """`pending`, `active` or `expired`."""
        if at >= self.ends_at:
            return "expired"
        return "active" if at >= self.starts_at else "pending"

    def mutes(self, labels: Mapping[str, str], at: float) -> bool:
        """Say whether it silences an alert with these labels."""
        return self.state(at) == "active" and all(m.holds(labels) for m in self.matchers)

    def shown(self, at: float) -> dict[str, Any]:
        """In the API's shape."""
        return {
            "id": self.id,
            "status": {"state": self.state(at)},
            "updatedAt": rfc3339(self.updated_at),
            "comment": self.comment,
            "createdBy": self.created_by,
            "startsAt": rfc3339(self.starts_at),
            "endsAt": rfc3339(self.ends_at),
            "matchers": [m.shown() for m in self.matchers],
        }


def silence_from(body: Any, at: float) -> Silence:
    """Read the body of `POST /api/v2/silences`; raises InvalidError."""
    try:
        silence = Silence(
            matchers=[
                LabelMatch(m["name"], m["value"], bool(m["isRegex"]), bool(m.get("isEqual", True)))
                for m in body["matchers"]
            ],
            starts_at=max(from_rfc3339(body["startsAt"]), at),
            ends_at=from_rfc3339(body["endsAt"]),
            created_by=str(body["createdBy"]),
            comment=str(body["comment"]),
            updated_at=at,
        )
        for matcher in silence.matchers:
            re.compile(matcher.value if matcher.is_regex else "")
    except (KeyError, TypeError, ValueError, re.error) as error:
        raise InvalidError(f"invalid silence: {error!r}") from error
    if not silence.matchers or all(m.holds({}) for m in silence.matchers):
        raise InvalidError("invalid silence: at least one matcher must not match the empty string")
    if silence.ends_at <= silence.starts_at:
        raise InvalidError("invalid silence: end time must be after the start time and now")
    return silence
