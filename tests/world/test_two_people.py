"""Two people for high risk, not the proposer, the glass that one breaks alone, and clocks."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from tiphys.policies.approval import RiskLevel
from tiphys.policies.lifecycle import State
from tiphys.policies.model import Change, Incident, Outcome, Risk, StopFacts, Undoing
from tiphys.policies.people import Person, PersonRole, RoleGrant
from tiphys.policies.plan import digest
from tiphys.policies.rule import RuleName
from tiphys.service.errors import NoSuchReviewError, NotAllowedError, NotApprovableError
from tiphys.service.incidents import dump
from tiphys.service.records import AuditEvent
from tiphys.service.reviews import ReviewPages, Reviews
from tiphys.service.roles import Role


def person(name: str, *teams: str, role: str = "approver", namespace: str = "*") -> Person:
    grant = RoleGrant(role=PersonRole(role), namespaces=(namespace,))
    return Person(name=name, teams=teams, grants=(grant,))


ALICE, BOB, CAROL = person("alice"), person("bob", "sre"), person("carol")


@pytest.fixture
def pair(bench: Any) -> Any:
    """The bench, with two people for high risk, as out of the box."""
    policy = bench.policy
    settings = {**policy.settings, RuleName.RISK: RiskLevel(low="auto", medium="auto")}
    bench.policy = type(policy)(**{**vars(policy), "settings": settings})
    return bench


async def yes(bench: Any, incident: Incident, who: Person, **more: Any) -> Incident:
    given = {"reason": "", **more}
    return await bench.approvals.approve(incident.id, person=who, **given)


async def decided(bench: Any, incident: Incident) -> Incident:
    return await bench.run(bench.decide, incident)


async def bodies(bench: Any, event: AuditEvent) -> list[dict[str, Any]]:
    return [record.body for record in await bench.records() if record.event == event]


# --- two people -----------------------------------------------------------------------------------


async def test_high_risk_waits_for_a_second_person_and_says_so(pair: Any) -> None:
    incident = await pair.asked()
    question, deadline = incident.reason, incident.deadline_at
    first = await yes(pair, incident, ALICE)
    assert first.state == State.AWAITING_APPROVAL
    assert first.reason == f"1 of 2: alice; one more is needed. {question}"
    assert first.deadline_at == deadline, "the first yes gives nobody more time"
    assert await pair.rows("runs") == []
    second = await yes(pair, incident, BOB)
    assert (second.state, second.reason) == (State.PROPOSED, "approved by alice, bob")
    assert (await decided(pair, incident)).state == State.LAUNCHING
    [intent] = await bodies(pair, AuditEvent.LAUNCH_INTENDED)
    assert intent["approved_by"] == "alice, bob"
    assert [b["by"] for b in await bodies(pair, AuditEvent.APPROVAL_GIVEN)] == ["alice", "bob"]


@pytest.mark.parametrize("again", ["alice", "ALICE", " alice ", "\uff41lice"])
async def test_one_person_is_not_two(pair: Any, again: str) -> None:
    incident = await pair.asked()
    await yes(pair, incident, ALICE)
    with pytest.raises(NotApprovableError, match="has approved this plan already"):
        await yes(pair, incident, person(again))
    assert (await pair.get(incident)).state == State.AWAITING_APPROVAL


async def test_the_gate_counts_for_itself_what_the_database_says(pair: Any) -> None:
    """Whoever moves an incident on past the counting is held up by the gate."""
    incident = await pair.asked()
    await yes(pair, incident, ALICE)
    async with pair.ledger.person(incident.id) as entry:
        moved = entry.incident.model_copy(update={"state": State.PROPOSED})
        given = {"body": dump(moved), "id": incident.id}
        statement = "UPDATE incidents SET state = 'proposed', body = :body WHERE id = :id"
        await entry.tx.execute(text(statement), given)
    again = await decided(pair, incident)
    assert again.state == State.AWAITING_APPROVAL
    assert again.reason.startswith("1 of 2: alice; one more is needed. Proposed: ")
    assert await pair.rows("runs") == []
    assert (await yes(pair, incident, BOB)).state == State.PROPOSED


async def test_a_no_after_a_yes_ends_it_also_by_the_same_person(pair: Any) -> None:
    for who in (ALICE, BOB):
        name = f"p-{who.name}"
        target = pair.scout.proposal.target.model_copy(update={"name": name, "uid": name})
        incident = await pair.launching(f"pod shop/{name}", risk=Risk.HIGH, target=target)
        await yes(pair, incident, ALICE)
        denied = await pair.approvals.deny(incident.id, person=who, reason="I was wrong")
        assert (denied.state, denied.acknowledged_by) == (State.ACKNOWLEDGED, who.name)
        with pytest.raises(NotApprovableError, match="acknowledged"):
            await yes(pair, incident, CAROL)
        async with pair.database.reading() as tx:
            plan = await pair.runs.plan(tx, incident)
            given = await pair.approvals.of(tx, incident, digest(plan), pair.clock())
        assert given == (), "not even the yes that was there"


async def test_a_double_click_on_two_replicas_counts_once(pair: Any) -> None:
    incident = await pair.asked()
    one, other = pair, pair.replica()
    clicks = (yes(desk, incident, ALICE) for desk in (one, other, one, other))
    done = await asyncio.gather(*clicks, return_exceptions=True)
    assert len([one for one in done if isinstance(one, Incident)]) == 1
    assert all(isinstance(one, Incident | NotApprovableError) for one in done)
    assert len(await pair.rows("approvals")) == 1
    assert (await pair.get(incident)).state == State.AWAITING_APPROVAL


async def test_somebody_of_the_team_that_is_named_must_be_among_them(pair: Any) -> None:
    incident = await pair.asked()
    async with pair.database.transaction() as tx:
        [row] = (await tx.execute(text("SELECT judgement FROM proposals"))).scalars()
        named = row.replace('"people":2,"by":[]', '"people":1,"by":["sre"]')
        assert named != row
        await tx.execute(text("UPDATE proposals SET judgement = :j"), {"j": named})
    first = await yes(pair, incident, ALICE)
    assert first.state == State.AWAITING_APPROVAL
    assert "one must be of sre" in first.reason
    assert (await yes(pair, incident, BOB)).state == State.PROPOSED


# --- who may --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "stranger",
    [person("olga", role="operator"), person("ann", namespace="other"), Person(name="nobody")],
)
async def test_whoever_has_not_the_role_there_decides_nothing(pair: Any, stranger: Person) -> None:
    incident = await pair.asked()
    for decide in (pair.approvals.approve, pair.approvals.deny):
        with pytest.raises(NotAllowedError, match="has not the role approver shop"):
            await decide(incident.id, person=stranger, reason="")
    with pytest.raises(NotAllowedError):
        await yes(pair, incident, stranger, break_glass=True, reason="now")
    assert await pair.rows("approvals") == await pair.rows("reviews") == []


async def proposed_by(bench: Any, incident: Incident, who: str) -> None:
    """Let an incident be a person's wish, as an undo's is."""
    wish = Undoing(run=f"tiphys-{'a' * 40}", by=who, reason="wrong") if who else None
    given = {"body": dump((await bench.get(incident)).model_copy(update={"undoes": wish}))}
    async with bench.database.transaction() as tx:
        statement = "UPDATE incidents SET body = :body WHERE id = :id"
        await tx.execute(text(statement), {**given, "id": incident.id})


async def judged_for(bench: Any, incident: Incident, who: str) -> Incident:
    """Let the gate judge what somebody wished; the agents find no run behind this wish."""
    await proposed_by(bench, incident, "")
    await bench.run(bench.recheck, incident)
    await proposed_by(bench, incident, who)
    return await bench.run(bench.judge, incident)


async def test_the_proposer_does_not_approve(pair: Any) -> None:
    incident = await pair.asked()
    await proposed_by(pair, incident, "Alice")
    with pytest.raises(NotAllowedError, match="somebody else must approve"):
        await yes(pair, incident, ALICE)
    await yes(pair, incident, BOB)
    assert (await yes(pair, incident, CAROL)).state == State.PROPOSED


async def test_a_yes_that_turns_out_to_be_the_proposers_does_not_launch(pair: Any) -> None:
    """What the store has let in, the gate weighs again."""
    incident = await pair.asked()
    await yes(pair, incident, ALICE)
    await yes(pair, incident, BOB)
    again = await judged_for(pair, incident, "alice")
    assert await pair.rows("runs") == []
    assert again.state == State.OPEN
    assert "alice proposed this plan" in again.reason


# --- the glass ------------------------------------------------------------------------------------


async def test_one_alone_breaks_the_glass_with_a_reason_and_is_reviewed(pair: Any) -> None:
    incident = await pair.asked()
    await proposed_by(pair, incident, "alice")
    for nothing in ("", "  "):
        with pytest.raises(NotApprovableError, match="needs a reason"):
            await yes(pair, incident, ALICE, break_glass=True, reason=nothing)
    moved = await yes(pair, incident, ALICE, break_glass=True, reason="all is down")
    assert moved.state == State.PROPOSED
    assert moved.reason == "approved by alice, who broke the glass: all is down"
    assert [b["by"] for b in await bodies(pair, AuditEvent.BREAK_GLASS)] == ["alice"]
    assert (await judged_for(pair, incident, "alice")).state == State.LAUNCHING
    reviews = Reviews(pair.of(Role.GATEWAY)[0])
    [review] = await reviews.all()
    assert (review.by, review.reason) == ("alice", "all is down")
    assert review.what == "restart-pod on Pod shop/cart-1"

    pages = ReviewPages(pair.of(Role.AGENTS)[0], pair.bell)
    pair.bell.broken = True
    with pytest.raises(Exception, match="away"):
        await pages.once()
    pair.bell.broken = False
    await pages.once()
    await pages.once()
    [(rung, why)] = pair.bell.rung
    assert (rung, "alice broke the glass" in why) == (f"{incident.id}-glass", True)

    short = review.plan_digest[:12]
    with pytest.raises(NotAllowedError, match="somebody else"):
        await reviews.close(short, person=person(" ALICE"), reason="I was right")
    with pytest.raises(NotAllowedError, match="role approver"):
        await reviews.close(short, person=person("x", namespace="other"), reason="fine")
    assert len(await reviews.all()) == 1
    closed = await reviews.close(short, person=BOB, reason="she was right")
    assert (closed.closed_by, closed.closed_reason) == ("bob", "she was right")
    assert await reviews.all() == []
    assert len(await reviews.all(closed=True)) == 1
    with pytest.raises(NoSuchReviewError):
        await reviews.close(short, person=CAROL, reason="me too")
    assert len(await bodies(pair, AuditEvent.BREAK_GLASS_REVIEWED)) == 1


async def test_who_agreed_as_one_of_two_may_still_break_the_glass(pair: Any) -> None:
    incident = await pair.asked()
    await yes(pair, incident, ALICE)
    moved = await yes(pair, incident, ALICE, break_glass=True, reason="bob sleeps")
    assert moved.state == State.PROPOSED
    assert (await decided(pair, incident)).state == State.LAUNCHING
    [intent] = await bodies(pair, AuditEvent.LAUNCH_INTENDED)
    assert intent["approved_by"] == "alice"


async def test_the_glass_breaks_no_denial_and_no_other_plan(pair: Any) -> None:
    incident = await pair.asked()
    with pytest.raises(NotApprovableError, match="plan has changed"):
        await yes(pair, incident, ALICE, break_glass=True, reason="now", expected="0" * 64)
    await yes(pair, incident, ALICE, break_glass=True, reason="now")
    pair.lever.facts = StopFacts(engaged=True, reason="stop")
    assert (await decided(pair, incident)).state == State.ESCALATED
    assert await pair.rows("runs") == []


# --- what has moved -------------------------------------------------------------------------------


async def test_when_the_target_has_moved_the_approvals_are_void_and_it_says_so(pair: Any) -> None:
    incident = await pair.asked()
    await yes(pair, incident, ALICE)
    await yes(pair, incident, BOB)
    moved = (Change(path="", present={"restarts": 8}, intended=None),)
    pair.scout.target = {"changes": moved}
    again = await decided(pair, incident)
    assert again.state == State.OPEN
    assert again.reason.startswith("the approval by alice, bob is void: target-unmoved")
    [void] = await bodies(pair, AuditEvent.APPROVAL_VOID)
    assert void["by"] == "alice, bob"
    pair.scout.proposal = pair.scout.proposal.model_copy(update={"changes": moved})
    pair.scout.target = {}
    asked = await decided(pair, await pair.run(pair.investigate, incident))
    assert asked.state == State.AWAITING_APPROVAL
    assert asked.reason.startswith("The approval of an earlier plan by alice, bob is void. ")
    assert (await yes(pair, asked, ALICE)).state == State.AWAITING_APPROVAL, "all anew"
    assert await pair.rows("runs") == []


async def test_an_approval_launches_once(pair: Any) -> None:
    incident = await pair.asked()
    await yes(pair, incident, ALICE)
    await yes(pair, incident, BOB)
    await decided(pair, incident)
    run = await pair.run_of(incident)
    async with pair.database.transaction() as tx:
        await pair.runs.end(tx, run.name, Outcome.VERIFIED, pair.clock())
    for who in (ALICE, CAROL):
        with pytest.raises(NotApprovableError, match="is launching"):
            await yes(pair, incident, who)
    assert len(await pair.rows("runs")) == 1


# --- clocks ---------------------------------------------------------------------------------------


async def test_a_click_after_the_question_has_expired_is_late_by_either_clock(pair: Any) -> None:
    incident = await pair.asked()
    pair.clock.forward(901)
    with pytest.raises(NotApprovableError, match="expired"):
        await yes(pair, incident, ALICE)
    pair.clock.forward(-901)
    async with pair.database.transaction() as tx:
        past = incident.model_copy(update={"deadline_at": pair.clock() - timedelta(seconds=1)})
        statement = text("UPDATE incidents SET body = :body WHERE id = :id")
        await tx.execute(statement, {"body": dump(past), "id": incident.id})
    if not pair.database.sqlite:
        pair.clock.forward(-3600)  # this process' clock only; the database's says it is late
    with pytest.raises(NotApprovableError, match=r"expired|clock"):
        await yes(pair, incident, ALICE)
    assert await pair.rows("approvals") == []


async def test_a_clock_that_was_set_back_makes_no_question_younger(pair: Any) -> None:
    incident = await pair.asked()
    pair.clock.forward(-600)
    if pair.database.sqlite:
        with pytest.raises(NotApprovableError, match="clock was set back"):
            await yes(pair, incident, ALICE)
        assert (await pair.approvals.deny(incident.id, person=BOB, reason="")).state == (
            State.ACKNOWLEDGED
        ), "a no is taken whatever the clock says"
    else:
        await yes(pair, incident, ALICE)  # the database's clock, which all share, is right


@pytest.mark.parametrize("jump", [901, -3600])
async def test_a_clock_that_jumps_between_approval_and_launch_launches_nothing_late(
    pair: Any, jump: float
) -> None:
    incident = await pair.asked()
    await yes(pair, incident, ALICE)
    await yes(pair, incident, BOB)
    async with pair.database.reading() as tx:
        known = await pair.get(incident)
        plan = digest(await pair.runs.plan(tx, incident))
        pair.clock.forward(jump)
        given = await pair.approvals.of(tx, known, plan, pair.clock())
    left = [(one.expires_at - pair.clock()).total_seconds() for one in given]
    if jump > 0 or pair.database.sqlite:
        assert max(left) <= 0
    else:
        assert max(left) <= 900, "it does not live an hour longer"
