"""Acting and undoing on an object that keeps its identity: look, claim, write with a fence, look.

Invariants: nothing is written unless the object just read is the plan's, bears no other run's
unfinished mark and `notAfter` has not passed; nothing is undone unless the mark says that this run
wrote it and the value is still the one it left.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from tiphys.policies.model import Change, Json, Object, ObjectReference, Plan
from tiphys.workflow_templates import mark
from tiphys.workflow_templates.action import (
    Deadlines,
    NotApplicableError,
    Report,
    Result,
    Run,
)
from tiphys.workflow_templates.cluster import (
    REQUEST_SECONDS,
    ClusterError,
    Conflict,
    Gone,
    Unreachable,
)
from tiphys.workflow_templates.mark import Standing, Trace
from tiphys.workflow_templates.pointers import at, equal
from tiphys.workflow_templates.workloads import caught_up

PAUSE_SECONDS = 0.3
LONGEST_HOLD = 15
"""Seconds that put-back values must last to count as back, unless the plan's hold is shorter."""
_LOOKS = 3
"""How often a target that moves while it is looked at is looked at again."""
Values = Sequence[tuple[str, Json, Json]]
"""(pointer, what is there, what will be there)."""


_NOT_THERE = Report(Result.NOT_OURS, "somebody else changed or deleted the target", {})


@dataclass(frozen=True)
class _Deviation:
    """A target as it was read, and why it is not as planned."""

    target: Object
    report: Report


@dataclass(frozen=True)
class Fenced:
    """One object under one run: the target, or one of several (see `in_order`)."""

    run: Run
    deadlines: Deadlines
    read: Callable[[], Object]
    mark_of: Callable[[Object], str]
    write: Callable[[Object, Values, Trace], None]
    """Write exactly over the object that was read, and leave the mark; or raise `Conflict`."""
    of: ObjectReference | None = None
    """The object, as the plan's changes name it; None: the plan's target."""
    hindrance: Callable[[Object], str | None] = lambda _: None
    """Asked for an undo, which plans nothing again: why it would not do here now, or None."""

    @property
    def name(self) -> str:
        """The object's kind and place, for people."""
        return str(self.of or self.run.plan.target)

    @property
    def changes(self) -> Sequence[Change]:
        """What the plan changes of this object."""
        return [change for change in self.run.plan.changes if change.of == self.of]

    # --- before -------------------------------------------------------------------------------

    def look(self, planned: Callable[[Object], str | None]) -> Object | Report:
        """Give the target when it may be written now, else why not; `planned` names a deviation.

        A deviation counts only of a target that has not moved while it was looked for: this run may
        have been started twice, and the other has acted meanwhile.
        """
        seen = self._look(planned)
        for _ in range(_LOOKS - 1):
            if not isinstance(seen, _Deviation) or not self._moved(seen.target):
                break
            seen = self._look(planned)
        return seen.report if isinstance(seen, _Deviation) else seen

    def _moved(self, target: Object) -> bool:
        try:
            now = self.read()
        except Gone:
            return True
        return at(now, "/metadata/resourceVersion") != at(target, "/metadata/resourceVersion")

    def _look(self, planned: Callable[[Object], str | None]) -> "Object | Report | _Deviation":
        run, wanted = self.run, self.of or self.run.plan.target
        try:
            target = self.read()
        except Gone:
            return refused(f"{wanted} is gone")
        uid = at(target, "/metadata/uid")
        if uid != wanted.uid:
            return refused(f"{wanted} is another object of that name", uid=uid)
        stands = mark.standing(run, target, self.mark_of(target))
        observed = {"mark": self.mark_of(target), "values": self._values(target)}
        if stands is Standing.OURS:
            return Report(Result.ALREADY_DONE, "this run has done it before", observed)
        if mark.under_another(run, target):
            return refused("another run has not finished with this target", **observed)
        if stands is Standing.LOST:
            why = "somebody changed the target since this run claimed it"
            return _Deviation(target, refused(why, **observed))
        if stands is Standing.UNDONE or mark.found(run, run.digest, Trace.UNDONE):
            return refused("this run was undone; it does not act again", **observed)
        if run.now() >= run.not_after:
            return refused("notAfter has passed", **observed)
        deviation = self._unlike_left(target) if run.plan.undoes else planned(target)
        return _Deviation(target, refused(deviation, **observed)) if deviation else target

    def _unlike_left(self, target: Object) -> str | None:
        """Say why what an earlier run left must not be put back now, or None."""
        run = self.run
        undone = str(run.plan.undoes)
        if mark.found(run, undone.removeprefix("tiphys-"), Trace.UNDONE):
            return f"{undone} was rolled back"
        if not mark.left_by(undone, self.mark_of(target)):
            return f"{self.name} does not bear the mark of {undone} any more"
        if not self._has(target, intended=False):
            return f"somebody has changed what {undone} left"
        return self.hindrance(target)

    # --- acting -------------------------------------------------------------------------------

    def act(self, planned: Callable[[Object], str | None]) -> Report:
        """Write the plan's values once; read again after each conflict or missing answer."""
        run = self.run
        intended = [(c.path, c.present, c.intended) for c in self.changes]
        until = run.now() + timedelta(seconds=self.deadlines.act)
        while run.now() < until:
            target = self.look(planned)
            if isinstance(target, Report):
                if target.result is Result.ALREADY_DONE:
                    self._tell_acted()  # the write's answer, or whoever wrote, may have been lost
                return target
            if not mark.claim(run, target):
                return refused("rollback of this run has begun")
            try:
                self.write(target, intended, Trace.BACK if run.plan.undoes else Trace.ACT)
            except (Conflict, Unreachable):
                run.sleep(PAUSE_SECONDS)
                continue
            self._tell_acted()
            return Report(Result.ACTED, f"changed {_names(intended)}", {})
        return Report(Result.CRASHED, "the target could not be written in time", {})

    def _tell_acted(self) -> None:
        if self.of is None:
            mark.tell(self.run, mark.ACTED, f"tiphys-{self.run.digest}: {self.run.plan.action}")

    # --- undoing ------------------------------------------------------------------------------

    def rollback(self) -> Report:
        """Put the plan's values back if this run changed them, and see that they last."""
        run = self.run
        mark.close_door(run)
        claimed = mark.found(run, run.digest, Trace.ACT)
        # An act that passed the door just before may still have one request under way.
        settled = run.now() + timedelta(seconds=REQUEST_SECONDS + 1 if claimed else 0)
        until = run.now() + timedelta(seconds=self.deadlines.rollback)
        while (began := run.now()) < until:
            target, stands = self.judged()
            unmarked = stands in {Standing.UNTOUCHED, Standing.ANOTHERS}
            # A change by somebody does not hold every write off: a node's is fenced by values only.
            if began < settled and (unmarked or self._unwritten(target, stands)):
                run.sleep(PAUSE_SECONDS)
                continue
            if unmarked:
                return Report(Result.NOTHING_CHANGED, "this run changed nothing", {})
            if foreign := self._foreign(target, stands):
                return foreign
            if stands is Standing.UNDONE:
                return self._hold(until)
            try:
                back = [(c.path, c.intended, c.present) for c in self.changes]
                self.write(target, back, Trace.UNDONE)
            except (Conflict, Unreachable):
                run.sleep(PAUSE_SECONDS)
                continue
            except ClusterError as error:
                return Report(Result.NOT_UNDONE, f"cannot put the values back: {error}", {})
            mark.tell(run, "Undid", f"tiphys-{run.digest}: put back {_names(back)}")
            return self._hold(until)
        return Report(Result.NOT_UNDONE, "the values could not be put back in time", {})

    def foreign(self) -> Report | None:
        """Say that somebody else has changed since what this run wrote, or None."""
        target, stands = self.judged()
        if stands in {Standing.UNTOUCHED, Standing.ANOTHERS} or self._unwritten(target, stands):
            return None
        return self._foreign(target, stands)

    def unwritten(self) -> bool:
        """Say whether somebody changed the object after the claim and before this run wrote it.

        It never does then: act refuses, and a write under way meets another version. The values
        are still, or again, those that were there.
        """
        return self._unwritten(*self.judged())

    def judged(self) -> tuple[Object, Standing]:
        """Read the target, empty when it is gone or another one of its name, and judge it.

        The Events are read after it, and act may have written in between: `LOST` counts only of a
        target that was read once they were there.
        """
        target = self._ours()
        stands = mark.standing(self.run, target, self.mark_of(target))
        if stands is Standing.LOST:
            target = self._ours()
            stands = mark.standing(self.run, target, self.mark_of(target))
        return target, stands

    def _unwritten(self, target: Object, stands: Standing) -> bool:
        here = bool(target) and self._has(target, intended=False)
        return here and stands is Standing.LOST

    def _foreign(self, target: Object, stands: Standing) -> Report | None:
        if stands is Standing.LOST:
            return _NOT_THERE
        if self._has(target, intended=stands is Standing.OURS):
            return None
        observed = {"values": self._values(target)}
        return Report(Result.NOT_OURS, "somebody else changed the values since", observed)

    def keep(self) -> None:
        """Mark the change as verified, so that later runs may act; as good as it goes."""
        try:
            target = self.read()
            for ending, verified in ((Trace.ACT, Trace.KEPT), (Trace.BACK, Trace.STAYS)):
                if self.mark_of(target) == f"{self.run.digest}.{ending}":
                    self.write(target, (), verified)
        except ClusterError:
            return

    def holds_intended(self, target: Object) -> bool:
        """Say whether every value is the one that act left."""
        return self._has(target, intended=True)

    def _hold(self, until: datetime) -> Report:
        run = self.run
        hold = timedelta(seconds=min(run.plan.check.hold_seconds, LONGEST_HOLD))
        since: datetime | None = None
        while run.now() < until + hold:
            try:
                target = self._ours()
            except Unreachable:
                run.sleep(PAUSE_SECONDS)
                continue
            if not target or not self._has(target, intended=False):
                observed = {"values": target and self._values(target)}
                return Report(Result.NOT_UNDONE, "the values did not stay as put back", observed)
            if caught_up(target):
                since = since or run.now()
                if run.now() - since >= hold:
                    observed = {"values": self._values(target)}
                    return Report(Result.UNDONE, "the plan's values are back and stay", observed)
            run.sleep(PAUSE_SECONDS)
        return Report(Result.NOT_UNDONE, "the controller did not take the values up in time", {})

    def _ours(self) -> Object:
        """Read it; empty when it is gone, or another one of its name."""
        try:
            target = self.read()
        except Gone:
            return {}
        wanted = self.of or self.run.plan.target
        return target if at(target, "/metadata/uid") == wanted.uid else {}

    def _has(self, target: Object, *, intended: bool) -> bool:
        return all(
            equal(at(target, c.path), c.intended if intended else c.present) for c in self.changes
        )

    def _values(self, target: Object) -> dict[str, object]:
        """Say where the values stand, in words: a pod template's variables may hold secrets."""
        words: dict[str, object] = {}
        for change in self.changes:
            value = at(target, change.path)
            if isinstance(value, int):
                words[change.path] = value
            elif equal(value, change.present):
                words[change.path] = "as before the run"
            else:
                words[change.path] = "as intended" if equal(value, change.intended) else "other"
        return words


def refused(why: str, **observed: object) -> Report:
    """Answer that nothing was done, and why."""
    return Report(Result.REFUSED, why, observed)


def deviation(plan: Plan, plan_now: Callable[[], Sequence[Change]]) -> str | None:
    """Plan again and say where that differs from the plan, or None."""
    try:
        now = plan_now()
    except NotApplicableError as error:
        return str(error)
    if equal([c.model_dump() for c in now], [c.model_dump() for c in plan.changes]):
        return None
    old = {c.place: c for c in plan.changes}
    places = [c.place for c in now]
    moved = [c.place for c in now if c != old.get(c.place)] or sorted(old.keys() - {*places})
    return f"the target is not as planned: {', '.join(moved[:5]) or 'the changes differ'}"


def _names(values: Values) -> str:
    return ", ".join(pointer for pointer, _, _ in values[:5])
