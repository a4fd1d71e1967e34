"""A person has an action done by hand: in an incident of its own, through the same stages."""

import asyncio
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tiphys.policies.lifecycle import State
from tiphys.policies.limits import Cooldown
from tiphys.policies.model import DecidedBy, Incident, Outcome, Plan, Proposal, Risk, StopFacts
from tiphys.policies.people import Person, PersonRole, RoleGrant
from tiphys.service.errors import AskedAlreadyError, NotAllowedError, NotRunnableError
from tiphys.service.people import namespace_of
from tiphys.service.records import AuditEvent

sys.path.insert(0, str(Path(__file__).parent))

from test_undos import BACK, CART, SCALED, WELL, ended

CARTS = "deployment/shop/cart"
MARKUP = "<!channel> *bold* `code` \x1b[31m{{7*7}} <script>"


def a_person(name: str = "ada", role: str = "operator", *namespaces: str) -> Person:
    grant = RoleGrant(role=PersonRole(role), namespaces=namespaces or ("shop",))
    return Person(name=name, grants=(grant,))


ADA = a_person()


async def asked(bench: Any, *, person: Person = ADA, reason: str = "a sale", **more: Any) -> Any:
    """The wish to scale the cart, up to its gate; what the agents propose for it is laid out."""
    bench.scout.firing = False
    fields = {
        **SCALED,
        "risk": Risk.MEDIUM,
        "decided_by": DecidedBy(reasoner="human", note="ada: a sale"),
        **more,
    }
    bench.scout.proposal = bench.scout.proposal.model_copy(update=fields)
    given = {"replicas": "4"}
    return await bench.wishes.ask("scale-workload", CARTS, given, person=person, reason=reason)


async def judged(bench: Any, **more: Any) -> Incident:
    incident = await asked(bench, **more)
    return await bench.run(bench.decide, await bench.run(bench.investigate, incident))


# --- the wish -------------------------------------------------------------------------------------


async def test_a_wish_is_an_incident_of_its_own_and_in_the_record(bench: Any) -> None:
    wish = await asked(bench, reason=MARKUP)
    assert wish.wants is not None
    assert (wish.title, wish.proposer) == ("scale-workload on Deployment shop/cart", "ada")
    assert wish.wants.parameters == {"replicas": 4}, "as the plan will carry it"
    assert wish.reason == f"ada wants it: {MARKUP}"
    assert namespace_of(wish) == "shop"
    opened, told = await bench.records(wish)
    assert opened.event == AuditEvent.INCIDENT_OPENED
    assert (told.event, told.actor) == (AuditEvent.RUN_ASKED, "ada")
    assert told.body == {
        "action": "scale-workload", "target": "Deployment shop/cart", "parameters": {"replicas": 4},
        "incident": wish.id, "by": "ada", "reason": MARKUP,
    }  # fmt: skip
    assert (await bench.verify()).problem is None


async def test_other_incidents_keep_their_bytes(bench: Any) -> None:
    assert "wants" not in json.loads((await bench.open()).model_dump_json())


async def test_what_is_asked_for_already_is_not_asked_for_twice(bench: Any) -> None:
    wish = await asked(bench)
    with pytest.raises(AskedAlreadyError, match=f"{wish.id} is about scale-workload on Deployment"):
        await asked(bench, person=a_person("bo"))
    assert len(await bench.rows("incidents")) == 1


async def test_two_replicas_at_once_open_one_incident(bench: Any) -> None:
    replicas = [bench.replica() for _ in range(4)]
    found = await asyncio.gather(*(asked(one) for one in replicas), return_exceptions=True)
    assert sorted(type(one).__name__ for one in found) == [*["AskedAlreadyError"] * 3, "Incident"]
    assert len(await bench.rows("incidents")) == 1
    assert (await bench.events()).count(AuditEvent.RUN_ASKED) == 1


@pytest.mark.parametrize(
    ("action", "target", "given", "why"),
    [
        ("delete-all", CARTS, {}, "no action 'delete-all'; there are cordon-drain-node, "),
        (MARKUP, CARTS, {}, "the catalogue has no action"),
        ("scale-workload", CARTS, {}, "Field required.* takes replicas .integer, at least 0"),
        ("scale-workload", CARTS, {"replicas": "101"}, "less than or equal to 100"),
        ("scale-workload", CARTS, {"replicas": -1}, "greater than or equal to 0"),
        ("scale-workload", CARTS, {"replicas": "many"}, "valid integer"),
        ("scale-workload", CARTS, {"replicas": [4]}, "valid integer"),
        ("scale-workload", CARTS, {"replicas": 1, "x": 2}, "x: Extra inputs are not permitted"),
        ("rollout-restart", CARTS, {"x": "y"}, "rollout-restart takes no parameters"),
        ("scale-workload", "pod/shop/cart-1", {}, "works on a deployment or statefulset, not on"),
        ("scale-workload", "deployment/cart", {}, "the namespace of a deployment is needed"),
        ("cordon-drain-node", "node/shop/n1", {}, "a node is in no namespace"),
        ("scale-workload", "cart", {}, "a target is KIND/NAMESPACE/NAME"),
        ("scale-workload", "deployment/shop/cart/x", {}, "a target is KIND/NAMESPACE/NAME"),
        ("scale-workload", "deployment/shop/", {}, "no such names"),
        ("scale-workload", "deployment/shop/..", {}, "no such names"),
        ("scale-workload", "deployment/shop/<!here>", {}, "no such names"),
        ("scale-workload", "deployment/shop/cart\n", {}, "no such names"),
        ("scale-workload", "deployment/sh%2fop/cart", {}, "no such names"),
        ("replace-gpu-node", "node/n1", {"xids": [79]}, "only an alert's evidence can say"),
    ],
    ids=[f"refused-{n}" for n in range(20)],
)
async def test_what_can_never_be_is_refused_at_once_and_leaves_nothing(
    bench: Any, action: str, target: str, given: dict[str, Any], why: str
) -> None:
    everywhere = a_person("ada", "operator", "*")
    with pytest.raises(NotRunnableError, match=why):
        await bench.wishes.ask(action, target, given, person=everywhere, reason="why not")
    assert await bench.rows("incidents") == []
    assert await bench.records() == []


@pytest.mark.parametrize(
    ("person", "target"),
    [
        (a_person("far", "operator", "elsewhere"), CARTS),
        (a_person("eve", "viewer", "*"), CARTS),
        (a_person("ada", "operator", "shop"), "node/n1"),
    ],
    ids=["another-namespace", "another-role", "outside-any"],
)
async def test_who_may_not_act_there_learns_nothing_else(
    bench: Any, person: Person, target: str
) -> None:
    await asked(bench)
    for given in ({"replicas": 4}, {"nonsense": 1}):
        with pytest.raises(NotAllowedError) as told:
            await bench.wishes.ask("scale-workload", target, given, person=person, reason="please")
        assert f"{person.name} has not the role operator" in str(told.value)
        assert "inc-" not in str(told.value)
    assert len(await bench.rows("incidents")) == 1


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("db-password", "hunter2"),
        ("banner", "token=abcdef0123456789"),
        ("log", "AKIAABCDEFGHIJKLMN"),
    ],
    ids=["by-its-key", "by-its-words", "by-its-look"],
)
async def test_what_looks_like_a_secret_is_written_nowhere(
    bench: Any, key: str, value: str
) -> None:
    given = {"configmap": "fares", "key": key, "value": value}
    with pytest.raises(NotRunnableError, match="looks like a secret") as told:
        await bench.wishes.ask("update-config", CARTS, given, person=ADA, reason="why not")
    assert value not in str(told.value)
    assert await bench.rows("incidents") == []
    assert await bench.records() == []


async def test_an_ordinary_value_may_be_asked_for(bench: Any) -> None:
    given = {"configmap": "fares", "key": "pool-size", "value": "40"}
    wish = await bench.wishes.ask("update-config", CARTS, given, person=ADA, reason="slow")
    assert wish.wants.parameters == given


# --- the gate -------------------------------------------------------------------------------------


async def test_a_wish_needs_no_alert(bench: Any) -> None:
    incident = await judged(bench)
    assert incident.state == State.LAUNCHING, incident.reason


async def test_an_incident_with_alerts_gets_nothing_of_it(bench: Any) -> None:
    """A proposal in the very words of the wish does not pass where no person asked for it."""
    await asked(bench)
    other = await bench.run(bench.decide, await bench.run(bench.investigate, await bench.open()))
    assert other.state == State.MONITORING
    assert "no longer fires" in other.reason


@pytest.mark.parametrize(
    "other",
    [
        {"parameters": {"replicas": 9}},
        {"target": CART.model_copy(update={"name": "till"})},
        {"target": CART.model_copy(update={"namespace": "bank"})},
        {"target": CART.model_copy(update={"kind": "StatefulSet"})},
        {"action": "restart-pod"},
        {"decided_by": DecidedBy(reasoner="playbooks", playbook="sly")},
    ],
    ids=["parameters", "name", "namespace", "kind", "action", "reasoner"],
)
async def test_nothing_but_what_was_asked_for_passes(bench: Any, other: dict[str, Any]) -> None:
    incident = await judged(bench, **other)
    assert incident.state == State.ESCALATED
    assert "it is not what ada asked for" in incident.reason
    assert await bench.rows("runs") == []


async def test_whoever_asked_does_not_approve_it(bench: Any, kube: Any) -> None:
    incident = await judged(bench, risk=Risk.HIGH)
    assert incident.state == State.AWAITING_APPROVAL, incident.reason
    incident = await bench.run(bench.settle, incident)
    assert incident.state == State.AWAITING_APPROVAL, "no alert ends it"
    with pytest.raises(NotAllowedError, match="Ada proposed this plan"):
        await bench.approvals.approve(incident.id, by="Ada", reason="my own")
    await bench.approvals.approve(incident.id, by="bo", reason="yes")
    incident = await bench.run(bench.decide, await bench.get(incident))
    assert incident.state == State.LAUNCHING, incident.reason


async def test_a_stop_halts_it_and_a_human_hears(bench: Any) -> None:
    bench.lever.facts = StopFacts(engaged=True, reason="an exercise")
    incident = await judged(bench)
    assert incident.state == State.ESCALATED
    assert "the stop switch is engaged: an exercise" in incident.reason
    assert await bench.rows("runs") == []


async def test_a_target_rests_for_a_wish_too(bench: Any, kube: Any) -> None:
    """Unlike the undo of a run: that the target was worked on just now is no part of the wish."""
    rest = Cooldown(seconds=900)  # the demo's is over while a busy machine runs this
    bench.policy = replace(bench.policy, settings={**bench.policy.settings, rest.name: rest})
    first = await ended(bench, kube, await judged(bench), WELL)
    first = await bench.run(bench.settle, first)
    assert first.state == State.CLOSED
    incident = await judged(bench)
    assert incident.state == State.ESCALATED
    assert "rests for another" in incident.reason


# --- the run --------------------------------------------------------------------------------------


async def test_it_is_launched_verified_and_closed_and_all_of_it_is_in_the_record(
    bench: Any, kube: Any
) -> None:
    incident = await ended(bench, kube, await judged(bench), WELL)
    assert (incident.state, incident.outcome) == (State.MONITORING, Outcome.VERIFIED)
    [made] = kube.workflows()
    assert made["spec"]["workflowTemplateRef"] == {"name": "scale-workload-v1"}
    async with bench.database.reading() as tx:
        plan: Plan = await bench.runs.plan(tx, incident)
    assert (plan.parameters, plan.undoes, plan.check.query) == ({"replicas": 4}, None, "")
    assert plan.decided_by.reasoner == "human"
    bench.scout.expression = None  # nobody can tell, and no alert is behind it
    incident = await bench.run(bench.settle, incident)
    assert incident.state == State.CLOSED
    assert "is done, as ada wanted" in incident.reason
    events = await bench.events(incident)
    order = (AuditEvent.RUN_ASKED, AuditEvent.PLANNED, AuditEvent.LAUNCH_INTENDED,
             AuditEvent.WORKFLOW_CREATED, AuditEvent.RUN_ENDED)  # fmt: skip
    assert sorted(order, key=events.index) == [*order]
    assert (await bench.verify()).problem is None


async def test_one_that_did_not_help_is_handed_over_and_not_tried_again(
    bench: Any, kube: Any
) -> None:
    incident = await ended(bench, kube, await judged(bench), BACK)
    assert (incident.state, incident.outcome) == (State.ESCALATED, Outcome.ROLLED_BACK)
    assert len(kube.workflows()) == 1


async def test_a_run_by_hand_may_be_undone(bench: Any, kube: Any) -> None:
    incident = await ended(bench, kube, await judged(bench), WELL)
    name = (await bench.run_of(incident)).name
    wish = await bench.undos.ask(name, person=ADA, reason="the sale is over")
    assert wish.undoes.run == name
    far = a_person("far", "operator", "elsewhere")
    with pytest.raises(NotAllowedError):
        await bench.undos.ask(name, person=far, reason="not mine")


async def test_what_died_between_any_two_commits_is_taken_up_by_another(bench: Any) -> None:
    incident = await asked(bench)
    for stage in ("investigate", "recheck", "judge"):
        other = bench.replica()
        incident = await other.run(getattr(other, stage), incident)
    assert incident.state == State.LAUNCHING, incident.reason
    assert isinstance(bench.scout.proposal, Proposal)
