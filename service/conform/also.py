"""What is proven of an action in the other worlds of its trial: on other kinds, of other owners,
and where what it begins does not end.
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from tiphys.policies.model import Plan
from tiphys.service.conform.properties import (
    PUT_BACK,
    ROLLBACK,
    VERIFY,
    Property,
    acted,
    exactly,
    hold,
    planned,
    same,
    settled,
    words,
)
from tiphys.service.conform.runs import HOPELESS
from tiphys.service.conform.snapshot import Snapshot
from tiphys.service.conform.steps import Steps
from tiphys.service.conform.trial import Build, Elsewhere, Stage, Trial
from tiphys.service.conform.wire import Json
from tiphys.workflow_templates.action import Result
from tiphys.workflow_templates.catalogue import find

_SOON = 0.05
"""The share of verify's deadline within which both steps must say that waiting cannot help."""


def also(trial: Trial) -> Iterator[Property]:
    """Give one for each such world."""
    for name, other in trial.also.items():
        yield Property(f"acts and puts back where {name}", partial(_acts, other=other))
    if trial.stuck:
        yield Property("says so when what it began does not end", _does_not_end)
    if trial.stuck and trial.given_up:
        yield Property("says at once that what it began cannot end", _cannot_end)


def _acts(stage: Stage, trial: Trial, *, other: Build | Elsewhere) -> None:
    if not isinstance(other, Elsewhere):
        other = Elsewhere(other, trial.parameters)
    there = replace(trial, build=other.build, parameters=other.parameters)
    target, plan, before = planned(stage, there)
    steps = Steps(stage.world, plan)
    acted(steps)
    said = steps.run(VERIFY)
    hold(said.result is Result.VERIFIED, f"verify: {words(said)}")
    after = settled(stage)
    exactly(_of_what_stays(plan, after), target, before, after)
    again = Steps(stage.world, plan.model_copy(update={"attempt": plan.attempt + 1}))
    said = again.run(ROLLBACK)
    hold(said.result is Result.NOTHING_CHANGED, f"rollback of another run: {words(said)}")
    said = steps.run(ROLLBACK)
    hold(said.result in PUT_BACK, f"rollback: {words(said)}")
    if find(trial.action).reversible:
        same(before, settled(stage))


def _of_what_stays(plan: Plan, after: Snapshot) -> Plan:
    """Leave out fields of what went because of them, as a machine that was chosen to go does."""
    left = [
        one
        for one in plan.changes
        if not (one.of and one.path) or (one.of.kind, one.of.name) in after.objects
    ]
    return plan.model_copy(update={"changes": tuple(left)})


def _does_not_end(stage: Stage, trial: Trial) -> None:
    _, plan = _begun(stage, trial)
    _told(Steps(stage.world, plan, share=HOPELESS))


def _cannot_end(stage: Stage, trial: Trial) -> None:
    target, plan = _begun(stage, trial)
    assert trial.given_up
    trial.given_up(stage, target)
    began = time.monotonic()
    _told(Steps(stage.world, plan, share=_SOON))
    seconds = time.monotonic() - began
    limit = _SOON * find(trial.action).deadlines.verify
    hold(seconds < limit, f"it took {seconds:.0f} s to say so")


def _begun(stage: Stage, trial: Trial) -> tuple[Json, Plan]:
    assert trial.stuck
    target, plan, _ = planned(stage, replace(trial, build=trial.stuck))
    acted(Steps(stage.world, plan))
    return target, plan


def _told(steps: Steps) -> None:
    """Neither is it verified, nor does rollback say that all is as before."""
    for step, wanted in ((VERIFY, Result.NOT_VERIFIED), (ROLLBACK, Result.NOT_UNDONE)):
        said = steps.run(step)
        hold(said.result is wanted, f"{step}: {words(said)}")
