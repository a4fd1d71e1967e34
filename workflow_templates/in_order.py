"""Several objects under one run, written one after the other and put back in the same order.

Invariants are those of `fenced`, and: nothing is written unless every object may be; all are
claimed before the first write; what was interrupted goes on where it was left; when somebody else
has changed one of them since, none is put back.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tiphys.policies.model import Object
from tiphys.workflow_templates import mark, verification
from tiphys.workflow_templates.action import Report, Result, Run
from tiphys.workflow_templates.fenced import Fenced
from tiphys.workflow_templates.workloads import Health


@dataclass(frozen=True)
class Part:
    """One of the objects."""

    fenced: Fenced
    deviation: Callable[[Object], str | None]
    """Say why the object just read is not as planned, or None."""


@dataclass(frozen=True)
class InOrder:
    """The objects of one run, in the order in which they are written."""

    run: Run
    parts: Sequence[Part]

    def precheck(self) -> Report:
        """Answer whether what is not written yet may be written now."""
        seen = self._look()
        if isinstance(seen, Report):
            return seen
        said = f"{len(seen)} of {len(self.parts)} objects are to be changed, and as planned"
        return Report(Result.AS_PLANNED, said, {})

    def act(self) -> Report:
        """Claim all, then write one after the other."""
        left = self._look()
        if isinstance(left, Report):
            return left
        mark.claim(self.run, *left)  # Whether the door is open, each part asks before it writes.
        acted: list[str] = []
        for part in self.parts:
            report = part.fenced.act(part.deviation)
            if report.result is Result.ACTED:
                acted.append(report.message)
            elif report.result is not Result.ALREADY_DONE:
                return _interrupted(report) if acted else report
        if not acted:
            return Report(Result.ALREADY_DONE, "this run has done it before", {})
        return Report(Result.ACTED, ", then ".join(acted), {})

    def verify(self, judge: Callable[[Sequence[Object]], Health], patience: int) -> Report:
        """See that everything stays as it was left, what `judge` says of it, and the alert over."""

        def look() -> Health:
            seen = [part.fenced.read() for part in self.parts]
            for part, found in zip(self.parts, seen, strict=True):
                if not part.fenced.holds_intended(found):
                    said = f"somebody else changed {part.fenced.name}"
                    return Health(False, said, hopeless=True)
            return judge(seen)

        report = verification.watch(self.run, look, patience)
        if report.result is Result.VERIFIED:
            for part in self.parts:
                part.fenced.keep()
        return report

    def rollback(self) -> Report:
        """Put back what this run changed, unless somebody else has changed any of it since."""
        mark.close_door(self.run)
        for part in self.parts:
            if foreign := part.fenced.foreign():
                return _of(part, foreign)
        report = Report(Result.NOTHING_CHANGED, "this run changed nothing", {})
        for part in self.parts:
            if part.fenced.unwritten():
                continue
            back = part.fenced.rollback()
            if back.result not in {Result.UNDONE, Result.NOTHING_CHANGED}:
                return _of(part, back)
            if back.result is Result.UNDONE:
                report = back
        return report

    def _look(self) -> Sequence[Object] | Report:
        """Give the objects that are not written yet, else why they may not be, or are all."""
        left: list[Object] = []
        done: list[Report] = []
        for part in self.parts:
            seen = part.fenced.look(part.deviation)
            if not isinstance(seen, Report):
                left.append(seen)
            elif seen.result is Result.ALREADY_DONE:
                done.append(seen)
            else:
                return _interrupted(seen) if done else seen
        return left or done[-1]


def _interrupted(report: Report) -> Report:
    """Say that some objects were written and another may not be: this is for rollback to mend."""
    return Report(Result.CRASHED, f"interrupted: {report.message}", report.observed)


def _of(part: Part, report: Report) -> Report:
    return Report(report.result, f"{part.fenced.name}: {report.message}", report.observed)
