"""delete-failed-pods, tried on a Deployment that has replaced its evicted pods."""

from tiphys.service.conform.trial import Stage, Trial
from tiphys.service.conform.wire import Json, place_of
from tiphys.service.conform.workloads import NOT_READY, container, deployment, settled, template

_POD = ("v1", "Pod")


def _evict(stage: Stage, pod: Json) -> None:
    """End a pod as its kubelet does, which then never starts it again."""
    ready = [{"type": "Ready", "status": "False"}]
    status = {"phase": "Failed", "reason": "Evicted", "message": "low", "conditions": ready}
    stage.wire.patch(f"{place_of(pod)}/status", {"status": status})


def _ready(stage: Stage) -> int:
    alive = [p for p in stage.objects(*_POD) if p["status"].get("phase") == "Running"]
    told = [c for p in alive for c in p["status"]["conditions"] if c["type"] == "Ready"]
    return sum(c["status"] == "True" for c in told)


def _build(stage: Stage) -> Json:
    pods = template("cart", container(stage.world))
    path = place_of(stage.wire.create(deployment(stage.namespace, pods, 2)))
    settled(stage.world, path)
    for pod in stage.objects(*_POD):
        _evict(stage, pod)
    stage.world.until("they are replaced", lambda: len(stage.objects(*_POD)) >= 4)
    stage.world.until("the others are ready", lambda: _ready(stage) == 2)
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
