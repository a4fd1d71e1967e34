"""The undo of a finished run: the same action and identity, its changes turned round. Pure.

Invariants: an undo changes nothing but what its run changed, and only where that run's mark and the
values that it left still stand; so no identity may do more than the action that is undone.
"""

from collections.abc import Mapping, Sequence

from tiphys.policies.model import Change, Object, Plan, Risk
from tiphys.policies.plan import workflow_name
from tiphys.workflow_templates import mark
from tiphys.workflow_templates.action import Action, NotApplicableError, Parameters
from tiphys.workflow_templates.pointers import at, equal
from tiphys.workflow_templates.rollouts import pods_of

_TEMPLATE = "/spec/template"
_REPLICAS = "/spec/replicas"


def never(action: Action, plan: Plan) -> str | None:
    """Say why no run of a plan can ever be undone, or None."""
    if not action.reversible:
        return f"{action.name} cannot be undone: {action.undo}"
    if plan.undoes is not None:
        return (
            f"it was itself the undo of {plan.undoes}; to have that again, let {action.name} be "
            "planned anew, since only then its prechecks are asked"
        )
    if action.version != plan.version:
        return f"{action.name}-v{plan.version} is no longer in the catalogue"
    return None if turned_round(plan) else "nothing that it did can be put back"


def turned_round(plan: Plan) -> tuple[Change, ...]:
    """Give the changes that put back what a run of the plan left; what it deleted stays away."""
    return tuple(
        change.model_copy(update={"present": change.intended, "intended": change.present})
        for change in plan.changes
        if change.path
    )


def planned(
    action: Action, undone: Plan, target: Object, related: Mapping[str, Sequence[Object]]
) -> tuple[Change, ...]:
    """Plan the undo of a run on the live target; `related` as for `Action.changes`.

    Raises `NotApplicableError`.
    """
    run = workflow_name(undone)
    if why := never(action, undone):
        raise NotApplicableError(why)
    marks = (mark.by_annotation(target), mark.by_manager(target))
    if not any(mark.left_by(run, text) for text in marks):
        why = f"it does not bear the mark of {run} any more: something has changed it since"
        raise NotApplicableError(why)
    back = turned_round(undone)
    if moved := [c.place for c in back if _moved(c, target, related)]:
        raise NotApplicableError(f"somebody has changed what {run} left: {', '.join(moved[:5])}")
    if why := action.hindrance(target, related):
        raise NotApplicableError(why)
    return back


def _moved(change: Change, target: Object, related: Mapping[str, Sequence[Object]]) -> bool:
    """Say whether a field is not as the run left it; what is not read here precheck looks at."""
    if change.of is None:
        return not equal(at(target, change.path), change.present)
    if change.of.kind not in related:
        return False
    uid = change.of.uid
    live = next((o for o in related[change.of.kind] if at(o, "/metadata/uid") == uid), None)
    return live is None or not equal(at(live, change.path), change.present)


def risk(action: Action, target: Object, parameters: Parameters, back: Sequence[Change]) -> Risk:
    """Grade it like the action, and never as low: nobody has diagnosed that it helps.

    High where more than half of the replicas go.
    """
    graded = action.risk(target, parameters)
    if any(change.place == _REPLICAS and _halves(change) for change in back):
        return Risk.HIGH
    return Risk.MEDIUM if graded is Risk.LOW else graded


def _halves(change: Change) -> bool:
    present, intended = change.present, change.intended
    return isinstance(present, int) and isinstance(intended, int) and intended < present / 2


def blast_radius(undone: Plan, target: Object) -> str:
    """Say what is put back and what that moves."""
    back = turned_round(undone)
    paths = ", ".join(change.place for change in back[:5])
    more = f" and {len(back) - 5} more" if len(back) > 5 else ""
    said = f"{undone.target} gets back what it had before {workflow_name(undone)}: {paths}{more}."
    if any(change.of is None and change.path.startswith(_TEMPLATE) for change in back):
        said += f" All its {pods_of(target)} pods are replaced step by step."
    return said


def undo_of(plan: Plan, attempt: int) -> Plan:
    """Give the plan that undoes a run of this plan, decided like it."""
    back = {"attempt": attempt, "changes": turned_round(plan), "undoes": workflow_name(plan)}
    return plan.model_copy(update=back)
