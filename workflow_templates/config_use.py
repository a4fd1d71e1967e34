"""Who in a namespace takes settings from a ConfigMap, by pod templates and pods. Pure.

https://kubernetes.io/docs/concepts/configuration/configmap/#using-configmaps
What a program reads through the API by itself cannot be seen here.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tiphys.policies.model import Object
from tiphys.workflow_templates.pointers import at
from tiphys.workflow_templates.scheduled_runs import end_of
from tiphys.workflow_templates.workloads import controller_of

_TEMPLATES = {
    "CronJob": "/spec/jobTemplate/spec/template/spec",
    "DaemonSet": "/spec/template/spec",
    "Deployment": "/spec/template/spec",
    "Job": "/spec/template/spec",
    "StatefulSet": "/spec/template/spec",
}
"""Where each kind keeps its pods' spec."""
EVERY_KEY = "*"


def keys_of(pod_spec: Any, name: str) -> set[str]:
    """Give the keys of a ConfigMap that a pod takes; `*` where it takes them all."""
    found: set[str] = set()
    for container in _containers(pod_spec):
        for variable in container.get("env") or ():
            if at(variable, "/valueFrom/configMapKeyRef/name") == name:
                found.add(str(at(variable, "/valueFrom/configMapKeyRef/key")))
        if any(at(s, "/configMapRef/name") == name for s in container.get("envFrom") or ()):
            found.add(EVERY_KEY)
    for volume in at(pod_spec, "/volumes") or ():
        sources = [s.get("configMap") for s in at(volume, "/projected/sources") or ()]
        for source in (volume.get("configMap"), *sources):
            if source and source.get("name") == name:
                found |= {str(one["key"]) for one in source.get("items") or ()} or {EVERY_KEY}
    return found


def takes(workload: Object, name: str, key: str) -> bool:
    """Say whether a workload's pods take a key of a ConfigMap."""
    return bool(keys_of(at(workload, "/spec/template/spec"), name) & {key, EVERY_KEY})


def others(target: Object, related: Mapping[str, Sequence[Object]], name: str) -> list[str]:
    """Name everything else in the namespace that takes anything of a ConfigMap.

    Pods are asked too, since kinds that nobody knows here make pods as well.
    """
    uid = at(target, "/metadata/uid")
    found: list[str] = []
    for kind, place in _TEMPLATES.items():
        for one in related.get(kind, ()):
            ended = kind == "Job" and bool(end_of(one))
            if at(one, "/metadata/uid") != uid and not ended and keys_of(at(one, place), name):
                found.append(f"{kind} {at(one, '/metadata/name')}")
    own = {uid, *(at(r, "/metadata/uid") for r in related.get("ReplicaSet", ()) if _of(r, uid))}
    for pod in related.get("Pod", ()):
        ended = at(pod, "/status/phase") in {"Failed", "Succeeded"}
        theirs = not ended and not any(_of(pod, one) for one in own)
        if theirs and keys_of(at(pod, "/spec"), name):
            found.append(f"Pod {at(pod, '/metadata/name')}")
    return found


def _of(obj: Object, uid: Any) -> bool:
    owner = controller_of(obj)
    return owner is not None and owner.get("uid") == uid


def _containers(pod_spec: Any) -> Iterator[Any]:
    for field in ("initContainers", "containers", "ephemeralContainers"):
        yield from at(pod_spec, f"/{field}") or ()
