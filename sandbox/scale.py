"""The `scale` subresource: an object's replicas seen as autoscaling/v1 Scale."""

from tiphys.sandbox.resources import Obj


def scale_of(obj: Obj) -> Obj:
    """Give the Scale of an object that has replicas."""
    meta = obj["metadata"]
    labels = obj["spec"].get("selector", {}).get("matchLabels", {})
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: meta[key] for key in kept if key in meta},
        "spec": {"replicas": obj["spec"].get("replicas", 0)},
        "status": {
            "replicas": obj.get("status", {}).get("replicas", 0),
            "selector": ",".join(f"{key}={value}" for key, value in sorted(labels.items())),
        },
    }
