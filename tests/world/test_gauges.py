"""What people on call are told of Tiphys itself: read seldom, absent rather than wrong."""

import asyncio
import contextlib
import socket
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from sqlalchemy import update

from tiphys.policies.lifecycle import Move
from tiphys.policies.model import Outcome, Severity
from tiphys.service import gauges
from tiphys.service.bus import Lag
from tiphys.service.database import Database
from tiphys.service.gauges import KEPT_SECONDS, LagMetrics, Lookout, StandingMetrics, read_standing
from tiphys.service.incidents import Step
from tiphys.service.ledger import utc_now
from tiphys.service.roles import Role
from tiphys.service.tables import incidents

HOLDS = "tiphys_holds"
ESCALATION = "tiphys_escalation_oldest_age_seconds"
RUN = "tiphys_run_oldest_age_seconds"
NONE = {
    **{(HOLDS, kind): 0 for kind in ("freeze", "breaker")},
    **{(ESCALATION, grade.value): 0 for grade in Severity},
    (RUN, ""): 0,
}


class Post:
    """Reads what a bench's database says, as one gateway does, when it is told to."""

    def __init__(self, bench: Any, database: Database | None = None) -> None:
        self.registry, self.seconds, self.reads = CollectorRegistry(), 0.0, 0
        self.database = database or bench.users[Role.GATEWAY]
        self.lookout = Lookout("the database", self._read, lambda: self.seconds)
        StandingMetrics(self.registry, lambda: self.lookout.last, bench.clock)

    async def _read(self) -> Any:
        self.reads += 1
        return await read_standing(self.database)

    def told(self) -> dict[tuple[str, str], int]:
        """Give every sample, in whole numbers."""
        return {
            (sample.name, "".join(sample.labels.values())): int(sample.value)
            for family in self.registry.collect()
            for sample in family.samples
        }

    async def look(self) -> dict[tuple[str, str], int]:
        await self.lookout.once()
        return self.told()


@contextlib.asynccontextmanager
async def away() -> Any:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        database = Database(f"postgresql+psycopg://gateway:x@127.0.0.1:{port}/tiphys")
        yield database
        await database.close()


async def acknowledge(bench: Any, incident: Any) -> None:
    async with bench.ledger.person(incident.id) as entry:
        await entry.move(Step(Move.ACKNOWLEDGE, "mine", "ann", acknowledged_by="ann"))


# --- what is told ---------------------------------------------------------------------------------


async def test_where_nothing_is_amiss_everything_is_nought(bench: Any) -> None:
    post = Post(bench)
    assert await post.look() == NONE
    await bench.watched()
    bench.clock.forward(100)
    assert await post.look() == NONE, "an incident that is watched waits for nobody"


async def test_the_oldest_escalation_counts_until_somebody_acknowledges_it(bench: Any) -> None:
    post = Post(bench)
    old = await bench.escalated("a")
    bench.clock.forward(600)
    young = await bench.escalated("b")
    bench.clock.forward(100)
    assert 700 <= (await post.look())[ESCALATION, "critical"] <= 705
    await acknowledge(bench, old)
    assert 100 <= (await post.look())[ESCALATION, "critical"] <= 105
    await acknowledge(bench, young)
    bench.clock.forward(100)
    assert await post.look() == NONE


async def test_each_severity_has_its_own_oldest(bench: Any) -> None:
    lie = '"severity":"info"'
    for grade in (Severity.INFO, Severity.WARNING, Severity.CRITICAL):
        incident = await bench.escalated(f"{grade} {lie}")
        async with bench.ledger.person(incident.id) as entry:
            graded = entry.incident.model_copy(update={"severity": grade, "reason": lie})
            await bench.incidents._write(entry.tx, graded)
        bench.clock.forward(100)
    found = await Post(bench).look()
    ages = [found[ESCALATION, grade] for grade in ("info", "warning", "critical")]
    assert [age // 10 * 10 for age in ages] == [300, 200, 100]


async def test_what_cannot_be_read_counts_as_critical(bench: Any) -> None:
    incident = await bench.escalated()
    async with bench.database.transaction() as tx:
        await tx.execute(update(incidents).where(incidents.c.id == incident.id).values(body="{"))
    bench.clock.forward(100)
    assert (await Post(bench).look())[ESCALATION, "critical"] >= 100


async def test_a_page_that_was_sent_is_no_acknowledgement(bench: Any) -> None:
    incident = await bench.escalated()
    bench.clock.forward(400)
    await bench.run(bench.settle, incident)
    assert bench.bell.rung
    assert (await Post(bench).look())[ESCALATION, "critical"] >= 400


async def test_a_run_is_as_old_as_its_intent_until_it_has_ended(bench: Any) -> None:
    post = Post(bench)
    incident = await bench.launching()
    bench.clock.forward(50)
    assert 50 <= (await post.look())[RUN, ""] <= 55
    run = await bench.run_of(incident)
    async with bench.database.transaction() as tx:
        await bench.runs.end(tx, run.name, Outcome.VERIFIED, bench.clock())
    assert (await post.look())[RUN, ""] == 0


async def test_holds_are_counted_by_kind_until_a_person_releases_them(
    bench: Any, target: Any
) -> None:
    post = Post(bench)
    incident = await bench.launching()
    run = await bench.run_of(incident)
    async with bench.database.transaction() as tx:
        await bench.runs.freeze(tx, run, target(), reason="unknown", now=bench.clock())
        for scope in ("namespace:sandbox/shop", "cluster:sandbox"):
            await bench.runs.trip(tx, scope, "too many", bench.clock())
    found = await post.look()
    assert (found[HOLDS, "freeze"], found[HOLDS, "breaker"]) == (1, 2)
    await bench.holds.release(f"target:{run.owner_uid}", by="ann", reason="mended")
    found = await post.look()
    assert (found[HOLDS, "freeze"], found[HOLDS, "breaker"]) == (0, 2)


async def test_every_replica_says_the_same(bench: Any) -> None:
    first, second = Post(bench), Post(bench.replica())
    incident = await bench.escalated()
    bench.clock.forward(100)
    assert await first.look() == await second.look() != NONE
    await acknowledge(bench, incident)
    assert await second.look() == NONE


# --- when it is read, and when it cannot be -------------------------------------------------------


async def test_a_scrape_asks_nobody_and_ages_grow_all_the_same(bench: Any) -> None:
    post = Post(bench)
    await bench.escalated()
    await post.look()
    bench.clock.forward(10)
    ages = [post.told()[ESCALATION, "critical"] for _ in range(5)]
    assert min(ages) >= 10
    assert post.reads == 1


async def test_nothing_is_told_before_the_first_look_nor_after_one_that_failed(bench: Any) -> None:
    post = Post(bench)
    assert post.told() == {}
    assert await post.look() == NONE
    async with away() as database:
        well, post.database = post.database, database
        assert await post.look() == {}
    text = generate_latest(post.registry).decode()
    assert all(line.startswith("#") for line in text.splitlines()), text
    post.database = well
    assert await post.look() == NONE


async def test_what_has_not_been_read_for_a_while_is_not_told(bench: Any) -> None:
    post = Post(bench)
    await post.look()
    post.seconds = KEPT_SECONDS - 1
    assert post.told() == NONE
    post.seconds = KEPT_SECONDS
    assert post.told() == {}


async def test_a_source_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauges, "READ_SECONDS", 0.05)
    never = asyncio.Event()
    lookout = Lookout("nobody", never.wait)
    async with asyncio.timeout(5):
        await lookout.once()
    assert lookout.last is None


async def test_it_is_read_again_and_again_whatever_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauges, "INTERVAL_SECONDS", 0.001)
    answers = iter([1, ZeroDivisionError(), OSError("away"), 2])
    enough = asyncio.Event()

    async def read() -> int:
        answer = next(answers, 3)
        if isinstance(answer, Exception):
            raise answer
        if answer == 3:
            enough.set()
        return answer

    lookout = Lookout("fickle", read)
    task = asyncio.create_task(lookout.run())
    async with asyncio.timeout(5):
        await enough.wait()
    assert not task.done()
    task.cancel()


# --- the stream's lag -----------------------------------------------------------------------------


def lag_told(lag: Lag | None) -> dict[str, float]:
    registry, now = CollectorRegistry(), utc_now()
    LagMetrics(registry, lambda: lag, lambda: now)
    return {s.name: s.value for family in registry.collect() for s in family.samples}


def test_the_lag_is_told_in_numbers_and_the_oldests_age() -> None:
    assert lag_told(None) == {}
    found = lag_told(Lag(7, 3, utc_now() - timedelta(seconds=90)))
    assert found["tiphys_intake_pending_alerts"] == 7
    assert found["tiphys_intake_unacknowledged_alerts"] == 3
    assert 89 <= found["tiphys_intake_oldest_age_seconds"] <= 91
    assert set(lag_told(Lag(0, 0, None)).values()) == {0}
    ahead = lag_told(Lag(1, 0, utc_now() + timedelta(seconds=5)))
    assert ahead["tiphys_intake_oldest_age_seconds"] == 0, "the broker's clock is ahead of ours"
