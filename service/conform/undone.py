"""The undo of a verified run, proven of every action that can be put back."""

from collections.abc import Iterator

from tiphys.policies.model import Outcome, Plan
from tiphys.service.conform.properties import (
    Property,
    acted,
    ends,
    hold,
    nothing_done,
    planned,
    same,
    settled,
    words,
)
from tiphys.service.conform.runs import fly
from tiphys.service.conform.steps import Steps
from tiphys.service.conform.trial import Stage, Trial
from tiphys.workflow_templates.action import Result, StepName
from tiphys.workflow_templates.catalogue import find
from tiphys.workflow_templates.undoing import undo_of

VERIFY, ROLLBACK = StepName.VERIFY, StepName.ROLLBACK


def undone(trial: Trial) -> Iterator[Property]:
    """Give them; none for an action whose change stays."""
    if not find(trial.action).reversible:
        return
    yield Property("run that was verified is undone later", _undone, through_argo=True)
    yield Property("undone later, puts back exactly what was there", _undone_later)
    yield Property("an undo can be put back itself, and is not undone", _undo_put_back)
    if trial.meddle:
        yield Property("undoes nothing that somebody else changed since", _undone_too_late)


def _undone(stage: Stage, trial: Trial) -> None:
    _, plan, before = planned(stage, trial)
    ends(fly(stage.world, plan), Outcome.VERIFIED)
    ends(fly(stage.world, undo_of(plan, plan.attempt + 1)), Outcome.VERIFIED)
    same(before, settled(stage))


def _undone_later(stage: Stage, trial: Trial) -> None:
    _, plan, before = planned(stage, trial)
    undo = _verified(stage, plan)
    acted(undo)
    said = undo.run(VERIFY)
    hold(said.result is Result.VERIFIED, f"verify of the undo: {words(said)}")
    same(before, settled(stage))
    again = Steps(stage.world, undo_of(plan, plan.attempt + 2))
    nothing_done(stage, again)


def _undo_put_back(stage: Stage, trial: Trial) -> None:
    _, plan, _ = planned(stage, trial)
    undo = _verified(stage, plan)
    between = settled(stage)
    acted(undo)
    said = undo.run(ROLLBACK)
    hold(said.result is Result.UNDONE, f"rollback of the undo: {words(said)}")
    same(between, settled(stage))
    nothing_done(stage, Steps(stage.world, undo_of(undo.plan, plan.attempt + 2)))


def _undone_too_late(stage: Stage, trial: Trial) -> None:
    target, plan, _ = planned(stage, trial)
    undo = _verified(stage, plan)
    assert trial.meddle
    trial.meddle(stage, target)
    settled(stage)
    nothing_done(stage, undo)


def _verified(stage: Stage, plan: Plan) -> Steps:
    """Let a run of the plan be verified; gives the steps of its undo."""
    steps = Steps(stage.world, plan)
    acted(steps)
    said = steps.run(VERIFY)
    hold(said.result is Result.VERIFIED, f"verify: {words(said)}")
    return Steps(stage.world, undo_of(plan, plan.attempt + 1))
