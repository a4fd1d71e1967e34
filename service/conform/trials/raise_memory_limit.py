"""raise-memory-limit, tried on a Deployment with guaranteed memory."""

from tiphys.service.conform.trial import Stage, Trial
from tiphys.service.conform.wire import Json, place_of
from tiphys.service.conform.workloads import container, deployment, settled, template


def _pods(stage: Stage, mebibytes: int) -> Json:
    first, memory = container(stage.world), {"memory": f"{mebibytes}Mi"}
    first["resources"] = {"limits": memory, "requests": memory}
    return template("cart", first)


def _build(stage: Stage) -> Json:
    body = deployment(stage.namespace, _pods(stage, 64), 2)
    return settled(stage.world, place_of(stage.wire.create(body)))


def _raised_by_hand(stage: Stage, target: Json) -> None:
    stage.wire.patch(place_of(target), {"spec": {"template": _pods(stage, 80)}})
    settled(stage.world, place_of(target))


def _paused(stage: Stage, target: Json) -> None:
    stage.wire.patch(place_of(target), {"spec": {"paused": True}})


def _quota(stage: Stage, target: Json) -> None:
    """Room for what runs, and not for a rollout of 96 MiB each."""
    del target
    meta = {"name": "tight", "namespace": stage.namespace}
    body: Json = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta}
    path = place_of(stage.wire.create({**body, "spec": {"hard": {"limits.memory": "287Mi"}}}))

    def used() -> object:
        return (stage.wire.get(path).get("status") or {}).get("used")

    stage.world.until("it is counted", used)


def _range(stage: Stage, target: Json) -> None:
    del target
    meta = {"name": "tight", "namespace": stage.namespace}
    most = {"limits": [{"type": "Container", "max": {"memory": "80Mi"}}]}
    stage.wire.create({"apiVersion": "v1", "kind": "LimitRange", "metadata": meta, "spec": most})


def _full(stage: Stage, target: Json) -> None:
    del target
    stage.full(2)


TRIAL = Trial(
    action="raise-memory-limit",
    build=_build,
    parameters={"container": "main", "limit_mib": 96},
    violations={
        "somebody raised it": _raised_by_hand,
        "the rollout is paused": _paused,
        "a quota has no room": _quota,
        "a range allows less": _range,
    },
    spoil=_full,
    meddle=_raised_by_hand,
)
