"""expand-volume, tried on a claim that a running pod uses, with a stand-in for its driver."""

from collections.abc import Callable

from tiphys.service.conform.planner import Edit, Related
from tiphys.service.conform.readings import going, spec, status
from tiphys.service.conform.storage import bound_claim, has
from tiphys.service.conform.trial import Stage, Trial
from tiphys.service.conform.wire import Json, place, place_of

_DEPLOYMENT, _POD = ("apps/v1", "Deployment", "cache"), ("v1", "Pod")


def _build(stage: Stage) -> Json:
    return bound_claim(stage, "2Gi")


def _undriven(stage: Stage) -> Json:
    """Let nobody make it grow."""
    return bound_claim(stage, "2Gi", driver=False)


def _given_up(stage: Stage, target: Json) -> None:
    one = {"type": "ControllerResizeError", "status": "True", "message": "no space is left"}
    stage.wire.patch(f"{place_of(target)}/status", {"status": {"conditions": [one]}})


def _ask(stage: Stage, target: Json, size: str) -> None:
    body = {"spec": {"resources": {"requests": {"storage": size}}}}
    stage.wire.patch(place_of(target), body)
    has(stage, place_of(target), size)


def _raised_by_hand(stage: Stage, target: Json) -> None:
    _ask(stage, target, "4Gi")


def _class_closed(stage: Stage, target: Json) -> None:
    of = place("storage.k8s.io/v1", "StorageClass", "", target["spec"]["storageClassName"])
    stage.wire.patch(of, {"allowVolumeExpansion": False})


def _limit(stage: Stage, kind: str, spec: Json) -> str:
    meta = {"name": "tight", "namespace": stage.namespace}
    return place_of(
        stage.wire.create({"apiVersion": "v1", "kind": kind, "metadata": meta, "spec": spec})
    )


def _quota(stage: Stage, name: str) -> None:
    path = _limit(stage, "ResourceQuota", {"hard": {name: "2560Mi"}})

    def used() -> object:
        return (stage.wire.get(path).get("status") or {}).get("used")

    stage.world.until("it is counted", used)


def _quota_of_all(stage: Stage, target: Json) -> None:
    del target
    _quota(stage, "requests.storage")


def _quota_of_class(stage: Stage, target: Json) -> None:
    of = target["spec"]["storageClassName"]
    _quota(stage, f"{of}.storageclass.storage.k8s.io/requests.storage")


def _range(stage: Stage, target: Json) -> None:
    del target
    most = {"type": "PersistentVolumeClaim", "max": {"storage": "2560Mi"}}
    _limit(stage, "LimitRange", {"limits": [most]})


def _unused(stage: Stage, target: Json) -> None:
    del target
    stage.wire.patch(stage.place(*_DEPLOYMENT), {"spec": {"replicas": 0}})
    stage.world.until("nobody uses it", lambda: not stage.objects(*_POD))


def _under_way(stage: Stage, target: Json) -> None:
    one = {"type": "FileSystemResizePending", "status": "True", "message": "waiting for its node"}
    stage.wire.patch(f"{place_of(target)}/status", {"status": {"conditions": [one]}})


def _owned(stage: Stage, target: Json) -> None:
    meta = {"name": "operator", "namespace": stage.namespace}
    made = stage.wire.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta})
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "operator", "controller": True}
    owner |= {"uid": made["metadata"]["uid"]}
    stage.wire.patch(place_of(target), {"metadata": {"ownerReferences": [owner]}})


def _going(stage: Stage, target: Json) -> None:
    """Its end waits for the pod that uses it."""
    stage.wire.delete(place_of(target))


def _sized(size: str) -> Edit:
    """Let it ask for so much, and have it."""

    def edit(target: Json, related: Related) -> None:
        del related
        target["spec"]["resources"] = {"requests": {"storage": size}}
        target["status"]["capacity"] = {"storage": size}

    return edit


def _resized(kind: str) -> Edit:
    """Let its condition say how an expansion fares."""
    return status(conditions=[{"type": kind, "status": "True"}])


def _staged(stage: str) -> Edit:
    return status(allocatedResourceStatuses={"storage": stage})


def _classless(target: Json, related: Related) -> None:
    del target
    related["StorageClass"] = []


def _users(change: Callable[[Json], object]) -> Edit:
    """Change every pod that was read."""

    def edit(target: Json, related: Related) -> None:
        del target
        for pod in related["Pod"]:
            change(pod)

    return edit


def _made_by(kind: str, above: str = "") -> Edit:
    """Let its pod be of another kind's, and that of one above."""

    def owned(one: Json, by: str) -> None:
        owner = {"kind": by, "name": "cache", "uid": by, "controller": True}
        one["metadata"]["ownerReferences"] = [owner]

    def edit(target: Json, related: Related) -> None:
        del target
        maker: Json = {"metadata": {"name": "cache", "uid": kind}}
        if above:
            owned(maker, above)
        related["StatefulSet"] = [maker]
        for pod in related["Pod"]:
            owned(pod, kind)

    return edit


def _volumes(pod: Json) -> None:
    pod["spec"]["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": "another"}}]


def _ended(pod: Json) -> None:
    pod["status"]["phase"] = "Succeeded"


def _ending(pod: Json) -> None:
    pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"


TRIAL = Trial(
    action="expand-volume",
    build=_build,
    parameters={"percent": 150, "ceiling_gib": 100},
    violations={
        "somebody raised it": _raised_by_hand,
        "its class does not expand any more": _class_closed,
        "a quota has no room": _quota_of_all,
        "a quota of its class has no room": _quota_of_class,
        "a range allows less": _range,
        "no pod mounts it": _unused,
        "an expansion has not ended": _under_way,
        "an operator owns it": _owned,
        "the claim is being deleted": _going,
    },
    stuck=_undriven,
    given_up=_given_up,
    unplannable={
        "it is being deleted": going,
        "it is not bound": status(phase="Lost"),
        "it is a block device": spec(volumeMode="Block"),
        "its expansion goes on": _resized("Resizing"),
        "its expansion failed": _resized("ControllerResizeError"),
        "its node cannot grow it": _staged("NodeResizeInfeasible"),
        "it has less than it asks for": status(capacity={"storage": "1Gi"}),
        "it has no class": spec(storageClassName=None),
        "its class is gone": _classless,
        "its pod uses another claim": _users(_volumes),
        "its pod has ended": _users(_ended),
        "its pod is about to end": _users(_ending),
        "an operator made its pod": _made_by("Cache"),
        "an operator made its pod's StatefulSet": _made_by("StatefulSet", "Cache"),
        "the ceiling leaves too little": _sized("95Gi"),
        "it is too small to grow by whole MiB": _sized("1Mi"),
    },
    plannable={
        "a StatefulSet made its pod": _made_by("StatefulSet"),
        "a Job made its pod": _made_by("Job"),
        "the ceiling leaves enough": _sized("90Gi"),
        "a failure is over": status(
            conditions=[{"type": "ControllerResizeError", "status": "False"}]
        ),
    },
    meddle=_raised_by_hand,
)
