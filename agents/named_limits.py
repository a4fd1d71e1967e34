"""From an alert about an autoscaler or a disruption budget to the workload that it is for.

Such an alert names neither the workload nor its pods; `pod` beside those labels is the exporter's.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from tiphys.agents.objects import controller_of, mapping, selector_of, text
from tiphys.agents.ports import ClusterReader
from tiphys.policies.model import Json, Object

AUTOSCALER: Final = ("autoscaling/v2", "HorizontalPodAutoscaler")
BUDGET: Final = ("policy/v1", "PodDisruptionBudget")
LIMITS: Final[Mapping[str, tuple[str, str]]] = {
    "horizontalpodautoscaler": AUTOSCALER,
    "poddisruptionbudget": BUDGET,
}
"""Labels that name a limit, and its kind."""
_SCALED: Final = {"Deployment", "StatefulSet"}


class Getter(Protocol):
    """Reads one object and writes that down."""

    async def get(self, api_version: str, kind: str, namespace: str, name: str) -> Object | None:
        """Read it; None where there is none."""
        ...


def names_a_limit(labels: Mapping[str, Json]) -> str:
    """Give the label that names one, or an empty string."""
    return next((label for label in LIMITS if labels.get(label)), "")


async def scaled_by(reader: Getter, autoscaler: Object) -> tuple[str, str, Object] | None:
    """Give what an autoscaler scales, with its version and kind; None for other kinds."""
    wanted = mapping(autoscaler, "spec", "scaleTargetRef")
    kind, namespace = text(wanted, "kind"), text(autoscaler, "metadata", "namespace")
    if kind not in _SCALED:
        return None
    thing = await reader.get("apps/v1", kind, namespace, text(wanted, "name"))
    return ("apps/v1", kind, thing) if thing is not None else None


async def covered_by(cluster: ClusterReader, budget: Object) -> Sequence[Object]:
    """List the pods that a budget covers, one of each controller."""
    selector = selector_of(budget)
    if selector is None:
        return []
    pods = await cluster.list("v1", "Pod", text(budget, "metadata", "namespace"), selector)
    by_owner = {owner.uid: pod for pod in pods if (owner := controller_of(pod))}
    return [*by_owner.values()]
