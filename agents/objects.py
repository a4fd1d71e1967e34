"""Reads Kubernetes' JSON without trusting its shape: what is absent or of another type is empty."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import cast

from tiphys.policies.model import Json, Object, Owner, Target

EMPTY: Object = {}


def dig(value: Json | Object, *path: str) -> Json:
    """Follow keys; None where one is missing."""
    here: object = value
    for key in path:
        if not isinstance(here, Mapping):
            return None
        here = cast("Mapping[str, Json]", here).get(key)
    return cast("Json", here)


def mapping(value: Json | Object, *path: str) -> Object:
    """Give the object at a path, or an empty one."""
    found = dig(value, *path)
    return found if isinstance(found, dict) else EMPTY


def items(value: Json | Object, *path: str) -> Sequence[Object]:
    """Give the objects of the list at a path; whatever is no object is left out."""
    found = dig(value, *path)
    if not isinstance(found, list):
        return ()
    return [item for item in found if isinstance(item, dict)]


def text(value: Json | Object, *path: str) -> str:
    """Give the string at a path, or an empty one."""
    found = dig(value, *path)
    return found if isinstance(found, str) else ""


def whole(value: Json | Object, *path: str, default: int = 0) -> int:
    """Give the whole number at a path, or the default."""
    found = dig(value, *path)
    return found if isinstance(found, int) and not isinstance(found, bool) else default


def strings(value: Json | Object, *path: str) -> dict[str, str]:
    """Give the string entries of the object at a path, such as labels."""
    return {k: v for k, v in mapping(value, *path).items() if isinstance(v, str)}


def name_of(thing: Object) -> str:
    """Give metadata.name."""
    return text(thing, "metadata", "name")


def uid_of(thing: Object) -> str:
    """Give metadata.uid."""
    return text(thing, "metadata", "uid")


def instant(value: Json | Object, *path: str) -> datetime | None:
    """Read an RFC 3339 time; None where there is none."""
    try:
        found = datetime.fromisoformat(text(value, *path))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def condition(thing: Object, kind: str) -> Object:
    """Give the status condition of a type, or an empty object."""
    for one in items(thing, "status", "conditions"):
        if text(one, "type") == kind:
            return one
    return EMPTY


def controller_of(thing: Object) -> Owner | None:
    """Give the one owner that is the controller, if any."""
    for reference in items(thing, "metadata", "ownerReferences"):
        if dig(reference, "controller") is True:
            return Owner(
                api_version=text(reference, "apiVersion"),
                kind=text(reference, "kind"),
                name=text(reference, "name"),
                uid=text(reference, "uid"),
            )
    return None


def is_controlled_by(thing: Object, uid: str) -> bool:
    """Tell whether the object with that uid is its controller."""
    owner = controller_of(thing)
    return owner is not None and owner.uid == uid


def target_of(thing: Object, cluster: str, api_version: str, kind: str) -> Target:
    """Name an object as a target; lists leave out apiVersion and kind, so they are given."""
    return Target(
        cluster=cluster,
        api_version=api_version,
        kind=kind,
        namespace=text(thing, "metadata", "namespace"),
        name=name_of(thing),
        uid=uid_of(thing),
    )


def selector_of(workload: Object) -> str | None:
    """Write a workload's label selector as the API wants it; None where it selects nothing."""
    terms = [f"{k}={v}" for k, v in strings(workload, "spec", "selector", "matchLabels").items()]
    for expression in items(workload, "spec", "selector", "matchExpressions"):
        key, operator = text(expression, "key"), text(expression, "operator")
        found = dig(expression, "values")
        values = ",".join(v for v in found if isinstance(v, str)) if isinstance(found, list) else ""
        match operator:
            case "In":
                terms.append(f"{key} in ({values})")
            case "NotIn":
                terms.append(f"{key} notin ({values})")
            case "Exists":
                terms.append(key)
            case "DoesNotExist":
                terms.append(f"!{key}")
            case _:
                return None
    return ",".join(terms) or None
