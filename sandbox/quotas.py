"""ResourceQuotas on pods, their memory and claims' storage, counted as the API server does.

https://kubernetes.io/docs/concepts/policy/resource-quotas/
"""

from collections.abc import Sequence
from fractions import Fraction

from tiphys.sandbox import volumes
from tiphys.sandbox.resources import BY_KIND, Obj
from tiphys.sandbox.store import AdmissionRequest, ApiError, Store
from tiphys.workflow_templates.memory_room import pod_memory
from tiphys.workflow_templates.quantities import amount

_PODS = ("pods", "count/pods")
_MEMORY = {"limits.memory": "limits", "requests.memory": "requests", "memory": "requests"}


def install(store: Store) -> None:
    """Make the store refuse pods and claims that a quota has no room for."""

    def judge(request: AdmissionRequest) -> None:
        pod = (request.operation, request.kind) == ("CREATE", "Pod")
        claim = request.kind == "PersistentVolumeClaim" and request.operation != "DELETE"
        if not (pod or claim) or request.subresource:
            return
        meta = request.obj["metadata"]
        for quota in store.list("ResourceQuota", meta["namespace"]):
            there = [
                one
                for one in _counted(store, meta["namespace"])
                if (one["kind"], one["metadata"]["name"]) != (request.kind, meta["name"])
            ]
            for name, most in (quota.get("spec", {}).get("hard") or {}).items():
                asked, used = _use(name, [request.obj]), _use(name, there)
                before = _use(name, [request.old] if request.old else [])
                if asked is None or used is None or before is None or asked <= before:
                    continue
                if asked + used > amount(most):
                    seen = (name, asked - before, used + before, most)
                    _refuse(request, quota["metadata"]["name"], seen)

    store.admission.append(judge)


def quota_status(store: Store, quota: Obj) -> Obj:
    """Compute a ResourceQuota's status from the pods and claims of this moment."""
    hard = quota.get("spec", {}).get("hard") or {}
    there = _counted(store, quota["metadata"]["namespace"])
    used = {name: use for name in hard if (use := _use(name, there)) is not None}
    return {"hard": hard, "used": {name: _written(use) for name, use in used.items()}}


def _counted(store: Store, namespace: str) -> list[Obj]:
    """Give what counts: claims, and the pods that have not ended."""
    ended = {"Succeeded", "Failed"}
    pods = store.list("Pod", namespace)
    alive = [pod for pod in pods if pod.get("status", {}).get("phase") not in ended]
    return [*alive, *store.list("PersistentVolumeClaim", namespace)]


def _use(name: str, objects: Sequence[Obj]) -> Fraction | None:
    """Give what pods and claims use of a resource; None where it is not counted here."""
    pods = [one for one in objects if one["kind"] == "Pod"]
    if name in _PODS:
        return Fraction(len(pods))
    if name in _MEMORY:
        return sum((pod_memory(pod["spec"], _MEMORY[name]) for pod in pods), Fraction(0))
    return volumes.use(name, [one for one in objects if one["kind"] != "Pod"])


def _written(size: Fraction) -> str:
    return str(int(size))


def _refuse(
    request: AdmissionRequest, quota: str, seen: tuple[str, Fraction, Fraction, object]
) -> None:
    what, asked, used, most = seen
    why = (
        f"exceeded quota: {quota}, requested: {what}={_written(asked)}, "
        f"used: {what}={_written(used)}, limited: {what}={most}"
    )
    name = request.obj["metadata"]["name"]
    plural = BY_KIND[request.kind].plural
    raise ApiError(403, "Forbidden", f'{plural} "{name}" is forbidden: {why}')
