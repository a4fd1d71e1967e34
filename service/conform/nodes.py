"""Nodes without a kubelet, whose pods are what they are said to be.

On a real cluster a kubelet writes back what somebody else says of its pods. So what its end looks
like afterwards, whatever the reason was, is laid down on a node that has none.
"""

import secrets
from collections.abc import Mapping

from tiphys.service.conform.wire import Json, place, place_of
from tiphys.service.conform.worlds import World

BARE = {"sandbox.tiphys.io/kubelet": "none"}
"""What tells the simulated cluster that a node has none; a real one needs no telling."""
_ALL = [{"operator": "Exists"}]
_TAINT = {"key": "tiphys.io/no-kubelet", "effect": "NoSchedule"}


def bare_node(world: World, labels: Mapping[str, str] | None = None) -> Json:
    """Make a node on which nothing runs and to which nothing is scheduled; it goes in the end."""
    name = f"bare-{secrets.token_hex(4)}"
    node: Json = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {**(labels or {})}, "annotations": BARE},
        "spec": {"taints": [_TAINT]},
    }
    made = world.wire.create(node)
    world.swept.append(place("v1", "Node", "", name))
    return made


def evicted(world: World, namespace: str, count: int) -> list[Json]:
    """Add pods that their node has evicted to those of the only ReplicaSet of a namespace."""
    [owner] = world.wire.items(place("apps/v1", "ReplicaSet", namespace))
    owner |= {"apiVersion": "apps/v1", "kind": "ReplicaSet"}
    node = bare_node(world)["metadata"]["name"]
    status = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory."}
    return [_ended(world, owner, node, status) for _ in range(count)]


def _ended(world: World, owner: Json, node: str, status: Json) -> Json:
    """Add one; it comes into its owner's hands when it has ended, who would count it before."""
    meta, template = owner["metadata"], owner["spec"]["template"]
    spec = {"containers": template["spec"]["containers"], "nodeName": node}
    bare: Json = {"apiVersion": "v1", "kind": "Pod"}
    named = {"namespace": meta["namespace"], "name": f"ended-{secrets.token_hex(4)}"}
    made = world.wire.create({**bare, "metadata": named, "spec": {**spec, "tolerations": _ALL}})
    path = place_of({**bare, **made})
    world.wire.patch(f"{path}/status", {"status": status})
    reference = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "controller": True}
    reference |= {"name": meta["name"], "uid": meta["uid"]}
    labels = template["metadata"]["labels"]
    adopted = {"metadata": {"labels": labels, "ownerReferences": [reference]}}
    return {**bare, **world.wire.patch(path, adopted)}
