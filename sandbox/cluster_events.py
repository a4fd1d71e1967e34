"""Events: what `kubectl describe` shows under an object."""

import hashlib

from tiphys.sandbox.resources import Obj
from tiphys.sandbox.store import ApiError, Store, timestamp


def record(store: Store, obj: Obj, reason: str, message: str, *, warning: bool = False) -> None:
    """Record an Event about the object, or count the one that is there up."""
    meta = obj["metadata"]
    namespace = meta.get("namespace", "default")
    digest = hashlib.sha256(f"{meta['uid']}/{reason}/{message}".encode()).hexdigest()[:16]
    name = f"{meta['name']}.{digest}"
    now = timestamp()
    present = store.find("Event", namespace, name)
    component = {"Pod": "kubelet"}.get(obj["kind"], "controller-manager")
    component = "default-scheduler" if "chedul" in reason else component
    try:
        if present:
            counted = {"count": present["count"] + 1, "lastTimestamp": now}
            store.update({**present, **counted}, manager=component)
            return
        about = {
            key: meta[key] for key in ("name", "namespace", "uid", "resourceVersion") if key in meta
        }
        store.create(
            {
                "kind": "Event",
                "metadata": {"name": name, "namespace": namespace},
                "involvedObject": {"kind": obj["kind"], "apiVersion": obj["apiVersion"], **about},
                "type": "Warning" if warning else "Normal",
                "reason": reason,
                "message": message,
                "count": 1,
                "firstTimestamp": now,
                "lastTimestamp": now,
                "source": {"component": component},
                "reportingComponent": component,
            },
            manager=component,
        )
    except ApiError:
        # Its namespace is gone: nobody can ask for the Event any more.
        return
