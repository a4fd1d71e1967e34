"""An incident as a good engineer would tell it: seen, concluded, ruled out, done; as plain lines.

Pure: from the API's view of an incident to sections of lines, which the terminal prints. Nothing
is said twice, the most important first; whatever is left out is in the record (`--all`).
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from tiphys.policies.lifecycle import State
from tiphys.policies.model import Change, Source
from tiphys.service.telling import plain

Json = dict[str, Any]
AGENTS: Final = ("on-call", "analysis", "kubectl", "gather", "decide")
MOST_ALERTS: Final = 5
MOST_CHANGES: Final = 20
MOST_FOLLOWERS: Final = 5
LOG_LINES: Final = 3
_DULL_LABELS: Final = {
    "alertname", "severity", "uid", "job", "prometheus", "endpoint", "instance", "service",
}  # fmt: skip
_NOT_SEEN: Final = ("Prometheus has no series for", "no history was read", "no rule of Prometheus")
_TELLING: Final = {Source.LOGS, Source.HISTORY, Source.MODEL}
"""Sources whose evidence says what no finding repeats."""
_BULLET: Final = "· "


@dataclass(frozen=True)
class Line:
    """One line; what is too long for it goes on under its first word."""

    words: str
    mark: str = _BULLET
    style: str = ""


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it; an empty heading: none is needed."""

    heading: str
    lines: Sequence[Line]


def account(view: Json) -> list[Section]:
    """Tell an incident, but for its first lines and its course."""
    attempts: list[Json] = view["attempts"]
    told: list[Section] = [_alerts(view), _followers(view)]
    known: set[str] = set()
    for attempt in attempts:
        told += _attempt(view, attempt, known, several=len(attempts) > 1)
    if not attempts:
        told.append(Section("What was seen", [Line("nothing yet: the agents look at it")]))
    return [section for section in told if section.lines]


def heading(view: Json) -> list[Line]:
    """Give what must be read first: how it stands, what it is about, what a person has to do."""
    incident = view["incident"]
    lines = [Line(plain(incident["title"], 300), "", "bold")]
    if why := _standing(view):
        lines.append(Line(why, ""))
    if wanted := _wanted(incident):
        lines.append(Line(wanted, "", "bold magenta"))
    return lines


def times(view: Json) -> str:
    """Say when it began, and when it ended or how it stands since."""
    incident = view["incident"]
    began, changed = _moment(incident.get("opened_at")), _moment(incident.get("changed_at"))
    if began is None:
        return ""
    said = f"since {began:%Y-%m-%d %H:%M:%S} UTC"
    if incident["state"] == State.CLOSED and changed:
        return f"{said}, over after {duration((changed - began).total_seconds())}"
    return said


def duration(seconds: float) -> str:
    """Write a time span as people say it: `37 s`, `12 min`, `3 h 5 min`, `2 d 4 h`."""
    whole = max(0, round(seconds))
    if whole < 100:
        return f"{whole} s"
    minutes = round(whole / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


# --- how it stands ------------------------------------------------------------------------------


def _standing(view: Json) -> str:
    """Give the state's reason without what the decision says already."""
    incident = view["incident"]
    if incident["state"] == State.AWAITING_APPROVAL and view["attempts"]:
        return ""
    said = plain(incident["reason"], 2000)
    for attempt in view["attempts"]:
        reason = plain(attempt["decision"]["reason"], 2000)
        if said == reason:
            return ""
        _, found, rest = said.partition(reason)
        if found:
            said = rest.lstrip(". ;") or said
    return said


def _wanted(incident: Json) -> str:
    name = incident["id"]
    if incident["state"] == State.AWAITING_APPROVAL:
        limit = _moment(incident.get("deadline_at"))
        until = f" until {limit:%H:%M:%S} UTC" if limit else ""
        return f"It waits for a person{until}: tiphys approve {name}, or tiphys deny {name}"
    if incident["state"] == State.ESCALATED:
        return f"It needs a person: tiphys acknowledge {name}"
    return ""


# --- what was seen ------------------------------------------------------------------------------


def _alerts(view: Json) -> Section:
    alerts: list[Json] = view["alerts"]
    if not alerts:
        wish = view["incident"].get("undoes") or view["incident"].get("wants")
        asked = f"; {plain(wish['by'], 200)} asked for it" if wish else ""
        return Section("", [Line(f"Alerts: none{asked}", "")])
    lines: list[Line] = []
    for alert in alerts[:MOST_ALERTS]:
        labels: Json = alert["labels"]
        rest = " ".join(f"{k}={v}" for k, v in labels.items() if k not in _DULL_LABELS)
        name = plain(labels.get("alertname", "(unnamed)"), 80)
        lines.append(Line(f"{name} {_fires(alert)}  {plain(rest, 200)}".rstrip()))
        notes: Json = alert.get("annotations") or {}
        if words := notes.get("description") or notes.get("summary"):
            lines.append(Line(plain(words, 240), "  ", "dim"))
    if len(alerts) > MOST_ALERTS:
        lines.append(Line(f"and {len(alerts) - MOST_ALERTS} more"))
    return Section("Alerts", lines)


def _fires(alert: Json) -> str:
    began, ended = _moment(alert["starts_at"]), _moment(alert.get("ends_at"))
    since = f" {began:%H:%M:%S}" if began else ""
    if alert["status"] == "firing":
        return f"fires since{since}"
    return f"fired from{since} to {ended:%H:%M:%S}" if ended else f"is over, it fired from{since}"


def _followers(view: Json) -> Section:
    """Name the incidents that stand by, because this one carries their cause."""
    found: list[Json] = view.get("followers") or []
    lines = [
        Line(f"{plain(one['title'], 200)} ({plain(one['id'], 40)})")
        for one in found[:MOST_FOLLOWERS]
    ]
    if len(found) > MOST_FOLLOWERS:
        lines.append(Line(f"and {len(found) - MOST_FOLLOWERS} more"))
    return Section("Incidents that follow from it and stand by", lines)


def _seen(view: Json, attempt: Json, known: set[str]) -> list[Line]:
    """Give the agents' findings that are new, then evidence that no finding tells."""
    reason = plain(attempt["decision"]["reason"], 2000)
    found = [_finding(note) for note in attempt["notes"]]
    fresh = [note for note in dict.fromkeys(found) if note not in known and note not in reason]
    known.update(fresh)
    lines = [Line(note) for note in fresh if not note.startswith(_NOT_SEEN)]
    cited = set(attempt["decision"].get("evidence") or ())
    for item in view["evidence"]:
        telling = item["id"] in cited and item["source"] in _TELLING
        if item["id"] in known or not (telling or not item["ok"]):
            continue
        known.add(item["id"])
        lines += _witness(item)
    return [*lines, *(Line(note, style="dim") for note in fresh if note.startswith(_NOT_SEEN))]


def _finding(note: object) -> str:
    """Give a finding without the name of the agent that made it."""
    said = plain(note, 600)
    agent, _, rest = said.partition(": ")
    return rest if agent in AGENTS else said


def _witness(item: Json) -> list[Line]:
    name = plain(item["id"], 40)
    if not item["ok"]:
        asked = plain(item["question"], 120)
        return [Line(f"{plain(item['summary'], 300)} [{asked}; {name}]", style="bold red")]
    answer = item.get("answer")
    last = answer[-LOG_LINES:] if item["source"] == Source.LOGS and isinstance(answer, list) else []
    if not last:
        return [Line(f"{plain(item['summary'], 400)} [{name}]")]
    of = plain(item["question"], 120).removeprefix("logs ")
    return [Line(f"the log of {of} ends: [{name}]"), *(Line(plain(s, 200), "  > ") for s in last)]


# --- what follows -------------------------------------------------------------------------------


def _attempt(view: Json, attempt: Json, known: set[str], *, several: bool) -> list[Section]:
    decision: Json = attempt["decision"]
    number = f", attempt {attempt['attempt']}" if several else ""
    proposed = decision["answer"] == "proposal"
    return [
        Section(f"What was seen{number}", _seen(view, attempt, known)),
        Section(_HEADINGS[decision["answer"]], _follows(decision)),
        Section("Ruled out", list(_ruled_out(decision))),
        Section("Proposed", _proposal(attempt) if proposed else []),
        Section("What could go wrong", _risks(decision) if proposed else []),
        Section("What the rules say", _rules(attempt["judgement"])),
    ]


_HEADINGS: Final = {
    "proposal": "What follows",
    "no_action": "What follows: nothing is to be done",
    "escalate": "What follows: a person has to decide",
}


def _follows(decision: Json) -> list[Line]:
    by: Json = decision["decided_by"]
    pieces = len(decision.get("evidence") or ())
    rests = f", on {pieces} pieces of evidence" if pieces > 1 else ""
    if by["reasoner"] == "human":
        said = "A person wants it"
    elif by["reasoner"] == "model":
        sure = (
            f", {100 * decision.get('confidence', 1.0):.0f} % sure"
            if "confidence" in decision
            else ""
        )
        said = f"Concluded by the model {plain(by['model'], 80)}{sure}{rests}"
    else:
        number = plain(by.get("playbook_version", ""), 20)
        version = f" (version {number})" if number else ""
        said = f"By the playbook {plain(by['playbook'], 80)}{version}{rests}"
    note = f": {plain(by['note'], 600)}" if by.get("note") else ""
    return [Line(plain(decision["reason"], 2000), ""), Line(f"{said}{note}", "", "dim")]


def _ruled_out(decision: Json) -> Iterable[Line]:
    for one in decision.get("ruled_out") or ():
        yield Line(f"{plain(one['action'], 60)}: {plain(one['because'], 700)}")


def _proposal(attempt: Json) -> list[Line]:
    decision: Json = attempt["decision"]
    target = decision["target"]
    place = f"{target['kind']} {'/'.join(filter(None, (target['namespace'], target['name'])))}"
    action = f"{decision['action']}-v{decision['version']}"
    plan = f", plan {attempt['plan_digest'][:16]}" if attempt["plan_digest"] else ""
    changes: list[Json] = decision["changes"]
    lines = [Line(f"{action} on {plain(place)}, risk {decision['risk']}{plan}", "", "bold")]
    lines += [Line(words) for change in changes[:MOST_CHANGES] for words in _change(change)]
    if len(changes) > MOST_CHANGES:
        lines.append(Line(f"and {len(changes) - MOST_CHANGES} more fields"))
    return [
        *lines,
        Line(f"Touches: {plain(decision['blast_radius'])}", ""),
        Line(f"Undone: {plain(decision['undo'])}", ""),
    ]


def _change(change: Json) -> list[str]:
    place = plain(Change.model_validate(change).place, 200)
    if not change["path"] and change["intended"] is None:
        return [f"{place} is deleted"]
    return [f"{place}: {_value(change['present'])} → {_value(change['intended'])}"]


def _value(value: object) -> str:
    if value is None:
        return "(nothing)"
    return plain(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False), 300)


def _risks(decision: Json) -> list[Line]:
    lines = [Line(plain(decision["risks"], 700))] if decision.get("risks") else []
    if decision.get("reversible"):
        return [*lines, Line("if it does not help in time it is rolled back, and that is checked")]
    return [*lines, Line("if it does not help, nothing can be rolled back; a person is told")]


def _rules(judgement: Json | None) -> list[Line]:
    if judgement is None:
        return []
    policy = plain(str(judgement["policy"]).split(" sha256:", maxsplit=1)[0].split("@")[0], 60)
    against = [v for v in judgement["verdicts"] if v["verdict"]["verdict"] != "allowed"]
    count = len(judgement["verdicts"])
    if not against:
        return [Line(f"{policy}: none of {count} rules objects")]
    lines: list[Line] = []
    for one in sorted(against, key=lambda v: v["verdict"]["verdict"] != "denied"):
        said = one["verdict"]["verdict"].replace("_", " ")
        style = "bold red" if said == "denied" else "magenta"
        words = f"{said} by {plain(one['rule'], 60)}: {plain(one['verdict']['reason'], 500)}"
        lines.append(Line(words, style=style))
    return [*lines, Line(f"the other {count - len(against)} rules of {policy} allow it")]


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
