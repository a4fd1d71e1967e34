"""Refuses files and functions that have outgrown their design (docs/adr/0001-layout.md)."""

import ast
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("agents", "policies", "sandbox", "service", "tools", "workflow_templates")
MAX_FILE = 400
MAX_MEDIAN = 180
MAX_FUNCTION = 50
MAX_PARAMETERS = 6
BANNED_NAMES = {"utils", "helpers", "common", "base", "manager"}


def parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count what a caller may pass, `self` and `cls` left out."""
    every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return len([a for a in every if a.arg not in {"self", "cls"}])


def complaints(path: Path) -> tuple[int, list[str]]:
    """Return the file's length in lines and what is wrong with it."""
    text = path.read_text()
    lines = text.count("\n")
    name = path.relative_to(ROOT)
    found: list[str] = []
    if lines > MAX_FILE:
        found.append(f"{name}: {lines} lines, at most {MAX_FILE}")
    if path.stem in BANNED_NAMES:
        found.append(f"{name}: name the file after what it does")
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        if length > MAX_FUNCTION:
            found.append(
                f"{name}:{node.lineno}: {node.name} has {length} lines, at most {MAX_FUNCTION}"
            )
        # A command's options are its interface; typer reads them as parameters.
        if parameters(node) > MAX_PARAMETERS and "commands" not in path.parts[-1]:
            found.append(
                f"{name}:{node.lineno}: {node.name} takes more than {MAX_PARAMETERS} parameters"
            )
    return lines, found


def main() -> int:
    """Print every complaint; 1 if there is one."""
    files = [p for folder in FOLDERS for p in sorted((ROOT / folder).rglob("*.py"))]
    lengths: list[int] = []
    problems: list[str] = []
    for path in files:
        lines, found = complaints(path)
        problems += found
        if path.name != "__init__.py":
            lengths.append(lines)
    median = statistics.median(lengths)
    if median > MAX_MEDIAN:
        problems.append(f"the median file has {median} lines, at most {MAX_MEDIAN}")
    for problem in problems:
        print(problem)
    print(f"{len(lengths)} files, median {median:.0f} lines, longest {max(lengths)}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
