"""Whether a namespace lets a workload's pods have more memory, and who else sets it. Pure.

Invariant: what a quota or a range would refuse while all pods, and the surplus ones of a rollout,
are of the new size is refused here; a quota whose use is not known yet counts as full.
"""

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any, cast

from tiphys.policies.model import Object
from tiphys.workflow_templates.pointers import at
from tiphys.workflow_templates.quantities import amount, told
from tiphys.workflow_templates.rollouts import turnover

_QUOTAS = (
    ("limits.memory", "limits"), ("requests.memory", "requests"), ("memory", "requests"),
)  # fmt: skip
_ELSEWHERE = {"BestEffort", "Terminating"}
"""Scopes of quotas that never cover a workload's pods with a memory limit."""

Json = dict[str, Any]


def refusal(
    workload: Object, intended: Json, related: Mapping[str, Sequence[Object]]
) -> str | None:
    """Name the ResourceQuota or LimitRange that pods of the intended spec would break, or None."""
    for quota in related.get("ResourceQuota", ()):
        if why := _over(quota, workload, intended):
            return f"ResourceQuota {at(quota, '/metadata/name')} {why}"
    for limits in related.get("LimitRange", ()):
        if why := _beyond(limits, intended):
            return f"LimitRange {at(limits, '/metadata/name')} {why}"
    return None


def vertical_autoscaler(target: Object, container: str, scalers: Sequence[Object]) -> str | None:
    """Name the VerticalPodAutoscaler that sets this container's memory, or None.

    https://github.com/kubernetes/autoscaler/tree/master/vertical-pod-autoscaler/docs
    """
    for one in scalers:
        reference = at(one, "/spec/targetRef") or {}
        same_name = reference.get("name") == at(target, "/metadata/name")
        if not same_name or reference.get("kind") != target.get("kind"):
            continue
        policies = cast("list[Json]", at(one, "/spec/resourcePolicy/containerPolicies") or [])
        modes = {p.get("containerName"): p.get("mode") for p in policies}
        off = modes.get(container, modes.get("*")) == "Off"
        if at(one, "/spec/updatePolicy/updateMode") != "Off" and not off:
            return str(at(one, "/metadata/name"))
    return None


def pod_memory(spec: Json, field: str) -> Fraction:
    """Add up a pod's `limits` or `requests` of memory; a missing request is the limit.

    https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/#resource-sharing-within-containers
    """
    initial = cast("list[Json]", spec.get("initContainers") or [])
    sidecars = [one for one in initial if one.get("restartPolicy") == "Always"]
    lasting = [*cast("list[Json]", spec.get("containers") or []), *sidecars]
    together = sum((_memory(one, field) for one in lasting), Fraction(0))
    return max([together, *(_memory(one, field) for one in initial)])


def _memory(container: Json, field: str) -> Fraction:
    found = at(container, f"/resources/{field}/memory")
    if found is None:
        found = at(container, "/resources/limits/memory")
    return amount(found or 0)


def _over(quota: Object, workload: Object, intended: Json) -> str | None:
    if _ELSEWHERE & {*cast("list[str]", at(quota, "/spec/scopes") or [])}:
        return None
    before = cast("Json", at(workload, "/spec/template/spec"))
    there, seen = int(at(workload, "/status/replicas") or 0), turnover(workload)
    hard, used = at(quota, "/spec/hard") or {}, at(quota, "/status/used") or {}
    for name, field in _QUOTAS:
        if name not in hard:
            continue
        if name not in used:
            return f"has not been counted yet: nobody can say how much of its {name} is left"
        others = amount(used[name]) - there * pod_memory(before, field)
        need = others + (seen.pods + seen.surplus) * pod_memory(intended, field)
        if need > amount(hard[name]):
            most = told(amount(hard[name]))
            return f"would refuse pods: {told(need)} of {name} would be needed, {most} are allowed"
    return None


def _beyond(limits: Object, intended: Json) -> str | None:
    for kind, size in _sizes(intended):
        for item in cast("list[Json]", at(limits, "/spec/limits") or []):
            most = at(item, "/max/memory")
            if item.get("type") == kind and most is not None and size > amount(most):
                return f"allows {told(amount(most))} of memory for a {kind.lower()} at most"
    return None


def _sizes(spec: Json) -> Iterator[tuple[str, Fraction]]:
    yield "Pod", pod_memory(spec, "limits")
    for one in cast("list[Json]", spec.get("containers") or []):
        yield "Container", _memory(one, "limits")
