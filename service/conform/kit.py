"""`tiphys conform`: proves an action's properties on a cluster, and writes down what it found."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tiphys.service.conform.every import every_property
from tiphys.service.conform.live import LiveWorld
from tiphys.service.conform.properties import Property
from tiphys.service.conform.trial import Trial, staged
from tiphys.service.conform.trials import TRIALS
from tiphys.service.conform.worlds import World
from tiphys.service.errors import BadInputError, TiphysError

AT_ONCE, KILLED_AT_ONCE = 4, 8
"""Properties under way at the same time, each in a namespace of its own; killings mostly wait."""


@dataclass(frozen=True)
class Finding:
    """One property of one action."""

    action: str
    property: str
    proven: bool
    why: str
    """What was wrong; empty when it was proven."""
    seconds: float


@dataclass(frozen=True)
class Report:
    """One run of the kit."""

    world: str
    """Which cluster: `simulated`, or its version."""
    findings: Sequence[Finding]

    @property
    def proven(self) -> bool:
        """Say whether everything was."""
        return bool(self.findings) and all(one.proven for one in self.findings)


def chosen(action: str | None) -> list[Trial]:
    """Give the trials of one action, or of all; raises `BadInputError` for one that has none."""
    if action is None:
        return list(TRIALS.values())
    if action not in TRIALS:
        raise BadInputError(f"no trial for {action!r}; there are {', '.join(sorted(TRIALS))}")
    return [TRIALS[action]]


def name_of(world: World) -> str:
    """Say which cluster it is, for a report."""
    return world.version if isinstance(world, LiveWorld) else "simulated"


def prove(
    world: World, trials: Sequence[Trial], name: str, heard: Callable[[Finding], None]
) -> Report:
    """Prove every property of these trials; `heard` is told of each as it ends."""
    cases = [(trial, one) for trial in trials for one in every_property(trial)]
    if not world.host:
        cases = [(trial, one) for trial, one in cases if not one.kills]

    def ask(case: tuple[Trial, Property]) -> Finding:
        return _found(world, *case)

    found: list[Finding] = []
    # Those that kill Argo's controller come last, and disturb one another alone.
    for kills, alone, many in (
        (False, False, AT_ONCE),
        (True, False, KILLED_AT_ONCE),
        (True, True, AT_ONCE),
    ):
        asked = [case for case in cases if (case[1].kills, case[1].alone) == (kills, alone)]
        with ThreadPoolExecutor(many) as pool:
            try:
                found += _heard(pool.map(ask, asked), heard)
            except BaseException:  # Whoever interrupts does not wait for those that wait.
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    order = {(trial.action, one.name): number for number, (trial, one) in enumerate(cases)}
    return Report(name, sorted(found, key=lambda one: order[one.action, one.property]))


def _heard(found: Iterator[Finding], heard: Callable[[Finding], None]) -> Iterator[Finding]:
    for one in found:
        heard(one)
        yield one


def _found(world: World, trial: Trial, one: Property) -> Finding:
    began = time.monotonic()
    try:
        with staged(world, trial.action) as stage:
            one.prove(stage, trial)
        why = ""
    except TiphysError as error:
        why = str(error)
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
    seconds = round(time.monotonic() - began, 1)
    return Finding(trial.action, one.name, not why, why, seconds)


# --- for people -----------------------------------------------------------------------------------


def kind_of(name: str) -> str:
    """Give what properties that differ by action have in common."""
    for kind in ("refuses: ", "fails cleanly without ", "killed "):
        if name.startswith(kind):
            return {"refuses: ": "refuses each violated precondition"}.get(kind, _killed(name))
    return name


def _killed(name: str) -> str:
    if name.startswith("killed "):
        return name.partition(": ")[0]
    return "fails cleanly without each single right"


def cells(report: Report) -> tuple[Sequence[str], Sequence[tuple[str, Sequence[str]]]]:
    """Lay a report out: the actions, and for each kind of property what was found of each."""
    actions = sorted({one.action for one in report.findings})
    kinds = list(dict.fromkeys(kind_of(one.property) for one in report.findings))
    rows: list[tuple[str, Sequence[str]]] = []
    for kind in kinds:
        mine = [one for one in report.findings if kind_of(one.property) == kind]
        rows.append((kind, [_cell([o for o in mine if o.action == a]) for a in actions]))
    return actions, rows


def _cell(found: Sequence[Finding]) -> str:
    if not found:
        return ""
    proven = sum(one.proven for one in found)
    if proven < len(found):
        return f"NOT PROVEN ({proven} of {len(found)})"
    return "proven" if len(found) == 1 else f"proven ({len(found)})"


def table(report: Report) -> Table:
    """Lay a report out for a terminal."""
    actions, rows = cells(report)
    made = Table(box=None, pad_edge=False, title=report.world)
    for column in ("property", *actions):
        made.add_column(column)
    for kind, found in rows:
        made.add_row(kind, *found)
    return made


def page(report: Report) -> str:
    """Lay a report out in Markdown."""
    actions, rows = cells(report)
    lines = [
        "# What the kit has proven",
        "",
        f"Written by `tiphys conform --report`; see docs/conformance.md. Cluster: {report.world}.",
        "A number says how many properties of a kind the action has.",
        "",
        f"| | {' | '.join(actions)} |",
        f"|---|{'---|' * len(actions)}",
        *(f"| {kind} | {' | '.join(found)} |" for kind, found in rows),
    ]
    for one in report.findings:
        if not one.proven:
            lines += ["", f"- {one.action}: {one.property}: {one.why}"]
    return "\n".join(lines) + "\n"


def write(report: Report, folder: Path) -> Sequence[Path]:
    """Write `conform.json`, `conform.html` and `README.md` into a folder; gives them.

    Nothing in them changes from run to run unless what was found does. What is there of actions
    that were not asked now, on the same cluster, stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    plain, html, text = (folder / n for n in ("conform.json", "conform.html", "README.md"))
    if plain.exists():
        report = _with_earlier(report, json.loads(plain.read_text()))
    findings = [{k: v for k, v in asdict(one).items() if k != "seconds"} for one in report.findings]
    whole = {"world": report.world, "proven": report.proven, "findings": findings}
    plain.write_text(json.dumps(whole, indent=1) + "\n")
    text.write_text(page(report))
    console = Console(record=True, file=StringIO(), width=260, highlight=False, markup=False)
    console.print(table(report))
    html.write_text(console.export_html())
    return plain, html, text


def _with_earlier(report: Report, earlier: dict[str, Any]) -> Report:
    if earlier["world"] != report.world:
        return report
    asked = {one.action for one in report.findings}
    known = [Finding(**one, seconds=0.0) for one in earlier["findings"]]
    kept = [one for one in known if one.action not in asked and one.action in TRIALS]
    findings = sorted((*kept, *report.findings), key=lambda one: one.action)
    return Report(report.world, findings)
