"""From a person's wish to the proposal that undoes a finished run; no alert and no reasoner.

Invariant: what is proposed is that run's own action on its own target, and its changes turned round
(`workflow_templates.undoing`); where that cannot be, a human is told why.
"""

from datetime import datetime

from tiphys.agents.deciding import ChoiceRefusedError, Planned, planned
from tiphys.agents.notebook import Notebook, short
from tiphys.agents.ports import Case, ClusterReader, UnansweredError, Undone
from tiphys.agents.target_facts import TargetGoneError, Use
from tiphys.policies.model import (
    AlertFacts,
    Check,
    DecidedBy,
    Decision,
    Escalate,
    Proposal,
    TargetFacts,
)
from tiphys.policies.plan import workflow_name
from tiphys.workflow_templates import undoing
from tiphys.workflow_templates.action import NotApplicableError
from tiphys.workflow_templates.catalogue import UnknownActionError, find

MAX_REASON = 500
"""Characters of a person's words that travel in the plan."""


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
) -> tuple[Decision, TargetFacts | None]:
    """Give the proposal and its target's facts, or say why it cannot be."""
    plan, wish = undone.plan, undone.wish
    name = workflow_name(plan)
    by = DecidedBy(reasoner="human", note=short(f"{wish.by}: {wish.reason}", MAX_REASON))
    try:
        found = await plan_undo(cluster, case, undone, book)
    except (ChoiceRefusedError, NotApplicableError, TargetGoneError, UnansweredError) as error:
        seen = tuple(one.id for one in book.evidence)
        why = f"{name} cannot be undone: {error}"
        return Escalate(reason=short(why, 1_500), evidence=seen, decided_by=by), None
    action, thing, parameters = found.action, found.sight.thing, found.parameters
    proposal = Proposal(
        action=action.name,
        version=action.version,
        target=found.sight.target,
        parameters=plan.parameters,
        changes=found.facts.changes,
        risk=undoing.risk(action, thing, parameters, found.facts.changes),
        reversible=True,
        blast_radius=undoing.blast_radius(plan, thing),
        undo=f"Set again what {name} had left.",
        reason=short(f"{wish.by} has {name} undone: {wish.reason}", 1_500),
        check=Check(hold_seconds=hold_seconds),
        evidence=tuple(dict.fromkeys(one.id for one in book.evidence if one.ok)),
        decided_by=by,
        undoes=name,
    )
    return proposal, found.facts


def no_alert(now: datetime) -> AlertFacts:
    """Give what there is to know of the alerts of an incident that has none."""
    nothing = {"firing": False, "silenced": False, "inhibited": False}
    return AlertFacts(**nothing, names=(), alerts=(), read_at=now)
