"""update-config, tried on a Deployment that takes one key of a ConfigMap into its environment."""

from typing import Any

from tiphys.service.conform.planner import Edit, Related
from tiphys.service.conform.readings import OBSTACLES
from tiphys.service.conform.trial import Build, Stage, Trial
from tiphys.service.conform.wire import Json, place_of
from tiphys.service.conform.workloads import container, deployment, running, settled, template

_VALUES = "values.tiphys.io/pool-size"
_ENV = {"configMapKeyRef": {"name": "fares", "key": "pool-size"}}


def _config(stage: Stage) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "fares",
            "namespace": stage.namespace,
            "labels": {"tiphys.io/heal": "enabled"},
            "annotations": {_VALUES: "20\n30\n40\n"},
        },
        "data": {"pool-size": "20", "currency": "EUR"},
    }


def _pods(stage: Stage, app: str = "cart", **variables: str) -> Json:
    first = container(stage.world, **variables)
    first["env"].append({"name": "POOL_SIZE", "valueFrom": _ENV})
    return template(app, first)


def _build(stage: Stage) -> Json:
    return _of("Deployment")(stage)


def _of(kind: str) -> Build:
    def build(stage: Stage) -> Json:
        stage.wire.create(_config(stage))
        return running(stage.world, stage.namespace, kind, _pods(stage))

    return build


def _merge(stage: Stage, body: dict[str, Any]) -> None:
    stage.wire.patch(stage.place("v1", "ConfigMap", "fares"), body)


def _set_by_hand(stage: Stage, target: Json) -> None:
    del target
    _merge(stage, {"data": {"pool-size": "30"}})


def _removed(stage: Stage, target: Json) -> None:
    del target
    _merge(stage, {"data": {"pool-size": None}})


def _replaced(stage: Stage, target: Json) -> None:
    del target
    stage.wire.delete(stage.place("v1", "ConfigMap", "fares"))
    stage.wire.create(_config(stage))


def _immutable(stage: Stage, target: Json) -> None:
    del target
    _merge(stage, {"immutable": True})


def _opted_out(stage: Stage, target: Json) -> None:
    del target
    _merge(stage, {"metadata": {"labels": {"tiphys.io/heal": "disabled"}}})


def _value_unlisted(stage: Stage, target: Json) -> None:
    del target
    _merge(stage, {"metadata": {"annotations": {_VALUES: "20\n30"}}})


def _present_unlisted(stage: Stage, target: Json) -> None:
    del target
    _merge(stage, {"metadata": {"annotations": {_VALUES: "40"}}})


def _shared(stage: Stage, target: Json) -> None:
    del target
    stage.wire.create(deployment(stage.namespace, _pods(stage, "till"), 0))


def _shared_by_a_pod(stage: Stage, target: Json) -> None:
    del target
    pods = _pods(stage, "lone")
    meta = {"name": "lone", "namespace": stage.namespace, **pods["metadata"]}
    stage.wire.create({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": pods["spec"]})


def _anothers(stage: Stage, target: Json) -> None:
    del target
    _merge(stage, {"metadata": {"annotations": {"tiphys.io/run": f"{'b' * 40}.act"}}})


def _released(stage: Stage, target: Json) -> None:
    stage.wire.patch(place_of(target), {"spec": {"template": _pods(stage, RELEASE="2")}})
    settled(stage.world, place_of(target))


def _paused(stage: Stage, target: Json) -> None:
    stage.wire.patch(place_of(target), {"spec": {"paused": True}})


def _full(stage: Stage, target: Json) -> None:
    del target
    stage.full(2)


def _takes(**values: object) -> Edit:
    """Let its pods take settings in another way."""

    def edit(target: Json, related: Related) -> None:
        del related
        pods = target["spec"]["template"]["spec"]
        [first] = pods["containers"]
        first["env"] = values.get("env", [])
        first["envFrom"] = values.get("envFrom", [])
        pods["volumes"] = values.get("volumes", [])

    return edit


def _variable(**reference: str) -> list[Json]:
    return [{"name": "POOL_SIZE", "valueFrom": {"configMapKeyRef": reference}}]


def _volume(**source: object) -> list[Json]:
    return [{"name": "settings", "configMap": {"name": "fares", **source}}]


def _projected(name: str) -> list[Json]:
    return [{"name": "settings", "projected": {"sources": [{"configMap": {"name": name}}]}}]


def _read(**values: Any) -> Edit:
    """Change the ConfigMap that was read; without anything, there is none."""

    def edit(target: Json, related: Related) -> None:
        del target
        related["ConfigMap"] = [{**one, **values} for one in related["ConfigMap"] if values]

    return edit


def _beside(kind: str, *place: str, **meta: object) -> Edit:
    """Let something else of a kind take of the ConfigMap, whose pods stand at that place."""

    def edit(target: Json, related: Related) -> None:
        found: Json = target["spec"]["template"]["spec"]
        for name in reversed(place):
            found = {name: found}
        related[kind] = [*related[kind], {"metadata": {"name": "till", "uid": "till"}, **found}]
        related[kind][-1] |= meta

    return edit


_JOBS = ("spec", "template", "spec")
_OVER = {"conditions": [{"type": "Complete", "status": "True"}]}

TRIAL = Trial(
    action="update-config",
    build=_build,
    parameters={"configmap": "fares", "key": "pool-size", "value": "40"},
    also={"it is a StatefulSet": _of("StatefulSet"), "it is a DaemonSet": _of("DaemonSet")},
    violations={
        "somebody set the key": _set_by_hand,
        "the key is gone": _removed,
        "another ConfigMap of that name": _replaced,
        "the ConfigMap is immutable": _immutable,
        "the ConfigMap opted out": _opted_out,
        "its owner does not list the value": _value_unlisted,
        "its owner does not list the present value": _present_unlisted,
        "another workload takes of it": _shared,
        "a pod of nobody's takes of it": _shared_by_a_pod,
        "another run has not finished with it": _anothers,
        "a release came": _released,
        "the rollout is paused": _paused,
    },
    unplannable={
        **OBSTACLES,
        "there is no ConfigMap of that name": _read(),
        "the ConfigMap is immutable": _read(immutable=True),
        "it has no such key": _read(data={"currency": "EUR"}),
        "it has that value already": _read(data={"pool-size": "40"}),
        "its owner does not list the present value": _read(data={"pool-size": "50"}),
        "its pods take nothing of it": _takes(),
        "its pods take another key of it": _takes(env=_variable(name="fares", key="currency")),
        "its pods take that key of another": _takes(env=_variable(name="tolls", key="pool-size")),
        "its pods mount another key of it": _takes(volumes=_volume(items=[{"key": "currency"}])),
        "its pods mount another": _takes(volumes=_projected("tolls")),
        "a CronJob takes of it": _beside("CronJob", "spec", "jobTemplate", *_JOBS),
        "a Job takes of it": _beside("Job", *_JOBS),
        "a pod of nobody's takes of it": _beside("Pod", "spec"),
    },
    plannable={
        "its pods take all of it": _takes(envFrom=[{"configMapRef": {"name": "fares"}}]),
        "its pods mount all of it": _takes(volumes=_volume()),
        "its pods mount it with others": _takes(volumes=_projected("fares")),
        "its pods mount that key of it": _takes(volumes=_volume(items=[{"key": "pool-size"}])),
        "a Job that has ended took of it": _beside("Job", *_JOBS, status=_OVER),
        "a pod that has ended took of it": _beside("Pod", "spec", status={"phase": "Failed"}),
    },
    spoil=_full,
    meddle=_set_by_hand,
)
