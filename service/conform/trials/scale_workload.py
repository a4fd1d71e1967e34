"""scale-workload, tried on a Deployment that has room to grow."""

from tiphys.service.conform.trial import Stage, Trial
from tiphys.service.conform.wire import Json, place_of
from tiphys.service.conform.workloads import container, deployment, settled, template

_ACTION = "scale-workload"


def _build(stage: Stage) -> Json:
    pods = template("cart", container(stage.world))
    return settled(stage.world, place_of(stage.wire.create(deployment(stage.namespace, pods, 2))))


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


TRIAL = Trial(
    action=_ACTION,
    build=_build,
    parameters={"replicas": 3},
    violations={
        "somebody scaled it": _scaled_by_hand,
        "an autoscaler owns it": _autoscaled,
        "a rollout is under way": _rolling_out,
    },
    spoil=_full,
    meddle=_scaled_by_hand,
)
