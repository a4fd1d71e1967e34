"""Which facts and functions a CEL expression names; the library itself tells only their roots."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

MACROS: Final = frozenset({"all", "exists", "exists_one", "filter", "map"})
"""Loops: their first argument names a variable that lives until the closing parenthesis."""

_TOKEN = re.compile(
    r"""
      (?P<comment>//[^\n]*)
    | (?P<string>[rRbB]{0,2}(?:'''(?:\\.|[^\\])*?'''|\"\"\"(?:\\.|[^\\])*?\"\"\"
                |"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'))
    | (?P<number>(?:\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+)[uU]?|0[xX][0-9a-fA-F]+[uU]?)
    | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<mark>\S)
    """,
    re.VERBOSE | re.DOTALL,
)
_RESERVED: Final = frozenset({"true", "false", "null", "in"})


_LIST: Final = 100
"""Entries that a list among the facts is taken to have."""
_PATTERN: Final = 100
"""Steps that it takes to try a pattern that is written out."""
_BUILT: Final = 350_000
"""The same where it is put together when it runs: it is compiled each time, in up to 70 ms."""


@dataclass
class Usage:
    """What an expression names."""

    paths: list[tuple[str, ...]] = field(default_factory=list[tuple[str, ...]])
    """Facts, such as `("alert", "labels", "pod")`."""
    functions: list[str] = field(default_factory=list[str])
    methods: list[str] = field(default_factory=list[str])
    macro_nesting: int = 0
    cost: int = 0
    """Steps that it may take at most, where no list among the facts has more than 100 entries."""


@dataclass(frozen=True)
class Token:
    """One word, text, number or mark of an expression."""

    kind: str
    text: str
    at: int
    """Where it begins."""


def read_tokens(source: str) -> list[Token]:
    """Take an expression that is known to parse apart, without its comments."""
    return [
        Token(match.lastgroup or "", match.group(), match.start())
        for match in _TOKEN.finditer(source)
        if match.lastgroup != "comment"
    ]


def read_usage(source: str) -> Usage:
    """Read an expression that is known to parse."""
    return _Reader(read_tokens(source)).read()


class _Reader:
    def __init__(self, tokens: Sequence[Token]) -> None:
        self._tokens = tokens
        self._usage = Usage()
        self._depth = 0
        self._bound: list[tuple[str, int]] = []
        # A list may be written out, or put together of several.
        texts = [token.text for token in tokens]
        self._longest = _LIST * (1 + texts.count("+")) + texts.count(",")

    def read(self) -> Usage:
        at = 0
        while at < len(self._tokens):
            token = self._tokens[at]
            self._usage.cost += self._steps(at) * self._longest ** len(self._bound)
            if token.kind == "name":
                at = self._name(at)
                continue
            if token.text in {"(", "[", "{"}:
                self._depth += 1
            elif token.text in {")", "]", "}"}:
                self._depth -= 1
                while self._bound and self._bound[-1][1] > self._depth:
                    self._bound.pop()
            at += 1
        return self._usage

    def _steps(self, at: int) -> int:
        if self._tokens[at].text != "matches":
            return 1
        written_out = self._kind(at + 2) == "string" and self._is(at + 3, ")")
        return _PATTERN if written_out else _BUILT

    def _name(self, at: int) -> int:
        """Take the name at `at` and all that hangs on it; give the next position."""
        name = self._tokens[at].text
        after_dot = self._is(at - 1, ".")
        if self._is(at + 1, "("):
            (self._usage.methods if after_dot else self._usage.functions).append(name)
            return self._bind(at) if after_dot and name in MACROS else at + 1
        if after_dot or name in _RESERVED:
            return at + 1
        path, end = [name], at + 1
        while (segment := self._segment(end)) is not None:
            path.append(segment[0])
            end = segment[1]
        if name not in (bound for bound, _ in self._bound):
            self._usage.paths.append(tuple(path))
        return end

    def _segment(self, at: int) -> tuple[str, int] | None:
        """Read `.name` or `["name"]` at `at`: the name and the position behind it."""
        if self._is(at, ".") and self._kind(at + 1) == "name" and not self._is(at + 2, "("):
            return self._tokens[at + 1].text, at + 2
        if self._is(at, "[") and self._kind(at + 1) == "string" and self._is(at + 2, "]"):
            return self._tokens[at + 1].text.lstrip("rRbB").strip("'\""), at + 3
        return None

    def _bind(self, at: int) -> int:
        """Take `all(x,`: x is the loop's own until its parenthesis closes."""
        if self._kind(at + 2) != "name" or not self._is(at + 3, ","):
            return at + 1
        self._depth += 1
        self._bound.append((self._tokens[at + 2].text, self._depth))
        self._usage.macro_nesting = max(self._usage.macro_nesting, len(self._bound))
        return at + 4

    def _is(self, at: int, text: str) -> bool:
        return 0 <= at < len(self._tokens) and self._tokens[at].text == text

    def _kind(self, at: int) -> str:
        return self._tokens[at].kind if at < len(self._tokens) else ""
