"""The part of Prometheus' alert templates that alerts in the wild use.

`{{ $labels.x }}`, `{{ $value | humanizePercentage }}`, `{{ printf "%.2f" $value }}`, literals,
`{{ with … }}…{{ . }}…{{ end }}`, `{{ if … }}` and whitespace trimming. Anything else expands to
Prometheus' own error text.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_TAG = re.compile(r"(\s*\{\{-|\{\{)\s*(.*?)\s*(-\}\}\s*|\}\})", re.DOTALL)
_WORD = re.compile(r'"((?:[^"\\]|\\.)*)"|(\S+)')


class _TemplateError(Exception):
    """The template uses what is not known here."""


def expand(template: str, labels: Mapping[str, str], value: float) -> str:
    """Fill in a template; an unknown construct gives `<error expanding template: …>`."""
    try:
        return _Expansion(labels, value).text(template)
    except (_TemplateError, ValueError, TypeError) as error:
        return f"<error expanding template: {error}>"


@dataclass
class _Expansion:
    labels: Mapping[str, str]
    number: float

    def text(self, template: str) -> str:
        """Expand the whole template."""
        parts: list[str] = []
        stack: list[tuple[bool, str | float]] = [(True, "")]
        position = 0
        for tag in _TAG.finditer(template):
            if stack[-1][0]:
                parts.append(template[position : tag.start()])
            position = tag.end()
            words = tag[2].split(maxsplit=1)
            shown, dot = stack[-1]
            if words and words[0] in {"with", "if"}:
                subject = self._pipeline(words[1], dot)
                stack.append((shown and bool(subject), subject if words[0] == "with" else dot))
            elif tag[2] == "else":
                outer = stack[-2][0] if len(stack) > 1 else False
                stack[-1] = (outer and not shown, stack[-2][1] if len(stack) > 1 else "")
            elif tag[2] == "end":
                if len(stack) == 1:
                    raise _TemplateError("unexpected {{end}}")
                stack.pop()
            elif shown:
                parts.append(_plain(self._pipeline(tag[2], dot)))
        if len(stack) > 1:
            raise _TemplateError("unexpected EOF")
        return "".join([*parts, template[position:]])

    def _pipeline(self, source: str, dot: str | float) -> str | float:
        result: str | float | None = None
        for stage in source.split("|"):
            words = [(m[1], m[2]) for m in _WORD.finditer(stage)]
            given = [] if result is None else [result]
            result = self._stage(words, given, dot)
        return "" if result is None else result

    def _stage(
        self, words: list[tuple[str | None, str | None]], given: list[str | float], dot: str | float
    ) -> str | float:
        head = words[0][1]
        if head in _FUNCTIONS:
            return _FUNCTIONS[head](*(self._operand(word, dot) for word in words[1:]), *given)
        if len(words) != 1 or given:
            raise _TemplateError(f"function {head!r} not defined")
        return self._operand(words[0], dot)

    def _operand(self, word: tuple[str | None, str | None], dot: str | float) -> str | float:
        quoted, bare = word
        if bare is None:
            return quoted or ""
        if bare == "$value":
            return self.number
        if bare == ".":
            return dot
        if bare.startswith("$labels."):
            return self.labels.get(bare.removeprefix("$labels."), "")
        raise _TemplateError(f"{bare!r} is not supported here")


def _plain(value: str | float) -> str:
    """As Go prints a value: shortest form, no trailing zero."""
    if isinstance(value, str):
        return value
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if value == int(value) and abs(value) < 1e21:
        return str(int(value))
    return repr(value)


def _significant(value: float) -> str:
    """Four significant digits, as Go's %.4g."""
    return format(value, ".4g")


def _humanize(value: str | float) -> str:
    number = float(value)
    if number == 0 or not math.isfinite(number):
        return _significant(number)
    if abs(number) >= 1:
        prefix = ""
        for prefix in ("", "k", "M", "G", "T", "P", "E", "Z", "Y"):
            if abs(number) < 1000:
                break
            number /= 1000 if prefix != "Y" else 1
        return f"{_significant(number)}{prefix}"
    prefix = ""
    for candidate in ("m", "u", "n", "p", "f", "a", "z", "y"):
        if abs(number) >= 1:
            break
        prefix, number = candidate, number * 1000
    return f"{_significant(number)}{prefix}"


def _humanize_percentage(value: str | float) -> str:
    return f"{_significant(float(value) * 100)}%"


def _humanize_duration(value: str | float) -> str:
    number = float(value)
    if not math.isfinite(number):
        return _significant(number)
    if abs(number) < 1:
        return "0s" if number == 0 else f"{_humanize(number)}s"
    sign, whole = "-" if number < 0 else "", int(abs(number))
    seconds, minutes, hours, days = (
        whole % 60, whole // 60 % 60, whole // 3600 % 24, whole // 86400,
    )  # fmt: skip
    if days:
        return f"{sign}{days}d {hours}h {minutes}m {seconds}s"
    if hours:
        return f"{sign}{hours}h {minutes}m {seconds}s"
    if minutes:
        return f"{sign}{minutes}m {seconds}s"
    return f"{_significant(number)}s"


def _printf(*args: str | float) -> str:
    return str(args[0]).replace("%v", "%s") % tuple(
        _plain(arg) if f"{args[0]}".count("%v") else arg for arg in args[1:]
    )


_FUNCTIONS: dict[str | None, Callable[..., str]] = {
    "humanize": _humanize,
    "humanizeDuration": _humanize_duration,
    "humanizePercentage": _humanize_percentage,
    "printf": _printf,
    "title": str.title,
    "toLower": str.lower,
    "toUpper": str.upper,
}
