"""rollout-restart, tried on a healthy Deployment."""

from tiphys.service.conform.trial import Stage, Trial
from tiphys.service.conform.wire import Json, place_of
from tiphys.service.conform.workloads import container, deployment, settled, template


def _build(stage: Stage) -> Json:
    pods = template("cart", container(stage.world))
    return settled(stage.world, place_of(stage.wire.create(deployment(stage.namespace, pods, 2))))


def _released(stage: Stage, target: Json) -> None:
    pods = template("cart", container(stage.world, RELEASE="2"))
    stage.wire.patch(place_of(target), {"spec": {"template": pods}})
    settled(stage.world, place_of(target))


def _paused(stage: Stage, target: Json) -> None:
    stage.wire.patch(place_of(target), {"spec": {"paused": True}})


def _at_rest(stage: Stage, target: Json) -> None:
    stage.wire.patch(place_of(target), {"spec": {"replicas": 0}})
    settled(stage.world, place_of(target))


def _full(stage: Stage, target: Json) -> None:
    del target
    stage.full(2)


def _restarted_by_hand(stage: Stage, target: Json) -> None:
    notes = {"tiphys.io/restart": "by-hand"}
    body = {"spec": {"template": {"metadata": {"annotations": notes}}}}
    stage.wire.patch(place_of(target), body)


TRIAL = Trial(
    action="rollout-restart",
    build=_build,
    violations={
        "a release came": _released,
        "the rollout is paused": _paused,
        "it has no replicas": _at_rest,
    },
    spoil=_full,
    meddle=_restarted_by_hand,
)
