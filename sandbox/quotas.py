"""ResourceQuotas on the number of pods and their memory, as the API server's admission counts them.

https://kubernetes.io/docs/concepts/policy/resource-quotas/
"""

from collections.abc import Iterable
from fractions import Fraction

from tiphys.sandbox.resources import Obj
from tiphys.sandbox.store import AdmissionRequest, ApiError, Store
from tiphys.workflow_templates.memory_room import pod_memory
from tiphys.workflow_templates.quantities import amount

_PODS = ("pods", "count/pods")
_MEMORY = {"limits.memory": "limits", "requests.memory": "requests", "memory": "requests"}


def install(store: Store) -> None:
    """Make the store refuse pods that a quota has no room for."""

    def judge(request: AdmissionRequest) -> None:
        if (request.operation, request.kind) != ("CREATE", "Pod"):
            return
        space = request.obj["metadata"]["namespace"]
        for quota in store.list("ResourceQuota", space):
            there = _counted(store, space)
            for name, most in (quota.get("spec", {}).get("hard") or {}).items():
                asked, used = _use(name, [request.obj]), _use(name, there)
                if asked is not None and used is not None and asked + used > amount(most):
                    _refuse(request, quota["metadata"]["name"], (name, asked, used, most))

    store.admission.append(judge)


def quota_status(store: Store, quota: Obj) -> Obj:
    """Compute a ResourceQuota's status from the pods of this moment."""
    hard = quota.get("spec", {}).get("hard") or {}
    pods = _counted(store, quota["metadata"]["namespace"])
    used = {name: use for name in hard if (use := _use(name, pods)) is not None}
    return {"hard": hard, "used": {name: _written(use) for name, use in used.items()}}


def _counted(store: Store, namespace: str) -> list[Obj]:
    """Give the pods that count: those that have not ended."""
    ended = {"Succeeded", "Failed"}
    pods = store.list("Pod", namespace)
    return [pod for pod in pods if pod.get("status", {}).get("phase") not in ended]


def _use(name: str, pods: Iterable[Obj]) -> Fraction | None:
    """Give what pods use of a resource; None where it is not counted here."""
    if name in _PODS:
        return Fraction(sum(1 for _ in pods))
    if name in _MEMORY:
        return sum((pod_memory(pod["spec"], _MEMORY[name]) for pod in pods), Fraction(0))
    return None


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
    raise ApiError(403, "Forbidden", f'pods "{name}" is forbidden: {why}')
