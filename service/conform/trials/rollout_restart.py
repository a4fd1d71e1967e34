"""rollout-restart, tried on a healthy Deployment."""

from tiphys.service.conform.readings import OBSTACLES, daemons
from tiphys.service.conform.trial import Build, Stage, Trial
from tiphys.service.conform.wire import Json, place_of
from tiphys.service.conform.workloads import container, running, settled, template


def _build(stage: Stage) -> Json:
    return _of("Deployment")(stage)


def _of(kind: str) -> Build:
    def build(stage: Stage) -> Json:
        return running(stage.world, stage.namespace, kind, template("cart", container(stage.world)))

    return build


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
    also={"it is a StatefulSet": _of("StatefulSet"), "it is a DaemonSet": _of("DaemonSet")},
    violations={
        "a release came": _released,
        "the rollout is paused": _paused,
        "it has no replicas": _at_rest,
    },
    unplannable={
        **OBSTACLES,
        "a DaemonSet is in a rollout": daemons(2, 1),
        "a DaemonSet has no node": daemons(0, 0),
    },
    plannable={"it is a DaemonSet": daemons(2, 2)},
    spoil=_full,
    meddle=_restarted_by_hand,
)
