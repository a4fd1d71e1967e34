"""`tiphys conform`: proves an action's properties on a cluster, and writes down what it found."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tiphys.service.conform.properties import Property, properties
from tiphys.service.conform.trial import Stage, Trial
from tiphys.service.conform.trials import TRIALS
from tiphys.service.conform.worlds import World
from tiphys.service.errors import BadInputError, TiphysError

AT_ONCE = 4
"""Properties under way at the same time, each in a namespace of its own."""


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
    at: str
    """ISO 8601, when it ended."""
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


def prove(
    world: World, trials: Sequence[Trial], name: str, heard: Callable[[Finding], None]
) -> Report:
    """Prove every property of these trials; `heard` is told of each as it ends."""
    cases = [(trial, one) for trial in trials for one in properties(trial)]

    def ask(case: tuple[Trial, Property]) -> Finding:
        return _found(world, *case)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(_heard(pool.map(ask, cases), heard))
    return Report(name, datetime.now(UTC).isoformat(timespec="seconds"), found)


def _heard(found: Iterator[Finding], heard: Callable[[Finding], None]) -> Iterator[Finding]:
    for one in found:
        heard(one)
        yield one


def _found(world: World, trial: Trial, one: Property) -> Finding:
    began = time.monotonic()
    try:
        one.prove(Stage(world), trial)
        why = ""
    except TiphysError as error:
        why = str(error)
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
    seconds = round(time.monotonic() - began, 1)
    return Finding(trial.action, one.name, not why, why, seconds)


def table(report: Report) -> Table:
    """Lay a report out for people."""
    made = Table(box=None, pad_edge=False, title=f"{report.world}, {report.at}")
    for column in ("action", "property", "", "s"):
        made.add_column(column, justify="right" if column == "s" else "left")
    for one in report.findings:
        said = "proven" if one.proven else f"NOT PROVEN: {one.why}"
        made.add_row(one.action, one.property, said, f"{one.seconds:.1f}")
    return made


def write(report: Report, folder: Path) -> tuple[Path, Path]:
    """Write `conform.json` and `conform.html` into a folder; gives both."""
    folder.mkdir(parents=True, exist_ok=True)
    plain, page = folder / "conform.json", folder / "conform.html"
    plain.write_text(json.dumps({**asdict(report), "proven": report.proven}, indent=1) + "\n")
    console = Console(record=True, file=StringIO(), width=160, highlight=False, markup=False)
    console.print(table(report))
    page.write_text(console.export_html())
    return plain, page
