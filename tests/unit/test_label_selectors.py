"""What a label selector chooses, and what is not judged. Pure."""

from typing import Any

import pytest

from tiphys.workflow_templates.label_selectors import UnjudgedError, holds, selects


def expression(operator: str, *values: str, key: str = "a") -> dict[str, Any]:
    return {"key": key, "operator": operator, "values": [*values]}


@pytest.mark.parametrize(
    ("selector", "chosen"),
    [
        ({}, True),
        (None, False),
        ({"matchLabels": {"a": "3"}}, True),
        ({"matchLabels": {"a": "2"}}, False),
        ({"matchLabels": {"b": "3"}}, False),
        ({"matchExpressions": [expression("In", "1", "3")]}, True),
        ({"matchExpressions": [expression("Exists"), expression("Exists", key="b")]}, False),
        ({"matchLabels": {"a": "2"}, "matchExpressions": [expression("Exists")]}, False),
    ],
)
def test_a_selector_chooses_what_bears_all_of_it(selector: object, chosen: bool) -> None:
    assert selects(selector, {"a": "3"}) is chosen


@pytest.mark.parametrize(
    ("one", "held"),
    [
        (expression("In", "1", "3"), True),
        (expression("In", "1", "2"), False),
        (expression("In", "3", key="b"), False),
        (expression("NotIn", "1", "2"), True),
        (expression("NotIn", "1", "3"), False),
        (expression("NotIn", "3", key="b"), True),
        (expression("Exists"), True),
        (expression("Exists", key="b"), False),
        (expression("DoesNotExist"), False),
        (expression("DoesNotExist", key="b"), True),
        (expression("Gt", "2"), True),
        (expression("Gt", "3"), False),
        (expression("Lt", "4"), True),
        (expression("Lt", "3"), False),
        (expression("Gt", "2", key="b"), False),
        (expression("Gt", "1", "2"), False),
        (expression("Gt"), False),
        (expression("Gt", "few"), False),
    ],
)
def test_an_expression_holds(one: dict[str, Any], held: bool) -> None:
    assert holds(one, {"a": "3"}) is held


@pytest.mark.parametrize(
    "selector",
    [
        [],
        "a=3",
        {"other": 1},
        {"matchLabels": {"a": "2"}, "other": 1},
        {"matchExpressions": [{"key": "a", "operator": "Near"}]},
    ],
)
def test_a_selector_that_is_not_understood_is_not_judged(selector: object) -> None:
    with pytest.raises(UnjudgedError):
        selects(selector, {"a": "3"})
