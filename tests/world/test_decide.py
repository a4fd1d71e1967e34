"""The decision: gate, plan and intent in one commit, or a question, a wait, a new look, a human."""

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from tiphys.policies.gate import RULES
from tiphys.policies.lifecycle import State
from tiphys.policies.limits import OnePerTarget
from tiphys.policies.model import Change, Check, Incident, Outcome, Risk, StopFacts
from tiphys.policies.parse import built_in
from tiphys.policies.plan import digest, workflow_name
from tiphys.policies.rule import ALLOWED
from tiphys.service.database import stamp
from tiphys.service.decide import LOOK_AGAIN
from tiphys.service.errors import LeaseLostError, TargetBusyError
from tiphys.service.records import AuditEvent


async def attempt_of(bench: Any, incident: Incident) -> int:
    return (await bench.get(incident)).attempt


# --- allowed --------------------------------------------------------------------------------------


async def test_what_is_allowed_is_planned_intended_and_launching_in_one_commit(bench: Any) -> None:
    incident = await bench.inspected()
    before = len(await bench.records())
    job, seen = await bench.job(incident), []

    async def watch_from_outside() -> None:
        while not seen or seen[-1] == (State.INSPECTED, 0, 0, 0):
            async with bench.database.reading() as tx:
                state = (await tx.execute(text("SELECT state FROM incidents"))).scalar_one()
                plans, runs = [
                    (await tx.execute(text(f"SELECT count(*) FROM {t}"))).scalar_one()
                    for t in ("plans", "runs")
                ]
                newer = text("SELECT count(*) FROM audit WHERE seq > :seq")
                records = (await tx.execute(newer, {"seq": before})).scalar_one()
            seen.append((state, plans, runs, min(records, 1)))
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch_from_outside())
    await bench.judge.run(job)
    async with asyncio.timeout(5):
        await watching
    assert set(seen) <= {(State.INSPECTED, 0, 0, 0), (State.LAUNCHING, 1, 1, 1)}, "all or nothing"

    incident, run = await bench.get(incident), await bench.run_of(incident)
    [plan] = await bench.rows("plans")
    assert (run.open, run.created, run.outcome) == (True, False, None)
    assert run.plan_digest == plan["digest"]
    assert run.not_after == run.intended_at + bench.not_after
    assert run.deadline_at > run.not_after
    assert incident.deadline_at == run.deadline_at
    assert run.owner_uid == f"owner-{run.target_uid}"


async def test_the_record_tells_the_launch_in_order(bench: Any) -> None:
    incident = await bench.launching()
    records = await bench.records(incident)
    assert [r.event for r in records][-6:] == [
        AuditEvent.INCIDENT_MOVED,
        AuditEvent.EVIDENCE_GATHERED,
        AuditEvent.JUDGED,
        AuditEvent.PLANNED,
        AuditEvent.LAUNCH_INTENDED,
        AuditEvent.INCIDENT_MOVED,
    ]
    by_event = {r.event: r.body for r in records}
    async with bench.database.reading() as tx:
        plan = await bench.runs.plan(tx, incident)
    assert by_event[AuditEvent.PLANNED]["plan"] == plan.model_dump(mode="json")
    assert by_event[AuditEvent.LAUNCH_INTENDED]["workflow"] == workflow_name(plan)
    assert by_event[AuditEvent.LAUNCH_INTENDED]["plan"] == digest(plan)
    assert len(by_event[AuditEvent.JUDGED]["judgement"]["verdicts"]) == len(RULES)


async def test_the_plan_is_what_was_proposed_with_the_policys_hold(bench: Any) -> None:
    check = Check(query="up == 0", hold_seconds=999)
    incident = await bench.launching(check=check)
    async with bench.database.reading() as tx:
        plan = await bench.runs.plan(tx, incident)
    proposal = bench.scout.proposal
    assert plan.check == check.model_copy(update={"hold_seconds": 2})
    assert (plan.target, plan.changes) == (proposal.target, proposal.changes)
    assert (plan.incident, plan.attempt) == (incident.id, 1)
    assert plan.policy == bench.policy.identity


async def test_a_replica_that_lost_its_lease_intends_nothing(bench: Any) -> None:
    incident = await bench.inspected()
    job = await bench.job(incident)
    await bench.leases.release(job.lease, bench.clock())
    await bench.replica().job(incident)
    with pytest.raises(LeaseLostError):
        await bench.judge.run(job)
    assert await bench.rows("runs") == await bench.rows("plans") == []


# --- the facts ------------------------------------------------------------------------------------


async def lain_for(bench: Any, seconds: float) -> None:
    """Let the facts lie: the database's own time cannot be pushed forward."""
    async with bench.database.transaction() as tx:
        then = stamp(await bench.database.time(tx, bench.clock()) - timedelta(seconds=seconds))
        await tx.execute(text("UPDATE facts SET at = :at"), {"at": then})


async def test_facts_that_have_lain_too_long_are_read_again_and_not_judged(bench: Any) -> None:
    incident = await bench.inspected()
    await lain_for(bench, 31)
    before = await bench.records()
    incident = await bench.run(bench.judge, incident)
    assert (incident.state, incident.attempt) == (State.PROPOSED, 1)
    assert (incident.reason, incident.deadline_at is None) == ("it crashes", False)
    assert await bench.records() == before
    await nothing_was_started(bench)
    assert (await bench.run(bench.decide, incident)).state == State.LAUNCHING


async def test_facts_that_have_just_been_laid_are_judged(bench: Any) -> None:
    incident = await bench.inspected()
    await lain_for(bench, 25)
    assert (await bench.run(bench.judge, incident)).state == State.LAUNCHING


async def test_without_facts_nothing_is_judged(bench: Any) -> None:
    incident = await bench.inspected()
    async with bench.database.transaction() as tx:
        await tx.execute(text("DELETE FROM facts"))
    assert (await bench.run(bench.judge, incident)).state == State.PROPOSED
    await nothing_was_started(bench)


async def test_the_facts_of_an_earlier_attempt_are_not_judged(bench: Any) -> None:
    incident = await bench.inspected()
    async with bench.database.transaction() as tx:
        await tx.execute(text("UPDATE facts SET attempt = 7"))
    assert (await bench.run(bench.judge, incident)).state == State.PROPOSED


async def test_an_approved_plan_is_judged_by_facts_read_after_the_approval(bench: Any) -> None:
    incident = await bench.asked()
    await bench.approvals.approve(incident.id, by="ann", reason="go")
    bench.scout.firing = False
    looked = await bench.run(bench.recheck, incident)
    assert looked.state == State.INSPECTED
    assert (await bench.run(bench.judge, incident)).state == State.MONITORING
    assert await bench.rows("runs") == []


async def test_what_the_agents_cannot_read_is_laid_down_as_unknown(bench: Any) -> None:
    incident = await bench.proposed()
    bench.scout.target_known = False
    await bench.run(bench.recheck, incident)
    [row] = await bench.rows("facts")
    assert json.loads(row["body"])["target"] is None
    assert json.loads(row["body"])["alert"]["firing"] is True


async def test_a_look_of_a_replica_that_lost_its_lease_is_not_laid_down(bench: Any) -> None:
    incident = await bench.proposed()
    job = await bench.job(incident)
    await bench.leases.release(job.lease, bench.clock())
    await bench.replica().job(incident)
    with pytest.raises(LeaseLostError):
        await bench.recheck.run(job)
    assert await bench.rows("facts") == []


# --- denied ---------------------------------------------------------------------------------------


async def nothing_was_started(bench: Any) -> None:
    assert await bench.rows("runs") == []
    assert await bench.rows("plans") == []
    events = await bench.events()
    assert AuditEvent.PLANNED not in events
    assert AuditEvent.LAUNCH_INTENDED not in events


async def test_a_stop_switch_that_cannot_be_read_stops(bench: Any) -> None:
    incident = await bench.proposed()
    bench.lever.facts = None
    incident = await bench.run(bench.decide, incident)
    assert incident.state == State.ESCALATED
    assert "the stop switch could not be read" in incident.reason
    assert incident.reason.startswith("Proposed: restart-pod on Pod shop/cart-1: it crashes.")
    await nothing_was_started(bench)


async def test_an_engaged_stop_switch_stops_and_says_whose_reason(bench: Any) -> None:
    incident = await bench.proposed()
    bench.lever.facts = StopFacts(engaged=True, reason="big sale")
    incident = await bench.run(bench.decide, incident)
    assert "big sale" in incident.reason
    await nothing_was_started(bench)


@pytest.mark.parametrize("unread", ["alert_known", "target_known"])
async def test_what_cannot_be_read_again_is_not_acted_on(bench: Any, unread: str) -> None:
    incident = await bench.proposed()
    setattr(bench.scout, unread, False)
    incident = await bench.run(bench.decide, incident)
    assert incident.state == State.ESCALATED
    assert "could not be read" in incident.reason
    await nothing_was_started(bench)


async def test_where_only_suggestions_are_allowed_a_human_gets_the_suggestion(bench: Any) -> None:
    bench.policy = built_in("default")
    incident = await bench.launching()
    assert incident.state == State.ESCALATED
    assert "Proposed: restart-pod on Pod shop/cart-1" in incident.reason
    assert "suggest only" in incident.reason
    await nothing_was_started(bench)


@pytest.mark.parametrize("quiet", [{"firing": False}, {"silenced": True}])
async def test_an_alert_that_is_over_or_silenced_is_watched(
    bench: Any, quiet: dict[str, bool]
) -> None:
    incident = await bench.proposed()
    vars(bench.scout).update(quiet)
    incident = await bench.run(bench.decide, incident)
    assert incident.state == State.MONITORING
    assert incident.deadline_at is not None
    await nothing_was_started(bench)


async def test_a_target_that_moved_is_investigated_again_under_a_new_attempt(bench: Any) -> None:
    incident = await bench.proposed()
    bench.scout.target = {"changes": (Change(path="", present={"restarts": 8}, intended=None),)}
    incident = await bench.run(bench.decide, incident)
    assert (incident.state, incident.attempt) == (State.OPEN, 2)
    assert "has changed since" in incident.reason
    await nothing_was_started(bench)


async def test_a_plan_that_never_stays_valid_goes_to_a_human(bench: Any) -> None:
    incident = await bench.proposed()
    bench.scout.target = {"changes": (Change(path="", present={"restarts": 8}, intended=None),)}
    for attempt in (2, 3):
        incident = await bench.run(bench.decide, incident)
        assert incident.attempt == attempt
        incident = await bench.run(bench.investigate, incident)
    incident = await bench.run(bench.decide, incident)
    assert incident.state == State.ESCALATED
    assert "no plan stays valid" in incident.reason


async def test_evidence_that_failed_starts_nothing(bench: Any) -> None:
    incident = await bench.proposed()
    async with bench.database.transaction() as tx:
        worse = bench.scout.evidence(ok=False).model_dump_json()
        await tx.execute(text("UPDATE evidence SET body = :body"), {"body": worse})
    incident = await bench.run(bench.decide, incident)
    assert incident.state == State.ESCALATED
    assert "did not answer" in incident.reason
    await nothing_was_started(bench)


async def test_a_proposal_that_cannot_be_found_goes_to_a_human(bench: Any) -> None:
    incident = await bench.proposed()
    async with bench.database.transaction() as tx:
        await tx.execute(text("DELETE FROM proposals"))
    assert (await bench.run(bench.decide, incident)).state == State.ESCALATED


async def test_a_plan_too_large_to_carry_goes_to_a_human(bench: Any) -> None:
    incident = await bench.launching(changes=(Change(path="/x", present="y" * 20_000, intended=1),))
    assert incident.state == State.ESCALATED
    assert "too large" in incident.reason
    await nothing_was_started(bench)


# --- denials that pass ----------------------------------------------------------------------------


async def test_a_rollout_in_progress_is_waited_for_without_filling_the_record(bench: Any) -> None:
    incident = await bench.proposed()
    bench.scout.target = {"rollout_in_progress": True}
    incident = await bench.run(bench.decide, incident)
    before = await bench.records()
    for _ in range(3):
        bench.clock.forward(2)
        began = bench.clock()
        incident = await bench.run(bench.decide, incident)
        assert incident.state == State.PROPOSED
        assert await bench.due_at(incident) >= stamp(began + LOOK_AGAIN)
    assert await bench.records() == before
    bench.scout.target = {}
    incident = await bench.run(bench.decide, incident)
    assert incident.state == State.LAUNCHING
    gathered = (await bench.events(incident)).count(AuditEvent.EVIDENCE_GATHERED)
    assert gathered == 3, "by the investigation, by the first look, and when something changed"


async def test_what_does_not_pass_before_the_deadline_goes_to_a_human_with_the_reason(
    bench: Any,
) -> None:
    incident = await bench.proposed()
    bench.scout.target = {"rollout_in_progress": True}
    bench.clock.forward(119)
    incident = await bench.run(bench.decide, incident)
    assert incident.state == State.ESCALATED
    assert "rollout-in-progress" in incident.reason
    assert AuditEvent.JUDGED in await bench.events(incident)


async def test_an_approved_plan_that_waits_has_a_deadline_too(bench: Any) -> None:
    incident = await bench.asked()
    await bench.approvals.approve(incident.id, by="ann", reason="")
    bench.scout.target = {"rollout_in_progress": True}
    incident = await bench.run(bench.decide, incident)
    assert incident.state == State.PROPOSED
    assert incident.deadline_at is not None, "or it would wait for ever"


async def test_the_cluster_runs_few_actions_at_once(bench: Any, target: Any) -> None:
    for i in range(3):
        one = await bench.launching(f"pod shop/p-{i}", target=target(f"p-{i}"))
        assert one.state == State.LAUNCHING
    fourth = await bench.launching("pod shop/p-9", target=target("p-9"))
    assert fourth.state == State.PROPOSED, "it waits for its turn"
    run = await bench.run_of(one)
    async with bench.database.transaction() as tx:
        await bench.runs.end(tx, run.name, Outcome.VERIFIED, bench.clock())
    assert (await bench.run(bench.decide, fourth)).state == State.LAUNCHING


# --- one target, many incidents -------------------------------------------------------------------


class Blind(OnePerTarget):
    """The rule, unplugged."""

    def judge(self, _request: Any) -> Any:
        return ALLOWED


async def two_on_one_target(bench: Any) -> list[Incident]:
    pair = [await bench.proposed("pod shop/cart-1"), await bench.proposed("deployment shop/cart")]
    jobs = [await bench.job(incident) for incident in pair]
    other = bench.replica()
    other.leases.holder = bench.leases.holder  # so that the second job is the second replica's
    done = await asyncio.gather(
        bench.decide.run(jobs[0]), other.decide.run(jobs[1]), return_exceptions=True
    )
    for one in done:
        assert one is None or isinstance(one, TargetBusyError), one
    return [await bench.get(incident) for incident in pair]


async def test_two_incidents_on_one_target_at_once_start_one_run(bench: Any) -> None:
    states = sorted(incident.state for incident in await two_on_one_target(bench))
    assert states == [State.LAUNCHING, State.PROPOSED]
    assert len(await bench.rows("runs")) == 1


async def test_the_unique_index_alone_keeps_it_to_one_run(bench: Any) -> None:
    settings = {**bench.policy.settings, OnePerTarget.name: Blind()}
    bench.policy = type(bench.policy)(**{**vars(bench.policy), "settings": settings})
    states = sorted(incident.state for incident in await two_on_one_target(bench))
    assert states == [State.INSPECTED, State.LAUNCHING], "the loser is asked again, not lost"
    assert len(await bench.rows("runs")) == 1


async def test_the_gates_count_alone_keeps_it_to_one_run(bench: Any) -> None:
    async with bench.database.transaction() as tx:
        await tx.execute(text("DROP INDEX runs_one_open_target"))
    await two_on_one_target(bench)
    assert len(await bench.rows("runs")) == 1


async def test_pods_of_one_owner_count_as_one_target(bench: Any, target: Any) -> None:
    await bench.launching("pod shop/a", target=target("a"))
    bench.scout.target = {"owners": ({
        "api_version": "apps/v1", "kind": "Deployment", "name": "cart",
        "uid": "owner-uid-shop-a",
    },)}  # fmt: skip
    assert (await bench.launching("pod shop/b", target=target("b"))).state == State.PROPOSED
    assert len(await bench.rows("runs")) == 1


# --- the breaker ----------------------------------------------------------------------------------


async def many_launches(bench: Any, target: Any, namespace: str) -> list[Incident]:
    found = []
    for i in range(6):
        name = f"{namespace}-{i}"
        one = await bench.launching(f"pod {name}", target=target(name, namespace))
        if one.state == State.LAUNCHING:
            async with bench.database.transaction() as tx:
                run = (await bench.run_of(one)).name
                await bench.runs.end(tx, run, Outcome.VERIFIED, bench.clock())
        found.append(one)
    return found


async def test_too_many_launches_trip_the_namespaces_breaker_for_good(
    bench: Any, target: Any
) -> None:
    *launched, sixth = await many_launches(bench, target, "shop")
    assert {one.state for one in launched} == {State.LAUNCHING}
    assert sixth.state == State.ESCALATED
    [breaker] = await bench.rows("breakers")
    assert breaker["scope"] == "namespace:sandbox/shop"
    tripped = [r for r in await bench.records() if r.event == AuditEvent.BREAKER_TRIPPED]
    assert [(r.incident_id, r.body["scope"]) for r in tripped] == [(sixth.id, breaker["scope"])]
    bench.clock.forward(3600)  # long after the window
    later = await bench.launching("pod shop/later", target=target("later"))
    assert later.state == State.ESCALATED
    assert "breaker" in later.reason
    elsewhere = await bench.launching("pod r/x", target=target("x", "research"))
    assert elsewhere.state == State.LAUNCHING, "one noisy tenant disarms only itself"
    await bench.holds.release(breaker["scope"], by="ann", reason="found it")
    again = await bench.launching("pod shop/again", target=target("again"))
    assert again.state == State.LAUNCHING


# --- approval -------------------------------------------------------------------------------------


async def test_what_needs_approval_is_planned_and_asked_with_a_deadline(bench: Any) -> None:
    incident = await bench.asked()
    assert incident.state == State.AWAITING_APPROVAL
    assert "Needs approval: risk" in incident.reason
    assert (incident.deadline_at - bench.clock()).total_seconds() == pytest.approx(900, abs=30)
    assert len(await bench.rows("plans")) == 1
    assert await bench.rows("runs") == []
    assert AuditEvent.PLANNED in await bench.events(incident)


async def test_an_approved_plan_is_launched_as_it_was_shown(bench: Any) -> None:
    incident = await bench.asked()
    [plan] = await bench.rows("plans")
    await bench.approvals.approve(incident.id, by="ann", reason="go")
    incident = await bench.run(bench.decide, incident)
    assert incident.state == State.LAUNCHING
    assert (await bench.run_of(incident)).plan_digest == plan["digest"]
    intended = [r for r in await bench.records(incident) if r.event == AuditEvent.LAUNCH_INTENDED]
    assert intended[0].body["approved_by"] == "ann"


async def test_an_approval_is_void_when_the_values_moved(bench: Any) -> None:
    incident = await bench.asked()
    await bench.approvals.approve(incident.id, by="ann", reason="go")
    moved = (Change(path="", present={"restarts": 8}, intended=None),)
    bench.scout.target = {"changes": moved}
    incident = await bench.run(bench.decide, incident)
    assert (incident.state, incident.attempt) == (State.OPEN, 2)
    assert AuditEvent.APPROVAL_VOID in await bench.events(incident)
    bench.scout.proposal = bench.scout.proposal.model_copy(update={"changes": moved})
    bench.scout.target = {}
    incident = await bench.run(bench.investigate, incident)
    incident = await bench.run(bench.decide, incident)
    assert incident.state == State.AWAITING_APPROVAL, "the new plan is asked about anew"
    assert await bench.rows("runs") == []


async def test_an_old_approval_does_not_cover_an_identical_plan_of_the_next_attempt(
    bench: Any,
) -> None:
    incident = await bench.asked()
    await bench.approvals.approve(incident.id, by="ann", reason="go")
    bench.scout.target = {"changes": (Change(path="", present={"restarts": 8}, intended=None),)}
    incident = await bench.run(bench.decide, incident)
    bench.scout.target = {}  # and the values moved back
    incident = await bench.run(bench.decide, await bench.run(bench.investigate, incident))
    assert incident.state == State.AWAITING_APPROVAL
    assert await bench.rows("runs") == []


async def test_an_approval_that_has_expired_starts_nothing(bench: Any) -> None:
    incident = await bench.asked()
    await bench.approvals.approve(incident.id, by="ann", reason="go")
    bench.clock.forward(901)
    incident = await bench.run(bench.decide, incident)
    assert (incident.state, incident.attempt) == (State.OPEN, 2)
    assert "expired" in incident.reason
    assert AuditEvent.APPROVAL_VOID in await bench.events(incident)
    assert await bench.rows("runs") == []


async def test_a_changed_policy_plans_anew(bench: Any) -> None:
    incident = await bench.asked()
    await bench.approvals.approve(incident.id, by="ann", reason="go")
    bench.policy = type(bench.policy)(**{**vars(bench.policy), "version": "2"})
    incident = await bench.run(bench.decide, incident)
    assert (incident.state, incident.attempt) == (State.OPEN, 2)
    assert "policy has changed" in incident.reason
    assert AuditEvent.APPROVAL_VOID in await bench.events(incident)
    assert await bench.rows("runs") == []


async def test_an_approval_never_beats_a_denial(bench: Any) -> None:
    incident = await bench.asked()
    await bench.approvals.approve(incident.id, by="ann", reason="go")
    bench.lever.facts = StopFacts(engaged=True, reason="stop")
    assert (await bench.run(bench.decide, incident)).state == State.ESCALATED
    assert await bench.rows("runs") == []


@pytest.mark.parametrize("risk", [Risk.LOW, Risk.MEDIUM])
async def test_risks_that_the_policy_grants_are_not_asked_about(bench: Any, risk: Risk) -> None:
    assert (await bench.launching(risk=risk)).state == State.LAUNCHING


EXPANSION = {"action": "expand-volume", "risk": Risk.LOW, "reversible": False}


async def test_what_nothing_takes_back_is_asked_about_whatever_is_granted(bench: Any) -> None:
    """The demo's policy grants it, and the proposal does not say that it must be asked about."""
    incident = await bench.launching(**EXPANSION)
    assert incident.state == State.AWAITING_APPROVAL
    assert "Needs approval: always-ask: expand-volume always needs approval" in incident.reason
    assert await bench.rows("runs") == []
    await bench.approvals.approve(incident.id, by="ann", reason="go")
    incident = await bench.run(bench.decide, incident)
    assert incident.state == State.LAUNCHING


async def test_a_proposal_cannot_make_an_ordinary_action_ask(bench: Any) -> None:
    incident = await bench.launching(always_ask="so they say")
    assert incident.state == State.LAUNCHING
