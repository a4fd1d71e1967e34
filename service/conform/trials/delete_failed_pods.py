"""delete-failed-pods, tried on a Deployment that has replaced its evicted pods."""

from collections.abc import Callable

from tiphys.service.conform.nodes import evicted
from tiphys.service.conform.planner import Edit, Related
from tiphys.service.conform.readings import status, unseen
from tiphys.service.conform.trial import Stage, Trial
from tiphys.service.conform.wire import Json, place_of
from tiphys.service.conform.workloads import NOT_READY, container, deployment, settled, template

_POD = ("v1", "Pod")


def _build(stage: Stage) -> Json:
    pods = template("cart", container(stage.world))
    path = place_of(stage.wire.create(deployment(stage.namespace, pods, 2)))
    settled(stage.world, path)
    evicted(stage.world, stage.namespace, 2)
    return settled(stage.world, path)


def _ended(stage: Stage) -> list[Json]:
    return [p for p in stage.objects(*_POD) if p["status"].get("phase") == "Failed"]


def _cleared(stage: Stage, target: Json) -> None:
    del target
    for pod in _ended(stage):
        stage.wire.delete(place_of(pod), force=True)


def _ill(stage: Stage, target: Json) -> None:
    pods = template("cart", container(stage.world, NOT_READY))
    stage.wire.patch(place_of(target), {"spec": {"template": pods}})


def _orphaned(stage: Stage, target: Json) -> None:
    """Its ReplicaSet and its pods outlive it."""
    options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Orphan"}
    stage.wire.want("DELETE", place_of(target), options)
    stage.world.until("it is gone", lambda: stage.wire.find(place_of(target)) is None)


def _pods(change: Callable[[Json], object]) -> Edit:
    """Change every ended pod that was read."""

    def edit(target: Json, related: Related) -> None:
        del target
        for pod in related["Pod"]:
            if pod["status"].get("phase") == "Failed":
                change(pod)

    return edit


def _owned(**values: object) -> Edit:
    return _pods(lambda pod: pod["metadata"]["ownerReferences"][0].update(values))


def _many(target: Json, related: Related) -> None:
    del target
    ended = [pod for pod in related["Pod"] if pod["status"].get("phase") == "Failed"]
    related["Pod"] += ended * 50


def _sets(target: Json, related: Related) -> None:
    del target
    related["ReplicaSet"][0]["metadata"]["ownerReferences"][0]["uid"] = "another"


_GOING = {"deletionTimestamp": "2026-01-01T00:00:00Z"}

TRIAL = Trial(
    action="delete-failed-pods",
    build=_build,
    violations={
        "the pods are gone": _cleared,
        "the Deployment is not whole": _ill,
        "the Deployment is gone, its pods are not": _orphaned,
    },
    unplannable={
        "the Deployment is not whole": status(readyReplicas=0),
        "its controller has not seen the newest change": unseen,
        "its pods live": _pods(lambda pod: pod["status"].update(phase="Running")),
        "its pods failed by themselves": _pods(lambda pod: pod["status"].update(reason="Error")),
        "its pods are being deleted": _pods(lambda pod: pod["metadata"].update(_GOING)),
        "nobody controls its pods": _owned(controller=False),
        "another kind controls its pods": _owned(kind="StatefulSet"),
        "another of that name controls its pods": _owned(uid="another"),
        "its ReplicaSet is another's": _sets,
        "they are too many": _many,
    },
)
