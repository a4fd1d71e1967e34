"""Approvals: of one plan's digest, once, while the question stands, by the first who decides."""

import asyncio
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from tiphys.policies.lifecycle import State
from tiphys.policies.model import Incident
from tiphys.policies.plan import digest
from tiphys.service import schema
from tiphys.service.database import Database
from tiphys.service.errors import NoSuchIncidentError, NotApprovableError
from tiphys.service.records import AuditEvent


async def plan_digest(bench: Any, incident: Incident) -> str:
    async with bench.database.reading() as tx:
        return digest(await bench.runs.plan(tx, incident))


async def test_an_approval_is_of_one_plan_and_is_recorded_before_anything_starts(
    bench: Any,
) -> None:
    incident = await bench.asked()
    moved = await bench.approvals.approve(incident.id, by="ann", reason="I looked")
    assert moved.state == State.PROPOSED
    assert moved.reason == "approved by ann: I looked"
    [row] = await bench.rows("approvals")
    seen = await plan_digest(bench, incident)
    assert (row["plan_digest"], row["verdict"], row["by"]) == (seen, "approve", "ann")
    given, move = (await bench.records(incident))[-2:]
    assert (given.event, given.actor) == (AuditEvent.APPROVAL_GIVEN, "ann")
    assert given.body == {"digest": seen, "by": "ann", "reason": "I looked"}
    assert (move.event, move.actor) == (AuditEvent.INCIDENT_MOVED, "ann")
    async with bench.database.reading() as tx:
        [fact] = await bench.approvals.of(tx, incident, seen, bench.clock())
    assert (fact.approved_digest, fact.plan_digest, fact.by) == (seen, seen, "ann")
    until = datetime.fromisoformat(row["expires_at"])
    assert until - timedelta(seconds=5) < fact.expires_at <= until, "never longer"


async def test_a_denial_hands_the_incident_to_whoever_denied_and_approves_nothing(
    bench: Any,
) -> None:
    incident = await bench.asked()
    moved = await bench.approvals.deny(incident.id, by="bob", reason="not now")
    assert (moved.state, moved.acknowledged_by) == (State.ACKNOWLEDGED, "bob")
    assert AuditEvent.APPROVAL_REFUSED in await bench.events(incident)
    async with bench.database.reading() as tx:
        seen = await plan_digest(bench, incident)
        assert await bench.approvals.of(tx, moved, seen, bench.clock()) == ()


async def test_the_digest_that_the_person_saw_must_be_the_one_that_waits(bench: Any) -> None:
    incident = await bench.asked()
    seen = await plan_digest(bench, incident)
    wrong = "0" * 12 if not seen.startswith("0" * 12) else "1" * 12
    with pytest.raises(NotApprovableError, match="plan has changed"):
        await bench.approvals.approve(incident.id, by="ann", reason="", expected=wrong)
    with pytest.raises(NotApprovableError, match="plan has changed"):
        await bench.approvals.deny(incident.id, by="ann", reason="", expected=wrong)
    assert await bench.rows("approvals") == []
    moved = await bench.approvals.approve(incident.id, by="ann", reason="", expected=seen[:12])
    assert moved.state == State.PROPOSED


async def test_the_first_decision_wins_whoever_else_decides_at_once(bench: Any) -> None:
    incident = await bench.asked()
    decisions = [
        *(bench.approvals.approve(incident.id, by=f"a{i}", reason="") for i in range(3)),
        *(bench.replica().approvals.deny(incident.id, by=f"d{i}", reason="") for i in range(3)),
    ]
    done = await asyncio.gather(*decisions, return_exceptions=True)
    won = [one for one in done if isinstance(one, Incident)]
    assert len(won) == 1
    assert all(isinstance(one, Incident | NotApprovableError) for one in done)
    assert len(await bench.rows("approvals")) == 1
    decided = {AuditEvent.APPROVAL_GIVEN, AuditEvent.APPROVAL_REFUSED}
    assert len([e for e in await bench.events(incident) if e in decided]) == 1


async def test_an_approval_counts_once(bench: Any) -> None:
    incident = await bench.asked()
    await bench.approvals.approve(incident.id, by="ann", reason="")
    with pytest.raises(NotApprovableError, match="is proposed"):
        await bench.approvals.approve(incident.id, by="ann", reason="")


async def test_an_expired_question_cannot_be_answered(bench: Any) -> None:
    """Even while nobody has come round to escalate it: what it showed is too old."""
    incident = await bench.asked()
    bench.clock.forward(901)
    with pytest.raises(NotApprovableError, match="expired"):
        await bench.approvals.approve(incident.id, by="ann", reason="")
    assert await bench.rows("approvals") == []
    assert (await bench.get(incident)).state == State.AWAITING_APPROVAL


@pytest.mark.parametrize("state", ["open", "proposed", "launching", "escalated"])
async def test_nothing_else_can_be_approved(bench: Any, state: str) -> None:
    incident = await getattr(bench, state)()
    before = await bench.records()
    for decide in (bench.approvals.approve, bench.approvals.deny):
        with pytest.raises(NotApprovableError, match=state):
            await decide(incident.id, by="ann", reason="")
    assert await bench.records() == before


async def test_what_does_not_exist_cannot_be_approved(bench: Any) -> None:
    with pytest.raises(NoSuchIncidentError):
        await bench.approvals.approve("inc-nobody", by="ann", reason="")


async def test_an_approval_is_held_against_the_plan_that_would_be_launched(bench: Any) -> None:
    incident = await bench.asked()
    await bench.approvals.approve(incident.id, by="ann", reason="")
    async with bench.database.reading() as tx:
        [fact] = await bench.approvals.of(tx, incident, "f" * 64, bench.clock())
    assert fact.approved_digest != fact.plan_digest == "f" * 64


async def test_approvals_of_an_older_embedded_database_are_kept(tmp_path: Path) -> None:
    database = Database.in_directory(tmp_path)
    folder = str(Path(schema.__file__).parent / "migrations")

    def older(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", folder)
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")

    row = "'inc-1', 'd', 'approve', 'ada', 'go', 'then', 'later'"
    columns = 'incident_id, plan_digest, verdict, "by", reason, at, expires_at'
    async with database.transaction() as tx:
        await tx.run_sync(older)
        await tx.execute(text(f"INSERT INTO approvals ({columns}) VALUES ({row})"))
    await database.create()
    again = text(f"INSERT INTO approvals ({columns}) VALUES ({row})")
    async with database.transaction() as tx:
        kept = (await tx.execute(text('SELECT id, "by", teams FROM approvals'))).all()
        assert kept == [(1, "ada", "[]")]
        await tx.execute(text(str(again).replace("'ada'", "'bob'")))
        with pytest.raises(IntegrityError):
            await tx.execute(again)
    await database.close()
