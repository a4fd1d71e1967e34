"""The simulated cluster's objects, with the API server's rules for reading and writing them.

Synchronous and without I/O. Objects go in and come out as copies. A subscriber is called after
each change, in order, and must not write from inside its callback.
"""

import random
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypedDict, Unpack
from uuid import uuid4

from tiphys.sandbox.api_error import ApiError, about, conflict, invalid, not_found
from tiphys.sandbox.managed_fields import Writer, track
from tiphys.sandbox.patches import PatchType, apply
from tiphys.sandbox.resources import BY_KIND, Obj, Resource, clone, complaint, set_defaults
from tiphys.sandbox.scale import scale_of
from tiphys.sandbox.selectors import matcher

__all__ = ["AdmissionRequest", "ApiError", "Change", "Delete", "PatchType", "Store", "Write"]

_STALE = "the object has been modified; please apply your changes to the latest version"
_SERVER_OWNED = (
    "uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds",
    "managedFields", "resourceVersion", "name", "namespace",
)  # fmt: skip
_LETTERS = "bcdfghjklmnpqrstvwxz2456789"


class Write(TypedDict, total=False):
    """Who writes, and through what."""

    manager: str
    """The field manager."""
    user: str
    subresource: str
    dry_run: bool


class Delete(TypedDict, total=False):
    """Preconditions and circumstances of a deletion."""

    uid: str
    resource_version: str
    user: str
    dry_run: bool
    orphan: bool
    """Leave what it owns, without an owner."""
    grace: int | None
    """Seconds that a pod gets to end; 0 is by force, None is what the pod itself asks for."""


@dataclass(frozen=True)
class AdmissionRequest:
    """What an admission rule sees; it raises `ApiError` to refuse."""

    operation: str
    """CREATE, UPDATE or DELETE."""
    kind: str
    obj: Obj
    old: Obj | None
    user: str
    subresource: str


@dataclass(frozen=True)
class Change:
    """One event of the watch history."""

    version: int
    type: str
    """ADDED, MODIFIED or DELETED."""
    obj: Obj
    old: Obj | None


LAG: ContextVar[float] = ContextVar("LAG", default=0.0)
"""Seconds by which times are written too early, in tasks that give a world its past."""


def timestamp() -> str:
    """Give the present time as Kubernetes writes it."""
    now = datetime.now(UTC) - timedelta(seconds=LAG.get())
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")


class Store:
    """All objects of one simulated cluster."""

    def __init__(self, history: int = 8192) -> None:
        self.admission: list[Callable[[AdmissionRequest], None]] = []
        self.version = 100
        """The newest resourceVersion; one counter for all kinds."""
        self._objects: dict[str, dict[tuple[str, str], Obj]] = {kind: {} for kind in BY_KIND}
        self._history: deque[Change] = deque(maxlen=history)
        self._forgotten = self.version
        self._subscribers: list[Callable[[str, Obj], None]] = []

    # --- reading --------------------------------------------------------------------------------

    def get(self, kind: str, namespace: str, name: str) -> Obj:
        """Read one object. Raises `ApiError` 404."""
        return clone(self._find(_resource(kind), namespace, name))

    def find(self, kind: str, namespace: str, name: str) -> Obj | None:
        """Read one object, or None."""
        found = self._objects[kind].get((namespace if BY_KIND[kind].namespaced else "", name))
        return clone(found) if found else None

    def list(
        self, kind: str, namespace: str = "", selector: str = "", field_selector: str = ""
    ) -> list[Obj]:
        """List by namespace and name; an empty namespace means all. Raises `ApiError` 400."""
        matches = matcher(selector, field_selector)
        items = sorted(self._objects[_resource(kind).kind].items())
        return [
            clone(obj)
            for (space, _), obj in items
            if (not namespace or space in {"", namespace}) and matches(obj)
        ]

    def seen(self, kind: str) -> Sequence[Obj]:
        """Give every object of a kind as it is kept, to be looked at and never changed."""
        return tuple(self._objects[kind].values())

    def owned_by(self, kind: str, uid: str) -> Sequence[Obj]:
        """List the objects of a kind that name this uid as their controller, by name."""
        items = sorted(self._objects[kind].items())
        return [clone(obj) for _, obj in items if _controller(obj) == uid]

    def since(self, kind: str, version: int) -> Sequence[Change]:
        """Give the changes of a kind after a resourceVersion. Raises `ApiError` 410."""
        if version < self._forgotten:
            why = f"too old resource version: {version} ({self._forgotten})"
            raise ApiError(410, "Expired", why)
        newer: list[Change] = []
        for change in reversed(self._history):
            if change.version <= version:
                break
            if change.obj["kind"] == kind:
                newer.append(change)
        return newer[::-1]

    def compact(self) -> None:
        """Forget the watch history: a watch from an earlier version gets 410."""
        self._history.clear()
        self._forgotten = self.version

    def subscribe(self, callback: Callable[[str, Obj], None]) -> Callable[[], None]:
        """Call back with (ADDED | MODIFIED | DELETED, object) on each change; gives the undo."""
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    # --- writing --------------------------------------------------------------------------------

    def create(self, obj: Obj, **how: Unpack[Write]) -> Obj:
        """Create. Raises `ApiError` 404 (no such namespace), 409 (exists), 422 (no name)."""
        resource = _resource(obj.get("kind", ""))
        new = clone(obj)
        meta = new["metadata"] = new.get("metadata") or {}
        if not meta.get("name") and meta.get("generateName"):
            meta["name"] = meta["generateName"] + "".join(random.choices(_LETTERS, k=5))
        if not meta.get("name"):
            raise invalid(resource, "", "metadata.name: Required value: name is required")
        if resource.namespaced:
            space = meta.setdefault("namespace", "default")
            self._find(BY_KIND["Namespace"], "", space)
        else:
            meta.pop("namespace", None)
        name = meta["name"]
        if _key(new) in self._objects[resource.kind]:
            why = f'{resource.qualified} "{name}" already exists'
            raise ApiError(409, "AlreadyExists", why, about(resource, name))
        new["apiVersion"] = resource.api_version
        for owned in ("generation", "deletionTimestamp", "managedFields"):
            meta.pop(owned, None)
        meta |= {"uid": str(uuid4()), "creationTimestamp": timestamp()}
        if resource.has_generation:
            meta["generation"] = 1
        return self._commit(resource, None, new, how)

    def update(self, obj: Obj, **how: Unpack[Write]) -> Obj:
        """Replace, or write one subresource. Raises `ApiError` 404, 409 or 422."""
        meta = obj["metadata"]
        resource = _resource(obj["kind"])
        old = self._find(resource, meta.get("namespace", ""), meta["name"])
        return self._replace(resource, old, obj, how)

    def update_scale(self, kind: str, scale: Obj, **how: Unpack[Write]) -> Obj:
        """Set the replicas from a Scale with its uid and resourceVersion; gives the new Scale."""
        meta = scale["metadata"]
        resource = _resource(kind)
        old = self._find(resource, meta.get("namespace", ""), meta["name"])
        return scale_of(self._replace(resource, old, scale, {**how, "subresource": "scale"}))

    def patch(
        self,
        kind: str,
        namespace: str,
        name: str,
        body: Any,
        patch_type: str = PatchType.MERGE,
        **how: Unpack[Write],
    ) -> Obj:
        """Patch the object or a subresource; gives the whole object, or the Scale."""
        resource = _resource(kind)
        old = self._find(resource, namespace, name)
        if how.get("subresource") != "scale":
            return self._replace(resource, old, apply(old, body, PatchType(patch_type)), how)
        scale = apply(scale_of(old), body, PatchType(patch_type))
        if resource.custom:
            # A custom resource's /scale heeds a uid in PUT, not in a patch.
            scale["metadata"]["uid"] = old["metadata"]["uid"]
        return scale_of(self._replace(resource, old, scale, how))

    def delete(self, kind: str, namespace: str, name: str, **how: Unpack[Delete]) -> Obj:
        """Delete it and what it owns, or mark it where finalizers wait. Raises `ApiError`."""
        resource = _resource(kind)
        old = self._find(resource, namespace, name)
        meta = old["metadata"]
        for asked, key in (
            (how.get("uid"), "uid"),
            (how.get("resource_version"), "resourceVersion"),
        ):
            if asked and asked != meta[key]:
                why = f"Precondition failed: {key} is {meta[key]}, not {asked}"
                raise conflict(resource, name, why)
        self._admit(
            AdmissionRequest("DELETE", kind, clone(old), clone(old), how.get("user", ""), "")
        )
        if how.get("dry_run"):
            return clone(old)
        if how.get("orphan"):
            self._release(meta["uid"])
        grace = _grace(old, how.get("grace"))
        if not meta.get("finalizers") and not grace:
            return self._remove(old)
        if grace >= meta.get("deletionGracePeriodSeconds", grace + 1):
            return clone(old)
        new = clone(old)
        new["metadata"].setdefault("deletionTimestamp", timestamp())
        new["metadata"]["deletionGracePeriodSeconds"] = grace
        return self._publish("MODIFIED", new, old)

    # --- inside ---------------------------------------------------------------------------------

    def _find(self, resource: Resource, namespace: str, name: str) -> Obj:
        found = self._objects[resource.kind].get((namespace if resource.namespaced else "", name))
        if found is None:
            raise not_found(resource, name)
        return found

    def _admit(self, request: AdmissionRequest) -> None:
        for rule in self.admission:
            rule(request)

    def _replace(self, resource: Resource, old: Obj, body: Obj, how: Write) -> Obj:
        """Write `body` over `old`, or the part of it that the subresource covers."""
        subresource = how.get("subresource", "")
        name = old["metadata"]["name"]
        if subresource and subresource not in resource.subresources:
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        meta = body["metadata"]
        if meta.get("uid") and meta["uid"] != old["metadata"]["uid"]:
            why = f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: "
            raise conflict(resource, name, why + old["metadata"]["uid"])
        if meta.get("resourceVersion", "") not in {"", "0", old["metadata"]["resourceVersion"]}:
            raise conflict(resource, name, _STALE)
        if subresource:
            new = clone(old)
            if subresource == "scale":
                replicas = body.get("spec", {}).get("replicas", 0)
                if not isinstance(replicas, int) or replicas < 0:
                    raise invalid(resource, name, f"spec.replicas: Invalid value: {replicas}")
                new["spec"]["replicas"] = replicas
            else:
                new["status"] = clone(body.get("status", {}))
                if resource.kind == "Deployment" and "annotations" in meta:
                    # So that its controller notes the revision without a new generation.
                    new["metadata"]["annotations"] = clone(meta["annotations"])
        else:
            new = clone(body)
            if "status" in resource.subresources:
                new.pop("status", None)
                new |= {"status": clone(old["status"])} if "status" in old else {}
            kept = {
                key: clone(old["metadata"][key]) for key in _SERVER_OWNED if key in old["metadata"]
            }
            rest = {
                key: value for key, value in new["metadata"].items() if key not in _SERVER_OWNED
            }
            new |= {"apiVersion": old["apiVersion"], "kind": old["kind"], "metadata": rest | kept}
        return self._commit(resource, old, new, how)

    def _commit(self, resource: Resource, old: Obj | None, new: Obj, how: Write) -> Obj:
        set_defaults(new)
        if why := complaint(new):
            raise invalid(resource, new["metadata"]["name"], why)
        subresource = how.get("subresource", "")
        operation = "UPDATE" if old else "CREATE"
        user = how.get("user", "")
        self._admit(
            AdmissionRequest(operation, resource.kind, clone(new), clone(old), user, subresource)
        )
        if old is not None and new == old:
            return clone(old)
        counted = resource.has_generation and subresource != "status"
        if old is not None and counted and resource.specified(old) != resource.specified(new):
            new["metadata"]["generation"] = old["metadata"]["generation"] + 1
        writer = Writer(how.get("manager") or "sandbox", resource.api_version, subresource)
        new["metadata"]["managedFields"] = track(old, new, writer, timestamp())
        if how.get("dry_run"):
            return clone(new)
        ending = new["metadata"]
        if "deletionTimestamp" in ending and not (
            ending.get("finalizers") or ending.get("deletionGracePeriodSeconds")
        ):
            return self._remove(new)
        return self._publish("MODIFIED" if old else "ADDED", new, old)

    def _publish(self, event: str, new: Obj, old: Obj | None) -> Obj:
        self.version += 1
        new["metadata"]["resourceVersion"] = str(self.version)
        objects = self._objects[new["kind"]]
        if event == "DELETED":
            del objects[_key(new)]
        else:
            objects[_key(new)] = new
        if len(self._history) == self._history.maxlen:
            self._forgotten = self._history[0].version
        self._history.append(Change(self.version, event, new, old))
        for callback in tuple(self._subscribers):
            callback(event, clone(new))
        return clone(new)

    def _remove(self, obj: Obj) -> Obj:
        gone = self._publish("DELETED", clone(obj), obj)
        uid = obj["metadata"]["uid"]
        inside = obj["metadata"]["name"] if obj["kind"] == "Namespace" else None
        for objects in self._objects.values():
            for key, other in tuple(objects.items()):
                owners = other["metadata"].get("ownerReferences") or []
                orphaned = any(owner["uid"] == uid for owner in owners) and not any(
                    self._exists(owner["uid"]) for owner in owners
                )
                if (orphaned or (inside and key[0] == inside)) and key in objects:
                    self.delete(other["kind"], *key)
        return gone

    def _release(self, uid: str) -> None:
        """Take the owner `uid` off everything it owns."""
        for objects in self._objects.values():
            for old in tuple(objects.values()):
                owners = old["metadata"].get("ownerReferences") or []
                left = [clone(owner) for owner in owners if owner["uid"] != uid]
                if left != owners:
                    new = clone(old)
                    new["metadata"]["ownerReferences"] = left
                    self._publish("MODIFIED", new, old)

    def _exists(self, uid: str) -> bool:
        return any(
            obj["metadata"]["uid"] == uid
            for objects in self._objects.values()
            for obj in objects.values()
        )


def _resource(kind: str) -> Resource:
    if kind not in BY_KIND:
        raise ApiError(404, "NotFound", "the server could not find the requested resource")
    return BY_KIND[kind]


def _key(obj: Obj) -> tuple[str, str]:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def _grace(obj: Obj, asked: int | None) -> int:
    """Give the seconds until the object may go: a pod on a node waits for its kubelet.

    https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination
    """
    ended = obj.get("status", {}).get("phase") in {"Succeeded", "Failed"}
    if obj["kind"] != "Pod" or ended or not obj["spec"].get("nodeName"):
        return 0
    return int(obj["spec"].get("terminationGracePeriodSeconds", 30) if asked is None else asked)


def _controller(obj: Obj) -> str | None:
    owners = obj["metadata"].get("ownerReferences") or []
    return next((owner["uid"] for owner in owners if owner.get("controller")), None)
