"""Claims due incidents and hands each to the stage of its state; each role wires its own stages.

Invariants: an incident is worked on under a lease that is renewed while its stage runs; a stage
that breaks hands its incident to a human instead of hiding it.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import structlog

from tiphys.policies.lifecycle import IllegalMoveError, State
from tiphys.service.database import AWAY
from tiphys.service.errors import LeaseLostError, TiphysError
from tiphys.service.ledger import Job, Ledger

log = structlog.get_logger()

_MUST_MOVE = {State.INVESTIGATING, State.PROPOSED, State.INSPECTED}
"""States whose deadline means that we, not a human, are late."""

_IN_FLIGHT = {State.LAUNCHING, State.RUNNING}


class Stage(Protocol):
    """One step of the loop: looks at one incident once."""

    async def run(self, job: Job) -> None:
        """Do it; returning without a move means: look again after the poll interval."""
        ...


@dataclass(frozen=True)
class Pace:
    """How often to look, how long a lease lasts and how much to do at once."""

    poll: timedelta
    lease: timedelta
    parallel: int = 16


class Pipeline:
    """Runs until cancelled."""

    def __init__(
        self,
        ledger: Ledger,
        stages: Mapping[State, Stage],
        pace: Pace,
        woken: asyncio.Event | None = None,
    ) -> None:
        """Work on incidents in these states alone; `woken` is set by others who leave work."""
        self._ledger = ledger
        self._stages = dict(stages)
        self._pace = pace
        self._awake = woken or asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.trouble = "no work has been looked for yet"
        """What kept the last look at the database from succeeding; empty when nothing did."""

    @property
    def healthy(self) -> bool:
        """Whether the last look at the database succeeded."""
        return not self.trouble

    def wake(self) -> None:
        """Look for due work now instead of at the next poll."""
        self._awake.set()

    async def run(self) -> None:
        """Claim and work until cancelled; the stages in hand are cancelled too."""
        try:
            while True:
                await self._claim()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._pace.poll.total_seconds()):
                        await self._awake.wait()
                self._awake.clear()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _claim(self) -> None:
        free = self._pace.parallel - len(self._tasks)
        if free <= 0:
            return
        now = self._ledger.clock()
        states = [state.value for state in self._stages]
        try:
            claimed = await self._ledger.leases.claim_due(
                states, now, limit=free, again=now + self._pace.poll
            )
            self.trouble = ""
        except Exception as error:  # the loop must outlive a database that is away for a while
            self.trouble = f"cannot claim work: {type(error).__name__}"
            log.error("cannot claim work", error=str(error))
            return
        for incident, lease in claimed:
            task = asyncio.create_task(self._work(Job(incident, lease)))
            self._tasks.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self.wake()

    async def _work(self, job: Job) -> None:
        renewal = asyncio.create_task(self._renew(job, asyncio.current_task()))
        try:
            await self._stage(job)
        except (LeaseLostError, IllegalMoveError) as lost:
            log.info("another hand was quicker", incident=job.incident.id, why=str(lost))
        except TiphysError as error:
            log.warning("stage failed", incident=job.incident.id, error=str(error))
            if not error.retryable:
                await self._give_up(job, str(error))
        except AWAY as error:  # looked at again; its deadline still hands it to a human
            log.error("the database does not answer", incident=job.incident.id, error=str(error))
        except Exception as error:
            log.exception("stage broke", incident=job.incident.id)
            await self._give_up(job, f"{type(error).__name__}: {error}")
        finally:
            renewal.cancel()
            with contextlib.suppress(Exception):
                await self._ledger.leases.release(job.lease, self._ledger.clock())

    async def _stage(self, job: Job) -> None:
        incident = job.incident
        state = State(incident.state)
        late = incident.deadline_at and self._ledger.clock() >= incident.deadline_at
        if late and state in _MUST_MOVE:
            await self._ledger.escalate(job, f"no decision in time: {incident.reason}")
            return
        await self._stages[state].run(job)

    async def _give_up(self, job: Job, why: str) -> None:
        """Hand over what we cannot do; if even that fails, the lease runs out and it is retried.

        A run in flight is looked at again until its deadline: it may still end well.
        """
        late = job.incident.deadline_at and self._ledger.clock() >= job.incident.deadline_at
        if job.incident.state in _IN_FLIGHT and not late:
            return
        with contextlib.suppress(TiphysError, IllegalMoveError):
            await self._ledger.escalate(job, f"Tiphys failed and needs a human: {why}")

    async def _renew(self, job: Job, stage: asyncio.Task[None] | None) -> None:
        """Keep the lease while the stage runs; end the stage when somebody else has it."""
        while True:
            await asyncio.sleep(self._pace.lease.total_seconds() / 3)
            try:
                await self._ledger.leases.renew(job.lease, self._ledger.clock())
            except LeaseLostError:
                log.warning("lease lost", incident=job.incident.id)
                if stage is not None:
                    stage.cancel()
                return
            except Exception as error:  # a database that is away may be back before the term ends
                log.warning("cannot renew", incident=job.incident.id, error=str(error))
