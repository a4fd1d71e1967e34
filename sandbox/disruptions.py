"""Pod disruption budgets, and evictions that respect them.

https://kubernetes.io/docs/concepts/scheduling-eviction/api-eviction/
"""

import math

from tiphys.sandbox.api_error import ApiError
from tiphys.sandbox.resources import Obj
from tiphys.sandbox.selectors import selects
from tiphys.sandbox.store import Store


def is_ready(pod: Obj) -> bool:
    """Whether the pod's Ready condition is true."""
    conditions = pod.get("status", {}).get("conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def amount(value: int | str, whole: int, *, up: bool) -> int:
    """Resolve a count or a percentage of `whole`, rounded up or down."""
    if isinstance(value, int):
        return value
    share = int(value.rstrip("%")) * whole / 100
    return math.ceil(share) if up else math.floor(share)


def budget_status(store: Store, budget: Obj) -> Obj:
    """Compute a PodDisruptionBudget's status from the pods of this moment."""
    spec, meta = budget["spec"], budget["metadata"]
    pods = [
        pod
        for pod in store.list("Pod", meta["namespace"])
        if selects(spec.get("selector"), pod["metadata"].get("labels") or {})
    ]
    expected = _expected(store, pods)
    if "maxUnavailable" in spec:
        desired = max(0, expected - amount(spec["maxUnavailable"], expected, up=True))
    else:
        desired = amount(spec.get("minAvailable", 1), expected, up=True)
    healthy = sum(is_ready(p) for p in pods if "deletionTimestamp" not in p["metadata"])
    return {
        "observedGeneration": meta.get("generation", 1),
        "expectedPods": expected,
        "desiredHealthy": desired,
        "currentHealthy": healthy,
        "disruptionsAllowed": max(0, healthy - desired),
    }


def _expected(store: Store, pods: list[Obj]) -> int:
    """Count the pods there should be: what their controllers ask for."""
    count = 0
    owners: set[str] = set()
    for pod in pods:
        owner = next(iter(pod["metadata"].get("ownerReferences") or []), None)
        found = owner and store.find(owner["kind"], pod["metadata"]["namespace"], owner["name"])
        if not owner or not found:
            count += 1
        elif owner["uid"] not in owners:
            owners.add(owner["uid"])
            count += found["spec"].get("replicas", 1)
    return count


def evict(store: Store, pod: Obj, eviction: Obj, *, user: str, dry_run: bool) -> None:
    """Delete a pod if its budget allows. Raises `ApiError` 400, 409, 429 or 500."""
    meta = pod["metadata"]
    named = eviction.get("metadata") or {}
    if named.get("name", meta["name"]) != meta["name"]:
        raise ApiError(400, "BadRequest", f"name in URL does not match name in Eviction: {named}")
    # Preconditions anywhere else in the body are not looked at; the real server does the same.
    options = eviction.get("deleteOptions") or {}
    wanted = options.get("preconditions") or {}
    labels = meta.get("labels") or {}
    if pod.get("status", {}).get("phase") == "Running":
        budgets = [
            budget
            for budget in store.list("PodDisruptionBudget", meta["namespace"])
            if selects(budget["spec"].get("selector"), labels)
        ]
        if len(budgets) > 1:
            why = "This pod has more than one PodDisruptionBudget, which is not supported."
            raise ApiError(500, "InternalError", why)
        for budget in budgets:
            _respect(budget["metadata"]["name"], budget_status(store, budget), is_ready(pod))
    store.delete(
        "Pod",
        meta["namespace"],
        meta["name"],
        uid=wanted.get("uid") or "",
        resource_version=wanted.get("resourceVersion") or "",
        user=user,
        dry_run=dry_run or bool(options.get("dryRun")),
        grace=options.get("gracePeriodSeconds"),
    )


def _respect(name: str, status: Obj, ready: bool) -> None:
    desired, healthy = status["desiredHealthy"], status["currentHealthy"]
    # An unhealthy pod may go while the others are healthy enough (IfHealthyBudget).
    if (ready and status["disruptionsAllowed"] > 0) or (not ready and healthy >= desired > 0):
        return
    why = f"The disruption budget {name} needs {desired} healthy pods and has {healthy} currently"
    raise ApiError(
        429,
        "TooManyRequests",
        "Cannot evict pod as it would violate the pod's disruption budget.",
        {"causes": [{"reason": "DisruptionBudget", "message": why}], "retryAfterSeconds": 10},
    )
