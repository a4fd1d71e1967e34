"""Attacks with the token of a pod of scale-gpu-pool, on pools and on their machines."""

from collections.abc import Iterator
from dataclasses import replace

import against_nodes
from asking import JSON_PATCH, Json, Request, place
from attack import Attack, delete, merge, put
from garrison import OTHER_RUN, RUN, SHOP

DIGEST, OTHER = RUN.removeprefix("tiphys-"), OTHER_RUN.removeprefix("tiphys-")
MARK = "/metadata/annotations/tiphys.io~1run"
FIRST = "/metadata/annotations/cluster.x-k8s.io~1delete-machine"
VERSION = "cluster.x-k8s.io/v1beta2"
WHO = "act-scale-gpu-pool"


def pools(namespace: str) -> list[Json]:
    """Give a pool and a machine of nobody's."""
    spec = {
        "clusterName": "here",
        "bootstrap": {"dataSecretName": "none"},
        "infrastructureRef": {
            "apiGroup": "infrastructure.cluster.x-k8s.io",
            "kind": "StandInMachineTemplate",
            "name": "gpus",
        },
    }
    labels = {"pool": "gpus"}
    template = {"metadata": {"labels": labels}, "spec": spec}
    return [
        {
            "apiVersion": VERSION,
            "kind": "MachineDeployment",
            "metadata": {"name": "gpus", "namespace": namespace},
            "spec": {
                "clusterName": "here",
                "replicas": 4,
                "paused": True,
                "selector": {"matchLabels": labels},
                "template": template,
            },
        },
        {
            "apiVersion": VERSION,
            "kind": "Machine",
            "metadata": {
                "name": "gpu-1",
                "namespace": namespace,
                "labels": labels,
                "annotations": {"team": "shop"},
            },
            "spec": spec,
        },
    ]


def resize(replicas: int = 5, manager: str = RUN, namespace: str = SHOP) -> Request:
    """Put a Scale as scale-gpu-pool does."""
    version = f"@@VERSION-OF-POOL-IN-{namespace}@@"
    metadata = {"name": "gpus", "namespace": namespace, "resourceVersion": version}
    body = {
        "apiVersion": "autoscaling/v1",
        "kind": "Scale",
        "metadata": metadata,
        "spec": {"replicas": replicas},
    }
    query = {"fieldManager": manager} if manager else {}
    return put(place(VERSION, "machinedeployments", namespace, "gpus") + "/scale", body, **query)


def let_go(*operations: Json, mark: str = f"{DIGEST}.act", namespace: str = SHOP) -> Request:
    """Patch a machine as scale-gpu-pool does, with more or other operations."""
    steps: list[Json] = [*(operations or ({"op": "add", "path": FIRST, "value": "tiphys"},))]
    if mark:
        steps.append({"op": "add", "path": MARK, "value": mark})
    return Request("PATCH", place(VERSION, "machines", namespace, "gpu-1"), steps, JSON_PATCH)


def attacks() -> Iterator[Attack]:
    """Give all of them."""
    yield Attack(
        "without its field manager",
        WHO,
        tuple(
            resize(manager=manager)
            for manager in ("", "x", OTHER_RUN, f"{OTHER_RUN}.undone", f"{RUN}.kept")
        ),
    )
    yield Attack(
        "more machines at a time than it may",
        WHO,
        (resize(7), resize(1), resize(100), resize(7, f"{RUN}.undone")),
    )
    pool = place(VERSION, "machinedeployments", SHOP, "gpus")
    yield Attack(
        "the pool itself",
        WHO,
        (
            merge(pool, {"spec": {"replicas": 5}}),
            merge(pool, {"metadata": {"annotations": {"tiphys.io/pool-max-size": "99"}}}),
            delete(pool),
        ),
    )
    machine = place(VERSION, "machines", SHOP, "gpu-1")
    yield Attack(
        "what a machine is",
        WHO,
        (
            let_go({"op": "add", "path": "/spec/providerID", "value": "cloud://x"}),
            let_go({"op": "add", "path": "/metadata/labels/x", "value": "y"}),
            let_go({"op": "add", "path": "/metadata/finalizers", "value": ["x.example/y"]}),
            let_go({"op": "remove", "path": "/metadata/annotations/team"}),
            let_go({"op": "add", "path": "/metadata/annotations/x", "value": "y"}),
        ),
    )
    yield Attack(
        "a machine without its mark, or with another's",
        WHO,
        (let_go(mark=""), let_go(mark=f"{OTHER}.act"), let_go(mark=f"{DIGEST}.x")),
    )
    yield Attack("a machine deleted", WHO, (delete(machine),))
    [(_, _, closings), *_] = against_nodes.sections()
    for one in closings:
        if one.who == against_nodes.WHO:
            yield replace(one, who=WHO)


def rightly() -> Iterator[Attack]:
    """Give what must go through."""
    sizes = [(5, RUN), (6, RUN), (3, RUN), (2, f"{RUN}.undone"), (4, RUN)]
    yield Attack("a size", WHO, tuple(resize(number, manager) for number, manager in sizes))
    endings = ("act", "undone")
    yield Attack(
        "a machine that goes", WHO, tuple(let_go(mark=f"{DIGEST}.{end}") for end in endings)
    )
