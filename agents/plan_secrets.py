"""No secret travels in a plan: it is written into the record and into a Workflow's parameters.

A plan must carry every value that changes, word for word. So a change that touches what looks like
a secret is not planned at all, and a human undoes it by hand.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from tiphys.agents.redact import is_sensitive, redact
from tiphys.policies.model import Change, Json, Object
from tiphys.workflow_templates.pointers import at


def secrets_in(changes: Sequence[Change], target: Object) -> list[str]:
    """Name each changed place that holds what looks like a secret, never its value."""
    found: list[str] = []
    for change in changes:
        name = _variable(change.path, target)
        values = (change.present, change.intended)
        if name and is_sensitive(name) and any(isinstance(value, str) for value in values):
            found.append(name)
            continue
        for value in values:
            found += _within(value, change.path)
    return list(dict.fromkeys(found))


def secrets_given(parameters: Mapping[str, Json]) -> list[str]:
    """Name each parameter, or the key that it sets, which looks like a secret, never its value."""
    pair = {**parameters, "name": parameters.get("key")}
    return list(dict.fromkeys(found.removeprefix("/") for found in _within(pair, "")))


def _variable(path: str, target: Object) -> str:
    """Give the name of the variable or the key that a pointer ends in."""
    parent, _, last = path.rpartition("/")
    if last == "value":
        return str(at(target, f"{parent}/name") or "")
    return last.replace("~1", "/").replace("~0", "~")


def _within(value: Json, path: str) -> Iterator[str]:
    if isinstance(value, str):
        if redact(value) != value:
            yield path
    elif isinstance(value, dict):
        fields = cast("Mapping[str, Json]", value)
        name = fields.get("name")
        for key, item in fields.items():
            named = str(name) if key == "value" and name else key
            if isinstance(item, str) and is_sensitive(named):
                yield named
            else:
                yield from _within(item, f"{path}/{key}")
    elif isinstance(value, list):
        for item in value:
            yield from _within(item, path)
