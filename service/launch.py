"""Stage: create the Workflow whose intent is already committed; never after its `notAfter`."""

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tiphys.policies.lifecycle import Move
from tiphys.policies.model import Plan
from tiphys.policies.plan import digest, encode
from tiphys.service.argo import Argo, Submission
from tiphys.service.audit import AuditEvent
from tiphys.service.database import stamp
from tiphys.service.errors import ArgoUnavailableError, WorkflowRefusedError
from tiphys.service.incidents import Step
from tiphys.service.ledger import Job, Ledger
from tiphys.service.runs import Runs, StoredRun
from tiphys.workflow_templates.signature import sign


class Launch:
    """From LAUNCHING to RUNNING, or to a human."""

    def __init__(self, ledger: Ledger, runs: Runs, argo: Argo, key: Ed25519PrivateKey) -> None:
        self._ledger = ledger
        self._runs = runs
        self._argo = argo
        self._key = key

    async def run(self, job: Job) -> None:
        """Create or adopt; an API server that is away is asked again until `notAfter`."""
        async with self._ledger.database.reading() as tx:
            run = await self._runs.of(tx, job.incident)
            plan = await self._runs.plan(tx, job.incident)
        if run is None or plan is None:
            await self._ledger.escalate(job, "the intent of this launch cannot be found")
            return
        if self._ledger.clock() >= run.not_after:
            await self._too_late(job, run)
            return
        try:
            created = await self._argo.create(self._submission(run, plan))
        except ArgoUnavailableError:
            return  # the pipeline looks again; the intent stands until notAfter
        except WorkflowRefusedError as error:
            await self._abandon(job, run, str(error))
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
            },
            incident=plan.incident,
        )

    async def _too_late(self, job: Job, run: StoredRun) -> None:
        """The Workflow may exist all the same: we may have died between creating and noting it."""
        try:
            exists = await self._argo.get(run.name) is not None
        except ArgoUnavailableError:
            return
        if exists:
            await self._started(job, run, created=False)
        else:
            await self._abandon(job, run, "the Workflow could not be created in time")

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
