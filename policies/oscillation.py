"""No going in circles: not to and fro on one target, nor again what has not helped."""

import hashlib
from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from tiphys.policies.limits import Seconds
from tiphys.policies.model import Change
from tiphys.policies.parts import PastRun
from tiphys.policies.plan import canonical
from tiphys.policies.rule import ALLOWED, SETTINGS, Request, Rule, RuleName, known
from tiphys.policies.verdict import Denied, Verdict

REMEMBERED = 20
"""So many of a target's last runs are known; no limit may be higher."""
_RESTART = "tiphys.io/restart"
"""The annotation that is given another value each time, for the sake of the change alone."""


def move_of(action: str, changes: Sequence[Change]) -> str:
    """Name what a plan does to its target: the same for two that would do the same again.

    Numbers go up or down, whatever from and to; anything else is set to a value; which pods go does
    not matter. Turned round it is another move.
    """
    parts = {_part(change) for change in changes}
    digest = hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()
    return f"{action} {digest[:16]}"


def _part(change: Change) -> str:
    intended = canonical(change.intended).decode()
    if change.path.endswith(_RESTART.replace("/", "~1")) or f'"{_RESTART}"' in intended:
        return "restarted"
    return f"{change.of.kind if change.of else ''}{change.path} {_direction(change)}"


def _direction(change: Change) -> str:
    present, intended = change.present, change.intended
    if change.path == "":
        return "goes" if intended is None else "comes"
    if _is_number(present) and _is_number(intended):
        return "up" if float(intended) > float(present) else "down"  # type: ignore[arg-type]
    return canonical(intended).decode()


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True, config=SETTINGS)
class Oscillation(Rule):
    """What was done, and after which something else was done, is not done again soon.

    Up, down, up; a release, its undo, the release. A person who has a run undone may.
    """

    name: ClassVar[RuleName] = RuleName.OSCILLATION

    window_seconds: Seconds = 21_600
    """How far back the last runs on the target or its owner count, by their begin."""

    def judge(self, request: Request) -> Verdict:
        """Deny the third of A, B, A."""
        if request.undo:
            return ALLOWED
        proposal = request.proposal
        past = known(request.history.past, "the last runs on the target")
        since = request.now - timedelta(seconds=self.window_seconds)
        recent = [run for run in past if run.began_at >= since]
        this = move_of(proposal.action, proposal.changes)
        first = next((at for at, run in enumerate(recent) if run.move == this), None)
        if first is None:
            return ALLOWED
        other = next((run for run in recent[first:] if run.move != this or run.undo), None)
        if other is None:
            return ALLOWED
        return Denied(
            reason=f"to and fro on {proposal.target}: {proposal.action} at "
            f"{recent[first].began_at:%H:%M} UTC, then {_named(other)} at "
            f"{other.began_at:%H:%M} UTC, and now the first again"
        )


@dataclass(frozen=True, config=SETTINGS)
class RepeatedIneffective(Rule):
    """What has not helped on a target is not tried there again and again, in whatever incident."""

    name: ClassVar[RuleName] = RuleName.REPEATED_INEFFECTIVE

    limit: Annotated[int, Field(ge=1, le=REMEMBERED)] = 3
    """Runs of one action on the target or its owner that did not help; the next is refused."""
    window_seconds: Seconds = 86_400
    """How far back they count, by their begin."""

    def judge(self, request: Request) -> Verdict:
        """Deny at the limit; not a person's undo."""
        if request.undo:
            return ALLOWED
        proposal = request.proposal
        past = known(request.history.past, "the last runs on the target")
        since = request.now - timedelta(seconds=self.window_seconds)
        futile = [r for r in past if r.began_at >= since and r.failed_to_help]
        count = sum(run.action == proposal.action for run in futile)
        if count < self.limit:
            return ALLOWED
        return Denied(
            reason=f"{proposal.action} on {proposal.target} did not help {count} times within "
            f"{self.window_seconds} s"
        )


def _named(run: PastRun) -> str:
    return f"the undo of {run.action}" if run.undo else run.action
