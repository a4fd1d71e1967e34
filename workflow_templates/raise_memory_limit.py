"""raise-memory-limit: give one container of a workload more memory, within bounds."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, cast

from pydantic import Field

from tiphys.policies.model import Change, Object, Risk
from tiphys.workflow_templates import memory_guards
from tiphys.workflow_templates.action import (
    Action,
    NotApplicableError,
    Parameters,
    Related,
    Report,
    Right,
    Run,
)
from tiphys.workflow_templates.memory_guards import FACTOR, MOST_MIB
from tiphys.workflow_templates.memory_room import refusal, vertical_autoscaler
from tiphys.workflow_templates.object_patch import ObjectPatch
from tiphys.workflow_templates.pointers import at, differences
from tiphys.workflow_templates.quantities import MIB, amount, mebibytes, told
from tiphys.workflow_templates.rollouts import obstacle, turnover

_RESOURCES = ("deployments", "statefulsets")
_SCALER = Related("autoscaling.k8s.io/v1", "VerticalPodAutoscaler")


class RaiseMemoryLimitParameters(Parameters):
    """Whose limit, and what it shall be."""

    container: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
    """A container's name; not an init container's."""
    limit_mib: int = Field(ge=1, le=MOST_MIB, strict=True)
    """MiB. Absolute, so that doing it twice is doing it once."""


class RaiseMemoryLimit(Action):
    """Changes limits.memory, and requests.memory where it equals the limit: the QoS class stays."""

    name = "raise-memory-limit"
    summary = "Raise the memory limit of one container, to at most twice what it is."
    kinds = (("apps/v1", "Deployment"), ("apps/v1", "StatefulSet"))
    parameters = RaiseMemoryLimitParameters
    reads = (Related("v1", "ResourceQuota"), Related("v1", "LimitRange"), _SCALER)
    rights = (
        *(Right("apps", resource, ("get", "patch")) for resource in _RESOURCES),
        Right("", "resourcequotas", ("list",)),
        Right("", "limitranges", ("list",)),
        Right("autoscaling.k8s.io", "verticalpodautoscalers", ("list",)),
    )
    terms = memory_guards.TERMS
    guards = tuple(
        guard for resource in _RESOURCES for guard in memory_guards.guards(f"apps/{resource}")
    )
    reversible = True
    undo = "Put the earlier limit back, and the request where it equalled it."

    def changes(
        self, target: Object, related: Mapping[str, Sequence[Object]], parameters: Parameters
    ) -> tuple[Change, ...]:
        """Give the change of the limit, and of an equal request; raises `NotApplicableError`."""
        wanted = cast("RaiseMemoryLimitParameters", parameters)
        if why := obstacle(target):
            raise NotApplicableError(why)
        if owner := vertical_autoscaler(target, wanted.container, related.get(_SCALER.kind, ())):
            raise NotApplicableError(f"VerticalPodAutoscaler {owner} owns the memory")
        present = at(target, "/spec/template")
        intended = _raised(present, wanted)
        if why := refusal(target, intended["spec"], related):
            raise NotApplicableError(why)
        return tuple(differences(present, intended, "/spec/template"))

    def hindrance(self, target: Object, related: Mapping[str, Sequence[Object]]) -> str | None:
        """Say why the earlier pod template would not reach every pod now."""
        del related
        return obstacle(target)

    def risk(self, target: Object, parameters: Parameters) -> Risk:
        """Medium: every pod is replaced, and takes more from its node."""
        del target, parameters
        return Risk.MEDIUM

    def blast_radius(self, target: Object, parameters: Parameters) -> str:
        """Say how much more it is, and how many pods are replaced."""
        wanted = cast("RaiseMemoryLimitParameters", parameters)
        place = f"{at(target, '/metadata/namespace')}/{at(target, '/metadata/name')}"
        seen = turnover(target)
        before = amount(_limit(_container(at(target, "/spec/template"), wanted.container)))
        after = wanted.limit_mib * MIB
        return (
            f"Container {wanted.container} of {target.get('kind')} {place} may use {told(after)} "
            f"instead of {told(before)}, {told(seen.pods * (after - before))} more in all. Its "
            f"{seen.pods} pods are replaced step by step: at most {seen.missing} are missing and "
            f"{seen.surplus} too many at any moment."
        )

    def precheck(self, run: Run) -> Report:
        """Answer whether the limit is still the plan's and there is room for more."""
        return self._patch(run).precheck()

    def act(self, run: Run) -> Report:
        """Set the limit, an equal request and the mark in one fenced patch."""
        return self._patch(run).act()

    def verify(self, run: Run) -> Report:
        """See every pod replaced and ready, and the alert over."""
        return self._patch(run).verify()

    def rollback(self, run: Run) -> Report:
        """Put the earlier limit back."""
        return self._patch(run).rollback()

    def _patch(self, run: Run) -> ObjectPatch:
        wanted = RaiseMemoryLimitParameters.model_validate(run.plan.parameters)

        def plan_on(target: Object) -> Sequence[Change]:
            place = run.plan.target.namespace
            related = {r.kind: run.cluster.list(r.api_version, r.kind, place) for r in self.reads}
            return self.changes(target, related, wanted)

        return ObjectPatch(run, self.deadlines, plan_on, hindrance=obstacle)


def _raised(template: Any, wanted: RaiseMemoryLimitParameters) -> Any:
    """Give the template with the new limit, or raise `NotApplicableError`."""
    intended = deepcopy(template)
    container = _container(intended, wanted.container)
    present, after = _limit(container), wanted.limit_mib * MIB
    if after <= amount(present):
        raise NotApplicableError(f"the limit is {present} already")
    if after > FACTOR * amount(present):
        raise NotApplicableError(f"that is more than {FACTOR} times the present limit, {present}")
    resources = container["resources"]
    resources["limits"]["memory"] = mebibytes(wanted.limit_mib)
    request = at(resources, "/requests/memory")
    if request is not None and amount(request) == amount(present):
        resources["requests"]["memory"] = mebibytes(wanted.limit_mib)
    return intended


def _container(template: Any, name: str) -> dict[str, Any]:
    found = (one for one in at(template, "/spec/containers") or () if one.get("name") == name)
    if (container := next(found, None)) is None:
        raise NotApplicableError(f"there is no container {name}")
    return container


def _limit(container: dict[str, Any]) -> str:
    limit = at(container, "/resources/limits/memory")
    if limit is None:
        raise NotApplicableError(f"container {container['name']} has no memory limit")
    return str(limit)
