"""What the database remembers of runs: for which alert, on what, and what followed."""

import json
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text, update
from sqlalchemy.dialects import sqlite

from tiphys.agents.experience import End, Experience
from tiphys.policies.lifecycle import State
from tiphys.policies.limits import Cooldown, LaunchRate
from tiphys.policies.model import Alert, DecidedBy, Incident, Outcome
from tiphys.policies.oscillation import RepeatedIneffective
from tiphys.service import experience
from tiphys.service.database import stamp
from tiphys.service.tables import inbox, incidents

HOUR = 3600


def obey(bench: Any, *rules: Any) -> None:
    lenient = (Cooldown(seconds=0), LaunchRate(target_limit=99), RepeatedIneffective(limit=20))
    settings = {**bench.policy.settings, **{rule.name: rule for rule in (*lenient, *rules)}}
    bench.policy = type(bench.policy)(**{**vars(bench.policy), "settings": settings})
    given = bench.alert
    bench.alert = lambda *of: placed(given(*of))


def placed(alert: Alert) -> Alert:
    """An alert about something in the namespace of the bench's targets."""
    return alert.model_copy(update={"labels": {**alert.labels, "namespace": "shop"}})


async def tried(
    bench: Any,
    target: Any,
    outcome: Outcome = Outcome.VERIFIED,
    subject: str = "deployment shop/cart",
) -> Incident:
    """One incident from its alert to its end, with one run."""
    incident = await bench.launching(subject, target=target)
    assert incident.state == State.LAUNCHING, incident.reason
    run = await bench.run_of(incident)
    async with bench.database.transaction() as tx:
        await bench.runs.created(tx, run.name)
        await bench.runs.end(tx, run.name, outcome, bench.clock())
    return incident


async def closed(bench: Any, incident: Incident) -> None:
    async with bench.database.transaction() as tx:
        values = {"state": "closed", "changed_at": stamp(bench.clock())}
        await tx.execute(update(incidents).where(incidents.c.id == incident.id).values(values))
        over = update(inbox).where(inbox.c.incident_id == incident.id)
        await tx.execute(over.values(open=False, ended_at=stamp(bench.clock())))


async def known(bench: Any, subject: str = "pod shop/new") -> Experience:
    """What the agents are given for a new incident; the agents' user reads it."""
    incident = await bench.open(subject)
    _, _, cases = bench.of(next(role for role in bench.users if role == "agents"))
    found = (await cases.case(incident, bench.clock(), remembering=True)).experience
    await closed(bench, incident)
    assert found is not None
    return found


def ends(found: Experience) -> list[End]:
    return [trial.end for trial in found.near]


async def test_a_run_is_remembered_for_its_alert_with_what_followed(
    bench: Any, target: Any
) -> None:
    obey(bench)
    first = await tried(bench, target("a"))
    assert ends(await known(bench)) == [End.TOO_EARLY]
    bench.clock.forward(60)
    await closed(bench, first)
    bench.clock.forward(2 * HOUR)
    await tried(bench, target("b"), Outcome.ROLLED_BACK, "deployment shop/other")
    found = await known(bench)
    assert ends(found) == [End.ROLLED_BACK, End.HELPED]
    one = found.near[1]
    assert (one.action, one.kind, one.namespace, one.by_hand) == (
        "restart-pod", "Pod", "shop", False,
    )  # fmt: skip
    assert (one.target_uid, one.owner_uid) == ("uid-shop-a", "owner-uid-shop-a")
    [tally] = found.kinds
    assert (tally.kind, tally.tried, tally.helped) == ("Pod", 2, 1)


async def test_an_alert_that_comes_back_within_the_hour_counts_against_the_run(
    bench: Any, target: Any
) -> None:
    obey(bench)
    first = await tried(bench, target("a"))
    bench.clock.forward(60)
    await closed(bench, first)
    bench.clock.forward(1800)
    again = await bench.open("deployment shop/cart")
    bench.clock.forward(2 * HOUR)
    assert ends(await known(bench)) == [End.CAME_BACK]
    async with bench.database.transaction() as tx:
        body = {**json.loads(again.model_dump_json()), "decision": "no_action"}
        said = json.dumps(body, separators=(",", ":"))
        await tx.execute(update(incidents).where(incidents.c.id == again.id).values(body=said))
    assert ends(await known(bench)) == [End.HELPED], "the agents found that it was none"


async def test_another_alert_on_the_same_subject_does_not_count_against_it(
    bench: Any, target: Any
) -> None:
    obey(bench)
    first = await tried(bench, target("a"))
    await closed(bench, first)
    bench.clock.forward(600)
    other = await bench.open("deployment shop/cart")
    async with bench.database.transaction() as tx:
        renamed = bench.alert("deployment shop/cart").model_copy(
            update={"labels": {"alertname": "SomethingElse", "was": '"alertname":"KubePod"'}}
        )
        mine = update(inbox).where(inbox.c.incident_id == other.id)
        await tx.execute(mine.values(alert=renamed.model_dump_json()))
    bench.clock.forward(2 * HOUR)
    assert ends(await known(bench)) == [End.HELPED]


async def test_a_persons_undo_counts_against_it_and_is_no_trial_itself(
    bench: Any, target: Any
) -> None:
    obey(bench)
    first = await tried(bench, target("a"))
    await closed(bench, first)
    run = await bench.run_of(first)
    bench.clock.forward(2 * HOUR)
    human = DecidedBy(reasoner="human", note="ann")
    bench.scout.firing = True
    undo = await bench.launching("undo it", target=target("b"), decided_by=human, undoes=run.name)
    assert undo.state == State.LAUNCHING, undo.reason
    assert ends(await known(bench)) == [End.HELPED], "nothing was undone yet"
    async with bench.database.transaction() as tx:
        await bench.runs.created(tx, (await bench.run_of(undo)).name)
        await bench.runs.end(tx, (await bench.run_of(undo)).name, Outcome.VERIFIED, bench.clock())
    assert ends(await known(bench)) == [End.UNDONE]


async def test_what_people_asked_for_is_told_apart(bench: Any, target: Any) -> None:
    obey(bench)
    human = DecidedBy(reasoner="human", note="ann")
    for name in ("a", "b"):
        incident = await bench.launching(f"run {name}", target=target(name), decided_by=human)
        assert incident.state == State.LAUNCHING, incident.reason
        async with bench.database.transaction() as tx:
            run = await bench.run_of(incident)
            await bench.runs.created(tx, run.name)
            await bench.runs.end(tx, run.name, Outcome.VERIFIED, bench.clock())
        await closed(bench, incident)
    bench.clock.forward(2 * HOUR)
    found = await known(bench)
    assert [(trial.by_hand, trial.end) for trial in found.near] == [(True, End.HELPED)] * 2
    [tally] = found.kinds
    assert (tally.tried, tally.helped, tally.by_hand) == (0, 0, 2)


async def test_what_did_nothing_is_no_experience(bench: Any, target: Any) -> None:
    obey(bench)
    await closed(bench, await tried(bench, target("a"), Outcome.REFUSED))
    never = await bench.launching("deployment shop/x", target=target("b"))
    async with bench.database.transaction() as tx:
        await bench.runs.end(tx, (await bench.run_of(never)).name, None, bench.clock())
    await closed(bench, never)
    await bench.launching("deployment shop/y", target=target("c"))  # still open
    found = await known(bench)
    assert (list(found.near), list(found.kinds)) == ([], [])


async def test_old_runs_and_those_of_other_clusters_do_not_count(bench: Any, target: Any) -> None:
    obey(bench)
    await closed(bench, await tried(bench, target("a")))
    elsewhere = target("b").model_copy(update={"cluster": "demo"})
    await closed(bench, await tried(bench, elsewhere, subject="deployment shop/b"))
    bench.clock.forward(2 * HOUR)
    assert len((await known(bench)).near) == 1
    bench.clock.forward(timedelta(days=90).total_seconds())
    assert (await known(bench)).near == []


async def test_a_case_is_asked_to_remember_only_for_an_investigation(bench: Any) -> None:
    incident = await bench.open()
    assert (await bench.cases.case(incident, bench.clock())).experience is None


async def test_an_incidents_own_attempts_are_not_told_twice(bench: Any, target: Any) -> None:
    obey(bench)
    first = await tried(bench, target("a"), Outcome.ROLLED_BACK)
    case = await bench.cases.case(first, bench.clock(), remembering=True)
    assert case.experience is not None
    assert case.experience.near == []


async def test_it_is_read_by_indexes_alone(bench: Any) -> None:
    """However many runs there are: nothing of what grows is read whole."""
    if bench.database.engine.dialect.name != "sqlite":
        pytest.skip("PostgreSQL reads a small table whole, whatever its indexes")
    incident = await bench.open()
    query = experience._query(incident, ["A", "B"], ["", "shop"], bench.clock())
    compiled = query.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True})
    async with bench.database.reading() as tx:
        plan = await tx.execute(text(f"EXPLAIN QUERY PLAN {compiled}".replace(":", "\\:")))
        steps = [str(row.detail).split() for row in plan]
    large = {"runs", "trials", "incidents", "inbox", "later", "undo", "undo_run"}
    assert [" ".join(step) for step in steps if step[0] == "SCAN" and step[1] in large] == []
    assert sum(step[0] == "SEARCH" and step[1] in large for step in steps) >= 6


async def test_runs_of_before_are_remembered_too(bench: Any, target: Any) -> None:
    """What the migration writes is what would have been written at the launch."""
    if bench.database.engine.dialect.name != "sqlite":
        pytest.skip("the steps are the same on PostgreSQL; this one is made by the owner there")
    obey(bench)
    first = await tried(bench, target("a"))
    human = DecidedBy(reasoner="human", note="ann")
    name = (await bench.run_of(first)).name
    await bench.launching("undo it", target=target("b"), decided_by=human, undoes=name)
    written = await bench.rows("trials")
    indexes = ("runs_incident", "incidents_subject")
    async with bench.database.transaction() as tx:
        for statement in ("DROP TABLE trials", *(f"DROP INDEX {index}" for index in indexes)):
            await tx.execute(text(statement))
        await tx.execute(text("UPDATE alembic_version SET version_num = '0007'"))
    await bench.database.create()
    assert sorted(await bench.rows("trials"), key=str) == sorted(written, key=str)
    assert {row["undoes"] for row in written} == {None, name}
