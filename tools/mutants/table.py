"""The last run's table, for people: docs/mutants.md."""

import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.mutants.reach import OUTSIDE
from tools.mutants.rules import Mutant

_HEAD = """# Mutants

Written by `make mutants`; see docs/conformance.md. Each line is one piece of the actions' code
taken out, and the property of the kit that then was not proven, on the simulated cluster; where no
property tells the difference, the test that then failed.
"""


@dataclass(frozen=True)
class Row:
    """One mutant in one action."""

    mutant: Mutant
    action: str
    """Whose trial found it; empty: no trial comes by it."""
    found_by: str
    """Empty: it survived."""
    why: str = ""


def markdown(rows: Sequence[Row], state: str, commit: str) -> str:
    """Lay out every row, survivors first; `state` and `commit`: of the code that was asked."""
    lost = [row for row in rows if not row.found_by]
    parts = [_HEAD, f"State of the code: `{state}`; commit: {commit}.\n"]
    parts.append(f"{len(rows) - len(lost)} of {len(rows)} were found.\n")
    if lost:
        parts += ["## Survived\n", *_table(lost)]
    for module in sorted({row.mutant.module for row in rows}):
        found = [row for row in rows if row.mutant.module == module and row.found_by]
        if found:
            parts += [f"## {module}\n", *_table(found)]
    parts += ["## Left out\n", "| module | proven elsewhere |", "|---|---|"]
    parts += [f"| {name} | {why} |" for name, why in OUTSIDE.items()]
    counts = Counter(row.found_by for row in rows if row.found_by)
    parts += ["\n## Found by\n", "| property | mutants |", "|---|---|"]
    parts += [f"| {_cell(name)} | {count} |" for name, count in sorted(counts.items())]
    return "\n".join(parts) + "\n"


def commit_of(root: Path) -> str:
    """Say which commit a tree is at, and whether it is just that; "unknown" without git."""
    try:
        head, changes = _git(root, "rev-parse", "HEAD"), _git(root, "status", "--porcelain")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"`{head}`, {'with changes' if changes else 'clean'}"


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def line(row: Row) -> str:
    """Say one row in one line."""
    found = row.found_by or "SURVIVED"
    return f"{row.mutant.name} [{row.action or 'no action comes by'}] -> {found}"


def _table(rows: Sequence[Row]) -> list[str]:
    ordered = sorted(rows, key=lambda row: (row.mutant.module, row.mutant.line, row.action))
    lines = ["| function | taken out | action | found by |", "|---|---|---|---|"]
    for row in ordered:
        one = row.mutant
        gone = f"{one.rule}: {_code(one.gone)}"
        cells = (one.function, gone, row.action or "-", row.found_by or "**nothing**")
        lines.append(f"| {' | '.join(map(_cell, cells))} |")
    return [*lines, ""]


def _code(text: str) -> str:
    return f"`{text.replace('`', chr(39))}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
