"""Stage: follow a Workflow step by step, and turn its end into an outcome.

Invariants: a run that has not ended `deadline` after its `notAfter` pages a human, whatever the
Workflow's phase says: a rollback pod that cannot be scheduled leaves it Running for ever. One that
a person wants stopped is stopped, rolls back, and no other is started in its place.
"""

import contextlib
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

from tiphys.policies.lifecycle import Move
from tiphys.policies.model import Incident, Object, Outcome, Plan
from tiphys.service.argo import Argo
from tiphys.service.breakers import Breakers
from tiphys.service.errors import ArgoUnavailableError
from tiphys.service.incidents import Step
from tiphys.service.ledger import Entry, Job, Ledger
from tiphys.service.outcomes import RunView, outcome, view
from tiphys.service.records import AuditEvent
from tiphys.service.run_stops import RunStop, stop_of
from tiphys.service.runs import Runs, StoredRun

_FREEZE = {Outcome.ROLLBACK_FAILED, Outcome.UNKNOWN}


@dataclass(frozen=True)
class WatchTimes:
    """How long to wait after a success for the alert to end, and how often to try."""

    resolve: timedelta
    max_attempts: int


class Watch:
    """From RUNNING to verified, to the next attempt, or to a human."""

    def __init__(
        self, ledger: Ledger, runs: Runs, argo: Argo, times: WatchTimes, breakers: Breakers
    ) -> None:
        self._ledger = ledger
        self._runs = runs
        self._argo = argo
        self._times = times
        self._breakers = breakers

    async def run(self, job: Job) -> None:
        """Look once; record what is new."""
        async with self._ledger.database.reading() as tx:
            run = await self._runs.of(tx, job.incident)
            plan = await self._runs.plan(tx, job.incident)
            wish = await stop_of(tx, run.name) if run else None
        if run is None or plan is None:
            await self._ledger.escalate(job, "the run of this incident cannot be found")
            return
        overdue = self._ledger.clock() >= run.deadline_at
        try:
            workflow = await self._argo.get(run.name)
        except ArgoUnavailableError as error:
            if overdue:
                await self._end(job, run, plan, (Outcome.UNKNOWN, f"not ended in time: {error}"))
            return
        if workflow is None:
            await self._end(job, run, plan, (Outcome.UNKNOWN, "its Workflow is gone"))
            return
        seen = view(workflow)
        await self._record(job, run, seen)
        if seen.ended:
            await self._end(job, run, plan, outcome(seen), wish)
        elif wish and not _is_stopping(workflow):
            with contextlib.suppress(ArgoUnavailableError):  # asked again at the next look
                await self._argo.stop(run.name)
        elif overdue:
            why = f"the Workflow is still {seen.phase} after its deadline"
            await self._end(job, run, plan, (Outcome.UNKNOWN, why))

    async def _record(self, job: Job, run: StoredRun, seen: RunView) -> None:
        steps = [step.as_json() for step in seen.steps]
        if not steps or steps == run.steps:
            return
        async with self._ledger.entry(job) as entry:
            for step in steps:
                if step not in run.steps:
                    await entry.record(
                        AuditEvent.RUN_STEP, {"workflow": run.name, "step": step}, actor="argo"
                    )
            await self._runs.steps(entry.tx, run.name, steps)

    async def _end(
        self,
        job: Job,
        run: StoredRun,
        plan: Plan,
        ended: tuple[Outcome, str],
        wish: RunStop | None = None,
    ) -> None:
        result, why = ended[0], f"{wish}; {ended[1]}" if wish else ended[1]
        async with self._ledger.entry(job) as entry:
            await self._runs.end(entry.tx, run.name, result, entry.now)
            await entry.record(
                AuditEvent.RUN_ENDED, {"workflow": run.name, "outcome": result, "why": why}
            )
            if result in _FREEZE:
                await self._freeze(entry, run, plan, why)
            await self._breakers.after_end(entry, plan.target)
            tried = len(await self._runs.all_of(entry.tx, plan.incident))
            by_alerts = wish is None and entry.incident.wish is None
            again = tried < self._times.max_attempts and by_alerts
            await entry.move(self._step(entry, plan, (result, why), again=again))

    async def _freeze(self, entry: Entry, run: StoredRun, plan: Plan, why: str) -> None:
        await self._runs.freeze(entry.tx, run, plan.target, reason=why, now=entry.now)
        await entry.record(
            AuditEvent.TARGET_FROZEN,
            {"target": plan.target.model_dump(mode="json"), "reason": why},
        )

    def _step(self, entry: Entry, plan: Plan, ended: tuple[Outcome, str], *, again: bool) -> Step:
        result, why = ended
        action = f"{'undo of ' if plan.undoes else ''}{plan.action} on {plan.target}"
        if result is Outcome.VERIFIED:
            return Step(
                Move.VERIFY,
                _done(entry.incident, plan, why),
                deadline_at=entry.now + self._times.resolve,
                outcome=result,
            )
        words = f"{action} ended {result.replace('_', ' ')}: {why}"
        if result in _FREEZE:
            return Step(Move.ESCALATE, f"{words}. The target is frozen", outcome=result)
        if not again:
            return Step(Move.ESCALATE, words, outcome=result)
        return Step(Move.REINVESTIGATE, words, outcome=result, next_attempt=True)


def _done(incident: Incident, plan: Plan, why: str) -> str:
    """Say that it is well: undone, as a person wanted it, or healed."""
    if plan.undoes:
        return f"{plan.undoes} is undone"
    what = f"{plan.action} on {plan.target}"
    if incident.wants:
        return f"{what} is done, as {incident.wants.by} wanted: {why}"
    return f"{what} helped: {why}"


def _is_stopping(workflow: Object) -> bool:
    spec = cast("dict[str, Any]", workflow.get("spec") or {})
    return bool(spec.get("shutdown"))
