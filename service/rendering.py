"""Incidents in the terminal; what is told of them is `account`'s, here it is only set."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from tiphys.service.account import Line, Section, account, duration, heading, times
from tiphys.service.approvals import QUESTION
from tiphys.service.course import course
from tiphys.service.telling import plain, sentence

STATE_STYLE = {
    "closed": "green",
    "monitoring": "cyan",
    "running": "yellow",
    "launching": "yellow",
    "awaiting_approval": "bold magenta",
    "escalated": "bold red",
    "acknowledged": "blue",
    "suspended": "dim",
}
SEVERITY_STYLE = {"critical": "bold red", "warning": "yellow"}
DECISIONS = {
    "proposal": "action",
    "no_action": "nothing to do",
    "escalate": "for a person",
}
WIDEST: Final = 100
"""Columns of a page; a wider terminal makes no text easier to read."""


def incidents_table(found: list[dict[str, Any]], now: datetime | None = None) -> Table:
    """List incidents, one line for each: how it stands, how grave, how old, what, and why."""
    now = now or datetime.now(UTC)
    table = Table(box=None, pad_edge=False, expand=True)
    states = [len(one["state"]) for one in found]
    for column, width in (
        ("incident", 12),
        ("state", max([5, *states])),
        ("severity", 8),
        ("age", 8),
    ):
        table.add_column(column, no_wrap=True, min_width=width)
    for column, share in (("about", 2), ("decision and why", 3)):
        table.add_column(column, no_wrap=True, overflow="ellipsis", ratio=share)
    for one in found:
        state = one["state"]
        age = ""
        if one.get("opened_at"):
            age = duration((now - datetime.fromisoformat(one["opened_at"])).total_seconds())
        table.add_row(
            one["id"],
            Text(state.replace("_", " "), style=STATE_STYLE.get(state, "")),
            Text(one["severity"], style=SEVERITY_STYLE.get(one["severity"], "")),
            age,
            Text(plain(one["title"], 200)),
            Text(plain(_in_short(one), 400)),
        )
    return table


def _in_short(incident: dict[str, Any]) -> str:
    """Say what was decided and why it stands as it does."""
    said = DECISIONS.get(incident.get("decision") or "", "")
    outcome = str(incident.get("outcome") or "").replace("_", " ")
    reason = str(incident["reason"])
    head = ", ".join(filter(None, (said, outcome)))
    return f"{head}: {reason}" if head and not reason.startswith(QUESTION) else reason


def incident_page(view: dict[str, Any], *, whole: bool = False) -> RenderableType:
    """Tell one incident: how it stands, what was seen, decided and done, and how it ended."""
    incident = view["incident"]
    state = incident["state"]
    parts: list[RenderableType] = [
        Text.assemble(
            (f"{incident['id']}  ", "bold"),
            (state.replace("_", " "), STATE_STYLE.get(state, "")),
            "  ",
            (incident["severity"], SEVERITY_STYLE.get(incident["severity"], "")),
            f"  attempt {incident['attempt']}  {times(view)}".rstrip(),
        ),
        _lines(heading(view)),
    ]
    told = [*account(view), Section("What happened", course(view))]
    for section in told:
        if not section.lines:
            continue
        parts.append(Text(""))
        if section.heading:
            parts.append(Text(section.heading.upper(), style="bold cyan"))
        parts.append(_lines(section.lines))
    if whole:
        parts += [Text(""), _evidence(view["evidence"]), Text(""), _timeline(view["timeline"])]
    else:
        parts += [Text(""), Text(_rest(view), style="dim")]
    return Group(*parts)


def _rest(view: dict[str, Any]) -> str:
    pieces, records = len(view["evidence"]), len(view["timeline"])
    where = f"tiphys incidents show {view['incident']['id']} --all"
    return f"{pieces} pieces of evidence and {records} records: {where}"


def _lines(lines: Sequence[Line]) -> RenderableType:
    """Set lines so that what is too long goes on under its first word."""
    parts: list[RenderableType] = []
    for line in lines:
        words = Text(line.words, style=line.style)
        if not line.mark:
            parts.append(words)
            continue
        grid = Table.grid(padding=0)
        grid.add_column(width=len(line.mark), no_wrap=True)
        grid.add_column(overflow="fold")
        grid.add_row(Text(line.mark, style="dim"), words)
        parts.append(grid)
    return Group(*parts)


def _evidence(evidence: list[dict[str, Any]]) -> RenderableType:
    table = Table(title="Evidence", title_justify="left", box=None)
    for column in ("id", "source", "what was seen", "asked"):
        table.add_column(column, overflow="fold")
    for item in evidence:
        style = "" if item["ok"] else "red"
        table.add_row(
            item["id"],
            item["source"],
            Text(plain(item["summary"], 300), style=style),
            Text(plain(item["question"], 120), style="dim"),
        )
    return table


def _timeline(records: list[dict[str, Any]]) -> RenderableType:
    table = Table(title="Record", title_justify="left", box=None)
    for column in ("#", "time", "event", "by", "what"):
        table.add_column(column, overflow="fold")
    for record in records:
        table.add_row(
            str(record["seq"]),
            record["at"][11:23],
            record["event"],
            Text(plain(record["actor"], 40)),
            Text(plain(sentence(record), 300)),
        )
    return table


def print_page(console: Console, view: dict[str, Any], *, whole: bool = False) -> None:
    """Print one incident, no wider than is good to read; `whole`: all evidence and records, too."""
    console.print(incident_page(view, whole=whole), width=min(console.width, WIDEST))
    if view.get("repair"):
        _print_repair(console, view["repair"])


def _print_repair(console: Console, repair: dict[str, Any]) -> None:
    """Say how to put things right by hand; a command stays on one line, to be copied."""
    table = Table(title=f"To repair by hand, as read at {repair['read_at'][:19]}", box=None)
    for column in ("field", "before", "left by the run", "now", ""):
        table.add_column(column, overflow="fold")
    for field in repair["fields"]:
        values = (field["place"], field["before"], field["left"], field["now"], field["stands"])
        table.add_row(*(Text(plain(value, 400)) for value in values))
    console.print(table)
    for note in repair["notes"]:
        console.print(Text(plain(note)))
    for command in repair["commands"]:
        console.print(Text(command), soft_wrap=True)
