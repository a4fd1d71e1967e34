"""Facts about the pods that their nodes ended and that lie about since, and whether it goes on."""

from collections.abc import Mapping, Sequence

from tiphys.agents.limit_facts import node_facts
from tiphys.agents.objects import items, name_of, text
from tiphys.policies.model import Json, Object
from tiphys.workflow_templates.garbage_pods import garbage_of, reason_of

MOST_NODES = 10
"""Nodes that are looked at."""
_OWN_LIMIT = ("exceeds the", "exceeded its")
"""What the kubelet says of a pod that went over its own limit of ephemeral storage."""


def garbage_facts(
    deployment: Object, related: Mapping[str, Sequence[Object]], nodes: Sequence[Object]
) -> dict[str, Json]:
    """Give what a Deployment's nodes have ended; `nodes` are those that it happened on."""
    found = garbage_of(deployment, related)
    reasons: list[Json] = [*sorted({reason_of(pod) or "" for pod in found})]
    names: list[Json] = [name_of(pod) for pod in found[:20]]
    ill: list[Json] = []
    for node in nodes:
        seen = node_facts(node)
        if seen["pressures"] or not seen["ready"]:
            ill.append(name_of(node))
    return {
        "count": len(found),
        "names": names,
        "reasons": reasons,
        "message": text(found[-1], "status", "message")[:300] if found else "",
        "own_limit": sum(_by_own_limit(pod) for pod in found),
        "ill_nodes": ill,
    }


def nodes_of(deployment: Object, related: Mapping[str, Sequence[Object]]) -> Sequence[str]:
    """Name the nodes that ended its pods."""
    named = {text(pod, "spec", "nodeName") for pod in garbage_of(deployment, related)}
    return sorted(named - {""})[:MOST_NODES]


def _by_own_limit(pod: Object) -> bool:
    said = [text(pod, "status", "message")]
    said += [
        text(s, "state", "terminated", "message") for s in items(pod, "status", "containerStatuses")
    ]
    return any(words in one for one in said for words in _OWN_LIMIT)
