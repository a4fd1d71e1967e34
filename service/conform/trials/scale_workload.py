"""scale-workload, tried on a Deployment that has room to grow."""

from tiphys.service.conform.planner import Edit, Related
from tiphys.service.conform.readings import ROLLING, spec
from tiphys.service.conform.trial import Stage, Trial
from tiphys.service.conform.wire import Json, place_of
from tiphys.service.conform.workloads import container, running, settled, template

_ACTION = "scale-workload"


def _build(stage: Stage) -> Json:
    return _of("Deployment", stage)


def _stateful(stage: Stage) -> Json:
    return _of("StatefulSet", stage)


def _of(kind: str, stage: Stage) -> Json:
    return running(stage.world, stage.namespace, kind, template("cart", container(stage.world)))


def _scaled_by_hand(stage: Stage, target: Json) -> None:
    stage.wire.patch(place_of(target), {"spec": {"replicas": 1}}, fieldManager="kubectl-edit")
    settled(stage.world, place_of(target))


def _autoscaled(stage: Stage, target: Json) -> None:
    named = {"apiVersion": "apps/v1", "kind": "Deployment", "name": target["metadata"]["name"]}
    stage.wire.create(
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "cart", "namespace": stage.namespace},
            "spec": {"scaleTargetRef": named, "minReplicas": 1, "maxReplicas": 5},
        }
    )


def _rolling_out(stage: Stage, target: Json) -> None:
    pods = template("cart", container(stage.world, "not-ready", RELEASE="2"))
    stage.wire.patch(place_of(target), {"spec": {"template": pods}})


def _full(stage: Stage, target: Json) -> None:
    del target
    stage.full(2)


def _there(target: Json, related: Related) -> None:
    del related
    target["spec"]["replicas"] = 3
    target["status"] |= {"replicas": 3, "readyReplicas": 3, "updatedReplicas": 3}


def _scaler(**other: str) -> Edit:
    def edit(target: Json, related: Related) -> None:
        named = {"apiVersion": "apps/v1", "kind": "Deployment", "name": target["metadata"]["name"]}
        one = {"metadata": {"name": "cart"}, "spec": {"scaleTargetRef": {**named, **other}}}
        related["HorizontalPodAutoscaler"] = [one]

    return edit


TRIAL = Trial(
    action=_ACTION,
    build=_build,
    parameters={"replicas": 3},
    also={"it is a StatefulSet": _stateful},
    violations={
        "somebody scaled it": _scaled_by_hand,
        "an autoscaler owns it": _autoscaled,
        "a rollout is under way": _rolling_out,
    },
    unplannable={
        **ROLLING,
        "it has as many already": _there,
        "an autoscaler owns it": _scaler(),
    },
    plannable={
        "it is at rest": spec(paused=True),
        "an autoscaler owns another": _scaler(name="another"),
        "an autoscaler owns a StatefulSet of its name": _scaler(kind="StatefulSet"),
        "an autoscaler owns another group's of its name": _scaler(apiVersion="other/v1"),
    },
    spoil=_full,
    meddle=_scaled_by_hand,
)
