"""From a person's wish for an action to the proposal of it, on the object that they named.

Invariants: the object is looked up by its name and its uid read there, and the action plans on what
stands there now; it is never graded low, since nobody has diagnosed that it helps.
"""

from tiphys.agents.by_hand import Asked, Decided
from tiphys.agents.deciding import Planned, plan
from tiphys.agents.notebook import Notebook
from tiphys.agents.objects import target_of
from tiphys.agents.ports import Case, ClusterReader
from tiphys.agents.resolver import Resolver
from tiphys.agents.target_facts import TargetGoneError
from tiphys.policies.model import Escalate, Risk, Wish


async def plan_wish(cluster: ClusterReader, case: Case, wish: Wish, book: Notebook) -> Planned:
    """Find the object and plan the action there.

    Raises `ChoiceRefusedError`, `NotApplicableError`, `TargetGoneError`, `UnansweredError`.
    """
    kind = (wish.api_version, wish.kind)
    thing = await Resolver(cluster, book).get(*kind, wish.namespace, wish.name)
    if thing is None:
        raise TargetGoneError(f"there is no {wish.object}")
    target = target_of(thing, case.cluster, *kind)
    return await plan(cluster, (wish.action, wish.parameters), target, case, book)


async def propose_wish(
    cluster: ClusterReader, case: Case, wish: Wish, hold_seconds: int, book: Notebook
) -> Decided:
    """Give the proposal and its target's facts, or say why it cannot be."""
    what = f"{wish.action} on {wish.object}"
    asked = Asked(wish, "wants it", f"{what} cannot be done", book, hold_seconds)
    found = await asked.planned(plan_wish(cluster, case, wish, book))
    if isinstance(found, Escalate):
        return found, None
    action, thing = found.action, found.sight.thing
    graded = action.risk(thing, found.parameters)
    proposal = asked.proposal(
        found,
        risk=Risk.MEDIUM if graded is Risk.LOW else graded,
        reversible=action.reversible,
        always_ask=action.always_ask,
        blast_radius=action.blast_radius(thing, found.parameters),
        undo=action.undo,
    )
    return proposal, found.facts
