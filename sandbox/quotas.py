"""ResourceQuotas on the number of pods, as the API server's admission plugin counts them.

https://kubernetes.io/docs/concepts/policy/resource-quotas/#object-count-quota
"""

from tiphys.sandbox.store import AdmissionRequest, ApiError, Store

_COUNTED = ("pods", "count/pods")


def install(store: Store) -> None:
    """Make the store refuse pods that a quota has no room for."""

    def judge(request: AdmissionRequest) -> None:
        if (request.operation, request.kind) != ("CREATE", "Pod"):
            return
        space = request.obj["metadata"]["namespace"]
        for quota in store.list("ResourceQuota", space):
            hard = quota.get("spec", {}).get("hard") or {}
            limits = [int(hard[name]) for name in _COUNTED if name in hard]
            used = _used(store, space) if limits else 0
            if limits and used >= min(limits):
                _refuse(request, quota["metadata"]["name"], used, min(limits))

    store.admission.append(judge)


def _used(store: Store, namespace: str) -> int:
    pods = store.list("Pod", namespace)
    return sum(pod.get("status", {}).get("phase") not in {"Succeeded", "Failed"} for pod in pods)


def _refuse(request: AdmissionRequest, quota: str, used: int, limit: int) -> None:
    why = f"exceeded quota: {quota}, requested: pods=1, used: pods={used}, limited: pods={limit}"
    name = request.obj["metadata"]["name"]
    raise ApiError(403, "Forbidden", f'pods "{name}" is forbidden: {why}')
