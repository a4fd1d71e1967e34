"""The last run's table, for people: docs/mutants.md."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

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


def markdown(rows: Sequence[Row]) -> str:
    """Lay out every row, survivors first."""
    lost = [row for row in rows if not row.found_by]
    parts = [_HEAD, f"{len(rows) - len(lost)} of {len(rows)} were found.\n"]
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
