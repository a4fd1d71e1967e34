"""Watching a kind: changes after a resourceVersion, bookmarks, and 410 when it is too old.

https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from tiphys.sandbox.api_error import ApiError
from tiphys.sandbox.resources import Obj, Resource
from tiphys.sandbox.store import Change, Store

BOOKMARK_SECONDS = 10.0


@dataclass(frozen=True)
class Watch:
    """What a client asked to follow."""

    resource: Resource
    namespace: str
    matches: Callable[[Obj], bool]
    version: str
    """Where to begin; empty or 0: with everything there is."""
    seconds: float
    bookmarks: bool

    def covers(self, obj: Obj | None) -> bool:
        """Whether the object is among the watched."""
        if obj is None:
            return False
        return self.namespace in {"", obj["metadata"].get("namespace", "")} and self.matches(obj)


def _line(event: str, obj: Obj) -> bytes:
    return json.dumps({"type": event, "object": obj}, separators=(",", ":")).encode() + b"\n"


def _told(watch: Watch, change: Change) -> bytes:
    """Put a change as the watcher sees it: an object may enter or leave its selector."""
    before = watch.covers(change.old)
    after = change.type != "DELETED" and watch.covers(change.obj)
    if after:
        return _line("MODIFIED" if before else "ADDED", change.obj)
    return _line("DELETED", change.obj) if before else b""


async def follow(store: Store, watch: Watch) -> AsyncIterator[bytes]:
    """Yield the events as lines of JSON until the time is over."""
    wake = asyncio.Event()
    unsubscribe = store.subscribe(
        lambda _, obj: wake.set() if obj["kind"] == watch.resource.kind else None
    )
    loop = asyncio.get_running_loop()
    end = loop.time() + watch.seconds
    try:
        at = store.version
        if watch.version in {"", "0"}:
            for obj in store.list(watch.resource.kind, watch.namespace):
                if watch.covers(obj):
                    yield _line("ADDED", obj)
        else:
            at = int(watch.version)
        while True:
            wake.clear()
            newest = store.version
            for change in store.since(watch.resource.kind, at):
                if line := _told(watch, change):
                    yield line
            at = max(at, newest)
            left = end - loop.time()
            try:
                async with asyncio.timeout(min(max(left, 0), BOOKMARK_SECONDS)):
                    await wake.wait()
            except TimeoutError:
                if watch.bookmarks:
                    yield _bookmark(watch.resource, at)
                if loop.time() >= end:
                    return
    except ApiError as refusal:
        yield _line("ERROR", refusal.status())
    finally:
        unsubscribe()


def _bookmark(resource: Resource, version: int) -> bytes:
    meta = {"resourceVersion": str(version), "creationTimestamp": None}
    return _line(
        "BOOKMARK",
        {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": meta},
    )
