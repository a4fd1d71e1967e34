"""What is proven of how an action knows its own writes, and whether it helped.

docs/adr/0005 says why: traces may be removed, expire, or be another run's.
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import Any

from tiphys.policies.model import Plan
from tiphys.service.conform.planner import ask
from tiphys.service.conform.properties import (
    ACT,
    PRECHECK,
    PUT_BACK,
    ROLLBACK,
    VERIFY,
    Property,
    acted,
    hold,
    planned,
    same,
    settled,
    words,
)
from tiphys.service.conform.runs import HOPELESS, related_to
from tiphys.service.conform.snapshot import take
from tiphys.service.conform.steps import Steps
from tiphys.service.conform.trial import Stage, Trial
from tiphys.service.conform.wire import Json, place, place_of
from tiphys.service.conform.workloads import settled as healthy
from tiphys.workflow_templates.action import Result
from tiphys.workflow_templates.catalogue import find
from tiphys.workflow_templates.mark import ANNOTATION
from tiphys.workflow_templates.pointers import at

_EVENT = ("v1", "Event")
_OTHER = "b" * 40
"""The digest of a run that nobody has started."""
_SCALED = {"Deployment", "StatefulSet"}
_SOON = 0.05
"""The share of verify's deadline in which it must say that waiting cannot help: some 15 s."""


def marked(trial: Trial) -> Iterator[Property]:
    """Give what is proven of a trial's action in this way, in the table's order."""
    if trial.unplannable:
        yield Property("is planned only where it may be", _planning)
    yield Property("refuses what another run has not finished with", _anothers)
    yield Property("goes on where another run has finished", _finished)
    yield Property("refuses a plan that is not its own", _not_its_own)
    yield Property("does not act after a rollback that found nothing", _rolled_back_before)
    if find(trial.action).reversible:
        yield Property("does not act again when somebody put it back", _put_back_by_hand)
        yield Property("does not act after its rollback when its Events are gone", _expired)
        yield Property("leaves a target alone that is gone", _gone)
    yield Property("tells of itself", _tells)
    yield Property("does not verify what was not done", _not_done)
    if trial.meddle:
        yield Property("says at once that somebody changed it since", _changed_since)
        yield Property("stays verified", _stays_verified)


def _planning(stage: Stage, trial: Trial) -> None:
    """Change what was read, world by world, and plan there."""
    target = trial.build(stage)
    related = related_to(stage.world, target, trial.action, trial.parameters)
    worlds: list[Json] = [{"target": target, "related": related}]
    for edit in (*trial.unplannable.values(), *trial.plannable.values()):
        world = deepcopy(worlds[0])
        edit(world["target"], world["related"])
        worlds.append(world)
    said = ask(trial.action, trial.parameters, worlds)
    hold(not said[0], f"it cannot be planned where it shall help: {said[0]}")
    names = [*trial.unplannable, *trial.plannable]
    for name, why in zip(names, said[1:], strict=True):
        if name in trial.unplannable:
            hold(why, f"it is planned although {name}")
        else:
            hold(not why, f"it is not planned although {name}: {why}")


def _anothers(stage: Stage, trial: Trial) -> None:
    """A mark of each kind: the annotation, and a field manager where replicas can be owned."""
    target = trial.build(stage)
    _annotate(stage, target, f"{_OTHER}.act")
    plan = trial.plan(stage, _again(stage, target))
    before = take(stage.wire, stage.namespace)
    for step in (PRECHECK, ACT):
        said = Steps(stage.world, plan).run(step)
        hold(said.result is Result.REFUSED, f"{step}: {words(said)}")
    same(before, take(stage.wire, stage.namespace))
    if _SCALED & {target["kind"]}:
        plan = _scaled_by_another(stage, trial, target)
        _event(stage, "act", datetime.now(UTC))
        said = Steps(stage.world, plan).run(PRECHECK)
        hold(said.result is Result.REFUSED, f"precheck of what another scales: {words(said)}")


def _finished(stage: Stage, trial: Trial) -> None:
    """A mark that says how its run ended, or whose claim is gone, old or followed by another."""
    target = trial.build(stage)
    if _SCALED & {target["kind"]}:
        plan = _scaled_by_another(stage, trial, target)
        _goes_on(stage, plan, "without a claim")
        _event(stage, "act", datetime.now(UTC) - timedelta(hours=2))
        _goes_on(stage, plan, "with an old claim")
        stage.wire.delete(place(*_EVENT, stage.namespace, f"tiphys-{_OTHER}.act"))
        _event(stage, "act", datetime.now(UTC))
        _event(stage, "kept", datetime.now(UTC))
        _goes_on(stage, plan, "of a run that was verified")
    for ending in ("kept", "undone"):
        _annotate(stage, target, f"{_OTHER}.{ending}")
        _goes_on(stage, trial.plan(stage, _again(stage, target)), f"that ends in {ending}")


def _goes_on(stage: Stage, plan: Plan, which: str) -> None:
    said = Steps(stage.world, plan).run(PRECHECK)
    hold(said.result is Result.AS_PLANNED, f"a mark {which}: {words(said)}")


def _annotate(stage: Stage, target: Json, text: str | None) -> None:
    stage.wire.patch(place_of(target), {"metadata": {"annotations": {ANNOTATION: text}}})


def _again(stage: Stage, target: Json) -> Json:
    path = place_of(target)
    if _SCALED & {target["kind"]}:
        return healthy(stage.world, path)
    return {**target, **stage.wire.get(path)}


def _scaled_by_another(stage: Stage, trial: Trial, target: Json) -> Plan:
    """Let the replicas be owned by another run, and plan on that."""
    _annotate(stage, target, None)
    path = place_of(target)
    scale = stage.wire.get(f"{path}/scale")
    scale["spec"]["replicas"] = 1
    del scale["metadata"]["resourceVersion"]  # its controller may write the status meanwhile
    stage.wire.want("PUT", f"{path}/scale", scale, fieldManager=f"tiphys-{_OTHER}")
    return trial.plan(stage, _again(stage, target))


def _event(stage: Stage, ending: str, moment: datetime) -> None:
    meta = {"name": f"tiphys-{_OTHER}.{ending}", "namespace": stage.namespace}
    stage.wire.create(
        {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": meta,
            "involvedObject": {"namespace": stage.namespace},
            "firstTimestamp": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "reason": "Tiphys",
            "type": "Normal",
        }
    )


def _not_its_own(stage: Stage, trial: Trial) -> None:
    _, plan, before = planned(stage, trial)
    check = plan.check.model_copy(update={"hold_seconds": 1_000_000})
    elsewhere = plan.target.model_copy(update={"kind": "ConfigMap", "api_version": "v1"})
    for why, other, changes in (
        ("another Workflow", {"TIPHYS_WORKFLOW": "tiphys-another"}, {}),
        ("another mutex", {"TIPHYS_TARGET": "another"}, {}),
        ("another template", {"TIPHYS_ACTION": "another-v1"}, {}),
        ("no signature", {"TIPHYS_SIGNATURE": ""}, {}),
        ("another kind", {}, {"target": elsewhere}),
        ("no changes", {}, {"changes": ()}),
        ("too long a watch", {}, {"check": check}),
        ("the undo of a run that never was", {}, {"undoes": f"tiphys-{_OTHER}"}),
        ("unknown parameters", {}, {"parameters": {**plan.parameters, "unknown": 1}}),
    ):
        said = _told(stage, plan, other, changes)
        hold(said.result is Result.REFUSED, f"{why}: {words(said)}")
    if plan.target.kind == "Node":
        said = _told(stage, plan, {"TIPHYS_NODE": "another"}, {})
        hold(said.result is Result.REFUSED, f"kept off another node: {words(said)}")
    same(before, take(stage.wire, stage.namespace))


def _told(stage: Stage, plan: Plan, other: Mapping[str, str], changes: Mapping[str, Any]) -> Any:
    return Steps(stage.world, plan.model_copy(update=changes), other=other).run(ACT)


def _rolled_back_before(stage: Stage, trial: Trial) -> None:
    _, plan, before = planned(stage, trial)
    steps = Steps(stage.world, plan)
    said = steps.run(ROLLBACK)
    hold(said.result is Result.NOTHING_CHANGED, f"rollback: {words(said)}")
    for step in (PRECHECK, ACT):
        said = steps.run(step)
        hold(said.result is Result.REFUSED, f"{step}: {words(said)}")
    same(before, take(stage.wire, stage.namespace), children=True)


def _put_back(stage: Stage, target: Json) -> None:
    """Set everything but the status as it was, without the run's mark."""
    path = place_of(target)
    kept = {k: v for k, v in target.items() if k not in {"metadata", "status"}}

    def edit() -> int:
        now = stage.wire.get(path)
        (now["metadata"].get("annotations") or {}).pop(ANNOTATION, None)
        body = {**now, **kept}
        return stage.wire.ask("PUT", path, body, fieldManager="kubectl-edit").status

    status = stage.world.until("no controller wrote meanwhile", edit, lambda seen: seen != 409)
    hold(status == 200, f"PUT {path}: {status}")


def _put_back_by_hand(stage: Stage, trial: Trial) -> None:
    target, plan, before = planned(stage, trial)
    steps = Steps(stage.world, plan)
    acted(steps)
    _put_back(stage, target)
    between = settled(stage)
    for step in (PRECHECK, ACT):
        said = steps.run(step)
        hold(said.result in _stays_away(plan), f"{step}: {words(said)}")
    said = steps.run(ROLLBACK)
    if _several(plan) and said.result is Result.UNDONE:
        same(before, settled(stage))  # It has put the others back.
        return
    hold(said.result is Result.NOT_OURS, f"rollback: {words(said)}")
    same(between, settled(stage), children=True)


def _stays_away(plan: Plan) -> set[Result]:
    """Give how a step may leave alone what is no longer its own.

    Of several objects some are still as the run left them: that is for rollback to look at.
    """
    return {Result.REFUSED, Result.CRASHED} if _several(plan) else {Result.REFUSED}


def _several(plan: Plan) -> bool:
    return any(change.of for change in plan.changes)


def _expired(stage: Stage, trial: Trial) -> None:
    _, plan, _ = planned(stage, trial)
    steps = Steps(stage.world, plan)
    acted(steps)
    said = steps.run(ROLLBACK)
    hold(said.result is Result.UNDONE, f"rollback: {words(said)}")
    between = settled(stage)
    space = plan.target.namespace or "default"
    for one in stage.wire.items(place(*_EVENT, space)):
        # All nodes' Events are in one namespace, where other properties are asked meanwhile.
        if one["involvedObject"].get("uid") == plan.target.uid:
            stage.wire.delete(place(*_EVENT, space, one["metadata"]["name"]))
    for step in (PRECHECK, ACT):
        said = steps.run(step)
        hold(said.result is Result.REFUSED, f"{step}: {words(said)}")
    said = steps.run(ROLLBACK)
    hold(said.result is Result.UNDONE, f"rollback again: {words(said)}")
    same(between, settled(stage), children=True)


def _gone(stage: Stage, trial: Trial) -> None:
    target, plan, _ = planned(stage, trial)
    steps = Steps(stage.world, plan)
    acted(steps)
    path = place_of(target)
    stage.wire.wipe(path)
    stage.world.until("it is gone", lambda: stage.wire.find(path) is None)
    away = _stays_away(plan)
    for step, wanted in ((PRECHECK, away), (ACT, away), (ROLLBACK, {Result.NOT_OURS})):
        said = steps.run(step)
        hold(said.result in wanted, f"{step}: {words(said)}")


def _tells(stage: Stage, trial: Trial) -> None:
    """Leave an Event of what was done, and one of what was undone, on the target."""
    _, plan, _ = planned(stage, trial)
    steps = Steps(stage.world, plan)
    acted(steps)
    told = ["Acted"]
    if find(trial.action).reversible:
        said = steps.run(ROLLBACK)
        hold(said.result in PUT_BACK, f"rollback: {words(said)}")
        told = ["Acted", "Undid"]
    space = plan.target.namespace or "default"
    events = [
        one
        for one in stage.wire.items(place(*_EVENT, space))
        if at(one, "/involvedObject/uid") == plan.target.uid
    ]
    reasons = {str(one["reason"]) for one in events}
    hold(reasons >= {*told}, f"of {', '.join(told)} it told {', '.join(sorted(reasons))}")


def _not_done(stage: Stage, trial: Trial) -> None:
    _, plan, _ = planned(stage, trial)
    said = Steps(stage.world, plan, share=HOPELESS).run(VERIFY)
    hold(said.result is Result.NOT_VERIFIED, f"verify: {words(said)}")


def _changed_since(stage: Stage, trial: Trial) -> None:
    target, plan, _ = planned(stage, trial)
    acted(Steps(stage.world, plan))
    assert trial.meddle
    trial.meddle(stage, target)
    began = datetime.now(UTC)
    said = Steps(stage.world, plan, share=_SOON).run(VERIFY)
    hold(said.result is Result.NOT_VERIFIED, f"verify: {words(said)}")
    seconds = (datetime.now(UTC) - began).total_seconds()
    limit = _SOON * find(trial.action).deadlines.verify
    hold(seconds < limit, f"it took {seconds:.0f} s to say so: {words(said)}")


def _stays_verified(stage: Stage, trial: Trial) -> None:
    """A stale restart does not undo a good change, whatever has become of it since."""
    target, plan, _ = planned(stage, trial)
    steps = Steps(stage.world, plan)
    acted(steps)
    said = steps.run(VERIFY)
    hold(said.result is Result.VERIFIED, f"verify: {words(said)}")
    now = stage.wire.find(place_of(target))
    mark = str(at(now, f"/metadata/annotations/{ANNOTATION.replace('/', '~1')}") or "")
    hold(not mark.endswith(".act"), "its mark still says that it has not finished")
    assert trial.meddle
    trial.meddle(stage, target)
    said = Steps(stage.world, plan, share=HOPELESS).run(VERIFY)
    hold(said.result is Result.VERIFIED, f"verify again: {words(said)}")
