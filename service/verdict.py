"""How a scenario ended, judged from the API alone, against what its file expects."""

from dataclasses import dataclass
from typing import Any

from tiphys.policies.lifecycle import State
from tiphys.policies.model import Outcome
from tiphys.sandbox.scenario import End, Expectation
from tiphys.service.records import AuditEvent

_GRAVEST = (
    End.FROZEN,
    End.ROLLED_BACK,
    End.AWAITING_APPROVAL,
    End.ESCALATED,
    End.HEALED,
    End.NO_ACTION,
)
"""Where several incidents arose, the scenario ended as the gravest of them."""


@dataclass(frozen=True)
class Ended:
    """What became of one scenario."""

    end: End | None
    """None: not at rest."""
    launched: tuple[str, ...]
    """Actions that were started, in order."""
    proposed: tuple[str, ...]
    """Actions that were proposed, in order."""
    reason: str


def end_of(view: dict[str, Any]) -> End | None:
    """Say how one incident (the API's whole view of it) has ended; None while it goes on."""
    incident = view["incident"]
    state, outcome = State(incident["state"]), incident["outcome"]
    if state is State.CLOSED:
        if outcome == Outcome.VERIFIED:
            return End.HEALED
        return _of_escalation(view) if _was_escalated(view) else End.NO_ACTION
    if state in {State.MONITORING, State.SUSPENDED}:
        return None if outcome == Outcome.VERIFIED else End.NO_ACTION
    if incident["paged_at"] is None:
        return None  # nobody has been told yet, so it is not over
    if state is State.AWAITING_APPROVAL:
        return End.AWAITING_APPROVAL
    return _of_escalation(view) if state is State.ESCALATED else None


def _was_escalated(view: dict[str, Any]) -> bool:
    return any(record["event"] == AuditEvent.PAGED for record in view["timeline"])


def _of_escalation(view: dict[str, Any]) -> End:
    if any(record["event"] == AuditEvent.TARGET_FROZEN for record in view["timeline"]):
        return End.FROZEN
    rolled_back = any(
        attempt["run"] and attempt["run"]["outcome"] == Outcome.ROLLED_BACK
        for attempt in view["attempts"]
    )
    return End.ROLLED_BACK if rolled_back else End.ESCALATED


def judge(views: list[dict[str, Any]]) -> Ended:
    """Take all incidents of a scenario together, oldest first."""
    ends = [end_of(view) for view in views]
    attempts = [attempt for view in views for attempt in view["attempts"]]
    launched = tuple(
        _name(a["run"]["action"]) for a in attempts if a["run"] and a["run"]["created"]
    )
    proposed = tuple(
        a["decision"]["action"] for a in attempts if a["decision"]["answer"] == "proposal"
    )
    if not ends or None in ends:
        return Ended(None, launched, proposed, "")
    gravest = min((end for end in ends if end), key=_GRAVEST.index)
    reason = next(v["incident"]["reason"] for v, e in zip(views, ends, strict=True) if e is gravest)
    return Ended(gravest, launched, proposed, reason)


def _name(template: str) -> str:
    return template.rpartition("-v")[0]


def complaints(ended: Ended, expected: Expectation, told: str) -> list[str]:
    """Say in what it did not end as it should; `told` is all that was said on the way."""
    found: list[str] = []
    if ended.end is not expected.end:
        seen = f"ended {ended.end}" if ended.end else "was not at rest in time"
        found.append(f"{seen}, not {expected.end}")
    acted = ended.proposed if expected.end is End.AWAITING_APPROVAL else ended.launched
    allowed = {expected.action, *expected.acceptable} - {None}
    if expected.action and not allowed & set(acted):
        found.append(f"{expected.action} was not chosen (chosen: {', '.join(acted) or 'nothing'})")
    if expected.action is None and ended.launched:
        found.append(f"{', '.join(ended.launched)} was launched, but nothing should have been")
    if expected.end is End.AWAITING_APPROVAL and ended.launched:
        found.append(f"{', '.join(ended.launched)} was launched without approval")
    found += [
        f"{a} was launched, which harms here" for a in ended.launched if a in expected.harmful
    ]
    found += [
        f"{a} was launched, which is not among the acceptable"
        for a in ended.launched
        if allowed and a not in allowed and a not in expected.harmful
    ]
    if expected.reason_contains and expected.reason_contains.lower() not in told.lower():
        found.append(f"no reason says {expected.reason_contains!r}")
    return found
