"""What stands in a namespace, in a form that two looks can be compared by.

Left out is what nobody set: status, versions, and what controllers keep for themselves.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tiphys.service.conform.wire import Json, Wire
from tiphys.workflow_templates.mark import ANNOTATION
from tiphys.workflow_templates.pointers import differences

_OWN = {("", "Event"), ("events.k8s.io", "Event"), ("discovery.k8s.io", "EndpointSlice")}
"""Kinds that come and go by themselves; our own Events are looked at where they matter."""
_META = ("resourceVersion", "generation", "managedFields", "creationTimestamp", "selfLink")
_NOTES = ("deployment.kubernetes.io/revision", "deprecated.daemonset.template.generation")
_CLUSTER_MADE = {("ConfigMap", "kube-root-ca.crt"), ("ServiceAccount", "default")}
PROP = "tiphys.io/conform-prop"
"""A label of what the kit itself puts up and changes."""
Key = tuple[str, str]
"""Kind and name."""


@dataclass(frozen=True)
class Snapshot:
    """Every object of a namespace, by kind and name."""

    objects: Mapping[Key, Json]

    def roots(self) -> "Snapshot":
        """Leave out what a controller made from something else that is here."""
        return Snapshot({k: o for k, o in self.objects.items() if not _controller(o)})


def take(wire: Wire, namespace: str) -> Snapshot:
    """Read every kind of object that the API server lists in namespaces."""
    found: dict[Key, Json] = {}
    for group_version, kind, plural in _kinds(wire):
        if (group_version.rpartition("/")[0], kind) in _OWN:
            continue
        root = f"/apis/{group_version}" if "/" in group_version else f"/api/{group_version}"
        for one in wire.items(f"{root}/namespaces/{namespace}/{plural}"):
            name = one["metadata"]["name"]
            props = one["metadata"].get("labels") or {}
            if (kind, name) not in _CLUSTER_MADE and PROP not in props:
                found[kind, name] = _canonical({"kind": kind, **one})
    return Snapshot(found)


def changed(before: Snapshot, after: Snapshot) -> dict[Key, tuple[str, ...]]:
    """Say which objects differ, and in which fields: `""` for one that came, went or was replaced.

    Fields are JSON pointers. What controllers made is left out.
    """
    old, new = before.roots().objects, after.roots().objects
    found: dict[Key, tuple[str, ...]] = {}
    for key in sorted({*old, *new}):
        if key not in old or key not in new or _uid(old[key]) != _uid(new[key]):
            found[key] = ("",)
        elif moved := tuple(c.path for c in differences(old[key], new[key], "")):
            found[key] = moved
    return found


def _canonical(obj: Json) -> Json:
    meta = {k: v for k, v in obj["metadata"].items() if k not in _META}
    notes = {k: v for k, v in (meta.get("annotations") or {}).items() if k not in _NOTES}
    notes.pop(ANNOTATION, None)
    made = {k: v for k, v in obj.items() if k not in {"status", "apiVersion"}}
    return {**made, "metadata": {**meta, "annotations": notes}}


def _controller(obj: Json) -> str:
    owners = obj["metadata"].get("ownerReferences") or []
    return next((str(o["uid"]) for o in owners if o.get("controller")), "")


def _uid(obj: Json) -> str:
    return str(obj["metadata"]["uid"])


def _kinds(wire: Wire) -> Iterator[tuple[str, str, str]]:
    """Ask the API server what it lists in namespaces: (group/version, kind, plural)."""
    groups: Sequence[Json] = wire.get("/apis")["groups"]
    versions = ["v1", *(group["preferredVersion"]["groupVersion"] for group in groups)]
    for version in versions:
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        answer = wire.ask("GET", root)
        resources: list[Any] = answer.body["resources"] if answer.status == 200 else []
        for one in resources:
            if one["namespaced"] and "list" in one["verbs"] and "/" not in one["name"]:
                yield version, one["kind"], one["name"]
