"""What one investigation knows so far, as plain JSON that any release can read back.

Every node returns a part of it; the reducers make a part that is added twice count once.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, TypedDict

from pydantic import TypeAdapter

from tiphys.agents.notebook import Notebook
from tiphys.agents.ports import Case
from tiphys.policies.model import Evidence, Json, Object

_CASE: TypeAdapter[Case] = TypeAdapter(Case)


def merged(old: dict[str, Json], new: dict[str, Json]) -> dict[str, Json]:
    """Add entries; objects under the same key are merged, anything else is replaced."""
    result = dict(old)
    for key, value in new.items():
        present = result.get(key)
        if isinstance(present, dict) and isinstance(value, dict):
            result[key] = merged(present, value)
        else:
            result[key] = value
    return result


Part = Annotated[dict[str, Json], merged]


class State(TypedDict, total=False):
    """The graph's state; every field is JSON."""

    case: dict[str, Json]
    evidence: Part
    """Evidence by id."""
    facts: Part
    """What the playbooks' conditions read."""
    notes: Part
    """Each agent's findings by its name."""
    unseen: Part
    """What each agent could not see and the decision must not do without, by its name."""
    targets: Part
    """Resolved targets by role."""
    whereabouts: Part
    """Where the kubectl agent saw it hurt, for on-call's second look."""
    alert: dict[str, Json] | None
    """AlertFacts."""
    check: dict[str, Json] | None
    """The Check, without the pods' prefix, which is known only once the target is resolved."""
    verdict: dict[str, Json] | None
    """On-call's own answer, which ends the investigation: `answer` and `reason`."""
    decision: dict[str, Json] | None
    target_facts: dict[str, Json] | None


def case_to_json(case: Case) -> dict[str, Json]:
    """Give the case as JSON."""
    return _CASE.dump_python(case, mode="json")


def case_from_json(plain: Object) -> Case:
    """Read it back."""
    return _CASE.validate_python(plain)


def written(agent: str, notebook: Notebook) -> State:
    """Give the part of the state that a notebook fills."""
    return State(
        evidence={e.id: e.model_dump(mode="json") for e in notebook.evidence},
        notes={agent: [*notebook.notes]},
        unseen={agent: [*notebook.unseen]} if notebook.unseen else {},
    )


def evidence_of(state: State) -> list[Evidence]:
    """Give the evidence in the order it was asked for."""
    found = [Evidence.model_validate(e) for e in state.get("evidence", {}).values()]
    return sorted(found, key=lambda e: (e.asked_at, e.id))


def sentences(by_agent: Mapping[str, Json]) -> list[str]:
    """Give all sentences of all agents, on-call first, then in the agents' order of names."""
    order: Sequence[str] = sorted(by_agent, key=lambda a: (a != "on-call", a))
    result: list[str] = []
    for agent in order:
        listed = by_agent[agent]
        if isinstance(listed, list):
            result += [f"{agent}: {s}" for s in listed]
    return result
