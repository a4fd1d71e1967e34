"""Patterns that are compiled once: every answer is the one that the library's own gives."""

from itertools import product

import cel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiphys.policies import patterns
from tiphys.policies.expressions import Expression, ExpressionFailedError, compile_expression
from tiphys.policies.patterns import BUDGET, FUNCTION, weight, with_kept_patterns

SHAPES = (
    "t.matches({0})",
    "!t.matches({0})",
    "t.matches({0}) || true",
    "t.matches({0}) == false",
    "[t].all(a, a.matches({0}))",
    "t == 'x.matches(\"x\")' || t.matches( {0} ) // c",
)
PATTERNS = ('""', '"x"', '"("', '"^[a-z-]{1,40}$"', r'r"\d+"', r'"\\d{2,3}"', "'b$'", '"(?i)WEB"',
            '"é|ï"', '"."', '"[^a]"', r'"\\w{2000}"', '"^(p*)*-[0-9]+$"')  # fmt: skip
TEXTS = ("", "web", "web-12", "Ünï", "a\nb", "(", "x" * 50, 5, None, True, [], {})


def said(expression: Expression, facts: dict[str, object]) -> object:
    try:
        return expression.holds(facts)  # pyright: ignore[reportArgumentType]
    except ExpressionFailedError:
        return "failed"


def library(source: str, facts: dict[str, object]) -> object:
    try:
        return cel.compile(source).execute(facts)
    except Exception:
        return "failed"


@pytest.mark.parametrize("shape", SHAPES, ids=[f"shape{at}" for at in range(len(SHAPES))])
def test_kept_or_not_every_answer_is_the_librarys_own(shape: str) -> None:
    for pattern, text in product(PATTERNS, TEXTS):
        source = shape.format(pattern)
        expression = compile_expression(source, where="w")
        assert said(expression, {"t": text}) == library(source, {"t": text}), (source, text)


@settings(max_examples=150)
@given(
    pattern=st.text(alphabet="ab.^$*+?|()[]{}1,2-", max_size=12), text=st.text("ab1-\n", max_size=8)
)
def test_whatever_the_pattern_the_answer_is_the_librarys_own(pattern: str, text: str) -> None:
    source = f't.matches("{pattern}")'
    facts: dict[str, object] = {"t": text}
    assert said(compile_expression(source, where="w"), facts) == library(source, facts)


def test_only_a_written_out_pattern_that_is_one_is_kept() -> None:
    assert with_kept_patterns('t.matches("^kept$")') == f't.{FUNCTION}("^kept$")'
    for source in ('t.matches("(")', "t.matches(p)", 't.matches("a" + p)', "t == '.matches(\"a\")'",
                   't // .matches("a")', r"""r"\" == t || r".matches('a')" == t"""):  # fmt: skip
        assert with_kept_patterns(source) == source


def test_what_is_kept_takes_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "_kept", {})
    monkeypatch.setattr(patterns, "_spent", [0])
    for number in range(1, 400):
        compile_expression(rf't.matches("^[\\w-]{{{number}}}$")', where="w")
    kept: dict[str, object] = vars(patterns)["_kept"]
    assert 0 < len(kept) < 399
    assert sum(map(weight, kept)) <= BUDGET
    assert compile_expression(r't.matches("^[\\w-]{3}$")', where="w").holds({"t": "abc"})


@pytest.mark.parametrize(
    ("pattern", "at_least"),
    [("^[a-z-]{1,40}$", 40 << 10), (r"^[\w-]{1,63}$", 4_300_000), (r"(\w{9}){9}", 81 * 60_000)],
    ids=["names", "words", "repeats inside repeats"],
)
def test_a_pattern_is_estimated_from_above(pattern: str, at_least: int) -> None:
    assert weight(pattern) >= at_least


def test_no_policy_can_name_the_function_itself() -> None:
    with pytest.raises(Exception, match=rf"no function \.{FUNCTION}\(\)"):
        compile_expression(f't.{FUNCTION}("x")', where="w")
