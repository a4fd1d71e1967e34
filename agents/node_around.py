"""Facts about the other nodes: how many take pods, and which of them are ill in the same way."""

from collections.abc import Sequence

from tiphys.agents.drained_pods import problems_of
from tiphys.agents.limit_facts import node_facts
from tiphys.agents.objects import name_of
from tiphys.policies.model import Json, Object


def around(node: Object, nodes: Sequence[Object]) -> dict[str, Json]:
    """Give what is found wrong with a node, and how the other nodes of the cluster are."""
    problems = problems_of(node)
    wrong = {*problems, *_strings(node_facts(node)["pressures"])}
    takers, ill, lost = 0, list[Json](), list[Json]()
    for other in nodes:
        if name_of(other) == name_of(node):
            continue
        seen = node_facts(other)
        takers += seen["ready"] is True and seen["cordoned"] is False
        theirs = {*problems_of(other), *_strings(seen["pressures"])}
        if theirs & wrong:
            ill.append(name_of(other))
        if seen["ready"] is False and seen["cordoned"] is False:
            lost.append(name_of(other))
    return {
        "problems": [*problems],
        "others_open": takers,
        "others_ill": sorted(ill, key=str),
        "others_not_ready": sorted(lost, key=str),
    }


def _strings(value: Json) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else []
