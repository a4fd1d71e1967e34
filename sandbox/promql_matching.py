"""PromQL's binary operators: arithmetic, comparison, sets, and how the sides are matched.

https://prometheus.io/docs/prometheus/latest/querying/operators/#vector-matching
"""

import math
import operator
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from tiphys.sandbox.promql_vectors import (
    Column,
    QueryError,
    Row,
    Scalar,
    Vector,
    merged,
    without_name,
)
from tiphys.sandbox.tsdb import NAME, Labels

Signature = tuple[object, ...]
Operation = Callable[[float, float], float | None]
"""None: a comparison that does not hold, so the sample is filtered out."""


def _divide(a: float, b: float) -> float:
    if b:
        return a / b
    if not a or math.isnan(a):
        return math.nan
    return math.copysign(math.inf, a) * math.copysign(1.0, b)


def _modulo(a: float, b: float) -> float:
    return math.fmod(a, b) if b and math.isfinite(a) else math.nan


def _power(a: float, b: float) -> float:
    try:
        return math.pow(a, b)
    except OverflowError:
        return math.inf
    except ValueError:
        return math.inf if a == 0 else math.nan


_ARITHMETIC: dict[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": _divide,
    "%": _modulo,
    "^": _power,
    "atan2": math.atan2,
}
_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
}


@dataclass(frozen=True)
class Matching:
    """How the series of two vectors find each other."""

    labels: tuple[str, ...] = ()
    on: bool = False
    """True: `on(labels)`; False: `ignoring(labels)`, and all labels when there are none."""
    many: str = ""
    """`left` or `right` for group_left and group_right, else empty: one to one."""
    include: tuple[str, ...] = ()
    return_bool: bool = False

    def signature(self, labels: Labels) -> Signature:
        """The part of the labels that must be equal on both sides."""
        if self.on:
            return tuple(labels.get(name, "") for name in self.labels)
        ignored = {NAME, *self.labels}
        return tuple(sorted(item for item in labels.items() if item[0] not in ignored))

    def result_labels(self, many: Labels, one: Labels, *, drop_name: bool) -> dict[str, str]:
        """The labels of the result of two matched series."""
        labels = without_name(many) if drop_name else dict(many)
        if self.many:
            for name in self.include:
                if one.get(name):
                    labels[name] = one[name]
                else:
                    labels.pop(name, None)
            return labels
        chosen = set(self.labels)
        return {name: value for name, value in labels.items() if (name in chosen) is self.on}


def binary(
    symbol: str, left: Vector | Scalar, right: Vector | Scalar, how: Matching
) -> Vector | Scalar:
    """Apply a binary operator to two operands of either kind."""
    if symbol in {"and", "or", "unless"}:
        if isinstance(left, Scalar) or isinstance(right, Scalar):
            raise QueryError(f"set operator {symbol!r} not allowed in binary scalar expression")
        return _set_operation(symbol, left, right, how)
    if isinstance(left, Scalar) and isinstance(right, Scalar):
        plain = _ARITHMETIC.get(symbol) or _COMPARISONS[symbol]
        return Scalar([float(plain(a, b)) for a, b in zip(left.values, right.values, strict=True)])
    if isinstance(left, Scalar):
        assert isinstance(right, Vector)
        return _with_scalar(_operation(symbol, how, keep="right"), left, right, _drops(symbol, how))
    if isinstance(right, Scalar):
        swapped = _swap(_operation(symbol, how, keep="left"))
        return _with_scalar(swapped, right, left, _drops(symbol, how))
    return _vectors(symbol, left, right, how)


def _drops(symbol: str, how: Matching) -> bool:
    return symbol in _ARITHMETIC or how.return_bool


def _operation(symbol: str, how: Matching, keep: str) -> Operation:
    if symbol in _ARITHMETIC:
        return _ARITHMETIC[symbol]
    compare = _COMPARISONS[symbol]
    if how.return_bool:
        return lambda a, b: float(compare(a, b))
    if keep == "left":
        return lambda a, b: a if compare(a, b) else None
    return lambda a, b: b if compare(a, b) else None


def _swap(operation: Operation) -> Operation:
    return lambda a, b: operation(b, a)


def _with_scalar(operation: Operation, scalar: Scalar, vector: Vector, drop: bool) -> Vector:
    return merged(
        Row(
            without_name(row.labels) if drop else row.labels,
            [
                None if v is None else operation(s, v)
                for s, v in zip(scalar.values, row.values, strict=True)
            ],
        )
        for row in vector.rows
    )


def _vectors(symbol: str, left: Vector, right: Vector, how: Matching) -> Vector:
    operation = _operation(symbol, how, keep="left")
    many, one = (right, left) if how.many == "right" else (left, right)
    if how.many == "right":
        operation = _swap(operation)
    ones: defaultdict[Signature, list[Row]] = defaultdict(list)
    for row in one.rows:
        ones[how.signature(row.labels)].append(row)
    side = "left" if how.many == "right" else "right"
    for rows in ones.values():
        _refuse_overlap(
            rows,
            f"found duplicate series for the match group on the {side} hand-side"
            " of the operation; many-to-many matching not allowed: matching labels"
            " must be unique on one side",
        )
    results: list[Row] = []
    for row in many.rows:
        for partner in ones.get(how.signature(row.labels), ()):
            labels = how.result_labels(row.labels, partner.labels, drop_name=_drops(symbol, how))
            values: Column = [
                None if a is None or b is None else operation(a, b)
                for a, b in zip(row.values, partner.values, strict=True)
            ]
            results.append(Row(labels, values))
    try:
        return merged(results)
    except QueryError as error:
        why = (
            "grouping labels must ensure unique matches"
            if how.many
            else "many-to-one matching must be explicit (group_left/group_right)"
        )
        raise QueryError(f"multiple matches for labels: {why}") from error


def _refuse_overlap(rows: list[Row], message: str) -> None:
    if len(rows) < 2:
        return
    for values in zip(*(row.values for row in rows), strict=True):
        if sum(v is not None for v in values) > 1:
            raise QueryError(message)


def _presence(rows: list[Row], steps: int) -> list[bool]:
    if not rows:
        return [False] * steps
    return [
        any(v is not None for v in values)
        for values in zip(*(row.values for row in rows), strict=True)
    ]


def _set_operation(symbol: str, left: Vector, right: Vector, how: Matching) -> Vector:
    reference, chosen = (left, right) if symbol == "or" else (right, left)
    groups: defaultdict[Signature, list[Row]] = defaultdict(list)
    for row in reference.rows:
        groups[how.signature(row.labels)].append(row)
    steps = len(chosen.rows[0].values) if chosen.rows else 0
    present = {signature: _presence(rows, steps) for signature, rows in groups.items()}
    absent = [False] * steps
    wanted = symbol == "and"
    kept = [
        Row(
            row.labels,
            [
                v if there is wanted else None
                for v, there in zip(
                    row.values, present.get(how.signature(row.labels), absent), strict=True
                )
            ],
        )
        for row in chosen.rows
    ]
    return merged([*left.rows, *kept] if symbol == "or" else kept)
