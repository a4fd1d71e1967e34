"""What of the package can run in a step, and whether one came by. Judged by names alone."""

import ast
from collections.abc import Iterable, Mapping
from pathlib import Path

from tools.mutants.rules import functions_of

ENTRANCES = {"act", "main", "precheck", "rollback", "verify"}
"""Where a step begins: the program's own, and an action's four."""
OUTSIDE = {
    "boundary*": "rendered; tests/cluster/attacks hold the API server to it",
    "freshness": "what Prometheus says is asked in tests/world/test_steps_metrics.py",
    "metrics": "what Prometheus says is asked in tests/world/test_steps_metrics.py",
    "render": "rendered; golden files",
    "identities": "rendered; golden files",
    "pointers": "reads JSON; tests/unit",
    "quantities": "reads numbers; tests/unit",
    "verification._alert": "what Prometheus says is asked in tests/world/test_steps_metrics.py",
    "verification.concerns": "what Prometheus says is asked in tests/world/test_steps_metrics.py",
}
"""Modules and functions that are left out, and who proves them."""
Lines = frozenset[tuple[str, int]]
"""(module, line)."""


def reachable(folder: Path) -> Mapping[str, frozenset[str]]:
    """Give the functions of each module that a step can come to, judged by names alone."""
    found: dict[str, dict[str, set[str]]] = {}
    texts = {path.stem: path.read_text() for path in sorted(folder.glob("*.py"))}
    for module, text in texts.items():
        if not any(Path(module).match(pattern) for pattern in OUTSIDE):
            found[module] = {
                name: {_name(node) for node in ast.walk(function)}
                for name, function, _ in functions_of(ast.parse(text))
                if f"{module}.{name}" not in OUTSIDE
            }
    reached: set[str] = set()
    waiting = {*ENTRANCES}
    while waiting:
        reached |= waiting
        called = [
            names
            for functions in found.values()
            for name, names in functions.items()
            if name.rpartition(".")[2] in waiting
        ]
        known = {name.rpartition(".")[2] for functions in found.values() for name in functions}
        waiting = (set[str]().union(*called) & known) - reached
    return {
        module: frozenset(n for n in functions if n.rpartition(".")[2] in reached)
        for module, functions in found.items()
    }


def passes(lines: Lines, module: str, fires: Iterable[int]) -> bool:
    """Say whether a run came by one of these lines of a module."""
    return any((module, line) in lines for line in fires)


def _name(node: ast.AST) -> str:
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else ""
