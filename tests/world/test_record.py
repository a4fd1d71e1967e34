"""The record as it is written: with its change or not at all, unbroken, an arrow never left out."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import text, update

from tiphys.policies.lifecycle import State
from tiphys.policies.model import Change, Incident, Outcome
from tiphys.policies.people import Person, PersonRole, RoleGrant
from tiphys.service.audit import Audit
from tiphys.service.records import AuditEvent
from tiphys.service.reviews import Reviews
from tiphys.service.roles import Role
from tiphys.service.tables import audit


async def append(bench: Any, number: int) -> None:
    async with bench.database.transaction() as tx:
        await bench.audit.append(tx, AuditEvent.DECIDED, actor="t", body={"number": number})


async def test_concurrent_appends_give_one_unbroken_chain(bench: Any) -> None:
    others = [Audit(bench.database) for _ in range(4)]

    async def write(log: Audit, number: int) -> None:
        async with bench.database.transaction() as tx:
            for part in range(3):
                body = {"number": number, "part": part}
                await log.append(tx, AuditEvent.DECIDED, actor="t", body=body)
                await asyncio.sleep(0)

    await asyncio.gather(*(write(others[i % 4], i) for i in range(20)))
    found = await bench.verify()
    assert (found.records, found.problem) == (60, None)
    numbers = [r.body["number"] for r in await bench.records()]
    assert all(len(set(numbers[i : i + 3])) == 1 for i in range(0, 60, 3)), "one commit, one block"


async def test_what_was_written_is_read_back_byte_for_byte(bench: Any) -> None:
    body = {"text": 'a "quoted" \u2028 ü \x00 end', "float": 0.1 + 0.2, "big": 2**70, "none": None}
    async with bench.database.transaction() as tx:
        await bench.audit.append(tx, AuditEvent.DECIDED, actor="ann", body=body)
    [record] = await bench.records()
    assert record.body == body
    assert record.hash == record.computed_hash()
    assert datetime.fromisoformat(record.at).tzinfo is not None
    assert (await bench.verify()).problem is None


async def test_a_value_that_cannot_be_hashed_is_not_written(bench: Any) -> None:
    with pytest.raises(ValueError, match="JSON"):
        await append(bench, float("nan"))  # type: ignore[arg-type]
    assert await bench.records() == []


async def test_reading_in_parts_and_by_incident(bench: Any) -> None:
    incident = await bench.proposed()
    await append(bench, 1)
    everything = await bench.records()
    assert [r.seq for r in everything] == list(range(1, len(everything) + 1))
    page = [r async for r in bench.audit.read(after=2, limit=2)]
    assert [r.seq for r in page] == [3, 4]
    assert {r.incident_id for r in await bench.records(incident)} == {incident.id}
    assert len(await bench.records(incident)) == len(everything) - 1


@pytest.mark.parametrize("column", ["body", "actor", "event", "at", "incident_id"])
async def test_an_edit_in_the_database_is_found_in_the_export(bench: Any, column: str) -> None:
    await bench.proposed()
    value = '{"reason":"nothing happened"}' if column == "body" else "someone else"
    async with bench.database.transaction() as tx:
        await tx.execute(update(audit).where(audit.c.seq == 2).values({column: value}))
    found = await bench.verify()
    assert found.records == 1
    assert "record 2" in (found.problem or "")


# --- every arrow ----------------------------------------------------------------------------------


async def _frozen(bench: Any) -> Incident:
    incident = await bench.launching()
    await bench.run(bench.watch(_NoWorkflow()), await _running(bench, incident))
    return incident


async def _running(bench: Any, incident: Incident) -> Incident:
    return await bench.run(bench.launch(_NoWorkflow(), bench_key()), incident)


def bench_key() -> Any:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.generate()


class _NoWorkflow:
    """Argo as one sees it when somebody deletes what was just created."""

    namespace = "tiphys-actions"

    def __init__(self, workflow: dict[str, Any] | None = None) -> None:
        self.workflow = workflow

    async def create(self, _submission: Any) -> bool:
        return True

    async def get(self, _name: str) -> dict[str, Any] | None:
        return self.workflow


async def _stepped(bench: Any) -> None:
    node = {"type": "Container", "displayName": "act", "phase": "Running"}
    argo = _NoWorkflow({"status": {"phase": "Running", "nodes": {"x": node}}})
    await bench.run(bench.watch(argo), await _running(bench, await bench.launching()))


async def _approved(bench: Any) -> None:
    await bench.approvals.approve((await bench.asked()).id, by="ann", reason="")


async def _broken(bench: Any) -> None:
    given = {"by": "ann", "reason": "all is down", "break_glass": True}
    await bench.approvals.approve((await bench.asked()).id, **given)


async def _reviewed(bench: Any) -> None:
    await _broken(bench)
    reviews = Reviews(bench.of(Role.GATEWAY)[0])
    [review] = await reviews.all()
    grant = RoleGrant(role=PersonRole.APPROVER)
    bob = Person(name="bob", grants=(grant,))
    await reviews.close(review.plan_digest, person=bob, reason="right")


async def _refused(bench: Any) -> None:
    await bench.approvals.deny((await bench.asked()).id, by="ann", reason="")


async def _voided(bench: Any) -> None:
    incident = await bench.asked()
    await bench.approvals.approve(incident.id, by="ann", reason="")
    moved = Change(path="", present="moved", intended=None)
    bench.scout.target = {"changes": (moved,)}
    await bench.run(bench.decide, incident)


async def _tripped(bench: Any) -> None:
    for i in range(6):
        one = await bench.launching(f"p-{i}", target=bench.scout.proposal.target.model_copy(
            update={"name": f"p-{i}", "uid": f"u-{i}"}
        ))  # fmt: skip
        if one.state == State.LAUNCHING:
            async with bench.database.transaction() as tx:
                name = (await bench.run_of(one)).name
                await bench.runs.end(tx, name, Outcome.VERIFIED, bench.clock())


async def _paged(bench: Any) -> None:
    await bench.run(bench.settle, await bench.escalated())


async def _undone(bench: Any) -> None:
    change = Change(path="/spec/replicas", present=2, intended=4)
    given = {"action": "scale-workload", "parameters": {"replicas": 4}, "changes": (change,)}
    run = await bench.run_of(await bench.launching(**given))
    async with bench.database.transaction() as tx:
        await bench.runs.end(tx, run.name, Outcome.VERIFIED, bench.clock())
    await bench.undos.ask(run.name, by="ann", reason="wrong")


async def _wished(bench: Any) -> None:
    ann = Person(name="ann", grants=(RoleGrant(role=PersonRole.OPERATOR),))
    place = "deployment/shop/cart"
    await bench.wishes.ask("rollout-restart", place, {}, person=ann, reason="it leaks")


COUNT = "SELECT count(*) FROM "
ARROWS: Sequence[tuple[AuditEvent, Callable[[Any], Awaitable[Any]], str]] = [
    (AuditEvent.INCIDENT_OPENED, lambda b: b.open(), f"{COUNT} incidents"),
    (
        AuditEvent.INCIDENT_MOVED,
        lambda b: b.escalated(),
        f"{COUNT} incidents WHERE state = 'escalated'",
    ),
    (AuditEvent.EVIDENCE_GATHERED, lambda b: b.proposed(), f"{COUNT} evidence"),
    (AuditEvent.DECIDED, lambda b: b.proposed(), f"{COUNT} proposals"),
    (
        AuditEvent.JUDGED,
        lambda b: b.launching(),
        f"{COUNT} proposals WHERE judgement IS NOT NULL",
    ),
    (AuditEvent.PLANNED, lambda b: b.asked(), f"{COUNT} plans"),
    (AuditEvent.PLANNED, lambda b: b.launching(), f"{COUNT} plans"),
    (AuditEvent.LAUNCH_INTENDED, lambda b: b.launching(), f"{COUNT} runs"),
    (AuditEvent.WORKFLOW_CREATED, _stepped, f"{COUNT} runs WHERE created"),
    (AuditEvent.RUN_STEP, _stepped, f"{COUNT} runs WHERE steps != '[]'"),
    (AuditEvent.RUN_ENDED, _frozen, f"{COUNT} runs WHERE NOT open"),
    (AuditEvent.TARGET_FROZEN, _frozen, f"{COUNT} freezes"),
    (AuditEvent.PAGED, _paged, f'{COUNT} incidents WHERE body LIKE \'%"paged_at":"%\''),
    (
        AuditEvent.APPROVAL_GIVEN,
        _approved,
        f"{COUNT} approvals WHERE verdict = 'approve'",
    ),
    (AuditEvent.BREAK_GLASS, _broken, f"{COUNT} reviews"),
    (
        AuditEvent.BREAK_GLASS_REVIEWED,
        _reviewed,
        f"{COUNT} reviews WHERE closed_at IS NOT NULL",
    ),
    (
        AuditEvent.APPROVAL_REFUSED,
        _refused,
        f"{COUNT} approvals WHERE verdict = 'deny'",
    ),
    (AuditEvent.APPROVAL_VOID, _voided, f"{COUNT} incidents WHERE attempt = 2"),
    (AuditEvent.BREAKER_TRIPPED, _tripped, f"{COUNT} breakers"),
    (AuditEvent.RUN_ASKED, _wished, f"{COUNT} incidents WHERE body LIKE '%\"wants\":{{%'"),
    (AuditEvent.UNDO_ASKED, _undone, f"{COUNT} incidents WHERE body LIKE '%\"undoes\":{{%'"),
]
NAMES = [f"{event}-{i}" for i, (event, _, _) in enumerate(ARROWS)]


@pytest.mark.parametrize(("event", "happen", "trace"), ARROWS, ids=NAMES)
async def test_every_arrow_is_in_the_record(
    bench: Any, event: AuditEvent, happen: Callable[[Any], Awaitable[Any]], trace: str
) -> None:
    await happen(bench)
    assert event in await bench.events()
    async with bench.database.reading() as tx:
        assert (await tx.execute(text(trace))).scalar_one() > 0, "the trace is the change's own"
    assert (await bench.verify()).problem is None


class _DiskFullError(Exception):
    pass


@pytest.mark.parametrize(("event", "happen", "trace"), ARROWS, ids=NAMES)
async def test_what_cannot_be_recorded_does_not_happen(
    bench: Any, event: AuditEvent, happen: Callable[[Any], Awaitable[Any]], trace: str
) -> None:
    """Nothing is left of a change whose record fails, be it the last write of its transaction."""

    class Full(type(bench.audit)):
        async def append(self, tx: Any, which: AuditEvent, **more: Any) -> int:
            if which == event and (event != AuditEvent.INCIDENT_MOVED or "human" in str(more)):
                raise _DiskFullError
            return await super().append(tx, which, **more)

    bench.audit.__class__ = Full
    with pytest.raises(_DiskFullError):
        await happen(bench)
    assert event not in await bench.events() or event == AuditEvent.INCIDENT_MOVED
    async with bench.database.reading() as tx:
        assert (await tx.execute(text(trace))).scalar_one() == 0
    assert (await bench.verify()).records == len(await bench.records())
