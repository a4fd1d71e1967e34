"""What the model is shown: the findings as one fenced line of redacted JSON.

Invariants: every text from outside goes through `redact`, what programs wrote about themselves
through `abstract`; all of it stands between two marks derived from itself, which nothing inside can
know, and JSON's escapes keep it in one line.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from tiphys.agents.answers import Option
from tiphys.agents.ports import Findings
from tiphys.agents.reads import Offer
from tiphys.agents.redact import MAX_TEXT, abstract, redact_json
from tiphys.agents.remembering import tried_only
from tiphys.policies.model import Alert, Evidence, Json, Source

MAX_CHARACTERS: Final = 60_000
MAX_READ: Final = 16_000
"""Characters of one message that tells what was read; a longer one tells summaries."""
MAX_ALERTS: Final = 20
MAX_EVIDENCE: Final = 50
SPOKEN: Final = {"log_tail", "recent", "waiting_message", "message"}
"""Facts that programs wrote about themselves: logs, events and messages."""


class QuestionTooLongError(Exception):
    """The findings do not fit into one question."""


def numbered(evidence: Sequence[Evidence]) -> dict[str, Evidence]:
    """Give what was answered under short names, in an order that times do not change.

    With the ids, which hash the times, no two investigations would ask in the same words.
    """
    answered = [piece for piece in evidence if piece.ok]
    answered.sort(key=lambda piece: (piece.source.value, piece.question, piece.summary))
    return {f"e{number}": piece for number, piece in enumerate(answered[:MAX_EVIDENCE], 1)}


def question(
    findings: Findings, offered: Sequence[Option], evidence: Mapping[str, Evidence], view: "View"
) -> str:
    """Write the user's first message; raises `QuestionTooLongError`."""
    text = "\n".join(
        [
            "Actions that exist here:",
            *(_told(option) for option in offered),
            *([] if offered else ["(none: `act` is not possible)"]),
            "",
            "What can be read:",
            *(f"- {line}" for line in view.offer.told),
            *([] if view.offer.told else ["(nothing more: `ask` is not possible)"]),
            "",
            _fenced("FINDINGS", _data(findings, evidence, view.places)),
        ]
    )
    if len(text) > MAX_CHARACTERS:
        raise QuestionTooLongError(
            f"the findings have {len(text)} characters, at most {MAX_CHARACTERS} may be"
        )
    return text


@dataclass(frozen=True)
class View:
    """What can be read, and what the words for the containers mean."""

    offer: Offer
    places: Mapping[str, str]


NO_VIEW: Final = View(Offer(), {})


def what_was_read(
    found: Sequence[tuple[str, Evidence]], again: Sequence[str], *, last: bool
) -> str:
    """Write the message that answers an `ask`; `again`: names of what had been read before."""
    text = _read(found, again, last=last)
    if len(text) <= MAX_READ:
        return text
    short = [(name, piece.model_copy(update={"answer": piece.summary})) for name, piece in found]
    return _read(short, again, last=last)


def _read(found: Sequence[tuple[str, Evidence]], again: Sequence[str], *, last: bool) -> str:
    told: list[Json] = [
        {
            "id": name,
            "question": piece.question[:MAX_TEXT],
            "answered": piece.ok,
            "found": piece.answer if piece.ok else piece.summary,
        }
        for name, piece in found
    ]
    lines = [_fenced("READ", redact_json(told, abstract))]
    if again:
        lines.append(f"Read before, see {', '.join(again)}: ask for something else, or answer.")
    if last:
        lines.append("Nothing more can be read. Answer now: act, nothing or escalate.")
    return "\n".join(lines)


def repair(why: str) -> str:
    """Write the one message that asks for the same answer in the right form; `why` is ours."""
    return f"That answer could not be used: {why}. Answer again, in the form that was asked for."


def _fenced(title: str, plain: Json) -> str:
    data = json.dumps(plain, sort_keys=True, ensure_ascii=True)
    mark = hashlib.sha256(data.encode()).hexdigest()[:24]
    return f"{title}-{mark}\n{data}\n{title}-{mark}"


def _told(option: Option) -> str:
    action = option.action
    fields = action.parameters.model_fields
    parameters = ", ".join(fields) if fields else "none"
    return (
        f"- {action.name} on {' or '.join(option.roles)}: {action.summary} "
        f"Parameters: {parameters}. Undone so: {action.undo}"
    )


def _data(findings: Findings, evidence: Mapping[str, Evidence], places: Mapping[str, str]) -> Json:
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
        "evidence": [_evidence(name, piece) for name, piece in evidence.items()],
        "containers": {**places},
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


def _evidence(name: str, piece: Evidence) -> Json:
    spoken = piece.source is Source.LOGS
    return {
        "id": name,
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
