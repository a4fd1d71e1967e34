"""Who owns which field: `metadata.managedFields` as server-side tracking of updates keeps it.

A write takes the ownership of every leaf it adds or changes from whoever had it.
https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management
"""

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from tiphys.sandbox.patches import MERGE_KEYS
from tiphys.sandbox.resources import Obj

Path = tuple[str, ...]

_UNTRACKED = {
    "name", "namespace", "uid", "creationTimestamp", "generation", "resourceVersion",
    "managedFields", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink",
}  # fmt: skip
_ATOMIC = {"selector", "nodeSelector", "matchLabels"}
_EXISTENCE = {"f:labels", "f:annotations"}


class Writer(NamedTuple):
    """One entry of managedFields: updates of one manager through one subresource."""

    manager: str
    api_version: str
    subresource: str


def _keyed(field: str, item: Obj) -> str:
    key = MERGE_KEYS[field]
    return "k:" + json.dumps({key: item.get(key)}, separators=(",", ":"))


def _leaves(value: Any, path: Path = ()) -> dict[Path, Any]:
    found: dict[Path, Any] = {}
    if path and path[-1] in _EXISTENCE:
        found[(*path, ".")] = True
    for key, item in value.items():
        at = (*path, f"f:{key}")
        if not path and key in {"apiVersion", "kind"}:
            continue
        if path == ("f:metadata",) and key in _UNTRACKED:
            continue
        if isinstance(item, dict) and item and key not in _ATOMIC:
            found |= _leaves(item, at)
        elif key in MERGE_KEYS and isinstance(item, list) and item:
            for part in item:
                keyed = (*at, _keyed(key, part))
                found[(*keyed, ".")] = True
                found |= _leaves(part, keyed)
        else:
            found[at] = item
    return found


def _parse(fields: dict[str, Any], path: Path = ()) -> set[Path]:
    found: set[Path] = set()
    for key, inner in fields.items():
        found |= _parse(inner, (*path, key)) if inner else {(*path, key)}
    return found


def _render(paths: Iterable[Path]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path in sorted(paths):
        at = tree
        for part in path:
            at = at.setdefault(part, {})
    return tree


def track(old: Obj | None, new: Obj, writer: Writer, now: str) -> list[Obj]:
    """Give the new object's managedFields after `writer` turned `old` into `new`."""
    before, after = _leaves(old) if old else {}, _leaves(new)
    changed = {path for path, value in after.items() if path not in before or before[path] != value}
    entries: list[Obj] = []
    own: set[Path] = set()
    for entry in (old or {}).get("metadata", {}).get("managedFields", []):
        owned = _parse(entry["fieldsV1"]) & after.keys()
        identity = Writer(entry["manager"], entry["apiVersion"], entry.get("subresource", ""))
        if identity == writer:
            own = owned
        elif left := owned - changed:
            same = left == _parse(entry["fieldsV1"])
            entries.append(entry if same else {**entry, "fieldsV1": _render(left)})
    if own | changed:
        entry = {
            "manager": writer.manager,
            "operation": "Update",
            "apiVersion": writer.api_version,
            "time": now,
            "fieldsType": "FieldsV1",
            "fieldsV1": _render(own | changed),
        }
        if writer.subresource:
            entry["subresource"] = writer.subresource
        if writer.subresource == "scale":
            del entry["time"]  # the API server gives such an entry none
        entries.append(entry)
    return entries
