"""The on-call agent's own answer, which ends an investigation before anybody reasons about it."""

from collections.abc import Sequence
from dataclasses import dataclass

from tiphys.policies.model import (
    Cause,
    DecidedBy,
    Escalate,
    Evidence,
    Json,
    NoAction,
    Object,
    Source,
)

BY_ON_CALL = DecidedBy(reasoner="playbooks", playbook="on-call", playbook_version="1")
_SOURCES = (Source.KUBERNETES, Source.PROMETHEUS, Source.ALERTMANAGER)


@dataclass(frozen=True)
class Verdict:
    """Nothing is to be done, or a human must decide; and why."""

    escalate: bool
    reason: str
    cause: Cause | None = None
    """What it follows from: another incident may carry it."""
    again: float | None = None
    """Seconds until it must be looked at again, where nothing is to be done."""

    def to_json(self) -> dict[str, Json]:
        """Give it as a part of the graph's state."""
        return {
            "answer": "escalate" if self.escalate else "no_action",
            "reason": self.reason,
            "cause": self.cause.model_dump(mode="json") if self.cause else None,
            "again": self.again,
        }


def nothing(reason: str, cause: Cause | None = None, again: float | None = None) -> Verdict:
    """Say that nothing is to be done."""
    return Verdict(False, reason, cause, again)


def ask_a_human(reason: str, cause: Cause | None = None) -> Verdict:
    """Say that a human must decide."""
    return Verdict(True, reason, cause)


def decision_of(told: Object, evidence: Sequence[str]) -> NoAction | Escalate:
    """Read a verdict back as the decision that it is."""
    reason, given = str(told["reason"]), told.get("cause")
    cause = Cause.model_validate(given) if given else None
    found = tuple(evidence)
    if told["answer"] != "no_action":
        return Escalate(reason=reason, evidence=found, decided_by=BY_ON_CALL, cause=cause)
    again = told.get("again")
    seconds = float(again) if isinstance(again, int | float) else None
    return NoAction(
        reason=reason, evidence=found, decided_by=BY_ON_CALL, cause=cause, again=seconds
    )


def silence_of(evidence: Sequence[Evidence]) -> Cause | None:
    """Give the source that did not answer as a cause, which all have who ask it; None: it did."""
    silent = [s for s in _SOURCES if any(e.source is s and not e.ok for e in evidence)]
    if not silent:
        return None
    words = " and ".join(s.value.capitalize() for s in silent)
    return Cause(
        subjects=tuple(f"source {s.value}" for s in silent),
        words=f"{words} {'do' if len(silent) > 1 else 'does'} not answer",
    )
