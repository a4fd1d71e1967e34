"""Attacks with the token of a pod of replace-gpu-node, on machines and on nodes that are closed."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import against_nodes
from against_nodes import close
from asking import JSON_PATCH, Json, Request, place
from attack import Attack, Section, delete, merge
from garrison import ELSEWHERE, OTHER_RUN, RUN, SHOP
from outposts import CLOSED, THEIRS

VERSION = "cluster.x-k8s.io/v1beta2"
WHO = "act-replace-gpu-node"
OWNED, PAUSED, LEFT, HEADS = "owned", "paused", "left", "heads"
MACHINES = (OWNED, PAUSED, LEFT, HEADS)
NOBODYS = "gpu-1"
"""No MachineSet's: see `against_pools`."""
_NOTES = {PAUSED: {"cluster.x-k8s.io/paused": ""}, LEFT: {"tiphys.io/hands-off": "x"}}
_MARK = "/metadata/annotations/tiphys.io~1run"


_SPEC = {
    "clusterName": "here",
    "bootstrap": {"dataSecretName": "none"},
    "infrastructureRef": {
        "apiGroup": "infrastructure.cluster.x-k8s.io",
        "kind": "StandInMachineTemplate",
        "name": "gpus",
    },
}


def machine_set(namespace: str) -> Json:
    """Give the MachineSet that owns them: what has no owner is collected as garbage."""
    labels = {"set": "attacked"}
    return {
        "apiVersion": VERSION,
        "kind": "MachineSet",
        "metadata": {"name": "attacked", "namespace": namespace},
        "spec": {
            "clusterName": "here",
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": _SPEC},
        },
    }


def machines(namespace: str, uid: str) -> list[Json]:
    """Give machines of the MachineSet with this uid."""
    return [_machine(name, namespace, uid) for name in MACHINES]


def _machine(name: str, namespace: str, uid: str) -> Json:
    owner = {"apiVersion": VERSION, "kind": "MachineSet", "name": "attacked", "controller": True}
    owner["uid"] = uid
    return {
        "apiVersion": VERSION,
        "kind": "Machine",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"cluster.x-k8s.io/control-plane": ""} if name == HEADS else {},
            "annotations": _NOTES.get(name, {}),
            "ownerReferences": [owner],
        },
        "spec": _SPEC,
    }


def remove(name: str = OWNED, namespace: str = SHOP, **more: Any) -> Request:
    """Delete a machine as the action does, with other options."""
    options: Json = {
        "preconditions": {"uid": f"@@UID-OF-MACHINE-{name.upper()}-IN-{namespace}@@"},
        "propagationPolicy": "Background",
    } | more
    path = place(VERSION, "machines", namespace, name)
    return delete(path, **{k: v for k, v in options.items() if v is not None})


def take_over(node: str = THEIRS, mark: str = f"{RUN.removeprefix('tiphys-')}.act") -> Request:
    """Put the run's mark on a node that an earlier run has closed."""
    steps: list[Json] = [{"op": "add", "path": _MARK, "value": mark}]
    return Request("PATCH", place("v1", "nodes", name=node), steps, JSON_PATCH)


def rightly() -> Iterator[Attack]:
    """Give what must be let through."""
    yield Attack("a machine deleted by its uid", WHO, (remove(),))
    yield Attack("a node closed, and one taken over", WHO, (close(), take_over()))


def sections() -> list[Section]:
    """Give all of them."""
    return [("replace-gpu-node, beyond a machine that is made again", "", list(_attacks()))]


def _as_any_on_nodes() -> Iterator[Attack]:
    """Give what is refused to every action that closes nodes; this one may set its mark alone."""
    [(_, _, closings), (_, _, evictions), *_] = against_nodes.sections()
    for one in (*closings, *evictions):
        if one.who == against_nodes.WHO and one.title != "a mark alone":
            yield replace(one, who=WHO)


def _attacks() -> Iterator[Attack]:
    yield from _as_any_on_nodes()
    yield Attack("a machine by its name alone", WHO, (remove(preconditions=None),))
    yield Attack("a machine that is nobody's", WHO, (remove(NOBODYS),))
    yield Attack("a machine of the control plane", WHO, (remove(HEADS),))
    yield Attack("a machine that is to be left alone", WHO, (remove(PAUSED), remove(LEFT)))
    yield Attack("a machine where nobody opted in", WHO, (remove(namespace=ELSEWHERE),))
    path = place(VERSION, "machines", SHOP, OWNED)
    yield Attack(
        "a machine changed, its pool deleted",
        WHO,
        (
            merge(path, {"metadata": {"annotations": {"x": "y"}}}),
            merge(path, {"spec": {"providerID": "x://y"}}),
            delete(place(VERSION, "machinedeployments", SHOP, "gpus")),
        ),
    )
    other = f"{OTHER_RUN.removeprefix('tiphys-')}.act"
    yield Attack(
        "a node taken from a person, or for another run",
        WHO,
        (take_over(CLOSED), take_over(mark=other), take_over(mark="")),
    )
    for who in (f"{WHO}, unbound", "act-cordon-drain-node", "act-scale-gpu-pool", "launcher"):
        yield Attack("a machine deleted", who, (remove(),))
