"""A small PromQL evaluator behind promql-parser, for a simulated Prometheus.

Follows Prometheus 3: windows and lookback are open on the left, a series is gone five minutes
after its last sample, or at once when it was marked stale. What is not known here raises
UnsupportedError; nothing is answered approximately.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import promql_parser as syntax

from tiphys.sandbox.promql_aggregations import Grouping, aggregate
from tiphys.sandbox.promql_functions import absent, call
from tiphys.sandbox.promql_matching import Matching, binary
from tiphys.sandbox.promql_ranges import KEEP_THE_NAME, range_function
from tiphys.sandbox.promql_vectors import (
    Column,
    Matrix,
    QueryError,
    QuerySyntaxError,
    Row,
    Scalar,
    UnsupportedError,
    Value,
    Vector,
    Window,
    map_rows,
    merged,
    without_name,
)
from tiphys.sandbox.tsdb import NAME, Labels, Matcher, MatchKind, TimeSeries, Tsdb

LOOKBACK_SECONDS = 300.0
SUBQUERY_STEP_SECONDS = 60.0
"""What `[1h:]` steps by: Prometheus' default evaluation interval."""

_KINDS = (  # The parser's enums compare but do not hash.
    (syntax.MatchOp.Equal, MatchKind.EQUAL),
    (syntax.MatchOp.NotEqual, MatchKind.NOT_EQUAL),
    (syntax.MatchOp.Re, MatchKind.REGEX),
    (syntax.MatchOp.NotRe, MatchKind.NOT_REGEX),
)


def parse(query: str) -> syntax.Expr:
    """Parse a query; raises QuerySyntaxError."""
    try:
        return syntax.parse(query)
    except ValueError as error:
        raise QuerySyntaxError(f"parse error: {error}") from error


def matchers_of(selector: str) -> list[Matcher]:
    """The matchers of a plain series selector; raises QuerySyntaxError for anything else."""
    node = parse(selector)
    if not isinstance(node, syntax.VectorSelector):
        raise QuerySyntaxError("parse error: expected a series selector")
    return _matchers(node)


def evaluate(tsdb: Tsdb, query: str, times: Sequence[float]) -> Value:
    """Evaluate a query at each of these times (unix seconds, rising); raises QueryError."""
    grid = [round(at, 3) for at in times]
    return _Evaluation(tsdb, grid[0], grid[-1]).value(parse(query), grid)


def instant_vector(tsdb: Tsdb, query: str, at: float) -> list[tuple[Labels, float]]:
    """Evaluate at one time what gives a vector or a scalar; raises QueryError."""
    value = evaluate(tsdb, query, [at])
    if isinstance(value, Scalar):
        return [({}, value.values[0])]
    if not isinstance(value, Vector):
        raise QueryError("expected an instant vector or a scalar")
    return [(row.labels, v) for row in value.rows if (v := row.values[0]) is not None]


def _matchers(node: syntax.VectorSelector) -> list[Matcher]:
    if node.matchers.or_matchers:
        raise UnsupportedError("`or` between matchers is not supported here")
    named = [Matcher(NAME, MatchKind.EQUAL, node.name)] if node.name else []
    return named + [Matcher(m.name, _kind(m.op), m.value) for m in node.matchers.matchers]


def _kind(op: syntax.MatchOp) -> MatchKind:
    return next(kind for given, kind in _KINDS if given == op)


def _seconds(delta: timedelta | None) -> float:
    return delta.total_seconds() if delta else 0.0


@dataclass
class _Evaluation:
    tsdb: Tsdb
    start: float
    end: float

    def value(self, node: Any, times: list[float]) -> Value:
        """Evaluate one node of the syntax tree at these times."""
        match node:
            case syntax.ParenExpr():
                return self.value(node.expr, times)
            case syntax.NumberLiteral():
                return Scalar([node.val] * len(times))
            case syntax.StringLiteral():
                return node.val
            case syntax.VectorSelector():
                return self._select(node, times)
            case syntax.MatrixSelector():
                return self._windows(node, times)
            case syntax.SubqueryExpr():
                return self._subquery(node, times)
            case syntax.UnaryExpr():
                return self._negative(node, times)
            case syntax.BinaryExpr():
                return self._binary(node, times)
            case syntax.AggregateExpr():
                return self._aggregate(node, times)
            case syntax.Call():
                return self._call(node, times)
            case _:
                raise UnsupportedError(f"{type(node).__name__} is not supported here")

    def _shifted(self, node: Any, times: list[float]) -> list[float]:
        """The times at which a selector is read, after its `@` and `offset`."""
        if node.at is not None:
            if node.at.type == syntax.AtModifierType.At:
                fixed = node.at.at.timestamp()
            else:
                fixed = self.start if node.at.type == syntax.AtModifierType.Start else self.end
            times = [fixed] * len(times)
        offset = _seconds(node.offset)
        return [round(at - offset, 3) for at in times] if offset else times

    def _select(
        self, node: syntax.VectorSelector, times: list[float], *, stamps: bool = False
    ) -> Vector:
        moments = self._shifted(node, times)
        rows = [
            Row(series.labels, column)
            for series in self.tsdb.select(_matchers(node))
            if (column := _latest(series, moments, stamps)) is not None
        ]
        return Vector(rows)

    def _windows(self, node: syntax.MatrixSelector, times: list[float]) -> Matrix:
        span = _seconds(node.range)
        selector = node.vector_selector
        ends = self._shifted(selector, times)
        windows = [
            window
            for series in self.tsdb.select(_matchers(selector))
            if (window := _window(series.labels, *series.present(), ends, span)) is not None
        ]
        return Matrix(windows, ends, span)

    def _subquery(self, node: syntax.SubqueryExpr, times: list[float]) -> Matrix:
        span = _seconds(node.range)
        step = _seconds(node.step) or SUBQUERY_STEP_SECONDS
        ends = self._shifted(node, times)
        first = math.floor((min(ends) - span) / step) + 1
        count = math.floor(max(ends) / step) - first + 1
        inner = [round((first + i) * step, 3) for i in range(count)]
        if not inner:
            return Matrix([], ends, span)
        value = self.value(node.expr, inner)
        rows = [Row({}, list(value.values))] if isinstance(value, Scalar) else None
        if isinstance(value, Vector):
            rows = value.rows
        if rows is None:
            raise QueryError("subquery is only allowed on instant vector")
        windows: list[Window] = []
        for row in rows:
            pairs = [(at, v) for at, v in zip(inner, row.values, strict=True) if v is not None]
            window = _window(row.labels, [p[0] for p in pairs], [p[1] for p in pairs], ends, span)
            if window is not None:
                windows.append(window)
        return Matrix(windows, ends, span)

    def _negative(self, node: syntax.UnaryExpr, times: list[float]) -> Value:
        value = self.value(node.expr, times)
        if isinstance(value, Scalar):
            return Scalar([-v for v in value.values])
        if isinstance(value, Vector):
            return map_rows(value, lambda v: -v)
        raise QueryError("unary expression only allowed on vectors and scalars")

    def _binary(self, node: syntax.BinaryExpr, times: list[float]) -> Value:
        left, right = self.value(node.lhs, times), self.value(node.rhs, times)
        if not isinstance(left, Vector | Scalar) or not isinstance(right, Vector | Scalar):
            raise QueryError("binary expression must contain only scalar and instant vector types")
        return binary(str(node.op), left, right, _matching(node.modifier))

    def _aggregate(self, node: syntax.AggregateExpr, times: list[float]) -> Vector:
        param = None if node.param is None else self.value(node.param, times)
        if not (param is None or isinstance(param, Scalar | str)):
            raise QueryError("aggregation parameter must be a scalar or a string")
        vector = self.value(node.expr, times)
        if not isinstance(vector, Vector):
            raise QueryError("expected an instant vector in aggregation expression")
        grouping = Grouping()
        if node.modifier is not None:
            without = node.modifier.type == syntax.AggModifierType.Without
            grouping = Grouping(tuple(node.modifier.labels), without)
        return aggregate(str(node.op), vector, grouping, param)

    def _call(self, node: syntax.Call, times: list[float]) -> Value:
        name = node.func.name
        if name == "timestamp" and isinstance(node.args[0], syntax.VectorSelector):
            stamped = self._select(node.args[0], times, stamps=True)
            return merged(Row(without_name(row.labels), row.values) for row in stamped.rows)
        args = [self.value(arg, times) for arg in node.args]
        if name == "absent" and isinstance(args[0], Vector):
            return absent(args[0], _certain_labels(node.args[0]), len(times))
        matrix = next((arg for arg in args if isinstance(arg, Matrix)), None)
        if matrix is None:
            return call(name, args, times)
        scalars = [arg for arg in args if isinstance(arg, Scalar)]
        if name == "absent_over_time":
            present = _over_windows("present_over_time", matrix, scalars)
            selector = getattr(node.args[0], "vector_selector", None)
            return absent(present, _certain_labels(selector), len(times))
        return _over_windows(name, matrix, scalars)


def _over_windows(name: str, matrix: Matrix, scalars: list[Scalar]) -> Vector:
    function = range_function(name)
    return merged(
        Row(
            window.labels if name in KEEP_THE_NAME else without_name(window.labels),
            function(window, matrix, scalars),
        )
        for window in matrix.windows
    )


def _latest(series: TimeSeries, moments: list[float], stamps: bool) -> Column | None:
    """The newest sample (or its time) at each moment; None when there is none at all."""
    times, values = series.columns
    found, column = False, list[float | None]()
    for at in moments:
        i = bisect_right(times, at) - 1
        if i < 0 or times[i] <= at - LOOKBACK_SECONDS or times[i] in series.stale:
            column.append(None)
        else:
            found = True
            column.append(times[i] if stamps else values[i])
    return column if found else None


def _window(
    labels: Labels,
    times: Sequence[float],
    values: Sequence[float],
    ends: list[float],
    span: float,
) -> Window | None:
    """Cut one series to its windows; None when no window holds a sample."""
    first = bisect_right(times, round(min(ends) - span, 3))
    last = bisect_right(times, max(ends))
    if first >= last:
        return None
    times, values = times[first:last], values[first:last]
    bounds = [(bisect_right(times, round(e - span, 3)), bisect_right(times, e)) for e in ends]
    return Window(labels, times, values, bounds)


def _matching(modifier: syntax.BinModifier | None) -> Matching:
    if modifier is None:
        return Matching()
    if modifier.fill_values.lhs is not None or modifier.fill_values.rhs is not None:
        raise UnsupportedError("fill modifiers are not supported here")
    many = ""
    if modifier.card == syntax.VectorMatchCardinality.ManyToOne:
        many = "left"
    elif modifier.card == syntax.VectorMatchCardinality.OneToMany:
        many = "right"
    given = modifier.matching
    return Matching(
        labels=tuple(given.labels) if given else (),
        on=given is not None and given.type == syntax.LabelModifierType.Include,
        many=many,
        include=tuple(modifier.group_labels or ()),
        return_bool=modifier.return_bool,
    )


def _certain_labels(node: Any) -> dict[str, str]:
    """The labels that `absent` can tell from its selector: those with one equality matcher."""
    if not isinstance(node, syntax.VectorSelector):
        return {}
    matchers = [m for m in _matchers(node) if m.name != NAME]
    names = [m.name for m in matchers]
    return {
        m.name: m.value
        for m in matchers
        if m.kind is MatchKind.EQUAL and m.value and names.count(m.name) == 1
    }
