"""Label and field selectors, as the API server reads them."""

import re
from collections.abc import Callable, Mapping

from tiphys.sandbox.api_error import ApiError
from tiphys.sandbox.resources import Obj

Predicate = Callable[[Mapping[str, str]], bool]

_SPLIT = re.compile(r",(?![^(]*\))")
_SET = re.compile(r"^([\w./-]+)\s+(in|notin)\s+\(([^)]*)\)$")
_EQUAL = re.compile(r"^([\w./-]+)\s*(==|=|!=)\s*([\w./:-]*)$")
_PRESENT = re.compile(r"^(!?)\s*([\w./-]+)$")


def _term(text: str) -> Predicate:
    if found := _SET.match(text):
        key, verb, values = found[1], found[2], {v.strip() for v in found[3].split(",")}
        return lambda labels: (labels.get(key) in values) == (verb == "in")
    if found := _EQUAL.match(text):
        key, sign, value = found[1], found[2], found[3]
        return lambda labels: (labels.get(key) == value) != (sign == "!=")
    if found := _PRESENT.match(text):
        absent, key = bool(found[1]), found[2]
        return lambda labels: (key in labels) != absent
    raise ApiError(400, "BadRequest", f"unable to parse requirement: {text!r}")


def _terms(selector: str) -> list[Predicate]:
    return [_term(part.strip()) for part in _SPLIT.split(selector) if part.strip()]


def _path(obj: Obj, dotted: str) -> str:
    value: object = obj
    for part in dotted.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return "" if value is None else str(value)


def matcher(selector: str = "", field_selector: str = "") -> Callable[[Obj], bool]:
    """Compile both selectors; the empty ones match everything. Raises `ApiError` 400."""
    by_label = _terms(selector)
    by_field = [_EQUAL.match(p.strip()) for p in field_selector.split(",") if p.strip()]
    if not all(by_field):
        raise ApiError(400, "BadRequest", f"unable to parse field selector: {field_selector!r}")

    def matches(obj: Obj) -> bool:
        labels = obj["metadata"].get("labels") or {}
        return all(term(labels) for term in by_label) and all(
            (_path(obj, field[1]) == field[3]) != (field[2] == "!=") for field in by_field if field
        )

    return matches


def selects(selector: Obj | None, labels: Mapping[str, str]) -> bool:
    """Whether a LabelSelector object selects these labels; an absent one selects nothing."""
    if selector is None:
        return False
    terms = [_term(f"{key}={value}") for key, value in selector.get("matchLabels", {}).items()]
    for need in selector.get("matchExpressions", []):
        key, values = need["key"], f"({','.join(need.get('values') or [])})"
        forms = {"Exists": key, "DoesNotExist": f"!{key}"}
        verb = need["operator"]
        terms.append(_term(forms.get(verb, f"{key} {verb.lower()} {values}")))
    return all(term(labels) for term in terms)
