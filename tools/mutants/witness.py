"""Sees which lines of the actions a process comes by: a step's, or a run of tests', test by test.

A copy of this file lies beside each copy of the package, whose `__init__` imports it; pytest takes
it as a plugin. So it imports nothing but the standard library.
"""

import atexit
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAME = "tiphys_witness"
"""Of the copy, as it is imported."""
TESTS, TRACES = "tests.jsonl", "traces"
"""Beside the copy: one line for each test that ended; a file for each process that did."""
_HERE = Path(__file__).parent
_MUTATED = str(_HERE / "tiphys" / "workflow_templates") + os.sep
_seen: set[tuple[str, int]] = set()
_test: dict[str, Any] = {}


def _line(frame: Any, *_: object) -> Callable[..., Any]:
    _seen.add((frame.f_code.co_filename, frame.f_lineno))
    return _line


def _begin(frame: Any, *_: object) -> Callable[..., Any] | None:
    return _line(frame) if frame.f_code.co_filename.startswith(_MUTATED) else None


def _watch() -> None:
    threading.settrace(_begin)
    sys.settrace(_begin)


def _end() -> None:
    sys.settrace(None)
    said = [f"{_module(path)} {line}\n" for path, line in [*_seen]]
    (_HERE / TRACES / str(os.getpid())).write_text("".join(said))


def _module(path: str) -> str:
    return os.path.basename(path).removesuffix(".py")


def pytest_runtest_logstart() -> None:
    """Begin anew for each test; another may have set a trace of its own."""
    _watch()
    _seen.clear()
    _test.update(began=time.monotonic(), failed=False)


def pytest_runtest_logreport(report: Any) -> None:
    """Remember whether it passes with the code as it is."""
    _test["failed"] = _test["failed"] or report.failed


def pytest_runtest_logfinish(nodeid: str) -> None:
    """Write down what the test came by, and the steps that it started."""
    lines = {(_module(path), line) for path, line in [*_seen]} | came_by(_HERE / TRACES)
    seconds = round(time.monotonic() - _test["began"], 3)
    said = {"test": nodeid, "seconds": seconds, "passed": not _test["failed"]}
    with (_HERE / TESTS).open("a") as file:
        file.write(json.dumps({**said, "lines": sorted(lines)}) + "\n")


def came_by(folder: Path) -> frozenset[tuple[str, int]]:
    """Read what the processes that ended have left, and forget it."""
    found: set[tuple[str, int]] = set()
    for path in [*folder.iterdir()]:
        for line in path.read_text().splitlines():
            module, _, number = line.partition(" ")
            found.add((module, int(number)))
        path.unlink()
    return frozenset(found)


if __name__ == NAME:
    atexit.register(_end)
    _watch()
