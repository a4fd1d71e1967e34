"""Incidents as an engineer would tell them, in the terminal."""

from typing import Any

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from tiphys.policies.model import Change
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


def incidents_table(found: list[dict[str, Any]]) -> Table:
    """List incidents."""
    table = Table(box=None, pad_edge=False)
    for column in ("incident", "state", "severity", "title", "why"):
        table.add_column(column, overflow="fold")
    for one in found:
        state = one["state"]
        table.add_row(
            one["id"],
            Text(state, style=STATE_STYLE.get(state, "")),
            one["severity"],
            Text(plain(one["title"], 80)),
            Text(plain(one["reason"], 160)),
        )
    return table


def incident_page(view: dict[str, Any]) -> RenderableType:
    """Show one incident: what was seen, decided, done, and how it ended."""
    incident = view["incident"]
    parts: list[RenderableType] = [
        Text.assemble(
            (f"{incident['id']}  ", "bold"),
            (incident["state"], STATE_STYLE.get(incident["state"], "")),
            f"  {incident['severity']}  attempt {incident['attempt']}",
        ),
        Text(plain(incident["title"])),
        Text(plain(incident["reason"], 2000), style="italic"),
        _alerts(view["alerts"]) if view["alerts"] else Text(f"Alerts: none{_asked_by(incident)}"),
        _evidence(view["evidence"]),
    ]
    for attempt in view["attempts"]:
        parts += _attempt(attempt)
    parts.append(_timeline(view["timeline"]))
    return Group(*parts)


def _asked_by(incident: dict[str, Any]) -> str:
    """Say who wanted what no alert speaks of."""
    wish = incident.get("undoes") or incident.get("wants")
    return f"; {plain(wish['by'], 200)} asked for it" if wish else ""


def _alerts(alerts: list[dict[str, Any]]) -> RenderableType:
    table = Table(title="Alerts", title_justify="left", box=None)
    for column in ("alert", "status", "since", "labels"):
        table.add_column(column, overflow="fold")
    for alert in alerts:
        labels = {k: v for k, v in alert["labels"].items() if k != "alertname"}
        table.add_row(
            Text(plain(alert["labels"].get("alertname", "(unnamed)"), 80)),
            alert["status"],
            alert["starts_at"][:19],
            Text(plain(" ".join(f"{k}={v}" for k, v in labels.items()), 200)),
        )
    return table


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


def _attempt(attempt: dict[str, Any]) -> list[RenderableType]:
    decision = attempt["decision"]
    lines = [f"{decision['answer'].replace('_', ' ')}: {plain(decision['reason'], 2000)}"]
    if decision["answer"] == "proposal":
        lines += _proposal(decision)
    by = decision["decided_by"]
    who = by["playbook"] or by["model"]
    lines.append(f"decided by {by['reasoner']} {plain(who)} {plain(by['note'])}".rstrip())
    lines += [f"· {plain(note, 600)}" for note in attempt["notes"]]
    lines += _verdicts(attempt["judgement"])
    if attempt["plan_digest"]:
        lines.append(f"plan {attempt['plan_digest'][:16]} → {attempt['workflow']}")
    lines += _run(attempt["run"])
    title = Text(f"Attempt {attempt['attempt']}")
    return [Panel(Text("\n".join(lines)), title=title, title_align="left")]


def _proposal(decision: dict[str, Any]) -> list[str]:
    target = decision["target"]
    action = f"{decision['action']}-v{decision['version']}"
    place = f"{target['kind']} {'/'.join(filter(None, (target['namespace'], target['name'])))}"
    lines = [
        f"{action} on {place}, risk {decision['risk']}",
        f"blast radius: {plain(decision['blast_radius'])}",
        f"undo: {plain(decision['undo'])}",
    ]
    for change in decision["changes"][:20]:
        where = Change.model_validate(change).place
        values = f"{plain(change['present'], 120)} → {plain(change['intended'], 120)}"
        lines.append(f"  {where}: {values}")
    return lines


def _verdicts(judgement: dict[str, Any] | None) -> list[str]:
    if judgement is None:
        return []
    against = [v for v in judgement["verdicts"] if v["verdict"]["verdict"] != "allowed"]
    lines = [f"gate ({plain(judgement['policy'], 60)}): {len(judgement['verdicts'])} rules"]
    for verdict in against:
        said = verdict["verdict"]["verdict"].replace("_", " ")
        lines.append(f"  {said} by {verdict['rule']}: {plain(verdict['verdict']['reason'])}")
    return lines if against else [lines[0] + ", none objects"]


def _run(run: dict[str, Any] | None) -> list[str]:
    if run is None:
        return []
    ended = run["outcome"] or ("open" if run["open"] else "never ran")
    lines = [f"workflow {run['workflow']} {ended}"]
    for step in run["steps"]:
        head = f"  {step['step']:<9} {step['phase']:<10} {step['result'] or ''}"
        lines.append(f"{head}  {plain(step['message'], 300)}")
    return lines


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


def print_page(console: Console, view: dict[str, Any]) -> None:
    """Print one incident."""
    console.print(incident_page(view))
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
