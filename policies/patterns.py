"""Patterns that expressions try texts with, compiled once instead of at every trial.

Invariants: an answer is the one that the CEL library's own `matches` gives, by the same engine
(the regex crate, whose time is linear in the text); only a pattern that is written out is kept, and
all that are kept take a bounded amount of memory; any other the library compiles at each trial, as
ever.
"""

import logging
import math
import re
from typing import Final

import cel
from pydantic_core import SchemaError, SchemaValidator, core_schema

from tiphys.policies.expression_lint import Token, read_tokens

FUNCTION: Final = "matches_kept"
"""What `.matches("…")` becomes; no policy can name it itself, the lint knows no such function."""
BUDGET: Final = 64 << 20
"""Bytes that all kept patterns may take together, as estimated from above."""
_STATE: Final = 1 << 10
_WIDE_STATE: Final = 70 << 10
r"""Bytes of a compiled step, and of one that holds a class of Unicode such as `\w`."""
_REPEATS: Final = re.compile(r"\{\s*\d*\s*,?\s*(\d*)\s*\}")
_NUMBER: Final = re.compile(r"\d+")
_WIDE: Final = re.compile(r"\\[a-zA-Z]|\[\^|\[:|[^\x00-\x7f]|\(\?")
_RAW_WITH_QUOTE: Final = re.compile(r"""^[bB]?[rR].*\\["']""", re.DOTALL)

# Where `matches_kept` raises, the expression fails and the verdict says so: no need to log it too.
logging.getLogger("cel").setLevel(logging.ERROR)

_kept: dict[str, SchemaValidator] = {}
_spent = [0]


def with_kept_patterns(source: str) -> str:
    """Have an expression try its written out patterns through `FUNCTION`, where they are kept."""
    tokens = read_tokens(source)
    # To CEL a backslash ends no raw string's quote, to the lint it does: what is text is unsure.
    if any(one.kind == "string" and _RAW_WITH_QUOTE.match(one.text) for one in tokens):
        return source
    changed, done = "", 0
    for at in range(len(tokens) - 4):
        dot, name, opening, literal, closing = tokens[at : at + 5]
        if [dot.text, name.text, opening.text, closing.text] != [".", "matches", "(", ")"]:
            continue
        if literal.kind == "string" and _keep(literal):
            changed += source[done : name.at] + FUNCTION
            done = name.at + len(name.text)
    return changed + source[done:]


def matches_kept(text: object, pattern: str) -> bool:
    """Tell whether a kept pattern is found in a text; raises `TypeError` for what is no text."""
    if not isinstance(text, str):
        raise TypeError("only a text matches a pattern")
    return _kept[pattern].isinstance_python(text)


def weight(pattern: str) -> int:
    """Say how many bytes a compiled pattern takes at most; counted repeats multiply."""
    numbers = (int(n[:9]) for braces in _REPEATS.finditer(pattern)
               for n in _NUMBER.findall(braces.group()))  # fmt: skip
    wide = len(_WIDE.findall(pattern)) + pattern.count(".")
    return (len(pattern) * _STATE + wide * _WIDE_STATE) * math.prod(max(n, 1) for n in numbers)


def _keep(literal: Token) -> bool:
    try:
        pattern = cel.compile(literal.text).execute({})
    except Exception:
        return False
    if not isinstance(pattern, str):
        return False
    if pattern in _kept:
        return True
    if _spent[0] + (takes := weight(pattern)) > BUDGET:
        return False
    try:
        schema = core_schema.str_schema(pattern=pattern, regex_engine="rust-regex")
        _kept[pattern] = SchemaValidator(schema)
    except SchemaError:  # the library's own `matches` says what is wrong with it
        return False
    _spent[0] += takes
    return True
