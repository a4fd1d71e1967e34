"""Stage: create the Workflow whose intent is already committed; never after its `notAfter`.

Invariants: the stop switch is read directly before the Workflow is created, and an answer that is
older than half a second is not acted on, so that nothing is launched a second after somebody said
stop, whatever the API server's admission does; what a stop kept from starting never starts later.
"""

import time
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tiphys.policies.lifecycle import Move
from tiphys.policies.model import Plan, StopFacts
from tiphys.policies.plan import digest, encode
from tiphys.service.argo import Argo, Submission
from tiphys.service.database import stamp
from tiphys.service.errors import ArgoUnavailableError, WorkflowRefusedError
from tiphys.service.incidents import Step
from tiphys.service.ledger import Job, Ledger
from tiphys.service.records import AuditEvent
from tiphys.service.run_stops import stop_of
from tiphys.service.runs import Runs, StoredRun
from tiphys.workflow_templates import apart
from tiphys.workflow_templates.signature import sign

FRESH_SECONDS = 0.5
"""How long what the stop switch said may be acted on, from when it was asked."""


class Switch(Protocol):
    """The stop switch."""

    async def read(self) -> StopFacts | None:
        """Tell its position; None when nobody can."""
        ...


class Launch:
    """From LAUNCHING to RUNNING, or to a human."""

    def __init__(
        self, ledger: Ledger, runs: Runs, argo: Argo, key: Ed25519PrivateKey, stop: Switch
    ) -> None:
        self._ledger = ledger
        self._runs = runs
        self._argo = argo
        self._key = key
        self._stop = stop

    async def run(self, job: Job) -> None:
        """Create or adopt; an API server that is away is asked again until `notAfter`."""
        async with self._ledger.database.reading() as tx:
            run = await self._runs.of(tx, job.incident)
            plan = await self._runs.plan(tx, job.incident)
            wish = await stop_of(tx, run.name) if run else None
        if run is None or plan is None:
            await self._ledger.escalate(job, "the intent of this launch cannot be found")
            return
        submission = self._submission(run, plan)
        if self._ledger.clock() >= run.not_after:
            await self._give_up(job, run, submission, "it could not be created in time")
            return
        if wish is not None:
            await self._give_up(job, run, submission, str(wish))
            return
        asked = time.monotonic()
        stop = await self._stop.read()
        if stop is not None and stop.engaged:
            why = f"the stop switch is engaged: {stop.reason or 'no reason'}"
            await self._give_up(job, run, submission, why)
            return
        if stop is None or time.monotonic() - asked > FRESH_SECONDS:
            return  # nobody knows whether it is engaged; asked again, until notAfter
        try:
            created = await self._argo.create(submission)
        except ArgoUnavailableError:
            return  # the pipeline looks again; the intent stands until notAfter
        except WorkflowRefusedError as error:
            await self._give_up(job, run, submission, str(error))
            return
        await self._started(job, run, created=created)

    def _submission(self, run: StoredRun, plan: Plan) -> Submission:
        not_after = stamp(run.not_after)
        return Submission(
            name=run.name,
            template=run.action,
            parameters={
                "plan": encode(plan),
                "notAfter": not_after,
                "signature": sign(self._key, digest(plan), not_after),
                "target": plan.target.uid,
                **apart.parameters(plan.target),
            },
            incident=plan.incident,
        )

    async def _give_up(self, job: Job, run: StoredRun, submission: Submission, why: str) -> None:
        """End the run, unless its Workflow exists all the same.

        We may have died between creating and noting it, or an earlier try may have arrived though
        its answer did not; a stop or the end of `notAfter` then refuses what is already running.
        """
        try:
            exists = await self._argo.exists(submission)
        except ArgoUnavailableError:
            return
        except WorkflowRefusedError as error:
            exists, why = False, str(error)
        if exists:
            await self._started(job, run, created=False)
        else:
            await self._abandon(job, run, f"the Workflow was not started: {why}")

    async def _started(self, job: Job, run: StoredRun, *, created: bool) -> None:
        async with self._ledger.entry(job) as entry:
            await self._runs.created(entry.tx, run.name)
            await entry.record(
                AuditEvent.WORKFLOW_CREATED,
                {"workflow": run.name, "template": run.action, "adopted": not created},
                actor="launcher",
            )
            await entry.move(
                Step(
                    Move.START,
                    f"{run.action} runs as {run.name}",
                    "launcher",
                    deadline_at=run.deadline_at,
                )
            )

    async def _abandon(self, job: Job, run: StoredRun, why: str) -> None:
        async with self._ledger.entry(job) as entry:
            await self._runs.end(entry.tx, run.name, None, entry.now)
            await entry.record(
                AuditEvent.RUN_ENDED, {"workflow": run.name, "outcome": None, "why": why}
            )
            await entry.move(Step(Move.ESCALATE, why, "launcher"))
