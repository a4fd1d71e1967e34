"""PromQL's functions of range vectors: rates, regressions and *_over_time.

https://prometheus.io/docs/prometheus/latest/querying/functions/
"""

import itertools
import math
import operator
from collections.abc import Callable, Sequence

from tiphys.sandbox.promql_aggregations import (
    deviation,
    largest,
    mean,
    quantile,
    smallest,
    variance,
)
from tiphys.sandbox.promql_vectors import Column, Matrix, Scalar, UnsupportedError, Window

RangeFunction = Callable[[Window, Matrix, Sequence[Scalar]], Column]
"""One series' windows, the range vector they belong to, the scalar arguments in order."""


def _over(reduce: Callable[[Sequence[float]], float]) -> RangeFunction:
    def apply(window: Window, _matrix: Matrix, _scalars: Sequence[Scalar]) -> Column:
        values = window.values
        return [reduce(values[lo:hi]) if hi > lo else None for lo, hi in window.bounds]

    return apply


def _drops_before(window: Window) -> list[float] | None:
    """At index i the sum of what resets up to i took away; None when there was no reset."""
    values = window.values
    if not any(map(operator.lt, values[1:], values)):
        return None
    lost, drops = 0.0, [0.0]
    for before, after in itertools.pairwise(values):
        if after < before:
            lost += before
        drops.append(lost)
    return drops


def _extrapolated(*, counter: bool, per_second: bool) -> RangeFunction:
    """`rate`, `increase` and `delta`, extrapolated to the window's edges like Prometheus does."""

    def apply(window: Window, matrix: Matrix, _scalars: Sequence[Scalar]) -> Column:
        times, values = window.times, window.values
        drops = _drops_before(window) if counter else None
        column: Column = []
        for end, (lo, hi) in zip(matrix.ends, window.bounds, strict=True):
            if hi - lo < 2:
                column.append(None)
                continue
            gained = values[hi - 1] - values[lo]
            if drops:
                gained += drops[hi - 1] - drops[lo]
            sampled = times[hi - 1] - times[lo]
            gap = sampled / (hi - lo - 1)
            before, after = times[lo] - (end - matrix.span), end - times[hi - 1]
            if before >= gap * 1.1:
                before = gap / 2
            if counter and gained > 0 and values[lo] >= 0:
                # A counter cannot have been below zero: do not extrapolate past that.
                before = min(before, sampled * (values[lo] / gained))
            if after >= gap * 1.1:
                after = gap / 2
            gained *= (sampled + before + after) / sampled
            column.append(gained / matrix.span if per_second else gained)
        return column

    return apply


def _last_two(*, per_second: bool) -> RangeFunction:
    def apply(window: Window, _matrix: Matrix, _scalars: Sequence[Scalar]) -> Column:
        times, values = window.times, window.values
        column: Column = []
        for lo, hi in window.bounds:
            if hi - lo < 2:
                column.append(None)
                continue
            gained = values[hi - 1] - values[hi - 2]
            if per_second:
                gained = values[hi - 1] if gained < 0 else gained
                gained /= times[hi - 1] - times[hi - 2]
            column.append(gained)
        return column

    return apply


def _counting(differs: Callable[[float, float], bool]) -> RangeFunction:
    """`changes` and `resets`: how many neighbours in the window differ."""

    def apply(window: Window, _matrix: Matrix, _scalars: Sequence[Scalar]) -> Column:
        seen, totals = 0.0, [0.0]
        for before, after in itertools.pairwise(window.values):
            seen += differs(before, after)
            totals.append(seen)
        return [totals[hi - 1] - totals[lo] if hi > lo else None for lo, hi in window.bounds]

    return apply


def _changed(before: float, after: float) -> bool:
    return before != after and not (math.isnan(before) and math.isnan(after))


def _regression(times: Sequence[float], values: Sequence[float], at: float) -> tuple[float, float]:
    """Least squares: slope per second, and the line's value at time `at`."""
    xs = [t - at for t in times]
    x_mean, y_mean = mean(xs), mean(values)
    spread = sum((x - x_mean) ** 2 for x in xs)
    slope = sum((x - x_mean) * (y - y_mean) for x, y in zip(xs, values, strict=True)) / spread
    return slope, y_mean - slope * x_mean


def _derivative(window: Window, _matrix: Matrix, _scalars: Sequence[Scalar]) -> Column:
    times, values = window.times, window.values
    return [
        _regression(times[lo:hi], values[lo:hi], times[lo])[0] if hi - lo > 1 else None
        for lo, hi in window.bounds
    ]


def _predicted(window: Window, matrix: Matrix, scalars: Sequence[Scalar]) -> Column:
    column: Column = []
    for end, ahead, (lo, hi) in zip(matrix.ends, scalars[0].values, window.bounds, strict=True):
        if hi - lo < 2:
            column.append(None)
            continue
        slope, now = _regression(window.times[lo:hi], window.values[lo:hi], end)
        column.append(slope * ahead + now)
    return column


def _quantile_over_time(window: Window, _matrix: Matrix, scalars: Sequence[Scalar]) -> Column:
    return [
        quantile(q, window.values[lo:hi]) if hi > lo else None
        for q, (lo, hi) in zip(scalars[0].values, window.bounds, strict=True)
    ]


_FUNCTIONS: dict[str, RangeFunction] = {
    "avg_over_time": _over(mean),
    "changes": _counting(_changed),
    "count_over_time": _over(lambda values: float(len(values))),
    "delta": _extrapolated(counter=False, per_second=False),
    "deriv": _derivative,
    "first_over_time": _over(lambda values: values[0]),
    "idelta": _last_two(per_second=False),
    "increase": _extrapolated(counter=True, per_second=False),
    "irate": _last_two(per_second=True),
    "last_over_time": _over(lambda values: values[-1]),
    "max_over_time": _over(largest),
    "min_over_time": _over(smallest),
    "predict_linear": _predicted,
    "present_over_time": _over(lambda _: 1.0),
    "quantile_over_time": _quantile_over_time,
    "rate": _extrapolated(counter=True, per_second=True),
    "resets": _counting(lambda before, after: after < before),
    "stddev_over_time": _over(deviation),
    "stdvar_over_time": _over(variance),
    "sum_over_time": _over(sum),
}

KEEP_THE_NAME = frozenset({"first_over_time", "last_over_time"})
"""Functions whose result is still a sample of the metric."""


def range_function(name: str) -> RangeFunction:
    """The function of this name; raises UnsupportedError for one that is not known here."""
    found = _FUNCTIONS.get(name)
    if found is None:
        raise UnsupportedError(f"function {name!r} is not supported here")
    return found
