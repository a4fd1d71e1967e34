"""Writes what was found the way an engineer would say it, the doubt included."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from tiphys.agents.causes.evidence import Change
from tiphys.agents.causes.ranking import Cause, Causes
from tiphys.agents.causes.signals import SHARES, Kind

SHOWN: Final = 3
"""Of each list, how many are said; the others are counted."""


def sentences(causes: Causes) -> list[str]:
    """Say what changed first, the likeliest causes, what followed, and what could not be seen."""
    said: list[str] = []
    if causes.nothing:
        said.append("no series stands out of its own noise: nothing happened that they show")
    else:
        said += _found(causes)
    if causes.blind:
        said.append(f"not known to be healthy, for want of data: {_some(causes.blind)}")
    partly = sorted({f"{u.component} {u.kind.value} ({u.why})" for u in causes.unseen
                     if u.component not in causes.blind})  # fmt: skip
    if partly:
        said.append(f"could not be judged: {_some(partly)}")
    return said


def _found(causes: Causes) -> list[str]:
    said: list[str] = []
    if causes.first:
        said.append(f"changed first: {told(causes.first)}")
    first = causes.ranked[0]
    said.append(f"likeliest cause: {first.component}: {_reasons(first)}")
    if causes.unsure:
        others = _some([c.component for c in causes.unsure])
        said.append(f"as likely, by these signals: {others}")
    others = [c for c in causes.ranked[1:] if c not in causes.unsure and c.established]
    if others:
        said.append(f"less likely: {_some([c.component for c in others])}")
    if causes.followed:
        said.append(f"what follows from it: {_some([told(c) for c in causes.followed])}")
    if causes.elsewhere:
        said.append(
            "changed too, but nothing that was complained about depends on it: "
            + _some([told(c) for c in causes.elsewhere])
        )
    return said


def told(change: Change) -> str:
    """Say one change with its size and how sure it is."""
    at = datetime.fromtimestamp(change.at, UTC).strftime("%H:%M:%S")
    before, after = (_value(change.kind, v) for v in (change.before, change.after))
    chance = "under 0.0001" if change.adjusted < 0.0001 else f"{change.adjusted:.2g}"
    return (
        f"{change.component} {change.kind.value} ({change.name}) from {before} to {after} "
        f"at {at}, by chance {chance}"
    )


def _reasons(cause: Cause) -> str:
    own = [told(change) for change in cause.evidence]
    text = _some(own)
    if not cause.established:
        text += "; on its own that might be chance"
    if cause.explains:
        text += f"; it would explain {_some(cause.explains)}"
    return text


def _value(kind: Kind, value: float) -> str:
    return f"{value:.1%}" if kind in SHARES else f"{value:.3g}"


def _some(items: Sequence[str]) -> str:
    left = len(items) - SHOWN
    return "; ".join(items[:SHOWN]) + (f"; and {left} more" if left > 0 else "")
