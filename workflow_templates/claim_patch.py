"""The acting half of expand-volume: one patch, fenced and marked, and no way back.

Invariants are those of `fenced`, except that nothing is put back: what has begun to grow is told
as it stands, and an expansion that hangs is a human's.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from tiphys.policies.model import Change, Object
from tiphys.workflow_templates import claims, mark, verification
from tiphys.workflow_templates.action import Deadlines, Report, Result, Run
from tiphys.workflow_templates.cluster import REQUEST_SECONDS, ClusterError, Unreachable
from tiphys.workflow_templates.fenced import PAUSE_SECONDS, Fenced, Values, deviation
from tiphys.workflow_templates.mark import Standing, Trace
from tiphys.workflow_templates.pointers import at, equal, operations
from tiphys.workflow_templates.workloads import Health

_HAS = "/status/capacity/storage"


@dataclass(frozen=True)
class ClaimPatch:
    """One claim under one run."""

    run: Run
    deadlines: Deadlines
    plan_on: Callable[[Object], Sequence[Change]]
    """Plan again on the claim just read; raises `NotApplicableError`."""

    def precheck(self) -> Report:
        """Answer whether the same would be planned now."""
        seen = self._fenced().look(self._deviation)
        if isinstance(seen, Report):
            return seen
        return Report(Result.AS_PLANNED, f"{self.run.plan.target} is as planned", {})

    def act(self) -> Report:
        """Set the plan's value and the mark."""
        return self._fenced().act(self._deviation)

    def verify(self) -> Report:
        """See the storage there, the file system grown and the alert over."""
        fenced = self._fenced()

        def look() -> Health:
            claim = fenced.read()
            if not fenced.holds_intended(claim):
                return Health(False, "somebody else changed the claim", hopeless=True)
            has = f"{self.run.plan.target} has {at(claim, _HAS)}"
            if why := claims.given_up(claim):
                return Health(False, f"{has}: {why}", hopeless=True)
            if why := claims.expansion(claim):
                return Health(False, f"{has}: {why}")
            return Health(True, has)

        report = verification.watch(self.run, look, self.deadlines.verify)
        if report.result is Result.VERIFIED:
            self._keep(fenced)
        return report

    def rollback(self) -> Report:
        """Say how the claim stands; an expansion that goes on may still end within the deadline.

        Like verify, it waits for storage, so in a fast world it needs but a share of it.
        """
        run = self.run
        mark.close_door(run)
        claimed = mark.found(run, run.digest, Trace.ACT)
        # An act that passed the door just before may still have one request under way.
        settled = run.now() + timedelta(seconds=REQUEST_SECONDS + 1 if claimed else 0)
        until = run.now() + timedelta(seconds=self.deadlines.rollback * run.verify_share)
        while True:
            now = run.now()
            try:
                seen = self._left(claimed=claimed, over=now >= until)
            except Unreachable:
                if now >= until:
                    raise
                seen = None
            if seen and (seen.result is not Result.NOTHING_CHANGED or now >= settled):
                return seen
            run.sleep(PAUSE_SECONDS)

    def _left(self, *, claimed: bool, over: bool) -> Report | None:
        """Say what this run has left behind; None while its expansion may still end."""
        run = self.run
        nothing = Report(Result.NOTHING_CHANGED, "this run changed nothing", {})
        claim, stands = self._fenced().judged()
        if not claim:
            lost = Report(Result.NOT_OURS, "somebody else deleted the claim", {})
            return lost if claimed else nothing
        if stands in {Standing.UNTOUCHED, Standing.ANOTHERS}:
            return nothing
        (change,) = run.plan.changes
        seen = {"asked": at(claim, change.path), "has": at(claim, _HAS)}
        if stands is Standing.LOST or not equal(seen["asked"], change.intended):
            return Report(Result.NOT_OURS, "somebody else changed the claim since", seen)
        why = claims.expansion(claim)
        if why is None:
            said = f"it has grown to {seen['has']}, and nothing makes it smaller"
            return Report(Result.NOTHING_TO_RESTORE, said, seen)
        if not over and not claims.given_up(claim):
            return None
        said = (
            f"its expansion hangs ({why}), and what it asked for, {change.present}, cannot be "
            "asked for again: see to the storage, or lower the request by hand to just above "
            f"what is there, {seen['has']}"
        )
        return Report(Result.NOT_UNDONE, said, seen)

    def _deviation(self, claim: Object) -> str | None:
        return deviation(self.run.plan, lambda: self.plan_on(claim))

    def _fenced(self) -> Fenced:
        run, target = self.run, self.run.plan.target

        def write(claim: Object, values: Values, trace: Trace) -> None:
            note = mark.annotating(claim, f"{run.digest}.{trace}")
            run.cluster.patch(claim, [*operations(values), *note])

        return Fenced(
            run=run,
            deadlines=self.deadlines,
            read=lambda: run.cluster.get(*claims.CLAIM, target.namespace, target.name),
            mark_of=mark.by_annotation,
            write=write,
        )

    def _keep(self, fenced: Fenced) -> None:
        """Mark the change as verified, so that later runs may act; as good as it goes."""
        try:
            claim = fenced.read()
            if mark.by_annotation(claim) == f"{self.run.digest}.{Trace.ACT}":
                fenced.write(claim, (), Trace.KEPT)
        except ClusterError:
            return
