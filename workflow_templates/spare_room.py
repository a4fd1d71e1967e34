"""Whether the pods of one node would find room on the others, judged conservatively. Pure.

Invariant: what cannot be judged with certainty is no room. Looked at are what pods request against
what nodes can give, node selectors, required node affinity, taints, and required anti-affinity
between pods by host name; a pod that asks for more than that is refused by what it asks for.
https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, cast

from tiphys.policies.model import Object
from tiphys.workflow_templates.label_selectors import UnjudgedError, holds, selects
from tiphys.workflow_templates.nodes import labels_of, name_of, open_for_pods, taints_of
from tiphys.workflow_templates.pointers import at
from tiphys.workflow_templates.quantities import NotAQuantityError, amount

HOST = "kubernetes.io/hostname"
_ENDED = {"Failed", "Succeeded"}
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_KEEPS_OFF = {"NoSchedule", "NoExecute"}
_ANTI = f"/spec/affinity/podAntiAffinity/{_REQUIRED}"
_HOST_TERM = {"labelSelector", "topologyKey"}

Json = dict[str, Any]
Amounts = Mapping[str, Fraction]


def requests(pod: Object) -> dict[str, Fraction]:
    """Sum what a pod asks for, by resource; at least one pod."""
    spec = cast("Json", pod.get("spec") or {})
    starting = cast("list[Json]", spec.get("initContainers") or [])
    beside = [one for one in starting if one.get("restartPolicy") == "Always"]
    total = _sum([*(spec.get("containers") or []), *beside])
    for one in starting:
        for name, size in _sum([one, *(other for other in beside if other is not one)]).items():
            total[name] = max(total[name], size)
    for name, size in _asked(spec).items():
        total[name] = max(total[name], size)
    for name, size in cast("Json", spec.get("overhead") or {}).items():
        total[name] += amount(size)
    total["pods"] = Fraction(1)
    return total


def _sum(containers: Sequence[Json]) -> dict[str, Fraction]:
    total: dict[str, Fraction] = defaultdict(Fraction)
    for container in containers:
        for name, size in _asked(container).items():
            total[name] += size
    return total


def _asked(owner: Json) -> Amounts:
    resources = cast("Json", owner.get("resources") or {})
    asked = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return {name: amount(size) for name, size in asked.items()}


@dataclass
class Place:
    """One node with what runs there."""

    node: Object
    pods: list[Object]
    free: dict[str, Fraction] = field(default_factory=dict[str, Fraction])

    def __post_init__(self) -> None:
        given = cast("Json", at(self.node, "/status/allocatable") or {})
        self.free = {name: amount(size) for name, size in given.items()}
        for pod in self.pods:
            self._take(pod)

    def add(self, pod: Object) -> None:
        """Count a pod as one that runs here."""
        self.pods.append(pod)
        self._take(pod)

    def _take(self, pod: Object) -> None:
        for name, size in requests(pod).items():
            self.free[name] = self.free.get(name, Fraction(0)) - size

    def takes(self, pod: Object) -> bool:
        """Whether the scheduler would surely put a pod here."""
        labels = {**labels_of(self.node)}
        chosen = cast("Mapping[str, str]", at(pod, "/spec/nodeSelector") or {})
        if any(labels.get(key) != value for key, value in chosen.items()):
            return False
        if not _wanted(pod, labels, name_of(self.node)):
            return False
        if any(_keeps_off(taint, pod) for taint in taints_of(self.node)):
            return False
        if any(self.free.get(what, Fraction(0)) < size for what, size in requests(pod).items()):
            return False
        return not any(repels(pod, other) or repels(other, pod) for other in self.pods)


def no_room(going: Sequence[Object], node: str, nodes: Sequence[Object],
            pods: Sequence[Object]) -> str | None:  # fmt: skip
    """Say why pods that leave a node would not all find room on the others, or None.

    `pods` are those of the whole cluster. The largest are placed first; those that wait for room
    already are placed before them.
    """
    others = [one for one in nodes if name_of(one) != node and open_for_pods(one)]
    if not others:
        return f"{node} is the last node that takes pods"
    live = [pod for pod in pods if at(pod, "/status/phase") not in _ENDED]
    try:
        places = [
            Place(one, [p for p in live if at(p, "/spec/nodeName") == name_of(one)])
            for one in others
        ]
        for pod in live:
            if not at(pod, "/spec/nodeName") and unjudged(pod, live) is None:
                _put(pod, places)
        for pod in sorted(going, key=_size, reverse=True):
            if why := unjudged(pod, live):
                return f"{_told(pod)} {why}: whether another node takes it cannot be judged"
            if not _put(pod, places):
                return f"no other node surely has room for {_told(pod)}"
    except (UnjudgedError, NotAQuantityError) as error:
        return f"whether there is room elsewhere cannot be judged: {error}"
    return None


def _put(pod: Object, places: Sequence[Place]) -> bool:
    for place in places:
        if place.takes(pod):
            place.add(pod)
            return True
    return False


def _size(pod: Object) -> tuple[Fraction, Fraction, Fraction]:
    """Order pods by what is scarce: devices, then memory, then processors."""
    asked = requests(pod)
    devices = sum((size for name, size in asked.items() if "/" in name), Fraction(0))
    none = Fraction(0)
    return devices, asked.get("memory", none), asked.get("cpu", none)


def _told(pod: Object) -> str:
    return f"pod {at(pod, '/metadata/namespace')}/{name_of(pod)}"


# --- what a pod asks for --------------------------------------------------------------------------


def unjudged(pod: Object, live: Sequence[Object]) -> str | None:
    """Name what a pod asks for beyond what is judged here, or None."""
    spec = cast("Json", pod.get("spec") or {})
    if spec.get("schedulerName", "default-scheduler") != "default-scheduler":
        return f"has a scheduler of its own, {spec['schedulerName']}"
    if spec.get("resourceClaims"):
        return "claims a device"
    if at(spec, f"/affinity/podAffinity/{_REQUIRED}"):
        return "must be near another pod"
    spread = cast("list[Json]", spec.get("topologySpreadConstraints") or [])
    if any(one.get("whenUnsatisfiable") == "DoNotSchedule" for one in spread):
        return "must be spread evenly"
    containers = cast("list[Json]", spec.get("containers") or [])
    if any(port.get("hostPort") for one in containers for port in one.get("ports") or []):
        return "takes a port of its node"
    if any(not _by_host(term) for term in _terms(pod)):
        return "must be away from other pods by more than the host's name"
    wide = [one for one in live for term in _terms(one) if not _by_host(term) and _hits(term, pod)]
    return f"is kept off by {_told(wide[0])}" if wide else None


def _terms(pod: Object) -> list[Json]:
    return cast("list[Json]", at(pod, _ANTI) or [])


def _by_host(term: Json) -> bool:
    return term.get("topologyKey") == HOST and {*term} <= _HOST_TERM


def _hits(term: Json, pod: Object) -> bool:
    """Whether a term may speak of a pod; its namespaces are not looked at."""
    return selects(term.get("labelSelector"), labels_of(pod)) or len({*term} - _HOST_TERM) > 0


def repels(pod: Object, other: Object) -> bool:
    """Whether a pod may not run on the node of another."""
    return any(_hits(term, other) for term in _terms(pod))


def _wanted(pod: Object, labels: Mapping[str, str], name: str) -> bool:
    """Whether required node affinity, if any, is met: one of its terms, wholly."""
    terms = cast("list[Json] | None",
                 at(pod, f"/spec/affinity/nodeAffinity/{_REQUIRED}/nodeSelectorTerms"))  # fmt: skip
    if terms is None:
        return True
    return any(_fits(term, labels, name) for term in terms)


def _fits(term: Json, labels: Mapping[str, str], name: str) -> bool:
    expressions = cast("list[Json]", term.get("matchExpressions") or [])
    fields = cast("list[Json]", term.get("matchFields") or [])
    if not expressions and not fields:
        return False
    if any(one.get("key") != "metadata.name" for one in fields):
        raise UnjudgedError("an affinity to a field of a node")
    named = {"metadata.name": name}
    return all(holds(e, labels) for e in expressions) and all(holds(f, named) for f in fields)


def _keeps_off(taint: Json, pod: Object) -> bool:
    if taint.get("effect") not in _KEEPS_OFF:
        return False
    given = cast("list[Json]", at(pod, "/spec/tolerations") or [])
    return not any(_tolerates(one, taint) for one in given)


def _tolerates(toleration: Json, taint: Json) -> bool:
    """Whether a toleration is for a taint; for how long is not enough.

    https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/
    """
    if toleration.get("effect") not in {None, "", taint.get("effect")}:
        return False
    if toleration.get("tolerationSeconds") is not None:
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return toleration.get("key") in {None, "", taint.get("key")}
    same = toleration.get("key") == taint.get("key")
    return same and toleration.get("value", "") == taint.get("value", "")
