"""Conditions that people write: CEL, compiled once, linted at load and fenced when run.

Invariants: only exactly `true` holds; whatever goes wrong while one runs raises
`ExpressionFailedError`, which callers take for "no"; nothing is read but the facts handed in.

What CEL here does that surprises: `has(a.b.c)` asks only for `c` and fails where `a.b` is missing;
`x || true` is true even where `x` fails (the standard says so); comparing int with double works,
adding them fails; nothing limits the cost, so length and nesting are capped at load.
"""

import difflib
import math
from collections.abc import Collection, Mapping
from typing import Final, cast

import cel

from tiphys.policies.expression_lint import Usage, read_usage
from tiphys.policies.model import Json
from tiphys.policies.patterns import FUNCTION, matches_kept, with_kept_patterns

MAX_LENGTH: Final = 2_000
"""Characters of one expression."""
MAX_MACRO_NESTING: Final = 2
"""Loops inside loops: the cost is the size of the facts to this power."""
_INT64: Final = 1 << 63

FUNCTIONS: Final = frozenset(
    {"bool", "double", "duration", "has", "int", "size", "string", "timestamp", "type", "uint"}
)
"""Functions that may be called as `f(x)`; an unknown one would fail only when run."""
METHODS: Final = frozenset(
    {
        "all", "contains", "endsWith", "exists", "exists_one", "filter", "getDate", "getDayOfWeek",
        "getHours", "getMinutes", "getMonth", "getSeconds", "map", "matches", "size", "startsWith",
    }
)  # fmt: skip
"""Functions that may be called as `x.f(y)`."""


class ExpressionInvalidError(Exception):
    """The expression cannot be used; the message says where it stands and what is wrong."""


class ExpressionFailedError(Exception):
    """The expression has no answer on these facts; the message says why."""


class Scope:
    """Facts for many expressions; each is made ready when the first one names it, and kept."""

    def __init__(self, facts: Mapping[str, Json]) -> None:
        self.context = cel.Context({}, {FUNCTION: matches_kept})
        self._waiting = dict(facts)

    def make_ready(self, names: frozenset[str]) -> None:
        """Hand over these facts; raises `ExpressionFailedError` where CEL would silently round."""
        for name in self._waiting.keys() & names:
            if not _fits(self._waiting[name]):
                where = _unfit(self._waiting[name], name)
                raise ExpressionFailedError(f"the fact {where} does not fit 64 bits")
            self.context.add_variable(name, self._waiting[name])
            del self._waiting[name]


class Expression:
    """One compiled expression; made by `compile_expression` only."""

    def __init__(self, source: str, where: str, program: cel.Program, usage: Usage) -> None:
        self.source = source
        self.cost = usage.cost
        """Steps that it may take at most; a step is some 0.2 µs."""
        self.where = where
        """The place it was written, such as `default.yaml: rules[2].expression`."""
        self._program = program
        self._names = frozenset(path[0] for path in usage.paths)

    def __repr__(self) -> str:
        return f"Expression({self.source!r})"

    def evaluate(self, facts: Mapping[str, Json] | Scope) -> Json:
        """Give the value; raises `ExpressionFailedError` for whatever goes wrong."""
        return _json(self._run(facts), self)

    def _run(self, facts: Mapping[str, Json] | Scope) -> object:
        scope = facts if isinstance(facts, Scope) else Scope(facts)
        scope.make_ready(self._names)
        try:
            return self._program.execute(scope.context)
        except Exception as error:
            raise ExpressionFailedError(self._failure(error)) from error
        except BaseException as error:
            # The library's own crash is no Exception; an interrupt must pass.
            if type(error).__name__ != "PanicException":
                raise
            raise ExpressionFailedError(self._failure(error)) from error

    def holds(self, facts: Mapping[str, Json] | Scope) -> bool:
        """Tell whether it is exactly true; raises `ExpressionFailedError` when it is no bool."""
        value = self._run(facts)
        if isinstance(value, bool):
            return value
        kind = type(_json(value, self)).__name__
        raise ExpressionFailedError(f"{self.where}: `{self.source}` is {kind}, not true or false")

    def _failure(self, error: BaseException) -> str:
        missing = isinstance(error, KeyError)
        why = f"there is no fact {error}" if missing else str(error).splitlines()[0][:200]
        return f"{self.where}: `{self.source}` has no answer: {why}"


def compile_expression(
    source: str, *, where: str, known: Collection[str] | None = None
) -> Expression:
    """Compile and lint; raises `ExpressionInvalidError`.

    `known` names the facts that exist, as dotted paths: `workload.replicas` is that one,
    `alert.labels.*` anything below `alert.labels`. A path in the expression must be one of them or
    lead to one. None: any path will do. Inside a loop the loop's own variable is not linted.
    """
    if not source.strip():
        raise ExpressionInvalidError(f"{where}: the expression is empty")
    if len(source) > MAX_LENGTH:
        raise ExpressionInvalidError(
            f"{where}: the expression has {len(source)} characters, at most {MAX_LENGTH} may be"
        )
    try:
        program = cel.compile(source)
    except Exception as error:
        why = _cause(error)
        raise ExpressionInvalidError(f"{where}: `{source}` is no CEL expression: {why}") from error
    usage = read_usage(source)
    for problem in (*_unknown_calls(usage), *_unknown_paths(usage, known)):
        raise ExpressionInvalidError(f"{where}: `{source}`: {problem}")
    if usage.macro_nesting > MAX_MACRO_NESTING:
        raise ExpressionInvalidError(
            f"{where}: `{source}`: loops are {usage.macro_nesting} deep, at most "
            f"{MAX_MACRO_NESTING} may be"
        )
    if (kept := with_kept_patterns(source)) != source:
        program = cel.compile(kept)
    return Expression(source, where, program, usage)


def _cause(error: Exception) -> str:
    """Keep the place and the fault of the parser's message, not its drawing of the source."""
    text = " ".join(str(error).split("ERROR: <input>:")[-1].split(" expecting ")[0].split())
    return text.split(" | ")[0][:200]


def _unknown_calls(usage: Usage) -> list[str]:
    return [
        *(f"there is no function {name}(){_meant(name, FUNCTIONS)}"
          for name in usage.functions if name not in FUNCTIONS),
        *(f"there is no function .{name}(){_meant(name, METHODS)}"
          for name in usage.methods if name not in METHODS),
    ]  # fmt: skip


def _unknown_paths(usage: Usage, known: Collection[str] | None) -> list[str]:
    if known is None:
        return []
    return [
        f"there is no fact {'.'.join(path)}{_meant('.'.join(path), known)}"
        for path in usage.paths
        if not any(_covers(entry.split("."), path) for entry in known)
    ]


def _covers(entry: list[str], path: tuple[str, ...]) -> bool:
    if entry[-1] == "*":
        stem = entry[:-1]
        return list(path[: len(stem)]) == stem or stem[: len(path)] == list(path)
    return entry[: len(path)] == list(path)


def _meant(name: str, among: Collection[str]) -> str:
    close = difflib.get_close_matches(name, among, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _fits(value: Json) -> bool:
    """Whether every whole number in there fits 64 bits; most facts are texts, so those go first."""
    if isinstance(value, str):
        return True
    if isinstance(value, dict):
        return all(map(_fits, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_fits, value))
    return not isinstance(value, int) or -_INT64 <= value < _INT64


def _unfit(value: Json, where: str) -> str:
    """Say where the first whole number stands that does not fit; empty where all do."""
    if isinstance(value, dict):
        return next(filter(None, (_unfit(v, f"{where}.{k}") for k, v in value.items())), "")
    if isinstance(value, list | tuple):
        return next(filter(None, (_unfit(item, where) for item in value)), "")
    return "" if _fits(value) else where


def _json(value: object, expression: Expression) -> Json:
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, list):
        return [_json(item, expression) for item in cast("list[object]", value)]
    if isinstance(value, dict):
        items = cast("dict[object, object]", value).items()
        return {str(key): _json(item, expression) for key, item in items}
    raise ExpressionFailedError(
        f"{expression.where}: `{expression.source}` gives {type(value).__name__}, "
        "which is no plain value"
    )
