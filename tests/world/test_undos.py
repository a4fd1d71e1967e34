"""A person has a finished run undone: in an incident of its own, through the same stages."""

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import update

from tiphys.policies.lifecycle import Move, State
from tiphys.policies.model import Change, DecidedBy, Incident, Outcome, Plan, Proposal, Risk, Target
from tiphys.policies.plan import decode, workflow_name
from tiphys.service.errors import (
    AskedAlreadyError,
    NoSuchRunError,
    NotAllowedError,
    NotUndoableError,
)
from tiphys.service.incidents import Step
from tiphys.service.records import AuditEvent
from tiphys.service.tables import runs
from tiphys.workflow_templates.undoing import turned_round

CART = Target(
    cluster="sandbox",
    api_version="apps/v1",
    kind="Deployment",
    namespace="shop",
    name="cart",
    uid="uid-cart",
)
GROW = (Change(path="/spec/replicas", present=2, intended=4),)
SCALED = {
    "action": "scale-workload",
    "target": CART,
    "parameters": {"replicas": 4},
    "changes": GROW,
}
VERIFIED = '{"step": "verify", "result": "verified", "message": "well"}'
UNDONE = '{"step": "rollback", "result": "undone", "message": "put back"}'


def status(said: str, phase: str, template: str) -> dict[str, Any]:
    node = {
        "type": "Pod",
        "templateName": template,
        "phase": "Succeeded",
        "outputs": {"parameters": [{"name": "outcome", "value": said}]},
    }
    shown = {"type": "Container", "displayName": "main", "phase": "Succeeded"}
    return {"phase": phase, "message": "", "nodes": {"x": node, "y": shown}}


WELL = status(VERIFIED, "Succeeded", "run")
BACK = status(UNDONE, "Failed", "rollback")


async def ended(bench: Any, kube: Any, incident: Incident, how: dict[str, Any]) -> Incident:
    """Launch what is intended and let its Workflow end so."""
    incident = await bench.run(bench.launch(kube.argo, kube.key), incident)
    assert incident.state == State.RUNNING, incident.reason
    kube.status((await bench.run_of(incident)).name, how)
    return await bench.run(bench.watch(kube.argo), incident)


async def healed(bench: Any, kube: Any, **given: Any) -> tuple[Incident, Plan]:
    incident = await bench.launching(**{**SCALED, **given})
    incident = await ended(bench, kube, incident, WELL)
    assert incident.outcome is Outcome.VERIFIED, incident.reason
    async with bench.database.reading() as tx:
        return incident, await bench.runs.plan(tx, incident)


def undo_of(plan: Plan, **given: Any) -> Proposal:
    """What the agents propose for it: see `tests/unit/test_agents_undo.py`."""
    fields: dict[str, Any] = {
        "action": plan.action,
        "version": plan.version,
        "target": plan.target,
        "parameters": plan.parameters,
        "changes": turned_round(plan),
        "risk": Risk.MEDIUM,
        "reversible": True,
        "blast_radius": "two pods",
        "undo": "set again",
        "reason": "ada has it undone",
        "check": plan.check,
        "evidence": ("ev-1",),
        "decided_by": DecidedBy(reasoner="human", note="ada: it was wrong"),
        "undoes": workflow_name(plan),
    }
    return Proposal.model_validate({**fields, **given})


async def asked(bench: Any, plan: Plan, **given: Any) -> Incident:
    """The undo of a run up to its gate, whose agents have proposed it."""
    bench.scout.firing = False
    bench.scout.proposal = undo_of(plan, **given)
    return await bench.undos.ask(workflow_name(plan), by="ada", reason="it was wrong")


async def judged(bench: Any, plan: Plan, **given: Any) -> Incident:
    incident = await asked(bench, plan, **given)
    return await bench.run(bench.decide, await bench.run(bench.investigate, incident))


# --- the wish -------------------------------------------------------------------------------------


async def test_a_wish_opens_an_incident_of_its_own_and_both_records_say_so(
    bench: Any, kube: Any
) -> None:
    healing, plan = await healed(bench, kube)
    wish = await asked(bench, plan)
    assert wish.id != healing.id
    assert wish.undoes is not None
    assert (wish.undoes.run, wish.undoes.by) == (workflow_name(plan), "ada")
    assert "it was wrong" in wish.reason
    assert "undo of scale-workload on Deployment shop/cart" in wish.title
    [told] = [r for r in await bench.records(healing) if r.event == AuditEvent.UNDO_ASKED]
    assert told.actor == "ada"
    assert told.body == {
        "workflow": workflow_name(plan), "incident": wish.id, "by": "ada", "reason": "it was wrong",
    }  # fmt: skip
    [opened] = [r for r in await bench.records(wish) if r.event == AuditEvent.INCIDENT_OPENED]
    assert opened.actor == "ada"
    assert opened.body["of"] == healing.id


async def test_a_run_is_named_by_the_beginning_of_its_workflow(bench: Any, kube: Any) -> None:
    _, plan = await healed(bench, kube)
    name = workflow_name(plan)
    for wrong in ("tiphys-", "", "tiphys-0", f"{name}x", "%", "tiphys-%"):
        with pytest.raises(NoSuchRunError):
            await bench.undos.ask(wrong, by="ada", reason="a guess")
    wish = await bench.undos.ask(name.removeprefix("tiphys-")[:8], by="ada", reason="wrong")
    assert wish.undoes.run == name


async def test_a_run_is_undone_by_one_incident_at_a_time(bench: Any, kube: Any) -> None:
    _, plan = await healed(bench, kube)
    wish = await asked(bench, plan)
    with pytest.raises(AskedAlreadyError, match=wish.id):
        await asked(bench, plan)
    assert [r["subject"] for r in await bench.rows("incidents")].count(wish.subject) == 1


@pytest.mark.parametrize(
    ("outcome", "is_open", "why"),
    [
        (None, True, "tiphys abort"),
        (None, False, "never started"),
        (Outcome.REFUSED, False, "changed nothing"),
        (Outcome.INEFFECTIVE, False, "nothing to put back"),
        (Outcome.ROLLED_BACK, False, "rolled back already"),
        (Outcome.ROLLBACK_FAILED, False, "for a human's hands"),
    ],
)
async def test_what_left_nothing_is_not_undone_and_nothing_is_recorded(
    bench: Any, kube: Any, outcome: Outcome | None, is_open: bool, why: str
) -> None:
    _, plan = await healed(bench, kube)
    async with bench.database.transaction() as tx:
        await tx.execute(update(runs).values(outcome=outcome, open=is_open))
    before = await bench.records()
    with pytest.raises(NotUndoableError, match=why):
        await asked(bench, plan)
    assert await bench.records() == before
    assert len(await bench.rows("incidents")) == 1


async def test_an_unknown_end_may_be_undone(bench: Any, kube: Any) -> None:
    """What it left may stand there; whether it does precheck sees."""
    _, plan = await healed(bench, kube)
    async with bench.database.transaction() as tx:
        await tx.execute(update(runs).values(outcome=Outcome.UNKNOWN))
    assert (await asked(bench, plan)).state == State.OPEN


async def test_an_irreversible_action_says_why_it_is_not_undone(bench: Any, kube: Any) -> None:
    incident = await ended(bench, kube, await bench.launching(), WELL)
    name = (await bench.run_of(incident)).name
    with pytest.raises(NotUndoableError, match="restart-pod cannot be undone: Nothing needs"):
        await bench.undos.ask(name, by="ada", reason="why not")


# --- the gate -------------------------------------------------------------------------------------


async def test_an_undo_needs_no_alert_and_no_rest_and_anything_else_does(
    bench: Any, kube: Any
) -> None:
    _, plan = await healed(bench, kube)
    incident = await judged(bench, plan)
    assert incident.state == State.LAUNCHING, incident.reason
    other = await bench.open("deployment shop/other")
    bench.scout.proposal = undo_of(plan, undoes=None)
    other = await bench.run(bench.decide, await bench.run(bench.investigate, other))
    assert other.state == State.MONITORING
    assert "no longer fires" in other.reason


async def test_only_a_persons_undo_goes_without_an_alert(bench: Any, kube: Any) -> None:
    _, plan = await healed(bench, kube)
    by = DecidedBy(reasoner="playbooks", playbook="sly")
    incident = await judged(bench, plan, decided_by=by)
    assert incident.state == State.MONITORING
    assert "no longer fires" in incident.reason


async def test_an_undo_of_high_risk_waits_for_approval_and_is_not_closed_meanwhile(
    bench: Any, kube: Any
) -> None:
    _, plan = await healed(bench, kube)
    incident = await judged(bench, plan, risk=Risk.HIGH)
    assert incident.state == State.AWAITING_APPROVAL
    assert "undo of scale-workload" in incident.reason
    incident = await bench.run(bench.settle, incident)
    assert incident.state == State.AWAITING_APPROVAL, "no alert ends it"
    assert bench.bell.rung[-1][0] == incident.id
    with pytest.raises(NotAllowedError, match="ada proposed this plan"):
        await bench.approvals.approve(incident.id, by="ada", reason="my own")
    await bench.approvals.approve(incident.id, by="bo", reason="yes")
    incident = await bench.run(bench.decide, await bench.get(incident))
    assert incident.state == State.LAUNCHING, incident.reason


async def test_a_frozen_target_and_a_stop_are_heeded_and_a_human_hears(
    bench: Any, kube: Any
) -> None:
    _, plan = await healed(bench, kube)
    async with bench.database.transaction() as tx:
        run = replace((await bench.runs.named(tx, workflow_name(plan)))[0])
        await bench.runs.freeze(tx, run, plan.target, reason="hands off", now=bench.clock())
    incident = await judged(bench, plan)
    assert incident.state == State.ESCALATED
    assert "hands off" in incident.reason
    incident = await bench.run(bench.settle, incident)
    assert incident.state == State.ESCALATED, "it is not over before somebody has heard"
    assert bench.bell.rung[-1][0] == incident.id


async def test_a_target_that_moved_since_is_planned_anew(bench: Any, kube: Any) -> None:
    _, plan = await healed(bench, kube)
    bench.scout.target = {"changes": (Change(path="/spec/replicas", present=9, intended=2),)}
    incident = await judged(bench, plan)
    assert (incident.state, incident.attempt) == (State.OPEN, 2)


async def test_open_runs_on_the_target_are_waited_for(bench: Any, kube: Any) -> None:
    _, plan = await healed(bench, kube)
    bench.scout.firing = True
    other = await bench.launching("deployment shop/cart", **{**SCALED, "evidence": ("ev-1",)})
    if other.state != State.LAUNCHING:
        bench.clock.forward(10)  # the target rests
        other = await bench.launching("deployment shop/cart-2", **SCALED)
    assert other.state == State.LAUNCHING, other.reason
    incident = await judged(bench, plan)
    assert incident.state == State.PROPOSED, "it looks again until that one has ended"


# --- the run --------------------------------------------------------------------------------------


async def test_the_plan_of_an_undo_is_signed_and_launched_like_any_other(
    bench: Any, kube: Any
) -> None:
    _, plan = await healed(bench, kube)
    incident = await judged(bench, plan)
    events = await bench.events(incident)
    assert events.index(AuditEvent.PLANNED) < events.index(AuditEvent.LAUNCH_INTENDED)
    incident = await bench.run(bench.launch(kube.argo, kube.key), incident)
    assert incident.state == State.RUNNING
    name = (await bench.run_of(incident)).name
    [made] = [w for w in kube.workflows() if w["metadata"]["name"] == name]
    assert made["spec"]["workflowTemplateRef"] == {"name": "scale-workload-v1"}
    given = {p["name"]: p["value"] for p in made["spec"]["arguments"]["parameters"]}
    undo = decode(given["plan"])
    assert undo.undoes == workflow_name(plan)
    assert undo.changes == turned_round(plan)
    assert undo.decided_by.reasoner == "human"
    assert workflow_name(undo) == name


async def test_an_undo_that_was_created_before_we_died_is_adopted(bench: Any, kube: Any) -> None:
    _, plan = await healed(bench, kube)
    incident = await judged(bench, plan)
    launch = bench.launch(kube.argo, kube.key)
    async with bench.database.reading() as tx:
        run, undo = await bench.runs.of(tx, incident), await bench.runs.plan(tx, incident)
    assert await kube.argo.create(launch._submission(run, undo)), "and here the power fails"
    incident = await bench.run(launch, incident)
    assert incident.state == State.RUNNING
    assert len(kube.workflows()) == 2
    created = [r for r in await bench.records(incident) if r.event == AuditEvent.WORKFLOW_CREATED]
    assert [r.body["adopted"] for r in created] == [True]


async def test_what_died_between_any_two_commits_is_taken_up_by_another(
    bench: Any, kube: Any
) -> None:
    """Each stage by a process of its own: nothing but the database is left in between."""
    _, plan = await healed(bench, kube)
    incident = await asked(bench, plan)
    for stage in ("investigate", "recheck", "judge"):
        other = bench.replica()
        incident = await other.run(getattr(other, stage), incident)
    assert incident.state == State.LAUNCHING, incident.reason
    incident = await ended(bench.replica(), kube, incident, WELL)
    assert incident.outcome is Outcome.VERIFIED
    assert len(kube.workflows()) == 2


async def test_a_verified_undo_closes_its_incident(bench: Any, kube: Any) -> None:
    _, plan = await healed(bench, kube)
    incident = await ended(bench, kube, await judged(bench, plan), WELL)
    assert incident.state == State.MONITORING
    bench.scout.expression = None  # nobody can tell, and no alert is behind it
    incident = await bench.run(bench.settle, incident)
    assert incident.state == State.CLOSED
    assert incident.reason == f"{workflow_name(plan)} is undone"


async def test_an_undo_that_was_put_back_is_not_tried_again_but_handed_over(
    bench: Any, kube: Any
) -> None:
    _, plan = await healed(bench, kube)
    incident = await ended(bench, kube, await judged(bench, plan), BACK)
    assert (incident.state, incident.outcome) == (State.ESCALATED, Outcome.ROLLED_BACK)
    incident = await bench.run(bench.settle, incident)
    assert bench.bell.rung[-1][0] == incident.id
    async with bench.ledger.person(incident.id) as entry:
        await entry.move(Step(Move.ACKNOWLEDGE, "mine", "bo", acknowledged_by="bo"))
        incident = entry.incident
    incident = await bench.run(bench.settle, incident)
    assert incident.state == State.CLOSED
    assert "not undone" in incident.reason


async def test_an_undo_is_not_undone(bench: Any, kube: Any) -> None:
    _, plan = await healed(bench, kube)
    incident = await ended(bench, kube, await judged(bench, plan), WELL)
    name = (await bench.run_of(incident)).name
    with pytest.raises(NotUndoableError, match="planned anew"):
        await bench.undos.ask(name, by="ada", reason="and back again")
    assert (await bench.verify()).problem is None
