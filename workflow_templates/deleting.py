"""Deleting planned objects for good: look, claim, delete by uid, look again.

Invariants: nothing is deleted unless the plan names it by uid, it is as planned just now, this run
is in time and not ended; what is gone without this run's claim was not deleted by it. Several
deletions are resumed where they were left, since an object that is gone needs no second one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from tiphys.policies.model import Object
from tiphys.workflow_templates import mark
from tiphys.workflow_templates.action import Deadlines, Report, Result, Run
from tiphys.workflow_templates.cluster import REQUEST_SECONDS, Conflict, Gone, Unreachable
from tiphys.workflow_templates.fenced import PAUSE_SECONDS, refused
from tiphys.workflow_templates.mark import Trace
from tiphys.workflow_templates.pointers import at


def exactly(run: Run, kind: tuple[str, str], name: str, uid: str) -> Object | None:
    """Read one object of the target's namespace; None where it, with that uid, is not there."""
    try:
        found = run.cluster.get(*kind, run.plan.target.namespace, name)
    except Gone:
        return None
    return found if at(found, "/metadata/uid") == uid else None


def name_and_uid(obj: Object) -> tuple[str, str]:
    """Give what `exactly` reads an object by."""
    return str(at(obj, "/metadata/name")), str(at(obj, "/metadata/uid"))


@dataclass(frozen=True)
class Deleting:
    """The planned objects under one run."""

    run: Run
    deadlines: Deadlines
    planned: int
    """How many objects the plan names."""
    left: Callable[[], Sequence[Object]]
    """Read those that are still there and not being deleted."""
    deviation: Callable[[Sequence[Object]], str | None]
    """Say why those that are left must not be deleted now, or None."""
    delete: Callable[[Object], None]
    """Delete exactly this object, or raise `Conflict` or `Gone`."""

    def look(self) -> Sequence[Object] | Report:
        """Give what may be deleted now, else why not."""
        run, left = self.run, self.left()
        if not left and mark.found(run, run.digest, Trace.ACT):
            return Report(Result.ALREADY_DONE, "this run deleted it before", {})
        if not left:
            return refused(f"what was to be deleted for {run.plan.target} is gone, not by this run")
        if mark.found(run, run.digest, Trace.UNDONE):
            return refused("this run has ended; it does not act again")
        if run.now() >= run.not_after:
            return refused("notAfter has passed")
        why = self.deviation(left)
        return refused(why) if why else left

    def precheck(self) -> Report:
        """Answer whether what is left may be deleted now."""
        seen = self.look()
        if isinstance(seen, Report):
            return seen
        said = f"{len(seen)} of {self.planned} are there, as planned"
        return Report(Result.AS_PLANNED, said, {"left": len(seen)})

    def act(self) -> Report:
        """Claim, then delete one after the other until nothing is left."""
        run, deleted = self.run, 0
        until = run.now() + timedelta(seconds=self.deadlines.act)
        while run.now() < until:
            seen = self.look()
            if isinstance(seen, Report):
                return self._ended(seen, deleted)
            for one in seen:
                if not mark.claim(run):
                    return self._ended(refused("rollback of this run has begun"), deleted)
                try:
                    self.delete(one)
                except (Conflict, Gone, Unreachable):
                    run.sleep(PAUSE_SECONDS)
                    continue
                deleted += 1
        return Report(Result.CRASHED, f"not everything could be deleted in time: {deleted}", {})

    def rollback(self) -> Report:
        """Say whether this run deleted anything; there is nothing to put back."""
        run = self.run
        mark.close_door(run)
        claimed = mark.found(run, run.digest, Trace.ACT)
        # An act that passed the door just before may still have one request under way.
        settled = run.now() + timedelta(seconds=REQUEST_SECONDS + 1)
        while claimed and run.now() < settled and len(self.left()) == self.planned:
            run.sleep(PAUSE_SECONDS)
        gone = self.planned - len(self.left())
        if claimed and gone:
            said = f"{gone} of {self.planned} are gone, and they were garbage"
            return Report(Result.NOTHING_TO_RESTORE, said, {"gone": gone})
        return Report(Result.NOTHING_CHANGED, "this run deleted nothing", {})

    def _ended(self, seen: Report, deleted: int) -> Report:
        """Say how act ended, which may have been interrupted between two deletions."""
        if not deleted:
            return seen
        if seen.result is not Result.ALREADY_DONE:
            said = f"interrupted after {deleted} of {self.planned}: {seen.message}"
            return Report(Result.CRASHED, said, {"deleted": deleted})
        mark.tell(self.run, "Acted", f"tiphys-{self.run.digest}: deleted {deleted}")
        return Report(Result.ACTED, f"deleted {deleted}", {"deleted": deleted})
