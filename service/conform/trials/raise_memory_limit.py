"""raise-memory-limit, tried on a Deployment with guaranteed memory."""

from tiphys.service.conform.planner import Edit, Related
from tiphys.service.conform.readings import OBSTACLES, spec
from tiphys.service.conform.trial import Stage, Trial
from tiphys.service.conform.wire import Json, place_of
from tiphys.service.conform.workloads import container, running, settled, template


def _pods(stage: Stage, mebibytes: int) -> Json:
    first, memory = container(stage.world), {"memory": f"{mebibytes}Mi"}
    first["resources"] = {"limits": memory, "requests": memory}
    return template("cart", first)


def _build(stage: Stage) -> Json:
    return running(stage.world, stage.namespace, "Deployment", _pods(stage, 64))


def _stateful(stage: Stage) -> Json:
    return running(stage.world, stage.namespace, "StatefulSet", _pods(stage, 64))


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


def _first(target: Json) -> Json:
    [first] = target["spec"]["template"]["spec"]["containers"]
    return first


def _limited(memory: str | None) -> Edit:
    """Let the container's limit be another, or none."""

    def edit(target: Json, related: Related) -> None:
        del related
        given = {"memory": memory}
        _first(target)["resources"] = {"limits": given, "requests": given} if memory else {}

    return edit


def _named(target: Json, related: Related) -> None:
    del related
    _first(target)["name"] = "another"


def _scaler(mode: str = "Auto", policy: str = "", **other: str) -> Edit:
    """Let there be a VerticalPodAutoscaler."""

    def edit(target: Json, related: Related) -> None:
        named = {"kind": "Deployment", "name": target["metadata"]["name"], **other}
        found: Json = {"targetRef": named, "updatePolicy": {"updateMode": mode}}
        if policy:
            found["resourcePolicy"] = {
                "containerPolicies": [{"containerName": "*", "mode": policy}]
            }
        related["VerticalPodAutoscaler"] = [{"metadata": {"name": "vpa"}, "spec": found}]

    return edit


def _quota_of(hard: str, used: str = "128Mi", then: Edit | None = None, **more: object) -> Edit:
    """Let there be a quota; then something else."""

    def edit(target: Json, related: Related) -> None:
        spec = {"hard": {"limits.memory": hard}, **more}
        counted = {"used": {"limits.memory": used}} if used else {}
        related["ResourceQuota"] = [{"metadata": {"name": "q"}, "spec": spec, "status": counted}]
        if then:
            then(target, related)

    return edit


_IN_PLACE = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}

TRIAL = Trial(
    action="raise-memory-limit",
    build=_build,
    parameters={"container": "main", "limit_mib": 96},
    also={"it is a StatefulSet": _stateful},
    violations={
        "somebody raised it": _raised_by_hand,
        "the rollout is paused": _paused,
        "a quota has no room": _quota,
        "a range allows less": _range,
    },
    unplannable={
        **OBSTACLES,
        "it has more already": _limited("128Mi"),
        "it is more than twice as much": _limited("32Mi"),
        "it has no limit": _limited(None),
        "it has no such container": _named,
        "an autoscaler owns its memory": _scaler(),
        "nobody has counted a quota": _quota_of("9Gi", ""),
        "a quota has no room for one more pod": _quota_of("192Mi"),
    },
    plannable={
        "an autoscaler owns another": _scaler(name="another"),
        "an autoscaler owns a StatefulSet of its name": _scaler(kind="StatefulSet"),
        "an autoscaler only recommends": _scaler(mode="Off"),
        "an autoscaler leaves its containers alone": _scaler(policy="Off"),
        "a quota is for pods that end": _quota_of("1Mi", scopes=["Terminating"]),
        "a quota has room where all end first": _quota_of(
            "192Mi", then=spec(strategy={"type": "Recreate"})
        ),
        "a quota has room where none is added": _quota_of("192Mi", then=spec(strategy=_IN_PLACE)),
        "a quota has room": _quota_of("288Mi"),
    },
    spoil=_full,
    meddle=_raised_by_hand,
)
