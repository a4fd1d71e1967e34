"""An object's state in plain words: what a person would read in `kubectl describe`.

Only listed fields are taken over, texts are redacted, and no environment, argument, annotation or
label is among them: those may hold secrets.
"""

from collections.abc import Sequence
from typing import Final

from tiphys.agents.objects import dig, items, mapping, name_of, text
from tiphys.agents.redact import redact_json
from tiphys.policies.model import Json, Object

_SPEC: Final = (
    "replicas", "paused", "minReadySeconds", "progressDeadlineSeconds", "revisionHistoryLimit",
    "nodeName", "restartPolicy", "priorityClassName", "terminationGracePeriodSeconds",
    "hostNetwork", "unschedulable", "serviceName", "podManagementPolicy", "storageClassName",
    "volumeMode", "accessModes", "completions", "parallelism", "backoffLimit", "suspend",
    "activeDeadlineSeconds", "schedule", "minReplicas", "maxReplicas",
)  # fmt: skip
_STATUS: Final = (
    "phase", "reason", "message", "replicas", "readyReplicas", "availableReplicas",
    "unavailableReplicas", "updatedReplicas", "currentReplicas", "desiredReplicas",
    "observedGeneration", "currentRevision", "updateRevision", "numberReady",
    "desiredNumberScheduled", "numberUnavailable", "active", "succeeded", "failed", "capacity",
    "allocatable", "qosClass",
)  # fmt: skip
_CONTAINER: Final = ("name", "image", "resources", "imagePullPolicy")
_PROBE: Final = (
    "initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold",
    "failureThreshold",
)  # fmt: skip


def described(thing: Object | None) -> tuple[Json, str]:
    """Give the record and the summary of an object; None: it does not exist."""
    if thing is None:
        return None, "it does not exist any more"
    spec, status = mapping(thing, "spec"), mapping(thing, "status")
    pod = spec if "containers" in spec else mapping(spec, "template", "spec")
    told: dict[str, Json] = {
        "generation": dig(thing, "metadata", "generation"),
        "created": dig(thing, "metadata", "creationTimestamp"),
        "spec": _some(spec, _SPEC),
        "status": _some(status, _STATUS),
        "conditions": [_condition(one) for one in items(status, "conditions")],
        "containers": [_container(one) for one in items(pod, "containers")],
        "init_containers": [_container(one) for one in items(pod, "initContainers")],
        "states": [_state(one) for one in items(status, "containerStatuses")],
        "taints": [_some(one, ("key", "effect")) for one in items(spec, "taints")],
    }
    kept: dict[str, Json] = {key: value for key, value in told.items() if value not in ([], {})}
    return redact_json(kept), f"{name_of(thing)}: {_told(items(status, 'conditions'))}"


def _some(value: Object, names: Sequence[str]) -> dict[str, Json]:
    return {name: value[name] for name in names if name in value}


def _condition(one: Object) -> Json:
    return _some(one, ("type", "status", "reason", "message", "lastTransitionTime"))


def _container(one: Object) -> Json:
    told = _some(one, _CONTAINER)
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        if found := mapping(one, probe):
            place = {"path": text(found, "httpGet", "path")} if "httpGet" in found else {}
            told[probe] = {**_some(found, _PROBE), **place}
    return told


def _state(one: Object) -> Json:
    return _some(one, ("name", "ready", "restartCount", "state", "lastState"))


def _told(conditions: Sequence[Object]) -> str:
    said = [f"{text(c, 'type')} is {text(c, 'status')}" for c in conditions[:6]]
    return ", ".join(said) or "it has no conditions"
