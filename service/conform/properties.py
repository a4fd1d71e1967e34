"""What is proven of an action: each property is a function that returns, or says what is wrong.

Properties named `run …` go through Argo; the others ask single steps, see `steps`.
"""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tiphys.policies.model import Change, Outcome, Plan
from tiphys.service.conform.lesser import lesser_account
from tiphys.service.conform.runs import HOPELESS, Flown, fly, publish_all
from tiphys.service.conform.snapshot import Key, Snapshot, changed, gone, take
from tiphys.service.conform.steps import Said, Steps
from tiphys.service.conform.trial import Disturb, Stage, Trial
from tiphys.service.conform.wire import Json
from tiphys.service.errors import TiphysError
from tiphys.service.outcomes import outcome
from tiphys.workflow_templates.action import Result, Right, StepName
from tiphys.workflow_templates.catalogue import find

PRECHECK, ACT, VERIFY, ROLLBACK = StepName
_REFUSED = "refused before anything was done"


class NotProvenError(TiphysError):
    """Not proven."""


def hold(truth: object, why: str) -> None:
    """Raise `NotProvenError` unless it is so."""
    if not truth:
        raise NotProvenError(why)


@dataclass(frozen=True)
class Property:
    """One line of the kit's table."""

    name: str
    prove: Callable[[Stage, Trial], None]
    """Raises `TiphysError` with what is wrong."""
    through_argo: bool = False
    kills: bool = False
    """What runs it is killed; the world must have an address that its pods reach."""
    alone: bool = False
    """It disturbs what others prove meanwhile, such as Argo's controller."""


def properties(trial: Trial) -> Iterator[Property]:
    """Give everything that is proven of a trial's action, in the table's order."""
    action = find(trial.action)
    yield Property("run heals and changes exactly what it declares", _heals, through_argo=True)
    if trial.spoil:
        yield Property("run that does not help is put back", _undoes, through_argo=True)
    for name, disturb in trial.violations.items():
        yield Property(f"refuses: {name}", partial(_refuses, disturb=disturb))
    yield Property("refuses another object of that name", _another_uid)
    yield Property("refuses after notAfter", _too_late)
    yield Property("refuses a plan that somebody else signed", _forged)
    yield Property("acts once when run twice", _twice)
    yield Property("acts once when run at once", _at_once)
    yield Property("does not act after its rollback", _much_later)
    yield Property("puts back exactly what was there", _puts_back)
    if trial.meddle:
        yield Property("leaves alone what somebody else changed since", _meddled)
    for right in action.rights:
        for verb in right.verbs:
            where = "/".join(filter(None, (right.api_group, right.resource)))
            name = f"fails cleanly without {verb} {where}"
            yield Property(name, partial(_without, right=right, verb=verb))


# --- through Argo ---------------------------------------------------------------------------------


def _heals(stage: Stage, trial: Trial) -> None:
    target, plan, before = planned(stage, trial)
    flown = fly(stage.world, plan)
    ends(flown, Outcome.VERIFIED)
    exactly(plan, target, before, take(stage.wire, stage.namespace))


def _undoes(stage: Stage, trial: Trial) -> None:
    target = trial.build(stage)
    plan = trial.plan(stage, target)
    assert trial.spoil
    trial.spoil(stage, target)
    before = take(stage.wire, stage.namespace)
    hopeless = publish_all(stage.world, variant="-hopeless", share=HOPELESS)
    flown = fly(stage.world, plan, hopeless)
    if find(trial.action).reversible:
        ends(flown, Outcome.ROLLED_BACK)
        same(before, take(stage.wire, stage.namespace))
    else:
        ends(flown, Outcome.INEFFECTIVE)


def ends(flown: Flown, expected: Outcome) -> None:
    """Hold that a run ends like this."""
    flown.ended()
    seen = flown.view()
    result, why = outcome(seen)
    steps = ", ".join(f"{s.step}: {s.result} ({s.message})" for s in seen.steps)
    hold(result is expected, f"it ended {result}, not {expected}: {why}; {steps}")


# --- refusals -------------------------------------------------------------------------------------


def _refuses(stage: Stage, trial: Trial, *, disturb: Disturb) -> None:
    target = trial.build(stage)
    plan = trial.plan(stage, target)
    disturb(stage, target)
    nothing_done(stage, Steps(stage.world, plan))


def _another_uid(stage: Stage, trial: Trial) -> None:
    _, plan, _ = planned(stage, trial)
    wrong = plan.target.model_copy(update={"uid": "00000000-0000-4000-8000-000000000000"})
    nothing_done(stage, Steps(stage.world, plan.model_copy(update={"target": wrong})))


def _too_late(stage: Stage, trial: Trial) -> None:
    _, plan, _ = planned(stage, trial)
    nothing_done(stage, Steps(stage.world, plan, seconds=-1))


def _forged(stage: Stage, trial: Trial) -> None:
    _, plan, _ = planned(stage, trial)
    nothing_done(stage, Steps(stage.world, plan, key=Ed25519PrivateKey.generate()))


def nothing_done(stage: Stage, steps: Steps) -> None:
    """Hold that precheck and act refuse, and that nothing moves."""
    before = take(stage.wire, stage.namespace)
    for step in (PRECHECK, ACT):
        said = steps.run(step)
        hold(said.result is Result.REFUSED, f"{step} was not {_REFUSED}: {words(said)}")
    same(before, take(stage.wire, stage.namespace))


# --- again ----------------------------------------------------------------------------------------


def _twice(stage: Stage, trial: Trial) -> None:
    target, plan, before = planned(stage, trial)
    steps = Steps(stage.world, plan)
    acted(steps)
    between = settled(stage)
    for step in (PRECHECK, ACT):
        said = steps.run(step)
        hold(said.result is Result.ALREADY_DONE, f"{step} again: {words(said)}")
    after = settled(stage)
    same(between, after, children=True)
    exactly(plan, target, before, after)


def _at_once(stage: Stage, trial: Trial) -> None:
    target, plan, before = planned(stage, trial)
    steps = Steps(stage.world, plan)
    said = steps.at_once(ACT, ACT, ACT)
    results = sorted(one.result for one in said)
    fine = Result.ACTED in results and {*results} <= {Result.ACTED, Result.ALREADY_DONE}
    hold(fine, "; ".join(map(words, said)))
    exactly(plan, target, before, settled(stage))


def _much_later(stage: Stage, trial: Trial) -> None:
    _, plan, _ = planned(stage, trial)
    steps = Steps(stage.world, plan)
    acted(steps)
    said = steps.run(ROLLBACK)
    hold(said.result in PUT_BACK, f"rollback: {words(said)}")
    between = settled(stage)
    for step in (PRECHECK, ACT):
        said = steps.run(step)
        hold(said.result is not Result.ACTED, f"{step} acted after the rollback: {words(said)}")
    said = steps.run(ROLLBACK)
    hold(said.result in {*PUT_BACK, Result.NOTHING_CHANGED}, f"rollback again: {words(said)}")
    same(between, settled(stage), children=True)


# --- back -----------------------------------------------------------------------------------------

PUT_BACK = {Result.UNDONE, Result.NOTHING_TO_RESTORE}
"""How a rollback of what was done ends."""


def _puts_back(stage: Stage, trial: Trial) -> None:
    _, plan, before = planned(stage, trial)
    steps = Steps(stage.world, plan)
    said = steps.run(ROLLBACK)
    hold(said.result is Result.NOTHING_CHANGED, f"rollback before act: {words(said)}")
    same(before, take(stage.wire, stage.namespace), children=True)
    again = plan.model_copy(update={"attempt": plan.attempt + 1})
    steps = Steps(stage.world, again)
    acted(steps)
    said = steps.run(ROLLBACK)
    reversible = find(trial.action).reversible
    wanted = Result.UNDONE if reversible else Result.NOTHING_TO_RESTORE
    hold(said.result is wanted, f"rollback: {words(said)}")
    if reversible:
        same(before, settled(stage))


def _meddled(stage: Stage, trial: Trial) -> None:
    target, plan, _ = planned(stage, trial)
    steps = Steps(stage.world, plan)
    acted(steps)
    assert trial.meddle
    trial.meddle(stage, target)
    between = settled(stage)
    said = steps.run(ROLLBACK)
    hold(said.result is Result.NOT_OURS, f"rollback: {words(said)}")
    same(between, settled(stage), children=True)


# --- without a right ------------------------------------------------------------------------------


def _without(stage: Stage, trial: Trial, *, right: Right, verb: str) -> None:
    """Lose one verb before anything: no step may do half of its work, or say that all is well."""
    account = lesser_account(stage, find(trial.action), right, verb)
    _, plan, before = planned(stage, trial)
    steps = Steps(stage.world, plan, account=account.name, share=HOPELESS)
    said = [steps.run(PRECHECK), steps.run(ACT)]
    clean = {Result.AS_PLANNED, Result.REFUSED, Result.CRASHED, Result.ACTED}
    hold({one.result for one in said} <= clean, "; ".join(map(words, said)))
    for one in said:
        traced = one.result is Result.CRASHED and re.search(r"\w+Error at \S+:\d+", one.message)
        hold(not traced, f"it stumbled instead of saying what it may not: {words(one)}")
    did = said[-1].result is Result.ACTED
    if did:
        verified = steps.run(VERIFY)
        hold(verified.result is not Result.CRASHED or not _stumbled(verified), words(verified))
    account.give_back()
    back = steps.run(ROLLBACK)
    wanted = PUT_BACK if did else {*PUT_BACK, Result.NOTHING_CHANGED}
    hold(back.result in wanted, f"with the right given back, rollback: {words(back)}")
    if find(trial.action).reversible or not did:
        same(before, settled(stage))


def _stumbled(said: Said) -> bool:
    return re.search(r"\w+Error at \S+:\d+", said.message) is not None


# --- looking --------------------------------------------------------------------------------------


def planned(stage: Stage, trial: Trial) -> tuple[Json, Plan, Snapshot]:
    """Build the trial's world, plan, and look: the target, the plan, what was there before."""
    target = trial.build(stage)
    plan = trial.plan(stage, target)

    def look() -> Snapshot:
        return take(stage.wire, stage.namespace)

    before = stage.world.until("what was there before has ended", look, lambda s: not s.ending)
    return target, plan, before


def acted(steps: Steps) -> None:
    """See precheck agree and act act."""
    for step, wanted in ((PRECHECK, Result.AS_PLANNED), (ACT, Result.ACTED)):
        said = steps.run(step)
        hold(said.result is wanted, f"{step}: {words(said)}")


def settled(stage: Stage) -> Snapshot:
    """Look until nothing is about to end, and nothing has changed for a while."""
    seen, since = take(stage.wire, stage.namespace), time.monotonic()

    def still() -> bool:
        nonlocal seen, since
        time.sleep(stage.world.still / 2)  # A look asks for every kind that there is.
        now = take(stage.wire, stage.namespace)
        if now != seen:
            seen, since = now, time.monotonic()
        return not now.ending and time.monotonic() - since >= stage.world.still

    stage.world.until("nothing moves any more", still)
    return seen


def same(before: Snapshot, after: Snapshot, *, children: bool = False) -> None:
    """Hold that nobody's fields differ; `children`: nor do what controllers made."""
    moved: dict[Key, tuple[str, ...]] = changed(before, after)
    hold(not moved, f"something else than before: {_told(moved)}")
    if children:
        came = {*before.objects} ^ {*after.objects}
        hold(not came, f"came or went: {', '.join(map(' '.join, sorted(came)))}")


def exactly(
    plan: Plan, target: Json, before: Snapshot, after: Snapshot, *, partly: bool = False
) -> None:
    """Hold that what the plan declares has changed, or a part of it, and nothing else."""
    key = (str(target["kind"]), plan.target.name)
    moved = dict(changed(before, after))
    ends = {_key(one, key) for one in plan.changes if not one.path}
    kinds = {kind for kind, _ in ends}
    went = {k for k in gone(before, after) if k[0] in kinds}
    fits = went <= ends if partly else went == ends
    hold(fits, f"went: {_listed(went)}; declared: {_listed(ends)}")
    moved = {k: v for k, v in moved.items() if k not in ends}
    for thing in {_key(one, key) for one in plan.changes if one.path}:
        declared = {one.path for one in plan.changes if one.path and _key(one, key) == thing}
        found = set(moved.pop(thing, ()))
        if thing[0] == "Node" and "Machine" in kinds and found == {""}:
            continue  # A machine's node goes with it.
        fits = found <= declared if partly else found == declared
        hold(fits, f"changed {sorted(found)}, declared {sorted(declared)}")
    hold(not moved, f"changed beside it: {_told(moved)}")


def _key(change: Change, target: Key) -> Key:
    return (change.of.kind, change.of.name) if change.of else target


def _listed(keys: set[Key]) -> str:
    return ", ".join(map(" ".join, sorted(keys))) or "nothing"


def _told(moved: dict[Key, tuple[str, ...]]) -> str:
    return "; ".join(
        f"{kind} {name} {' '.join(p) or '(whole)'}" for (kind, name), p in moved.items()
    )


def words(said: Said) -> str:
    """Give a step's report in one line."""
    return f"{said.result} ({said.message})"
