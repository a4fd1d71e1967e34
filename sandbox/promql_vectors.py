"""The values of PromQL over a grid of evaluation times: vectors, scalars, windows, and errors.

A query is evaluated for all steps at once: a row holds one series' value at each step, None where
the series has none. An instant query is a grid of one step.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tiphys.sandbox.tsdb import NAME, Labels

Column = list[float | None]
"""One value a step; None: no sample. (NaN is a value.)"""


class QueryError(Exception):
    """The query parses but cannot be answered; the message says why."""


class QuerySyntaxError(QueryError):
    """The query is not PromQL, or a parameter of it is wrong."""


class UnsupportedError(QueryError):
    """The query is PromQL that this evaluator does not know."""


@dataclass(slots=True)
class Row:
    """One series of an instant vector over the grid."""

    labels: Labels
    values: Column


@dataclass(slots=True)
class Vector:
    """An instant vector over the grid; labels are unique at each step."""

    rows: list[Row]


@dataclass(slots=True)
class Scalar:
    """A number at each step."""

    values: list[float]


@dataclass(slots=True)
class Window:
    """One series of a range vector: at step i its samples are those with index bounds[i]."""

    labels: Labels
    times: Sequence[float]
    values: Sequence[float]
    bounds: list[tuple[int, int]]


@dataclass(slots=True)
class Matrix:
    """A range vector over the grid; `ends` are the windows' ends, each (end - span, end]."""

    windows: list[Window]
    ends: list[float]
    span: float


Value = Vector | Scalar | Matrix | str


def without_name(labels: Labels) -> dict[str, str]:
    """These labels without the metric's name."""
    return {name: value for name, value in labels.items() if name != NAME}


def key_of(labels: Labels) -> tuple[tuple[str, str], ...]:
    """A hashable form of a label set."""
    return tuple(sorted(labels.items()))


def map_rows(vector: Vector, change: Callable[[float], float | None]) -> Vector:
    """Apply a function to each value; the metric's name is dropped."""
    return merged(
        Row(without_name(row.labels), [None if v is None else change(v) for v in row.values])
        for row in vector.rows
    )


def merged(rows: Iterable[Row]) -> Vector:
    """Join rows of equal labels; raises QueryError where two have a value at the same step."""
    found: dict[tuple[tuple[str, str], ...], Row] = {}
    for row in rows:
        key = key_of(row.labels)
        earlier = found.get(key)
        if earlier is None:
            found[key] = row
            continue
        if any(
            a is not None and b is not None for a, b in zip(earlier.values, row.values, strict=True)
        ):
            raise QueryError("vector cannot contain metrics with the same labelset")
        joined = [b if a is None else a for a, b in zip(earlier.values, row.values, strict=True)]
        found[key] = Row(row.labels, joined)
    return Vector([row for row in found.values() if any(v is not None for v in row.values)])
