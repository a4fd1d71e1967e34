"""rollout-undo, tried on a Deployment with two releases."""

from tiphys.service.conform.trial import Stage, Trial
from tiphys.service.conform.wire import Json, place_of
from tiphys.service.conform.workloads import container, deployment, settled, template


def _release(stage: Stage, path: str, number: str) -> None:
    pods = template("cart", container(stage.world, RELEASE=number))
    stage.wire.patch(path, {"spec": {"template": pods}})


def _build(stage: Stage) -> Json:
    pods = template("cart", container(stage.world, RELEASE="1"))
    path = place_of(stage.wire.create(deployment(stage.namespace, pods, 2)))
    settled(stage.world, path)
    _release(stage, path, "2")
    return settled(stage.world, path)


def _released_again(stage: Stage, target: Json) -> None:
    _release(stage, place_of(target), "3")
    settled(stage.world, place_of(target))


def _paused(stage: Stage, target: Json) -> None:
    stage.wire.patch(place_of(target), {"spec": {"paused": True}})


def _history_lost(stage: Stage, target: Json) -> None:
    path = place_of(target)
    stage.wire.patch(path, {"spec": {"revisionHistoryLimit": 0}})

    def left() -> list[Json]:
        return stage.objects("apps/v1", "ReplicaSet")

    stage.world.until("the earlier revision is forgotten", left, lambda sets: len(sets) == 1)


def _full(stage: Stage, target: Json) -> None:
    del target
    stage.full(2)


def _edited(stage: Stage, target: Json) -> None:
    _release(stage, place_of(target), "4")


TRIAL = Trial(
    action="rollout-undo",
    build=_build,
    violations={
        "another release came": _released_again,
        "the rollout is paused": _paused,
        "the earlier revision is gone": _history_lost,
    },
    spoil=_full,
    meddle=_edited,
)
