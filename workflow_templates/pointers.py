"""Reading fields by JSON pointer (RFC 6901), and the differences of two JSON values as changes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from tiphys.policies.model import Change, Json
from tiphys.policies.plan import canonical


def escape(key: str) -> str:
    """Write a key as one part of a pointer."""
    return key.replace("~", "~0").replace("/", "~1")


def at(document: Any, pointer: str) -> Any:
    """Read what a pointer names; None where there is nothing (Kubernetes stores no nulls)."""
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(document, Mapping):
            document = cast("Mapping[str, Any]", document).get(key)
        elif isinstance(document, list) and key.isdigit() and int(key) < len(document):
            document = cast("list[Any]", document)[int(key)]
        else:
            return None
    return document


def equal(one: Any, other: Any) -> bool:
    """Compare as JSON: `true` is not 1."""
    return canonical(one) == canonical(other)


def differences(present: Any, intended: Any, pointer: str) -> Iterator[Change]:
    """Give the smallest changes from one value to the other, in the order of their pointers.

    Lists are compared item by item when they name the same items in the same order (containers,
    variables), else changed whole: so no pointer means another item after the change.
    """
    if equal(present, intended):
        return
    if isinstance(present, dict) and isinstance(intended, dict):
        before, after = cast("dict[str, Any]", present), cast("dict[str, Any]", intended)
        for key in sorted({*before, *after}):
            place = f"{pointer}/{escape(key)}"
            yield from differences(before.get(key), after.get(key), place)
        return
    if isinstance(present, list) and isinstance(intended, list):
        old, new = cast("list[Any]", present), cast("list[Any]", intended)
        if _names(old) is not None and _names(old) == _names(new):
            for index, (one, other) in enumerate(zip(old, new, strict=True)):
                yield from differences(one, other, f"{pointer}/{index}")
            return
    yield Change(path=pointer, present=present, intended=intended)


def operations(values: Sequence[tuple[str, Json, Json]]) -> list[Json]:
    """Give the JSON patch (RFC 6902) operations that turn each (pointer, old, new) around."""
    found: list[Json] = []
    for pointer, old, new in values:
        if new is None:
            found.append({"op": "remove", "path": pointer})
        else:
            verb = "add" if old is None else "replace"
            found.append({"op": verb, "path": pointer, "value": new})
    return found


def _names(items: list[Any]) -> list[str] | None:
    names = [cast("dict[str, Any]", i).get("name") if isinstance(i, dict) else None for i in items]
    if not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        return None
    return cast("list[str]", names)
