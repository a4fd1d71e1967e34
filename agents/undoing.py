"""From a person's wish to the proposal that undoes a finished run; no alert and no reasoner.

Invariant: what is proposed is that run's own action on its own target, and its changes turned round
(`workflow_templates.undoing`); where that cannot be, a human is told why.
"""

from tiphys.agents.by_hand import Asked, Decided
from tiphys.agents.deciding import ChoiceRefusedError, Planned, planned
from tiphys.agents.notebook import Notebook
from tiphys.agents.ports import Case, ClusterReader, Undone
from tiphys.agents.target_facts import Use
from tiphys.policies.model import Escalate
from tiphys.policies.plan import workflow_name
from tiphys.workflow_templates import undoing
from tiphys.workflow_templates.catalogue import UnknownActionError, find


async def plan_undo(cluster: ClusterReader, case: Case, undone: Undone, book: Notebook) -> Planned:
    """Read the run's target and plan its undo there.

    Raises `ChoiceRefusedError`, `NotApplicableError`, `TargetGoneError`, `UnansweredError`.
    """
    plan = undone.plan
    try:
        action = find(plan.action)
    except UnknownActionError as error:
        raise ChoiceRefusedError(str(error)) from error
    parameters = action.parameters.model_validate(plan.parameters)
    use = Use(action, parameters, lambda thing, near: undoing.planned(action, plan, thing, near))
    found = await planned(cluster, use, plan.target, case, book)
    digest = workflow_name(plan).removeprefix("tiphys-")
    if (found.facts.open_mark or "").startswith(f"{digest}."):
        # It is that run's own mark which is to go.
        facts = found.facts.model_copy(update={"open_mark": None})
        return Planned(found.action, found.parameters, found.sight, facts)
    return found


async def propose_undo(
    cluster: ClusterReader, case: Case, undone: Undone, hold_seconds: int, book: Notebook
) -> Decided:
    """Give the proposal and its target's facts, or say why it cannot be."""
    plan, name = undone.plan, workflow_name(undone.plan)
    asked = Asked(undone.wish, f"has {name} undone", f"{name} cannot be undone", book, hold_seconds)
    found = await asked.planned(plan_undo(cluster, case, undone, book))
    if isinstance(found, Escalate):
        return found, None
    thing = found.sight.thing
    proposal = asked.proposal(
        found,
        parameters=plan.parameters,
        risk=undoing.risk(found.action, thing, found.parameters, found.facts.changes),
        reversible=True,
        blast_radius=undoing.blast_radius(plan, thing),
        undo=f"Set again what {name} had left.",
        undoes=name,
    )
    return proposal, found.facts
