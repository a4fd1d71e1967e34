"""Reads sets of the PetShop kind: service metrics each five minutes, a call graph, and issues.

docs/evaluation.md describes the format. An issue's few rows are judged against the fault-free
stretch recorded beside them, which may be of another month.
"""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tiphys.agents.causes.bins import Matrix
from tiphys.agents.causes.signals import Kind, Scene, Signal, Symptom, Window
from tiphys.service.evaluation.cases import FaultCase, QuietCase, UnreadableSetError

STEP: Final = 300.0
_KINDS: Final = {
    "latency": (Kind.LATENCY, 1.0),
    "availability": (Kind.AVAILABILITY, 0.01),
    "requests": (Kind.REQUESTS, 1.0),
}
_HEADERS: Final = 3
"""Rows that name a column: the service, the metric, the statistic."""
_ROWS: Final = 5
"""Rows of a fault-free stretch where no issue says how many one has."""


@dataclass(frozen=True)
class _Table:
    times: Matrix
    columns: dict[tuple[str, str, str], Matrix]

    def points(self, key: tuple[str, str, str], rows: NDArray[np.bool_] | None = None) -> Matrix:
        if key not in self.columns:
            return np.empty((0, 2))
        both = np.column_stack([self.times, self.columns[key] * _KINDS[key[1]][1]])
        return both if rows is None else both[rows]


class PetShopTraffic:
    """One load: `graph.csv`, `noissue/metrics.csv` and `<split>/issue_*/{metrics.csv,target.json}`.

    A split is `train` or `test`; both are read where they are there.
    """

    def __init__(self, folder: Path) -> None:
        self.name = folder.name
        self._calls = _graph(folder / "graph.csv")
        self._normal = _table(folder / "noissue" / "metrics.csv")
        self._issues = [
            (f"{path.parent.parent.name}/{path.parent.name}", *_target(path), path.parent)
            for path in sorted(folder.glob("*/issue_*/target.json"))
        ]

    @staticmethod
    def recognises(folder: Path) -> bool:
        """Whether a folder is a load of this kind."""
        return (folder / "graph.csv").is_file() and (folder / "noissue" / "metrics.csv").is_file()

    def faults(self) -> Iterator[FaultCase]:
        """Give each issue."""
        for name, symptom, cause, folder in self._issues:
            table = _table(folder / "metrics.csv")
            signals = [
                Signal(key[0], _KINDS[key[1]][0], key[2], table.points(key),
                       self._normal.points(key))
                for key in sorted({*table.columns, *self._normal.columns})
            ]  # fmt: skip
            yield FaultCase(name, Scene(_window(table.times), signals, self._calls, symptom), cause)

    def quiet(self) -> Iterator[QuietCase]:
        """Give stretches of the fault-free part, each judged against the rest of it.

        Each is asked about everything that the issues were asked about.
        """
        lengths = sorted(len(_table(f / "metrics.csv").times) for _, _, _, f in self._issues)
        rows = lengths[len(lengths) // 2] if lengths else _ROWS
        asked = sorted({(s.component, s.kind) for _, s, _, _ in self._issues if s}, key=str)
        times = self._normal.times
        for first in range(0, len(times) - rows + 1, rows):
            inside = (np.arange(len(times)) >= first) & (np.arange(len(times)) < first + rows)
            signals = [
                Signal(key[0], _KINDS[key[1]][0], key[2], self._normal.points(key, inside),
                       self._normal.points(key, ~inside))
                for key in sorted(self._normal.columns)
            ]  # fmt: skip
            window = _window(times[inside])
            scenes = [Scene(window, signals, self._calls, Symptom(c, k)) for c, k in asked]
            yield QuietCase(
                f"from row {first}", tuple(scenes) or (Scene(window, signals, self._calls),)
            )


def _window(times: Matrix) -> Window:
    first = float(times.min()) - STEP / 2
    return Window(first, first + STEP * (round((times.max() - times.min()) / STEP) + 1), STEP)


def _table(path: Path) -> _Table:
    try:
        with path.open(newline="") as file:
            rows = list(csv.reader(file))
    except OSError as error:
        raise UnreadableSetError(f"{path}: {error.strerror}") from error
    names = list(zip(*rows[:_HEADERS], strict=False))[1:]
    body = [row for row in rows[_HEADERS:] if row and _number(row[0]) == _number(row[0])]
    if not names or not body:
        raise UnreadableSetError(
            f"{path}: not three rows of names (service, metric, statistic) above rows of numbers "
            "that begin with a unix time"
        )
    columns: dict[tuple[str, str, str], Matrix] = {}
    for i, (component, metric, statistic) in enumerate(names, start=1):
        if metric in _KINDS:
            values = [_number(row[i]) if i < len(row) else float("nan") for row in body]
            columns[component, metric, statistic] = np.array(values)
    return _Table(np.array([_number(row[0]) for row in body]), columns)


def _number(text: str) -> float:
    try:
        return float(text) if text else float("nan")
    except ValueError:
        return float("nan")


def _graph(path: Path) -> dict[str, list[str]]:
    """Read an adjacency matrix: a row calls the columns in which it has a 1."""
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    if not rows:
        raise UnreadableSetError(f"{path}: empty, not a matrix of who calls whom")
    names = rows[0][1:]
    return {
        row[0]: [name for name, cell in zip(names, row[1:], strict=False) if _number(cell) > 0]
        for row in rows[1:]
        if row
    }


def _target(path: Path) -> tuple[Symptom, str]:
    try:
        told = json.loads(path.read_text())
        target, cause = told["target"], told["root_cause"]
        kind = _KINDS[target["metric"]][0] if target["metric"] in _KINDS else None
        return Symptom(str(target["node"]), kind), str(cause["node"])
    except (ValueError, KeyError, TypeError) as error:
        raise UnreadableSetError(
            f"{path}: not a target (node, metric) and a root_cause (node): {error}"
        ) from error
