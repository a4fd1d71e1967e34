"""The pipeline: one worker an incident, deadlines that escalate, stages that may break."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from tiphys.policies.lifecycle import Move, State
from tiphys.service.errors import ArgoUnavailableError, WorkflowRefusedError
from tiphys.service.incidents import Step
from tiphys.service.ledger import Job
from tiphys.service.pipeline import Pace, Pipeline

POLL = timedelta(milliseconds=20)


@dataclass
class Recorder:
    """A stage that does what a test says and counts who is at work."""

    work: Callable[[Job], Awaitable[None]]
    at_work: Counter[str] = field(default_factory=Counter)
    most: int = 0
    looks: int = 0
    cancelled: int = 0

    async def run(self, job: Job) -> None:
        self.looks += 1
        self.at_work[job.incident.id] += 1
        self.most = max(self.most, self.at_work[job.incident.id])
        try:
            await self.work(job)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.at_work[job.incident.id] -= 1


@asynccontextmanager
async def working(
    bench: Any, stage: Any, state: State = State.OPEN, *, lease: float = 15
) -> AsyncGenerator[Pipeline]:
    bench.leases._term = timedelta(seconds=lease)
    pipeline = Pipeline(bench.ledger, {state: stage}, Pace(POLL, timedelta(seconds=lease)))
    task = asyncio.create_task(pipeline.run())
    try:
        yield pipeline
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(true: Callable[[], Awaitable[bool]], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not await true():  # noqa: ASYNC110 - the condition is in the database
            await asyncio.sleep(0.005)


def escalates(bench: Any, reason: str = "seen") -> Callable[[Job], Awaitable[None]]:
    async def work(job: Job) -> None:
        async with bench.ledger.entry(job) as entry:
            await entry.move(Step(Move.ESCALATE, reason))

    return work


async def is_in(bench: Any, incident: Any, state: State) -> bool:
    return (await bench.get(incident)).state == state


async def test_a_due_incident_is_handed_to_the_stage_of_its_state(bench: Any) -> None:
    incident = await bench.open()
    async with working(bench, Recorder(escalates(bench))) as pipeline:
        await until(lambda: is_in(bench, incident, State.ESCALATED))
        assert pipeline.healthy


async def test_two_pipelines_on_one_database_never_work_on_one_incident_at_once(bench: Any) -> None:
    opened = [await bench.open(f"pod shop/p-{i}") for i in range(6)]
    looks: Counter[str] = Counter()

    async def work(job: Job) -> None:
        looks[job.incident.id] += 1
        await asyncio.sleep(0.002)  # as long as the other one needs to claim

    stage, other = Recorder(work), bench.replica()
    async with working(bench, stage), working(other, stage):
        await until(lambda: _true(min(looks[i.id] for i in opened) >= 3))
    assert stage.most == 1


async def _true(value: bool) -> bool:
    return value


async def test_a_long_stage_keeps_its_lease_and_a_lost_lease_ends_the_stage(bench: Any) -> None:
    incident = await bench.open()
    go_on = asyncio.Event()

    async def work(job: Job) -> None:
        await go_on.wait()

    stage = Recorder(work)
    async with working(bench, stage, lease=0.15):
        await until(lambda: _true(stage.looks == 1))
        ends = (await bench.rows("leases"))[0]["expires_at"]

        async def renewed() -> bool:
            return (await bench.rows("leases"))[0]["expires_at"] > ends

        await until(renewed)
        assert stage.cancelled == 0
        async with bench.database.transaction() as tx:  # the other replica's clock was ahead
            await tx.execute(text("UPDATE leases SET token = 9, holder = 'the other'"))
            far = (bench.clock() + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            await tx.execute(text("UPDATE leases SET expires_at = :far"), {"far": far})
        await until(lambda: _true(stage.cancelled == 1))
    assert await is_in(bench, incident, State.OPEN)
    assert (await bench.rows("leases"))[0]["holder"] == "the other"


async def test_a_stage_that_raises_hands_its_incident_to_a_human(bench: Any) -> None:
    incident = await bench.open()

    async def work(job: Job) -> None:
        raise ZeroDivisionError("half a pod")

    async with working(bench, Recorder(work)):
        await until(lambda: is_in(bench, incident, State.ESCALATED))
    reason = (await bench.get(incident)).reason
    assert "ZeroDivisionError: half a pod" in reason
    assert "needs a human" in reason


async def test_an_error_that_asking_again_cannot_mend_goes_to_a_human(bench: Any) -> None:
    incident = await bench.open()

    async def work(job: Job) -> None:
        raise WorkflowRefusedError("403 Forbidden")

    async with working(bench, Recorder(work)):
        await until(lambda: is_in(bench, incident, State.ESCALATED))
    assert "403 Forbidden" in (await bench.get(incident)).reason


async def test_a_retryable_error_is_retried(bench: Any) -> None:
    incident = await bench.open()
    stage = Recorder(escalates(bench))

    async def work(job: Job) -> None:
        if stage.looks < 3:
            raise ArgoUnavailableError("503")
        await escalates(bench, "at last")(job)

    stage.work = work
    async with working(bench, stage):
        await until(lambda: is_in(bench, incident, State.ESCALATED))
    assert stage.looks == 3
    assert (await bench.get(incident)).reason == "at last"


@pytest.mark.parametrize(
    "trouble",
    [
        OperationalError("insert", None, Exception("database or disk is full")),
        PoolTimeoutError("every connection is in use"),
    ],
)
async def test_a_full_disk_or_pool_is_waited_for_and_is_no_reason_to_give_up(
    bench: Any, trouble: Exception
) -> None:
    incident = await bench.open()
    stage = Recorder(escalates(bench))

    async def work(job: Job) -> None:
        if stage.looks < 3:
            raise trouble
        await escalates(bench, "at last")(job)

    stage.work = work
    async with working(bench, stage):
        await until(lambda: is_in(bench, incident, State.ESCALATED))
    assert (await bench.get(incident)).reason == "at last"


async def test_a_run_in_flight_is_not_given_up_before_its_deadline(bench: Any) -> None:
    incident = await bench.launching()
    broken = {"count": 0}

    async def work(job: Job) -> None:
        broken["count"] += 1
        raise ZeroDivisionError

    async with working(bench, Recorder(work), State.LAUNCHING):
        await until(lambda: _true(broken["count"] >= 3))
        assert await is_in(bench, incident, State.LAUNCHING)
        bench.clock.forward(3600)
        await until(lambda: is_in(bench, incident, State.ESCALATED))


@pytest.mark.parametrize("state", [State.PROPOSED, State.INSPECTED])
async def test_a_deadline_that_passes_escalates_and_says_what_was_waited_for(
    bench: Any, state: State
) -> None:
    incident = await getattr(bench, state.value)()
    stage = Recorder(escalates(bench))
    bench.clock.forward(121)
    async with working(bench, stage, state):
        await until(lambda: is_in(bench, incident, State.ESCALATED))
    assert stage.looks == 0
    assert "no decision in time: it crashes" in (await bench.get(incident)).reason


async def test_what_a_person_did_meanwhile_is_no_failure(bench: Any) -> None:
    incident = await bench.open()

    async def work(job: Job) -> None:
        async with bench.ledger.person(incident.id) as entry:
            await entry.move(Step(Move.ESCALATE, "a person was quicker"))
        await escalates(bench, "too late")(job)

    async with working(bench, Recorder(work)):
        await until(lambda: is_in(bench, incident, State.ESCALATED))
    assert (await bench.get(incident)).reason == "a person was quicker"
    assert [r.event for r in await bench.records(incident)].count("incident_moved") == 1


async def test_a_database_that_is_away_is_waited_for(bench: Any) -> None:
    incident = await bench.open()
    real = bench.leases.claim_due
    away = {"times": 3}

    class Flaky(type(bench.leases)):
        async def claim_due(self, *given: Any, **more: Any) -> Any:
            away["times"] -= 1
            if away["times"] >= 0:
                raise OSError("disk I/O error")
            return await real(*given, **more)

    bench.leases.__class__ = Flaky
    stage = Recorder(escalates(bench))
    async with working(bench, stage) as pipeline:
        await until(lambda: _true(away["times"] < 3))
        assert not pipeline.healthy
        await until(lambda: is_in(bench, incident, State.ESCALATED))
        assert pipeline.healthy


async def test_ending_the_pipeline_ends_its_stages_and_frees_their_leases(bench: Any) -> None:
    incident = await bench.open()
    never = asyncio.Event()

    async def work(job: Job) -> None:
        await never.wait()

    stage = Recorder(work)
    async with working(bench, stage):
        await until(lambda: _true(stage.looks == 1))
    assert stage.cancelled == 1
    assert await bench.replica().claim(incident.id) is not None


async def test_a_pipeline_ends_although_it_is_woken_at_that_moment(bench: Any) -> None:
    patient = Pace(timedelta(seconds=60), timedelta(seconds=15))
    pipeline = Pipeline(bench.ledger, {State.OPEN: Recorder(escalates(bench))}, patient)
    task = asyncio.create_task(pipeline.run())
    await until(lambda: _true(pipeline.healthy))
    pipeline.wake()
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=2)
    task.cancel()
    assert done, "a cancellation was swallowed: the service would not shut down"


async def test_no_more_at_once_than_the_pace_allows(bench: Any) -> None:
    for i in range(5):
        await bench.open(f"pod shop/p-{i}")
    never, at_work = asyncio.Event(), []

    class Slow:
        async def run(self, job: Job) -> None:
            at_work.append(job.incident.id)
            await never.wait()

    pace = Pace(POLL, timedelta(seconds=15), parallel=2)
    task = asyncio.create_task(Pipeline(bench.ledger, {State.OPEN: Slow()}, pace).run())
    await until(lambda: _true(len(at_work) == 2))
    await asyncio.sleep(5 * POLL.total_seconds())
    assert len(at_work) == 2
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
