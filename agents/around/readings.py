"""Turns answers of Prometheus into signals of components, as the search for causes reads them.

Series of one component and kind that say the same twice (two exporters, a renewed one) are one:
at each time the greater value holds.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from tiphys.agents.around.calls import Edge, Mesh, callee, edge
from tiphys.agents.around.place import Names, Place
from tiphys.agents.around.standard import REQUESTS, Asked, recorded_kind
from tiphys.agents.causes.signals import Kind, Signal
from tiphys.agents.ports import Series

Name = Callable[[Mapping[str, str]], str | None]
Combined = dict[str, dict[float, float]]
"""Component to value by time."""
FEWEST: Final = 1e-9
"""Requests a second below which a share of them says nothing."""


def combined(every: Sequence[Series], name: Name, *, added: bool = False) -> Combined:
    """Put the series of each component together: added up, or else the greatest."""
    found: Combined = {}
    for series in every:
        component = name(series.labels)
        if component is None:
            continue
        row = found.setdefault(component, {})
        for at, value in series.points:
            if math.isfinite(value):
                before = row.get(at)
                row[at] = value if before is None else (
                    before + value if added else max(before, value)
                )  # fmt: skip
    return found


def signals(asked: Asked, every: Sequence[Series], name: Name) -> list[Signal]:
    """Give one signal a component."""
    return _signals(asked.kind, asked.words, combined(every, name)) if asked.kind else []


def shares(total: Combined, failed: Combined, words: str) -> list[Signal]:
    """Give the share of requests answered well; a failure nobody counted is none, a request is."""
    return [
        Signal(component, Kind.AVAILABILITY, words, [
            (at, max(0.0, 1 - failed.get(component, {}).get(at, 0.0) / value))
            for at, value in row.items() if value > FEWEST
        ])
        for component, row in total.items()
    ]  # fmt: skip


def recorded(every: Sequence[Series], names: Names) -> list[Signal]:
    """Give the signals of recording rules whose names say what they measure."""
    by_rule: dict[str, list[Series]] = {}
    for series in every:
        by_rule.setdefault(series.labels.get("__name__", ""), []).append(series)
    found: list[Signal] = []
    for rule, alike in by_rule.items():
        known = recorded_kind(rule)
        if known is None:
            continue
        kind, bad = known
        for component, row in combined(alike, names.of_labels).items():
            points = [(at, 1 - v if bad else v) for at, v in row.items()]
            found.append(Signal(component, kind, rule, points))
    return found


def edges(mesh: Mesh, every: Sequence[Series], names: Names) -> list[Edge]:
    """Give the calls that were made in the time looked at."""
    made = [s for s in every if any(v > 0 for _, v in s.points)]
    found = (edge(mesh, names.place, s.labels) for s in made)
    return list(dict.fromkeys(e for e in found if e is not None))


def of_http(
    total: Sequence[Series] | None, failed: Sequence[Series] | None, name: Name
) -> list[Signal]:
    """Give load and availability as HTTP servers count them; None: that was not told."""
    rows = combined(total or (), name, added=True)
    found = _signals(Kind.REQUESTS, REQUESTS.words, rows)
    if failed is None:
        return found
    lost = combined(failed, name, added=True)
    return [*found, *shares(rows, lost, "HTTP requests answered without 5xx")]


def of_calls(
    mesh: Mesh,
    place: Place,
    made: Sequence[Series],
    failed: Sequence[Series] | None,
    latency: Sequence[Series] | None,
) -> list[Signal]:
    """Give load, availability and latency of what is called; None: that was not told."""

    def called(labels: Mapping[str, str]) -> str | None:
        return callee(mesh, place, labels)

    total = combined(made, called, added=True)
    found = _signals(Kind.REQUESTS, f"requests a second, {mesh.name}", total)
    slow = combined(latency or (), called)
    found += _signals(mesh.latency, f"95th percentile of its answers, {mesh.name}", slow)
    if failed is None:
        return found
    lost = combined(failed, called, added=True)
    return [*found, *shares(total, lost, f"requests answered well, {mesh.name}")]


def _signals(kind: Kind, words: str, rows: Combined) -> list[Signal]:
    return [Signal(c, kind, words, list(row.items())) for c, row in rows.items()]
