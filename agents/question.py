"""What the model is shown: the findings as one fenced line of redacted JSON.

Invariants: every text from outside goes through `redact`, what programs wrote about themselves
through `abstract`; all of it stands between two marks derived from itself, which nothing inside can
know, and JSON's escapes keep it in one line.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from tiphys.agents.answers import Option
from tiphys.agents.ports import Findings
from tiphys.agents.redact import abstract, redact_json
from tiphys.agents.remembering import tried_only
from tiphys.policies.model import Alert, Evidence, Json, Source

MAX_CHARACTERS: Final = 60_000
MAX_ALERTS: Final = 20
SPOKEN: Final = {"log_tail", "recent", "waiting_message", "message"}
"""Facts that programs wrote about themselves: logs, events and messages."""


class QuestionTooLongError(Exception):
    """The findings do not fit into one question."""


def question(findings: Findings, offered: Sequence[Option], evidence: Sequence[Evidence]) -> str:
    """Write the user's message; raises `QuestionTooLongError`."""
    data = json.dumps(_data(findings, evidence), sort_keys=True, ensure_ascii=True)
    mark = hashlib.sha256(data.encode()).hexdigest()[:24]
    text = "\n".join(
        [
            "Actions that exist here:",
            *(_told(option) for option in offered),
            *([] if offered else ["(none: `act` is not possible)"]),
            "",
            f"FINDINGS-{mark}",
            data,
            f"FINDINGS-{mark}",
        ]
    )
    if len(text) > MAX_CHARACTERS:
        raise QuestionTooLongError(
            f"the findings have {len(text)} characters, at most {MAX_CHARACTERS} may be"
        )
    return text


def _told(option: Option) -> str:
    action = option.action
    fields = action.parameters.model_fields
    parameters = ", ".join(fields) if fields else "none"
    return (
        f"- {action.name} on {' or '.join(option.roles)}: {action.summary} "
        f"Parameters: {parameters}. Undone so: {action.undo}"
    )


def _data(findings: Findings, evidence: Sequence[Evidence]) -> Json:
    case = findings.case
    attempts: list[Json] = [
        {
            "number": attempt.number,
            "action": attempt.action,
            "target": str(attempt.target),
            "outcome": attempt.outcome.value,
            "message": abstract(attempt.message),
        }
        for attempt in case.attempts
    ]
    whole: dict[str, Json] = {
        "incident": {
            "subject": case.subject,
            "attempt": case.attempt,
            "earlier_attempts": attempts,
            "episodes_last_hour": case.episodes_last_hour,
            "handled_by_another": case.handled_by is not None,
        },
        "alerts": [_alert(alert, case.now) for alert in list(case.alerts)[:MAX_ALERTS]],
        "facts": _abstracted(_shown(findings.facts)),
        "targets": {role: str(target) for role, target in findings.targets.items()},
        "evidence": [_evidence(piece) for piece in evidence],
    }
    return redact_json(whole)


def _shown(facts: Mapping[str, Json]) -> dict[str, Json]:
    """Give the facts, without the many actions that were never tried."""
    experience = facts.get("experience")
    if not isinstance(experience, dict):
        return dict(facts)
    return {**facts, "experience": tried_only(experience)}


def _alert(alert: Alert, now: datetime | None) -> Json:
    told: dict[str, Json] = {
        "name": alert.name,
        "severity": alert.severity.value,
        "status": alert.status.value,
        "labels": {**alert.labels},
        "annotations": {**alert.annotations},
    }
    if now is not None:
        told["minutes"] = round((now - alert.starts_at).total_seconds() / 60)
    return told


def _evidence(piece: Evidence) -> Json:
    spoken = piece.source is Source.LOGS
    return {
        "id": piece.id,
        "source": piece.source.value,
        "question": piece.question,
        "found": abstract(piece.summary) if spoken else piece.summary,
    }


def _abstracted(value: Json, key: str = "") -> Json:
    """Put placeholders for the values in whatever stands under a spoken key."""
    if isinstance(value, dict):
        return {name: _abstracted(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [_abstracted(item, key) for item in value]
    return abstract(value) if isinstance(value, str) and key in SPOKEN else value
