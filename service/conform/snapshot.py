"""What stands in a namespace, in a form that two looks can be compared by.

Left out is what nobody set: status, versions, and what controllers keep for themselves.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from tiphys.service.conform.wire import Json, Wire
from tiphys.workflow_templates.mark import ANNOTATION
from tiphys.workflow_templates.pointers import differences

_OWN = {("", "Event"), ("events.k8s.io", "Event"), ("discovery.k8s.io", "EndpointSlice")}
"""Kinds that come and go by themselves; our own Events are looked at where they matter."""
_META = ("resourceVersion", "generation", "managedFields", "creationTimestamp", "selfLink")
_NOTES = (
    "deployment.kubernetes.io/revision",
    "deprecated.daemonset.template.generation",
    "node.alpha.kubernetes.io/ttl",
)
STAGE = "tiphys.io/stage"
"""The label of nodes that were made for a namespace: its name."""
_CLUSTER_MADE = {("ConfigMap", "kube-root-ca.crt"), ("ServiceAccount", "default")}
PROP = "tiphys.io/conform-prop"
"""A label of what the kit itself puts up and changes."""
Key = tuple[str, str]
"""Kind and name."""


@dataclass(frozen=True)
class Snapshot:
    """Every object of a namespace, and the nodes of its stage, by kind and name."""

    objects: Mapping[Key, Json]

    @property
    def ending(self) -> bool:
        """Whether something is about to go."""
        return any("deletionTimestamp" in one["metadata"] for one in self.objects.values())

    def roots(self) -> "Snapshot":
        """Leave out what a controller made from something else that is here."""
        return Snapshot({k: o for k, o in self.objects.items() if not _controller(o)})


def take(wire: Wire, namespace: str) -> Snapshot:
    """Read every kind of object that the API server lists in namespaces."""
    found: dict[Key, Json] = {}
    for group_version, kind, plural in _listed(wire):
        if (group_version.rpartition("/")[0], kind) in _OWN:
            continue
        root = f"/apis/{group_version}" if "/" in group_version else f"/api/{group_version}"
        for one in wire.items(f"{root}/namespaces/{namespace}/{plural}"):
            name = one["metadata"]["name"]
            labels = one["metadata"].get("labels") or {}
            if (kind, name) not in _CLUSTER_MADE and PROP not in labels:
                found[kind, name] = _canonical({"kind": kind, **one})
    for one in wire.items("/api/v1/nodes", labelSelector=f"{STAGE}={namespace}"):
        found["Node", one["metadata"]["name"]] = _node({"kind": "Node", **one})
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


def gone(before: Snapshot, after: Snapshot) -> set[Key]:
    """Say what is no longer there, even if another has its name."""
    uids = {_uid(one) for one in after.objects.values()}
    return {key for key, one in before.objects.items() if _uid(one) not in uids}


def _canonical(obj: Json) -> Json:
    meta = {k: v for k, v in obj["metadata"].items() if k not in _META}
    notes = {k: v for k, v in (meta.get("annotations") or {}).items() if k not in _NOTES}
    notes.pop(ANNOTATION, None)
    made = {k: v for k, v in obj.items() if k not in {"status", "apiVersion"}}
    return {**made, "metadata": {**meta, "annotations": notes}}


def _node(obj: Json) -> Json:
    """Leave out the taints that controllers keep, such as that of a node that is closed."""
    taints = obj["spec"].get("taints") or []
    kept = [one for one in taints if not one["key"].startswith("node.kubernetes.io/")]
    return _canonical({**obj, "spec": {**obj["spec"], "taints": kept}})


def _controller(obj: Json) -> str:
    owners = obj["metadata"].get("ownerReferences") or []
    return next((str(o["uid"]) for o in owners if o.get("controller")), "")


def _uid(obj: Json) -> str:
    return str(obj["metadata"]["uid"])


def _listed(wire: Wire) -> Sequence[tuple[str, str, str]]:
    """Ask once in a while: definitions come and go with the worlds that tests build."""
    found = _KNOWN.get(wire)
    if found is None or time.monotonic() - found[0] > _FRESH:
        found = _KNOWN[wire] = (time.monotonic(), [*_kinds(wire)])
    return found[1]


_FRESH = 5.0
"""Seconds."""
_KNOWN: WeakKeyDictionary[Wire, tuple[float, Sequence[tuple[str, str, str]]]] = WeakKeyDictionary()


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
