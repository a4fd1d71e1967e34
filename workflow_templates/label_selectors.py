"""Kubernetes' label selectors, and the expressions that choose nodes. Pure.

What is not understood raises `UnjudgedError`: nobody may take it for a match, nor for none.
https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors
"""

from collections.abc import Mapping
from typing import Any, cast

Json = dict[str, Any]


class UnjudgedError(Exception):
    """It cannot be judged with certainty; the message says what."""


def selects(selector: object, labels: Mapping[str, str]) -> bool:
    """Whether a selector chooses what bears these labels; an empty one chooses everything."""
    if selector is None:
        return False
    if not isinstance(selector, dict):
        raise UnjudgedError("a label selector that is none")
    given = cast("Json", selector)
    if not {*given} <= {"matchLabels", "matchExpressions"}:
        raise UnjudgedError(f"a label selector with {', '.join(sorted(given))}")
    plain = cast("Mapping[str, str]", given.get("matchLabels") or {})
    if any(labels.get(key) != value for key, value in plain.items()):
        return False
    return all(
        holds(one, labels) for one in cast("list[Json]", given.get("matchExpressions") or [])
    )


def holds(expression: Json, labels: Mapping[str, str]) -> bool:
    """Whether one expression holds for these labels; nodes may also be compared by numbers."""
    key, values = str(expression.get("key")), list(map(str, expression.get("values") or []))
    present = labels.get(key)
    match expression.get("operator"):
        case "In":
            return present in values
        case "NotIn":
            return present not in values
        case "Exists":
            return present is not None
        case "DoesNotExist":
            return present is None
        case "Gt" | "Lt" as operator:
            return _compared(operator, present, values)
        case other:
            raise UnjudgedError(f"an expression with the operator {other}")


def _compared(operator: str, present: str | None, values: list[str]) -> bool:
    try:
        if present is None or len(values) != 1:
            return False
        return int(present) > int(values[0]) if operator == "Gt" else int(present) < int(values[0])
    except ValueError:
        return False
