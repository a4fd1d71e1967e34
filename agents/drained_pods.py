"""The pods that a change of a node would end, and whether one of them is a long job's."""

from collections.abc import Iterator, Mapping, Sequence
from re import Pattern

from tiphys.agents.objects import controller_of, items, name_of, strings, text, uid_of
from tiphys.policies.model import Change, Object, Owner

MAX_CLIMB = 5
_PROBLEMLESS = {"Ready", "MemoryPressure", "DiskPressure", "PIDPressure", "NetworkUnavailable"}
"""Conditions of the kubelet and the network; every other one is somebody's finding, if true.

https://github.com/kubernetes/node-problem-detector
"""


def evicted(pods: Sequence[Object], changes: Sequence[Change]) -> Sequence[Object]:
    """Give those of a node's pods that the changes end."""
    named = {c.of.uid for c in changes if c.of is not None and c.of.kind == "Pod" and not c.path}
    return [pod for pod in pods if uid_of(pod) in named]


def job_above(
    pods: Sequence[Object],
    related: Mapping[str, Sequence[Object]],
    job_kinds: Pattern[str],
    annotation: str,
) -> str | None:
    """Say which of these pods belongs to a job, or is annotated to run long; None for none.

    `related` has the pods' owners and their Namespaces, of the whole cluster.
    """
    spaces = {name_of(one): one for one in related.get("Namespace", ())}
    for pod in pods:
        place = text(pod, "metadata", "namespace")
        where = f"pod {place}/{name_of(pod)}"
        above = [*_chain(pod, related)]
        for owner, _ in above:
            if job_kinds.fullmatch(owner.kind):
                return f"{where} belongs to {owner.kind} {owner.name}"
        for thing in (pod, *(thing for _, thing in above if thing), spaces.get(place, {})):
            said = strings(thing, "metadata", "annotations").get(annotation)
            if said is not None and said.lower() not in {"false", "no", "0"}:
                return f"{where} is annotated {annotation}"
    return None


def _chain(
    pod: Object, related: Mapping[str, Sequence[Object]]
) -> Iterator[tuple[Owner, Object | None]]:
    """Give a pod's controllers, nearest first, as far as they were read."""
    here: Object | None = pod
    for _ in range(MAX_CLIMB):
        owner = controller_of(here) if here else None
        if owner is None:
            return
        known = related.get(owner.kind, ())
        here = next((one for one in known if uid_of(one) == owner.uid), None)
        yield owner, here


def problems_of(node: Object) -> list[str]:
    """Name what somebody has found wrong with a node, such as `ReadonlyFilesystem`."""
    return sorted(
        text(one, "type")
        for one in items(node, "status", "conditions")
        if text(one, "status") == "True" and text(one, "type") not in _PROBLEMLESS
    )
