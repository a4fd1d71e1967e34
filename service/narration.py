"""The demo's voice: one line for each thing that matters, then what it all came to."""

import json
import re
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from tiphys.policies.model import Source
from tiphys.sandbox.scenario import Scenario
from tiphys.service.records import AuditEvent
from tiphys.service.telling import plain, sentence
from tiphys.service.verdict import Ended

_VOICES: dict[str, tuple[str, str]] = {
    AuditEvent.INCIDENT_OPENED: ("detect", "yellow"),
    AuditEvent.RUN_ASKED: ("people", "magenta"),
    AuditEvent.UNDO_ASKED: ("people", "magenta"),
    AuditEvent.ALERT_OPENED: ("detect", "yellow"),
    AuditEvent.ALERT_ENDED: ("resolve", "green"),
    AuditEvent.DECIDED: ("decide", "bold cyan"),
    AuditEvent.JUDGED: ("gate", "cyan"),
    AuditEvent.PLANNED: ("plan", "cyan"),
    AuditEvent.APPROVAL_GIVEN: ("approve", "magenta"),
    AuditEvent.BREAK_GLASS: ("approve", "magenta"),
    AuditEvent.APPROVAL_REFUSED: ("deny", "magenta"),
    AuditEvent.LAUNCH_INTENDED: ("launch", "bold blue"),
    AuditEvent.RUN_STEP: ("act", "blue"),
    AuditEvent.RUN_ENDED: ("outcome", "bold green"),
    AuditEvent.TARGET_FROZEN: ("freeze", "bold red"),
    AuditEvent.PAGED: ("page", "bold red"),
    AuditEvent.BREAKER_TRIPPED: ("breaker", "bold red"),
}
_DULL = re.compile(
    r" exists\b|^(0|no) |no data$|no series$|^\d+ (rules$|replicasets in |[A-Z]\w+ of )"
)
"""Answers that were needed and tell a reader nothing."""
MOST_EVIDENCE = 8
_STATES = {"closed": ("close", "bold green"), "suspended": ("suspend", "dim")}


@dataclass(frozen=True)
class Summary:
    """What a scenario came to."""

    scenario: Scenario
    ended: Ended
    views: list[dict[str, Any]]
    seconds: float
    """From the fault until everything rested."""
    records: int
    export: Path
    complaints: list[str]


class Narrator:
    """Prints to standard output, for people or as JSON lines."""

    def __init__(self, *, as_json: bool) -> None:
        self._json = as_json
        self._console = Console(highlight=False, markup=False)
        self._began = time.monotonic()
        self._evidence: dict[str, tuple[str, str]] = {}
        self._reason = ""
        """Of the last decision, which need not be read twice."""

    def _emit(self, kind: str, **fields: Any) -> None:
        sys.stdout.write(json.dumps({"type": kind, **fields}, ensure_ascii=False) + "\n")
        sys.stdout.flush()

    def _line(self, voice: str, style: str, words: str) -> None:
        grid = Table.grid(padding=(0, 1))
        grid.add_column(width=7, justify="right", style="dim")
        grid.add_column(width=8, style=style)
        grid.add_column(overflow="fold")
        grid.add_row(f"{time.monotonic() - self._began:.1f}s", voice, Text(plain(words, 1000)))
        self._console.print(grid)

    def title(self, name: str, title: str, story: str) -> None:
        """Say what is going to happen."""
        if self._json:
            self._emit("scenario", name=name, title=title, story=story)
            return
        self._console.print(Panel(Text(story.strip()), title=Text(f"{name}: {title}")))

    def ready(self, url: str, seconds: float) -> None:
        """Say that everything runs."""
        if self._json:
            self._emit("ready", url=url, seconds=round(seconds, 2))
            return
        words = f"simulated cluster and tiphys serve run on loopback ({url})"
        self._line("ready", "green", words)
        self._began = time.monotonic()

    def told(self, words: str) -> None:
        """Say what happened in the world."""
        if self._json:
            self._emit("world", told=words)
            return
        self._line("world", "bold red", words)

    def record(self, record: dict[str, Any]) -> str:
        """Tell an audit record; returns the sentence."""
        said = sentence(record)
        if self._json:
            self._emit("record", record=record)
            return said
        if record["event"] == AuditEvent.EVIDENCE_GATHERED:
            self._evidence[record["body"]["evidence"]] = (record["body"]["source"], said)
            return said
        if record["event"] == AuditEvent.DECIDED:
            self._cite(record["body"]["decision"].get("evidence", []))
            self._reason = str(record["body"]["decision"]["reason"])
        if (voice := _voice(record)) and not _only_began(record):
            again = said == self._reason and record["event"] != AuditEvent.DECIDED
            paged = record["event"] == AuditEvent.PAGED
            self._line(*voice, ("a human is told so" if paged else "as decided") if again else said)
        return said

    def _cite(self, evidence: list[str]) -> None:
        """Tell what the decision rests on; the rest is in the record."""
        told = _telling(self._evidence[name] for name in evidence if name in self._evidence)
        for said in told:
            self._line("evidence", "dim", said)
        if rest := len(self._evidence) - len(told):
            self._line("evidence", "dim", f"and {rest} more answers, in the record")
        self._evidence.clear()

    def summary(self, summary: Summary) -> None:
        """Say what it came to."""
        if self._json:
            self._emit(
                "summary",
                scenario=summary.scenario.name,
                ended=summary.ended.end,
                expected=summary.scenario.expect.end,
                launched=summary.ended.launched,
                seconds=round(summary.seconds, 2),
                records=summary.records,
                record=str(summary.export),
                complaints=summary.complaints,
                ok=not summary.complaints,
            )
            return
        good = not summary.complaints
        title = "ended as it should" if good else "did NOT end as it should"
        style = "green" if good else "red"
        self._console.print(
            Panel(_fields(_summary_lines(summary)), title=Text(title), border_style=style)
        )

    def lingering(self, url: str, token: str) -> None:
        """Offer a look around."""
        self._console.print(
            f"It still runs. Look around in another terminal:\n"
            f"  TIPHYS_URL={url} TIPHYS_API_TOKEN={token} tiphys incidents list\n"
            f"Press Enter to end."
        )


def _only_began(record: dict[str, Any]) -> bool:
    """Whether it tells of a step that has begun: its end is what people wait for."""
    return record["event"] == AuditEvent.RUN_STEP and record["body"]["step"]["finished_at"] is None


def _voice(record: dict[str, Any]) -> tuple[str, str] | None:
    if record["event"] == AuditEvent.INCIDENT_MOVED:
        return _STATES.get(record["body"]["to"])
    return _VOICES.get(record["event"])


def _fields(lines: list[tuple[str, str]]) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    for name, words in lines:
        grid.add_row(name, Text(words))
    return grid


def _summary_lines(summary: Summary) -> list[tuple[str, str]]:
    lines = [("what broke", summary.scenario.title)]
    for view in summary.views:
        incident = view["incident"]
        lines.append(("incident", f"{incident['id']} {incident['title']}"))
        lines += [("evidence", plain(one, 200)) for one in _cited(view)]
        for attempt in view["attempts"]:
            decision, run = attempt["decision"], attempt["run"]
            what = decision.get("action") or decision["answer"].replace("_", " ")
            lines.append(("decision", f"{what}: {plain(decision['reason'], 300)}"))
            if run:
                lines.append(("action", f"{run['action']} as {run['workflow']}"))
        lines.append(("ended", _ending(incident, view["attempts"])))
    rest = "everything was at rest" if summary.ended.end else "nobody waited any longer"
    seconds = f"{summary.seconds:.1f} s from the fault until {rest}"
    return [
        *lines,
        ("took", seconds),
        ("record", f"{summary.records} records, chain verified: {summary.export}"),
        ("check it", f"tiphys audit verify {summary.export}"),
        *(("BUT", complaint) for complaint in summary.complaints),
    ]


def _ending(incident: dict[str, Any], attempts: list[dict[str, Any]]) -> str:
    """Say the state and its reason, unless that was the decision's and stands above."""
    decided = attempts[-1]["decision"]["reason"] if attempts else None
    if incident["reason"] == decided:
        return f"{incident['state']}, as decided"
    return f"{incident['state']}: {plain(incident['reason'], 300)}"


def _cited(view: dict[str, Any]) -> list[str]:
    cited = {i for a in view["attempts"] for i in a["decision"].get("evidence", [])}
    return _telling((e["source"], e["summary"]) for e in view["evidence"] if e["id"] in cited)


def _telling(evidence: Iterable[tuple[str, str]]) -> list[str]:
    """Choose what tells a reader most: what the numbers said, then what the cluster said."""
    found = [(source, said) for source, said in evidence if not _DULL.search(said)]
    cluster = {Source.KUBERNETES, Source.LOGS}
    numbers = [said for source, said in found if source not in cluster]
    return [*numbers[:3], *(said for source, said in found if source in cluster)][:MOST_EVIDENCE]
