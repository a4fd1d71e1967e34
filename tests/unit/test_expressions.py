"""CEL expressions: only true holds, every trap of the library ends as one of our two errors."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiphys.policies.expressions import (
    MAX_LENGTH,
    ExpressionFailedError,
    ExpressionInvalidError,
    Scope,
    compile_expression,
)

FACTS = {
    "workload": {"replicas": 3, "load": 1.5, "name": "cart", "none": None, "ports": [80, 443]},
    "labels": {"app.kubernetes.io/name": "cart"},
    "list": [{"name": "a", "age": 1}, {"name": "b", "age": 7}],
}
KNOWN = {
    "workload.replicas", "workload.load", "workload.name", "workload.none", "workload.ports",
    "labels.*", "list",
}  # fmt: skip


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("workload.replicas > 2", True),
        ("workload.load > 1", True),
        ('labels["app.kubernetes.io/name"] == "cart"', True),
        ("has(workload.absent)", False),
        ('list.exists(p, p.age > 5 && p.name == "b")', True),
        ("list.filter(p, p.age > 5).map(p, p.name)", ["b"]),
        ("workload.none", None),
        ('workload.replicas * 2 > 5 ? "many" : "few"', "many"),
        ('{"a": workload.load}', {"a": 1.5}),
        ('"workload.nonsense // no comment" + "!"', "workload.nonsense // no comment!"),
        ("size(list) // workload.nonsense", 2),
    ],
)
def test_gives_plain_values(source: str, value: object) -> None:
    expression = compile_expression(source, where="here", known={*KNOWN, "workload.absent"})
    assert expression.evaluate(FACTS) == value
    assert expression.evaluate(Scope(FACTS)) == value


@pytest.mark.parametrize(
    "source",
    [
        "workload.absent == 1",
        "has(absent.name)",
        "has(workload.absent.name)",
        "workload.load + 1",
        "workload.replicas / 0",
        "workload.ports[9] == 80",
        'labels["absent"] == ""',
        "workload.none > 1",
        "9223372036854775807 + workload.replicas",
        'workload.name.matches("(")',
        'timestamp("2026-01-01T00:00:00Z")',
        'duration("5m")',
        "workload.load / 0.0",
    ],
)
def test_whatever_goes_wrong_is_one_error_that_says_where(source: str) -> None:
    with pytest.raises(ExpressionFailedError, match="rules"):
        compile_expression(source, where="rules[0]").evaluate(FACTS)


@pytest.mark.parametrize("source", ["1", '"true"', "null", "workload", "[true]"])
def test_only_true_holds(source: str) -> None:
    with pytest.raises(ExpressionFailedError, match="not true or false"):
        compile_expression(source, where="here").holds(FACTS)


def test_false_does_not_hold() -> None:
    assert compile_expression("1 == 1", where="here").holds({}) is True
    assert compile_expression("1 == 2", where="here").holds({}) is False


def test_a_number_that_would_be_rounded_is_refused() -> None:
    expression = compile_expression("x.y[0] > 1", where="here")
    with pytest.raises(ExpressionFailedError, match=r"x\.y does not fit 64 bits"):
        expression.holds({"x": {"y": [1180591620717411303424]}})


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("", "is empty"),
        ("a +", "is no CEL expression"),
        ("a" * (MAX_LENGTH + 1), f"at most {MAX_LENGTH}"),
        ("(" * 900 + "1" + ")" * 900, "is no CEL expression"),
        ("workload.replica > 2", "no fact workload.replica; did you mean workload.replicas?"),
        ("workload.replicas.more > 2", "no fact workload.replicas.more"),
        ("list.exists(p, p.age > other)", "no fact other"),
        ("list.exists(p, p.age > 1) && p.age > 1", "no fact p.age"),
        ('workload["replica"] > 2', "no fact workload.replica"),
        ("sizes(list) > 1", "no function sizes(); did you mean size?"),
        ("workload.name.lowerAscii() == ''", "no function .lowerAscii()"),
        ("list.all(a, list.all(b, list.all(c, true)))", "loops are 3 deep"),
    ],
)
def test_an_unusable_expression_is_refused_at_load(source: str, says: str) -> None:
    with pytest.raises(ExpressionInvalidError) as caught:
        compile_expression(source, where="policy.yaml: rules[0]", known=KNOWN)
    assert says in str(caught.value)
    assert str(caught.value).startswith("policy.yaml: rules[0]: ")


def test_a_whole_object_and_anything_below_a_star_are_known() -> None:
    for source in ("workload == null", "labels == {}", "labels.anything.below == 1"):
        compile_expression(source, where="here", known=KNOWN)


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="abx.()[]{}\"'!&|<>=+-*/?:,0123 \n\\", max_size=40))
def test_no_text_escapes_the_two_errors(source: str) -> None:
    with contextlib.suppress(ExpressionInvalidError, ExpressionFailedError):
        compile_expression(source, where="here", known={"a.b", "x"}).holds({"a": {"b": 1}, "x": []})


def test_only_facts_that_an_expression_names_are_made_ready() -> None:
    scope = Scope({"huge": 1 << 80, "list": [1, 2]})
    assert compile_expression("list.exists(x, x == 2)", where="here").holds(scope) is True
    assert compile_expression("list.all(list, list < 3)", where="here").holds(scope) is True
    for _ in range(2):
        with pytest.raises(ExpressionFailedError, match="huge does not fit 64 bits"):
            compile_expression("huge > 1", where="here").holds(scope)
