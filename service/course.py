"""What happened in an incident, from its record: one line for each thing that a person would tell.

What the account of the decision says already is left out, and what repeats itself is counted.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from tiphys.policies.lifecycle import State
from tiphys.service.account import Line
from tiphys.service.records import AuditEvent
from tiphys.service.telling import plain, sentence

Json = dict[str, Any]
_TOLD: Final = {
    AuditEvent.ALERT_ENDED,
    AuditEvent.ALERT_OPENED,
    AuditEvent.APPROVAL_GIVEN,
    AuditEvent.APPROVAL_REFUSED,
    AuditEvent.APPROVAL_VOID,
    AuditEvent.BREAKER_TRIPPED,
    AuditEvent.BREAK_GLASS,
    AuditEvent.BREAK_GLASS_REVIEWED,
    AuditEvent.DECIDED,
    AuditEvent.INCIDENT_OPENED,
    AuditEvent.INCIDENT_PARKED,
    AuditEvent.PAGED,
    AuditEvent.RUN_ASKED,
    AuditEvent.RUN_ENDED,
    AuditEvent.RUN_STEP,
    AuditEvent.RUN_STOP_ASKED,
    AuditEvent.TARGET_FROZEN,
    AuditEvent.TARGET_UNFROZEN,
    AuditEvent.UNDO_ASKED,
    AuditEvent.WORKFLOW_CREATED,
}
_SAID_BY: Final = {
    AuditEvent.APPROVAL_GIVEN: "approved by",
    AuditEvent.APPROVAL_REFUSED: "refused by",
    AuditEvent.BREAK_GLASS: "the glass was broken, and approved alone, by",
}
_MOVES: Final = {State.ACKNOWLEDGED, State.CLOSED, State.SUSPENDED}
"""States that people hear of although nothing else is recorded with them."""
_GRAVE: Final = {AuditEvent.PAGED, AuditEvent.TARGET_FROZEN, AuditEvent.BREAKER_TRIPPED}


def course(view: Json) -> list[Line]:
    """Tell the record in order; times are UTC, with the day where it is another one."""
    said = [view["incident"]["reason"], *(a["decision"]["reason"] for a in view["attempts"])]
    reasons = {plain(reason, 2000) for reason in said if reason}
    day, lines = "", list[Line]()
    for record, words, count in _counted(_told(view["timeline"], reasons)):
        at = str(record["at"])
        if at[:10] != day:
            day = at[:10]
            lines.append(Line(f"{day} (UTC)", "", "dim"))
        again = f" ({count} times)" if count > 1 else ""
        style = "bold red" if record["event"] in _GRAVE else ""
        lines.append(Line(f"{words}{again}", f"{at[11:19]}  ", style))
    return lines


def _told(records: Iterable[Json], reasons: set[str]) -> Iterator[tuple[Json, str]]:
    for record in records:
        words = _words(record, reasons)
        if words:
            yield record, plain(words, 500)


def _counted(told: Iterable[tuple[Json, str]]) -> Iterator[tuple[Json, str, int]]:
    """Join what is said again and again, at the time of the first."""
    last: tuple[Json, str, int] | None = None
    for record, words in told:
        if last is not None and last[1] == words:
            last = (last[0], words, last[2] + 1)
            continue
        if last is not None:
            yield last
        last = (record, words, 1)
    if last is not None:
        yield last


def _words(record: Json, reasons: set[str]) -> str:
    event, body = record["event"], record["body"] or {}
    if event == AuditEvent.INCIDENT_MOVED:
        return _moved(record, reasons)
    if event not in _TOLD:
        return ""
    if event in _SAID_BY:
        because = f": {body['reason']}" if body.get("reason") else ""
        return f"{_SAID_BY[event]} {plain(record['actor'], 80)}{because}"
    match event:
        case AuditEvent.INCIDENT_OPENED:
            return f"opened: {body['title']}"
        case AuditEvent.DECIDED:
            return _decided(body["decision"])
        case AuditEvent.PAGED:
            why = plain(body.get("reason", ""), 2000)
            same = not why or any(one in why or why in one for one in reasons)
            return "a person is called" + ("" if same else f": {why}")
        case AuditEvent.WORKFLOW_CREATED:
            return f"{body['template']} starts as {body['workflow']}"
        case AuditEvent.RUN_STEP:
            return sentence(record) if _has_ended(body["step"]) else ""
        case AuditEvent.RUN_ENDED:
            return f"the run is over, {sentence(record)}"
        case AuditEvent.ALERT_ENDED | AuditEvent.ALERT_OPENED:
            return sentence(record)
        case _:
            return f"{str(event).replace('_', ' ')}: {sentence(record)}".rstrip(": ")


def _has_ended(step: Json) -> bool:
    """Whether a step is over and has said how; what it says comes a moment after its end."""
    said = step.get("result") or step.get("message") or step.get("phase") != "Succeeded"
    return bool(step.get("finished_at", True) and said)


def _decided(decision: Json) -> str:
    if decision.get("action"):
        return f"decided: {decision['action']}"
    nothing = decision["answer"] == "no_action"
    return "decided: nothing is to be done" if nothing else "decided: a person is needed"


def _moved(record: Json, reasons: set[str]) -> str:
    body = record["body"] or {}
    if body.get("to") not in _MOVES:
        return ""
    reason = plain(body.get("reason", ""), 2000)
    return str(body["to"]) + (f": {reason}" if reason and reason not in reasons else "")
