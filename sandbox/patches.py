"""JSON patch (RFC 6902), merge patch (RFC 7386) and strategic merge patch on JSON objects."""

from enum import StrEnum
from typing import Any

from tiphys.sandbox.api_error import ApiError
from tiphys.sandbox.resources import clone


class PatchType(StrEnum):
    """The patch formats, by their content type."""

    JSON = "application/json-patch+json"
    MERGE = "application/merge-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"


MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "ports": "containerPort",
    "conditions": "type",
    "ownerReferences": "uid",
    "imagePullSecrets": "name",
}
"""Lists whose items strategic merge patch joins by a key; every other list is replaced."""


def apply(document: Any, body: Any, patch_type: PatchType) -> Any:
    """Give the patched copy. Raises `ApiError` 400 (malformed) or 422 (does not apply)."""
    if patch_type is PatchType.JSON:
        if not isinstance(body, list):
            raise ApiError(400, "BadRequest", "a JSON patch is an array of operations")
        result = clone(document)
        for operation in body:
            result = _operate(result, operation)
        return result
    if not isinstance(body, dict):
        raise ApiError(400, "BadRequest", "a merge patch is an object")
    return _merge(document, body, strategic=patch_type is PatchType.STRATEGIC)


def _refused(why: str) -> ApiError:
    return ApiError(422, "Invalid", f"the server rejected our request: {why}")


def _walk(document: Any, pointer: str) -> tuple[Any, str]:
    """Find the container and the last part of a JSON pointer."""
    if not pointer.startswith("/"):
        raise _refused(f"path {pointer!r} is not a JSON pointer into the object")
    parts = [p.replace("~1", "/").replace("~0", "~") for p in pointer.split("/")[1:]]
    for part in parts[:-1]:
        document = _read(document, part, pointer)
    if not isinstance(document, dict | list):
        raise _refused(f"path {pointer!r} leads through a plain value")
    return document, parts[-1]


def _read(container: Any, part: str, pointer: str) -> Any:
    try:
        return container[int(part)] if isinstance(container, list) else container[part]
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise _refused(f"doc is missing path: {pointer!r}") from error


def _add(document: Any, pointer: str, value: Any) -> Any:
    if not pointer:
        return value
    container, last = _walk(document, pointer)
    if isinstance(container, dict):
        container[last] = value
    elif last == "-":
        container.append(value)
    elif last.isdigit() and int(last) <= len(container):
        container.insert(int(last), value)
    else:
        raise _refused(f"no such index: {pointer!r}")
    return document


def _remove(document: Any, pointer: str) -> Any:
    container, last = _walk(document, pointer)
    value = _read(container, last, pointer)
    del container[int(last) if isinstance(container, list) else last]
    return value


def _same(one: Any, other: Any) -> bool:
    # JSON's true is not 1, though Python's is.
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _operate(document: Any, operation: Any) -> Any:
    value: Any
    try:
        verb, pointer = operation["op"], operation["path"]
        if verb in {"add", "replace", "test"}:
            value = clone(operation["value"]) if verb != "test" else operation.get("value")
        else:
            value = operation["from"] if verb in {"move", "copy"} else ""
    except (KeyError, TypeError) as error:
        raise ApiError(400, "BadRequest", f"malformed operation: {operation!r}") from error
    if verb == "add":
        return _add(document, pointer, value)
    if verb == "replace":
        container, last = _walk(document, pointer)
        _read(container, last, pointer)
        container[int(last) if isinstance(container, list) else last] = value
        return document
    if verb == "remove":
        _remove(document, pointer)
        return document
    if verb == "move":
        return _add(document, pointer, _remove(document, value))
    if verb == "copy":
        return _add(document, pointer, clone(_read(*_walk(document, value), value)))
    if verb == "test":
        container, last = _walk(document, pointer)
        present = container.get(last) if isinstance(container, dict) else None
        found = present if isinstance(container, dict) else _read(container, last, pointer)
        if not _same(found, value):
            raise _refused(f"testing path {pointer!r} failed")
        return document
    raise ApiError(400, "BadRequest", f"unknown operation {verb!r}")


def _merge(document: Any, body: Any, *, strategic: bool) -> Any:
    if not isinstance(body, dict):
        return clone(body)
    if strategic and body.get("$patch") == "replace":
        return {key: clone(value) for key, value in body.items() if key != "$patch"}
    result = clone(document) if isinstance(document, dict) else {}
    for key, value in body.items():
        if value is None:
            result.pop(key, None)
        elif strategic and key in MERGE_KEYS and isinstance(value, list):
            result[key] = _merge_list(result.get(key) or [], value, MERGE_KEYS[key])
        elif not (strategic and key.startswith("$")):
            result[key] = _merge(result.get(key), value, strategic=strategic)
    return result


def _merge_list(present: list[Any], changes: list[Any], merge_key: str) -> list[Any]:
    result = clone(present)
    for change in changes:
        identity = change.get(merge_key)
        index = next((i for i, p in enumerate(result) if p.get(merge_key) == identity), None)
        if change.get("$patch") == "delete":
            if index is not None:
                del result[index]
        elif index is None:
            result.append(_merge({}, change, strategic=True))
        else:
            result[index] = _merge(result[index], change, strategic=True)
    return result
