"""A pause denies what is new in its scope, ends by itself or by a word, and is on the record."""

from datetime import timedelta
from typing import Any

import pytest

from tiphys.policies.lifecycle import State
from tiphys.policies.model import Risk
from tiphys.policies.people import Person, PersonRole, RoleGrant
from tiphys.service.errors import BadInputError, NotAllowedError
from tiphys.service.pauses import LONGEST, Pauses, parse_scope, parse_time
from tiphys.service.records import AuditEvent
from tiphys.service.roles import Role

MINUTE = timedelta(minutes=1)


def pauses(bench: Any) -> Pauses:
    """As the gateway has them."""
    return Pauses(bench.of(Role.GATEWAY)[0])


def admin(name: str) -> Person:
    """Give somebody who may end any pause."""
    return Person(name=name, grants=(RoleGrant(role=PersonRole.ADMIN),))


async def paused(bench: Any, scope: str = "cluster", lasts: timedelta = MINUTE, **who: str) -> None:
    words = {"by": "ada", "reason": "upgrading", **who}
    await pauses(bench).pause(scope, lasts, **words)


async def end_all(bench: Any) -> None:
    """Let every pause's time be over, by the clock that counts."""
    if bench.database.sqlite:
        bench.clock.forward(61)
        return
    from sqlalchemy import text

    async with bench.database.transaction() as tx:
        await tx.execute(text("UPDATE pauses SET until = '2020-01-01T00:00:00.000000Z'"))


async def test_what_a_pause_covers_waits_for_its_end_without_a_word(bench: Any) -> None:
    await paused(bench)
    incident = await bench.proposed()
    for _ in range(2):
        incident = await bench.run(bench.decide, incident)
        assert incident.state == State.PROPOSED
    assert AuditEvent.JUDGED not in await bench.events(incident), "nobody is told"
    assert await bench.rows("runs") == []
    await end_all(bench)
    assert (await bench.run(bench.decide, incident)).state == State.LAUNCHING


async def test_only_an_admin_ends_what_somebody_else_paused(bench: Any) -> None:
    shop = "namespace:shop"
    olga = Person(name="olga", grants=(RoleGrant(role=PersonRole.OPERATOR, namespaces=("shop",)),))
    await paused(bench, shop, by="olga")
    await paused(bench, shop, by="bob")
    with pytest.raises(NotAllowedError):
        await pauses(bench).resume(shop, person=olga)
    assert len(await pauses(bench).all()) == 2, "not even her own"
    await pauses(bench).resume(shop, person=admin("bob"))
    await paused(bench, shop, by="olga")
    assert len(await pauses(bench).resume(shop, person=olga)) == 1


async def test_a_pause_that_outlasts_the_incidents_deadline_goes_to_a_human_at_once(
    bench: Any,
) -> None:
    await paused(bench, lasts=timedelta(hours=1))
    incident = await bench.launching()
    assert incident.state == State.ESCALATED
    assert "Not started: paused: cluster is paused by ada until" in incident.reason
    assert "upgrading" in incident.reason
    assert await bench.rows("runs") == []


async def test_a_person_resumes_and_what_waits_goes_on(bench: Any) -> None:
    await paused(bench)
    incident = await bench.launching()
    assert incident.state == State.PROPOSED
    [ended] = await pauses(bench).resume(person=admin("bob"))
    assert ended.by == "ada"
    assert (await bench.run(bench.decide, incident)).state == State.LAUNCHING


async def test_an_approval_does_not_beat_a_pause(bench: Any) -> None:
    incident = await bench.asked()
    await bench.approvals.approve(incident.id, by="ann", reason="go")
    await paused(bench)
    incident = await bench.run(bench.decide, incident)
    assert incident.state == State.PROPOSED
    assert await bench.rows("runs") == []
    await pauses(bench).resume(person=admin("ada"))
    assert (await bench.run(bench.decide, incident)).state == State.LAUNCHING


async def test_only_the_namespace_that_was_paused_is(bench: Any, target: Any) -> None:
    await paused(bench, "namespace:shop")
    assert (await bench.launching()).state == State.PROPOSED
    elsewhere = await bench.launching("pod r/x", target=target("x", "research"))
    assert elsewhere.state == State.LAUNCHING


async def test_a_pause_beside_another_reason_is_no_cause_to_wait(bench: Any) -> None:
    await paused(bench)
    bench.scout.target = {"annotations": {"tiphys.io/hands-off": "true"}}
    incident = await bench.launching(risk=Risk.LOW)
    assert incident.state == State.ESCALATED
    assert "paused" in incident.reason
    assert "hands-off" in incident.reason


async def test_the_longest_of_several_peoples_pauses_counts(bench: Any) -> None:
    await paused(bench, lasts=timedelta(hours=2))
    await paused(bench, lasts=MINUTE, by="bob")
    assert [pause.by for pause in await pauses(bench).all()] == ["bob", "ada"]
    assert (await bench.launching()).state == State.ESCALATED, "bob's word does not shorten ada's"
    await paused(bench, lasts=2 * MINUTE)
    listed = await pauses(bench).all()
    assert [(p.by, p.until - p.at) for p in listed] == [("bob", MINUTE), ("ada", 2 * MINUTE)]
    assert len(await pauses(bench).resume(person=admin("cyd"))) == 2, "and one word ends them all"


async def test_every_word_is_recorded_and_one_that_ends_nothing_is_not(bench: Any) -> None:
    await paused(bench, "namespace:shop", lasts=timedelta(hours=1))
    assert await pauses(bench).resume("cluster", person=admin("bob")) == [], (
        "the scope must be the same"
    )
    await pauses(bench).resume("namespace:shop", person=admin("bob"), reason="done")
    await pauses(bench).resume("namespace:shop", person=admin("bob"))
    told = [(r.event, r.actor, r.body) for r in await bench.records()]
    (first, ada, said), (second, bob, ended) = told
    assert (first, ada, said["scope"]) == (AuditEvent.PAUSED, "ada", "namespace:shop")
    assert said["until"].endswith("Z")
    assert (second, bob, ended["of"]) == (AuditEvent.RESUMED, "bob", ["ada"])


async def test_a_pause_ends_by_the_databases_clock_not_by_a_replicas(bench: Any) -> None:
    if bench.database.sqlite:
        pytest.skip("the embedded database has no clock of its own")
    await paused(bench)
    bench.clock.forward(30)  # this replica is ahead, and its incident's deadline as well
    incident = await bench.launching()
    assert incident.state == State.PROPOSED
    bench.clock.forward(45)
    assert (await bench.run(bench.decide, incident)).state != State.LAUNCHING


@pytest.mark.parametrize(
    ("text", "lasts"),
    [("30m", 30 * MINUTE), ("2h", 120 * MINUTE), ("1d", timedelta(days=1)), ("90s", 1.5 * MINUTE)],
)
def test_a_time_is_a_number_with_a_unit(text: str, lasts: timedelta) -> None:
    assert parse_time(text) == lasts


@pytest.mark.parametrize(
    "text", ["", "30", "0m", "-1h", "1w", "8d", "1h30m", "9999999d", "\u0661h"]
)
def test_another_time_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(BadInputError, match=r"such as 30m|7 days"):
        parse_time(text)


@pytest.mark.parametrize("text", ["", "shop", "namespace:", "namespace:Shop", "cluster:x", "*"])
def test_another_scope_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(BadInputError, match="`cluster` or `namespace:NAME`"):
        parse_scope(text)


async def test_nothing_is_paused_for_longer_than_may_be(bench: Any) -> None:
    with pytest.raises(BadInputError, match="7 days"):
        await paused(bench, lasts=LONGEST + MINUTE)
    assert await bench.rows("pauses") == []
