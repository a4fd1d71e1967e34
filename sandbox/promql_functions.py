"""PromQL's functions of instant vectors and scalars, and the histogram quantile.

https://prometheus.io/docs/prometheus/latest/querying/functions/
"""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from tiphys.sandbox.promql_vectors import (
    Column,
    QueryError,
    Row,
    Scalar,
    UnsupportedError,
    Value,
    Vector,
    key_of,
    map_rows,
    merged,
    without_name,
)
from tiphys.sandbox.tsdb import Labels

Function = Callable[[Sequence[Value], Sequence[float]], Value]
"""Takes the evaluated arguments and the evaluation times."""


def _vector(args: Sequence[Value], index: int = 0) -> Vector:
    value = args[index]
    if not isinstance(value, Vector):
        raise QueryError(f"argument {index + 1} must be an instant vector")
    return value


def _scalar(args: Sequence[Value], index: int) -> list[float]:
    value = args[index]
    if not isinstance(value, Scalar):
        raise QueryError(f"argument {index + 1} must be a scalar")
    return value.values


def _text(args: Sequence[Value], index: int) -> str:
    value = args[index]
    if not isinstance(value, str):
        raise QueryError(f"argument {index + 1} must be a string")
    return value


def _guarded(change: Callable[[float], float], below: float) -> Callable[[float], float]:
    """A logarithm or root that answers as IEEE 754 does instead of raising."""

    def apply(value: float) -> float:
        if math.isnan(value) or value < 0:
            return math.nan
        if value == 0:
            return below
        return value if math.isinf(value) else change(value)

    return apply


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def _whole(change: Callable[[float], int]) -> Callable[[float], float]:
    return lambda value: float(change(value)) if math.isfinite(value) else value


_MATH: dict[str, Callable[[float], float]] = {
    "abs": abs,
    "ceil": _whole(math.ceil),
    "exp": _exp,
    "floor": _whole(math.floor),
    "ln": _guarded(math.log, -math.inf),
    "log10": _guarded(math.log10, -math.inf),
    "log2": _guarded(math.log2, -math.inf),
    "sgn": lambda v: v if math.isnan(v) else float((v > 0) - (v < 0)),
    "sqrt": _guarded(math.sqrt, 0.0),
}
_CALENDAR: dict[str, Callable[[datetime], int]] = {
    "day_of_month": lambda at: at.day,
    "day_of_week": lambda at: at.isoweekday() % 7,
    "day_of_year": lambda at: at.timetuple().tm_yday,
    "hour": lambda at: at.hour,
    "minute": lambda at: at.minute,
    "month": lambda at: at.month,
    "year": lambda at: at.year,
}


def _stepwise(vector: Vector, change: Callable[[float, int], float | None]) -> Vector:
    return merged(
        Row(
            without_name(row.labels),
            [None if v is None else change(v, i) for i, v in enumerate(row.values)],
        )
        for row in vector.rows
    )


def _clamp(args: Sequence[Value], _times: Sequence[float]) -> Vector:
    low, high = _scalar(args, 1), _scalar(args, 2)
    return _stepwise(
        _vector(args), lambda v, i: max(low[i], min(high[i], v)) if low[i] <= high[i] else None
    )


def _clamp_min(args: Sequence[Value], _times: Sequence[float]) -> Vector:
    low = _scalar(args, 1)
    return _stepwise(_vector(args), lambda v, i: max(low[i], v))


def _clamp_max(args: Sequence[Value], _times: Sequence[float]) -> Vector:
    high = _scalar(args, 1)
    return _stepwise(_vector(args), lambda v, i: min(high[i], v))


def _round(args: Sequence[Value], _times: Sequence[float]) -> Vector:
    vector = _vector(args)
    nearest = _scalar(args, 1) if len(args) > 1 else None

    def change(value: float, step: int) -> float:
        if not math.isfinite(value):
            return value
        inverse = 1.0 / (nearest[step] if nearest else 1.0)
        return math.floor(value * inverse + 0.5) / inverse

    return _stepwise(vector, change)


def _to_scalar(args: Sequence[Value], times: Sequence[float]) -> Scalar:
    columns = [row.values for row in _vector(args).rows]
    values: list[float] = []
    for step in range(len(times)):
        present = [v for column in columns if (v := column[step]) is not None]
        values.append(present[0] if len(present) == 1 else math.nan)
    return Scalar(values)


def _to_vector(args: Sequence[Value], _times: Sequence[float]) -> Vector:
    return Vector([Row({}, list(_scalar(args, 0)))])


def _label_replace(args: Sequence[Value], _times: Sequence[float]) -> Vector:
    target, template, source = _text(args, 1), _text(args, 2), _text(args, 3)
    try:
        pattern = re.compile(_text(args, 4), re.DOTALL)
    except re.error as error:
        raise QueryError(f"invalid regular expression in label_replace(): {error}") from error
    rows: list[Row] = []
    for row in _vector(args).rows:
        match = pattern.fullmatch(row.labels.get(source, ""))
        rows.append(row if match is None else _labelled(row, target, _expanded(template, match)))
    return merged(rows)


def _expanded(template: str, match: re.Match[str]) -> str:
    groups: Mapping[str, str | None] = {
        **match.groupdict(),
        "0": match[0],
        **{str(i): value for i, value in enumerate(match.groups(), 1)},
    }
    return re.sub(
        r"\$(?:\$|(\w+)|\{(\w+)\})",
        lambda found: "$" if found[0] == "$$" else groups.get(found[1] or found[2]) or "",
        template,
    )


def _label_join(args: Sequence[Value], _times: Sequence[float]) -> Vector:
    target, separator = _text(args, 1), _text(args, 2)
    sources = [_text(args, i) for i in range(3, len(args))]
    return merged(
        _labelled(row, target, separator.join(row.labels.get(s, "") for s in sources))
        for row in _vector(args).rows
    )


def _labelled(row: Row, name: str, value: str) -> Row:
    labels = {key: given for key, given in row.labels.items() if key != name}
    return Row({**labels, name: value} if value else labels, row.values)


def _sorted(args: Sequence[Value], *, descending: bool) -> Vector:
    """Order by the first step; a range query has no order of its own."""

    def rank(row: Row) -> float:
        value = row.values[0]
        if value is None or math.isnan(value):
            return math.inf
        return -value if descending else value

    return Vector(sorted(_vector(args).rows, key=rank))


def _histogram_quantile(args: Sequence[Value], times: Sequence[float]) -> Vector:
    wanted = _scalar(args, 0)
    groups: defaultdict[tuple[tuple[str, str], ...], list[tuple[float, Column]]]
    groups = defaultdict(list)
    for row in _vector(args, 1).rows:
        try:
            bound = float(row.labels["le"])
        except (KeyError, ValueError):
            continue
        labels = {k: v for k, v in without_name(row.labels).items() if k != "le"}
        groups[key_of(labels)].append((bound, row.values))
    rows: list[Row] = []
    for key, buckets in groups.items():
        buckets.sort(key=lambda bucket: bucket[0])
        values: Column = []
        for step in range(len(times)):
            present = [(le, v) for le, column in buckets if (v := column[step]) is not None]
            values.append(_bucket_quantile(wanted[step], present) if present else None)
        rows.append(Row(dict(key), values))
    return merged(rows)


def _bucket_quantile(q: float, buckets: list[tuple[float, float]]) -> float:
    """Interpolate in cumulative buckets (upper bound, count), as Prometheus' bucketQuantile."""
    if math.isnan(q) or buckets[-1][0] != math.inf or len(buckets) < 2:
        return math.nan
    if q < 0 or q > 1:
        return math.copysign(math.inf, q - 0.5)
    counts: list[float] = []
    for _, count in buckets:
        counts.append(max(count, counts[-1]) if counts else count)
    if not counts[-1]:
        return math.nan
    rank = q * counts[-1]
    index = next((i for i, count in enumerate(counts[:-1]) if count >= rank), len(counts) - 1)
    if index == len(counts) - 1:
        return buckets[-2][0]
    upper, count = buckets[index][0], counts[index]
    if index == 0:
        return upper if upper <= 0 else upper * (rank / count)
    lower, below = buckets[index - 1][0], counts[index - 1]
    return lower + (upper - lower) * ((rank - below) / (count - below))


def absent(vector: Vector, labels: Labels, steps: int) -> Vector:
    """1 with these labels at each step at which the vector is empty."""
    columns = [row.values for row in vector.rows]
    values: Column = [
        None if any(column[i] is not None for column in columns) else 1.0 for i in range(steps)
    ]
    return merged([Row(labels, values)])


_FUNCTIONS: dict[str, Function] = {
    "clamp": _clamp,
    "clamp_max": _clamp_max,
    "clamp_min": _clamp_min,
    "histogram_quantile": _histogram_quantile,
    "label_join": _label_join,
    "label_replace": _label_replace,
    "pi": lambda _, times: Scalar([math.pi] * len(times)),
    "round": _round,
    "scalar": _to_scalar,
    "sort": lambda args, _: _sorted(args, descending=False),
    "sort_desc": lambda args, _: _sorted(args, descending=True),
    "time": lambda _, times: Scalar(list(times)),
    "vector": _to_vector,
}


def call(name: str, args: Sequence[Value], times: Sequence[float]) -> Value:
    """Call a function of instant values; raises UnsupportedError for one not known here."""
    if name in _FUNCTIONS:
        return _FUNCTIONS[name](args, times)
    if name in _MATH:
        return map_rows(_vector(args), _MATH[name])
    if name in _CALENDAR:
        part = _CALENDAR[name]
        given = args or [Vector([Row({}, list(times))])]
        return map_rows(_vector(given), lambda v: float(part(datetime.fromtimestamp(v, UTC))))
    raise UnsupportedError(f"function {name!r} is not supported here")
