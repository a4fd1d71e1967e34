"""restart-pod, tried on one of two pods of a Deployment."""

from tiphys.service.conform.trial import Stage, Trial
from tiphys.service.conform.wire import Json, place_of
from tiphys.service.conform.workloads import container, deployment, settled, template


def _build(stage: Stage) -> Json:
    pods = template("cart", container(stage.world))
    settled(stage.world, place_of(stage.wire.create(deployment(stage.namespace, pods, 2))))
    return stage.objects("v1", "Pod")[0]


def _deleted(stage: Stage, target: Json) -> None:
    stage.wire.delete(place_of(target), force=True)
    stage.world.until("it is gone", lambda: stage.wire.find(place_of(target)) is None)
    stage.world.until("another is there", lambda: len(stage.objects("v1", "Pod")) == 2)


def _orphaned(stage: Stage, target: Json) -> None:
    """Its labels no longer match: its owner lets go of it, and would not make it anew."""
    stage.wire.patch(place_of(target), {"metadata": {"labels": {"app": "nobodys"}}})

    def owners() -> object:
        return stage.wire.get(place_of(target))["metadata"].get("ownerReferences")

    stage.world.until("nobody owns it", owners, lambda seen: not seen)


def _full(stage: Stage, target: Json) -> None:
    """Its successor is not let in."""
    del target
    stage.full(1)


TRIAL = Trial(
    action="restart-pod",
    build=_build,
    violations={
        "the pod is gone": _deleted,
        "nothing would recreate it": _orphaned,
    },
    spoil=_full,
)
