"""Owner references of a scenario's objects, which cannot know what uids the server will give."""

from typing import Any

from tiphys.sandbox.resources import Obj, clone
from tiphys.sandbox.store import Store


def with_uids(store: Store, manifest: dict[str, Any]) -> Obj:
    """Give a copy whose owner references without a uid name the objects that are there."""
    found = clone(manifest)
    for owner in found["metadata"].get("ownerReferences") or []:
        if "uid" not in owner:
            namespace = found["metadata"].get("namespace", "")
            owner["uid"] = store.get(owner["kind"], namespace, owner["name"])["metadata"]["uid"]
    return found
