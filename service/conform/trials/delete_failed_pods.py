"""delete-failed-pods, tried on a Deployment that has replaced its evicted pods."""

from tiphys.service.conform.nodes import evicted
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


TRIAL = Trial(
    action="delete-failed-pods",
    build=_build,
    violations={
        "the pods are gone": _cleared,
        "the Deployment is not whole": _ill,
    },
)
