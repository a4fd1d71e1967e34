"""Whether a use of an action is one that the catalogue has: its name, and parameters that fit.

Pure; what a value was is never repeated, since it may be a secret.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from tiphys.workflow_templates.action import Action, Parameters
from tiphys.workflow_templates.catalogue import UnknownActionError, find

_BOUNDS = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "pattern": "matching {}",
    "maxLength": "at most {} characters",
    "maxItems": "at most {} items",
}


class UnfitError(Exception):
    """There is no such action, or its parameters do not fit; the message says why."""


def fitting(name: str, given: object) -> tuple[Action, Parameters]:
    """Give the action and its parameters; raises `UnfitError`."""
    try:
        action = find(name)
        return action, action.parameters.model_validate(given)
    except UnknownActionError as error:
        raise UnfitError(str(error)) from error
    except ValidationError as error:
        why = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise UnfitError(f"the parameters do not fit {name}: {why}") from error


def described(action: Action) -> str:
    """Say which parameters an action takes, each with its bounds."""
    schema = action.parameters.model_json_schema()
    known: Mapping[str, Mapping[str, Any]] = schema.get("properties", {})
    needed: list[str] = schema.get("required", [])
    if not known:
        return f"{action.name} takes no parameters"
    said = [_described(name, one, needed=name in needed) for name, one in known.items()]
    return f"{action.name} takes {'; '.join(said)}"


def _described(name: str, one: Mapping[str, Any], *, needed: bool) -> str:
    bounds = [words.format(one[key]) for key, words in _BOUNDS.items() if key in one]
    kind = str(one.get("type", "any"))
    return f"{name} ({', '.join([kind, *bounds, *(() if needed else ('may be left out',))])})"
