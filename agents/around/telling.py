"""Says what the analysis found: as facts for playbooks, and in sentences for people."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from tiphys.agents.around.happenings import Happening, clock
from tiphys.agents.around.suspects import MOST, Suspect, Verdict, reasons
from tiphys.agents.causes.evidence import Change
from tiphys.agents.causes.words import told
from tiphys.policies.model import Json

SHOWN: Final = 3
MOST_UNSEEN: Final = 50


def facts_of(verdict: Verdict, now: datetime) -> dict[str, Json]:
    """Give the group `analysis`; what is not known is left out, or empty."""
    changes: list[Json] = [
        {
            "component": c.component,
            "what": f"{c.kind.value} ({c.name})",
            "at": _iso(c.at),
            "before": round(c.before, 6),
            "after": round(c.after, 6),
            "score": round(c.weight, 2),
        }
        for c in verdict.changes[:50]
    ]
    causes: list[Json] = [_cause(s, now) for s in verdict.suspects[:MOST]]
    facts: dict[str, Json] = {
        "changes": changes,
        "causes": causes,
        "first": _first(verdict),
        "onset_minutes": _minutes(verdict.onset, now),
        "silent": verdict.silent,
        "unseen": [*verdict.unseen[:MOST_UNSEEN]],
    }
    for name in ("began_with_release", "release_innocent"):
        value: bool | None = getattr(verdict, name)
        if value is not None:
            facts[name] = value
    return facts


def sentences(verdict: Verdict, now: datetime) -> list[str]:
    """Say when it began, what is the likeliest cause and why, what followed, what is not known."""
    said = [_when(verdict, now)] if verdict.known.affected else []
    said += _release(verdict)
    said += _suspected(verdict)
    if verdict.followed:
        listed = _some([h.told for h in verdict.followed])
        said.append(f"changed only after it had begun: {listed}")
    causes = verdict.causes
    if causes is not None and causes.followed:
        said.append(f"what follows from it: {_some([told(c) for c in causes.followed])}")
    if causes is not None and causes.elsewhere:
        said.append(
            "changed too, but nothing that was complained about depends on it: "
            + _some([told(c) for c in causes.elsewhere])
        )
    if verdict.unseen:
        said.append(f"not seen, so not known to be healthy: {_some(verdict.unseen)}")
    return said


def _when(verdict: Verdict, now: datetime) -> str:
    ago = _minutes(verdict.onset, now)
    at = clock(verdict.onset)
    if verdict.shown:
        return f"the trouble began at {at}, {ago:.0f} min ago, as its metrics show"
    return (
        f"the trouble was there by {at}, {ago:.0f} min ago, when the alert was; no metric shows "
        "when it began"
    )


def _release(verdict: Verdict) -> list[str]:
    release = verdict.release
    if release is None:
        return []
    if verdict.release_innocent:
        told = f"{release.component} was released at {clock(release.at)}"
        return [f"{told}, after the trouble had begun: that is not the cause"]
    if verdict.began_with_release:
        return [f"it began right after {release.component} was released at {clock(release.at)}"]
    return []


def _suspected(verdict: Verdict) -> list[str]:
    suspects = verdict.suspects
    sure = [s for s in suspects if s.established]
    if not sure and not any(s.acts for s in suspects):
        if verdict.causes is None:
            return ["the metrics tell of too short a time to judge by"]
        return [
            "no series around the alert stands out of its noise; nothing was changed right before"
        ]
    top = suspects[0]
    lead = "likeliest cause" if top.established else "a hint, not established"
    said = [f"{lead}: {top.component}: {_some(reasons(top))}"]
    close = [s.component for s in suspects[1:MOST] if s.score >= 0.8 * top.score]
    if close:
        said.append(f"as likely, by what was seen: {', '.join(close)}")
    less = [s.component for s in suspects[1:MOST] if s.established and s.component not in close]
    if less:
        said.append(f"less likely: {', '.join(less)}")
    return said


def _cause(suspect: Suspect, now: datetime) -> Json:
    since = suspect.since
    evidence: list[Json] = [*reasons(suspect)]
    return {
        "component": suspect.component,
        "what": suspect.what,
        "since": _iso(since) if since is not None else "",
        "minutes": _minutes(since, now) if since is not None else -1.0,
        "evidence": evidence,
        "established": suspect.established,
        "score": round(suspect.score, 2),
    }


def _first(verdict: Verdict) -> str:
    first: Happening | Change | None = verdict.first
    if first is None:
        return ""
    return first.told if isinstance(first, Happening) else told(first)


def _minutes(at: float, now: datetime) -> float:
    return round(max(0.0, (now.timestamp() - at) / 60), 2)


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()


def _some(items: Sequence[str]) -> str:
    left = len(items) - SHOWN
    return "; ".join(items[:SHOWN]) + (f"; and {left} more" if left > 0 else "")
