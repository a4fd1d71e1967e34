"""PromQL's aggregation operators over the rows of a vector.

https://prometheus.io/docs/prometheus/latest/querying/operators/#aggregation-operators
"""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tiphys.sandbox.promql_vectors import (
    Column,
    QueryError,
    Row,
    Scalar,
    UnsupportedError,
    Vector,
    key_of,
    merged,
)
from tiphys.sandbox.tsdb import NAME, Labels


@dataclass(frozen=True)
class Grouping:
    """`by(labels)` or `without(labels)`; no labels and not without: one group."""

    labels: tuple[str, ...] = ()
    without: bool = False

    def of(self, labels: Labels) -> dict[str, str]:
        """The labels of the group that these labels belong to."""
        if self.without:
            dropped = {NAME, *self.labels}
            return {name: value for name, value in labels.items() if name not in dropped}
        return {name: labels[name] for name in self.labels if labels.get(name)}


def largest(values: Sequence[float]) -> float:
    """The maximum; NaN only when all are NaN."""
    if math.isnan(values[0]):  # Comparisons with a leading NaN would keep it.
        values = [v for v in values if not math.isnan(v)] or values
    return max(values)


def smallest(values: Sequence[float]) -> float:
    """The minimum; NaN only when all are NaN."""
    if math.isnan(values[0]):  # Comparisons with a leading NaN would keep it.
        values = [v for v in values if not math.isnan(v)] or values
    return min(values)


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean."""
    return sum(values) / len(values)


def variance(values: Sequence[float]) -> float:
    """The population variance."""
    centre = mean(values)
    return sum((v - centre) ** 2 for v in values) / len(values)


def deviation(values: Sequence[float]) -> float:
    """The population standard deviation."""
    return math.sqrt(variance(values))


def quantile(q: float, values: Sequence[float]) -> float:
    """The q-quantile, interpolated between the two nearest ranks; infinite outside [0, 1]."""
    if math.isnan(q) or not values:
        return math.nan
    if q < 0 or q > 1:
        return math.copysign(math.inf, q - 0.5)
    ordered = sorted(values)
    rank = q * (len(ordered) - 1)
    low = math.floor(rank)
    high = min(low + 1, len(ordered) - 1)
    weight = rank - low
    return ordered[low] * (1 - weight) + ordered[high] * weight


_SIMPLE: dict[str, Callable[[Sequence[float]], float]] = {
    "sum": sum,
    "avg": mean,
    "min": smallest,
    "max": largest,
    "count": lambda values: float(len(values)),
    "group": lambda _: 1.0,
    "stddev": deviation,
    "stdvar": variance,
}


def aggregate(name: str, vector: Vector, grouping: Grouping, param: Scalar | str | None) -> Vector:
    """Apply one aggregation; `param` is what topk, bottomk, quantile and count_values take."""
    groups: defaultdict[tuple[tuple[str, str], ...], list[Row]] = defaultdict(list)
    for row in vector.rows:
        groups[key_of(grouping.of(row.labels))].append(row)
    if name in _SIMPLE:
        reduce = _SIMPLE[name]
        return Vector([Row(dict(key), _reduced(rows, reduce)) for key, rows in groups.items()])
    if name == "count_values" and isinstance(param, str):
        return merged(
            row for key, rows in groups.items() for row in _counted(dict(key), rows, param)
        )
    if not isinstance(param, Scalar):
        raise UnsupportedError(f"aggregation {name!r} is not supported here")
    if name == "quantile":
        return Vector(
            [Row(dict(key), _quantiles(rows, param.values)) for key, rows in groups.items()]
        )
    if name in {"topk", "bottomk"}:
        return merged(
            row for rows in groups.values() for row in _ranked(rows, param.values, name == "topk")
        )
    raise UnsupportedError(f"aggregation {name!r} is not supported here")


def _present(rows: list[Row]) -> list[list[float]]:
    return [
        [v for v in values if v is not None]
        for values in zip(*(r.values for r in rows), strict=True)
    ]


def _reduced(rows: list[Row], reduce: Callable[[Sequence[float]], float]) -> Column:
    return [reduce(values) if values else None for values in _present(rows)]


def _quantiles(rows: list[Row], wanted: list[float]) -> Column:
    return [
        quantile(q, values) if values else None
        for q, values in zip(wanted, _present(rows), strict=True)
    ]


def _counted(labels: dict[str, str], rows: list[Row], label: str) -> list[Row]:
    columns: dict[str, Column] = {}
    steps = len(rows[0].values)
    for step, values in enumerate(_present(rows)):
        for value in values:
            column = columns.setdefault(format(value, "g"), [None] * steps)
            column[step] = (column[step] or 0.0) + 1.0
    return [Row({**labels, label: value}, column) for value, column in columns.items()]


def _ranked(rows: list[Row], counts: list[float], top: bool) -> list[Row]:
    """Keep the k first rows of each step; NaN ranks last, earlier rows win ties."""
    sign = -1.0 if top else 1.0
    kept: list[Column] = [[None] * len(counts) for _ in rows]
    final: list[tuple[float, int]] = []
    for step, count in enumerate(counts):
        if math.isnan(count):
            raise QueryError("Parameter value is NaN")
        present = [
            (math.inf if math.isnan(value) else sign * value, i)
            for i, row in enumerate(rows)
            if (value := row.values[step]) is not None
        ]
        final = sorted(present)[: max(0, int(count))]
        for _, i in final:
            kept[i][step] = rows[i].values[step]
    order = [i for _, i in final] if len(counts) == 1 else range(len(rows))
    return [Row(rows[i].labels, kept[i]) for i in order]
