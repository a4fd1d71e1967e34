"""What was tried before for the same alert, and whether that helped: evidence with its sample size.

Invariants: nothing here chooses an action; a good record only informs, a bad one only makes more
careful. Counted is what alerts led to, once for each run; what people asked for by hand stands
apart. One object or one namespace counts a few times at most for all others, so that a single
careless or hostile place does not speak for the cluster.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from math import sqrt
from typing import Final

from tiphys.policies.model import Json, Outcome, Target

HORIZON: Final = timedelta(days=90)
"""What is older says little about the cluster of today."""
STAYS_AWAY: Final = timedelta(hours=1)
"""How soon the alert must go after a run, and how long stay away, for the run to have helped."""
OF_ONE_OBJECT: Final = 3
"""So many of the last runs on one object count for others of its kind."""
OF_ONE_NAMESPACE: Final = 10
NEAR_KEPT: Final = 40
"""Runs that a case carries one by one, to be told apart by object."""
GIVE_UP_AFTER: Final = 2
GIVE_UP_WITHIN: Final = timedelta(days=1)
_Z: Final = 1.96
"""Of a 95 % interval."""


class End(StrEnum):
    """What became of a run in the end, seen from the alert."""

    HELPED = "helped"
    """Verified, the alert went and stayed away for an hour."""
    CAME_BACK = "came_back"
    """Verified, and the alert did not go, or fired again within the hour."""
    UNDONE = "undone"
    """Verified, and a person had it undone."""
    ROLLED_BACK = "rolled_back"
    NO_EFFECT = "no_effect"
    """It did not help, and there was nothing to put back."""
    MADE_WORSE = "made_worse"
    """Its rollback did not hold, or nobody could say: the target was frozen."""
    TOO_EARLY = "too_early"
    """Verified less than an hour ago: nobody can say yet."""


_ENDED: Final = {
    Outcome.ROLLED_BACK: End.ROLLED_BACK,
    Outcome.INEFFECTIVE: End.NO_EFFECT,
    Outcome.ROLLBACK_FAILED: End.MADE_WORSE,
    Outcome.UNKNOWN: End.MADE_WORSE,
}
_LOOKED_WELL: Final = {End.CAME_BACK, End.UNDONE}
"""Ends that the gate's `repeated-ineffective` takes for a success."""
_WORDS: Final = {
    End.CAME_BACK: "the alert came back or did not go",
    End.UNDONE: "a person had it undone",
    End.ROLLED_BACK: "it was rolled back",
    End.NO_EFFECT: "it had no effect",
    End.MADE_WORSE: "its target was frozen",
}


@dataclass(frozen=True)
class Aftermath:
    """What followed a run, as the database knows it."""

    outcome: Outcome
    ended_at: datetime
    closed_at: datetime | None
    """When its incident ended, if this run was its last attempt; None: it has not, or was not."""
    superseded: bool
    """The incident needed a later attempt."""
    again_at: datetime | None
    """When the same alert next opened an incident on the same subject that was real."""
    undone: bool
    """A person had the run undone."""


def end_of(after: Aftermath, now: datetime) -> End:
    """Judge a run that has ended and had changed something."""
    if after.outcome is not Outcome.VERIFIED:
        return _ENDED.get(after.outcome, End.MADE_WORSE)
    if after.undone:
        return End.UNDONE
    gone, limit = after.closed_at, after.ended_at + STAYS_AWAY
    if after.superseded or (gone is None and now > limit) or (gone is not None and gone > limit):
        return End.CAME_BACK
    if after.again_at is not None and after.again_at <= (gone or after.ended_at) + STAYS_AWAY:
        return End.CAME_BACK
    return End.HELPED if gone is not None and now >= gone + STAYS_AWAY else End.TOO_EARLY


def wilson(helped: int, tried: int) -> tuple[float, float]:
    """Give the bounds of the share that helps, with 95 % confidence; (0, 1) without a sample.

    Source: E. B. Wilson, Journal of the American Statistical Association 22 (1927), 209-212.
    """
    if tried <= 0:
        return 0.0, 1.0
    share, square = helped / tried, _Z * _Z
    middle = share + square / (2 * tried)
    spread = _Z * sqrt(share * (1 - share) / tried + square / (4 * tried * tried))
    whole = 1 + square / tried
    return max(0.0, (middle - spread) / whole), min(1.0, (middle + spread) / whole)


@dataclass(frozen=True)
class Trial:
    """One run that changed something and has ended."""

    action: str
    kind: str
    """Of its target."""
    namespace: str
    target_uid: str
    owner_uid: str
    """The target's topmost owner: successors of a pod have the same."""
    at: datetime
    """When it ended."""
    end: End
    by_hand: bool = False
    """A person asked for it; no alert led to it."""


@dataclass(frozen=True)
class Tally:
    """How often one action was tried on one kind of object, and how that ended."""

    action: str
    kind: str
    ends: Mapping[End, int] = field(default_factory=dict[End, int])
    by_hand: int = 0
    last_at: datetime | None = None

    @property
    def tried(self) -> int:
        """How often it is known how it ended."""
        return sum(n for end, n in self.ends.items() if end is not End.TOO_EARLY)

    @property
    def helped(self) -> int:
        """How often it helped for good."""
        return self.ends.get(End.HELPED, 0)

    def as_facts(self, now: datetime | None) -> dict[str, Json]:
        """Give the numbers that a playbook's condition may read."""
        least, most = wilson(self.helped, self.tried)
        counts: dict[str, Json] = {end.value: self.ends.get(end, 0) for end in End}
        ago = -1.0
        if now is not None and self.last_at is not None:
            ago = round((now - self.last_at).total_seconds() / 60, 1)
        return {
            **counts,
            "tried": self.tried,
            "by_hand": self.by_hand,
            "minutes": ago,
            "helps_at_least": round(least, 3),
            "helps_at_most": round(most, 3),
        }


NUMBERS: Final = tuple(Tally("", "").as_facts(None))
"""The names of what is told of each action."""


@dataclass(frozen=True)
class Experience:
    """What the database remembers for a case."""

    alerts: Sequence[str]
    """For which alerts' names it was asked."""
    near: Sequence[Trial] = ()
    """The last runs in the alert's namespace or on nodes, the newest first."""
    kinds: Sequence[Tally] = ()
    """Of the whole cluster, by action and kind."""


def tallied(trials: Iterable[Trial]) -> list[Tally]:
    """Count trials by action and kind, each as it is."""
    ends: dict[tuple[str, str], Counter[End]] = {}
    by_hand: Counter[tuple[str, str]] = Counter()
    last: dict[tuple[str, str], datetime] = {}
    for trial in trials:
        key = (trial.action, trial.kind)
        mine = ends.setdefault(key, Counter())
        if trial.by_hand:
            by_hand[key] += 1
            continue
        mine[trial.end] += 1
        last[key] = max(last.get(key, trial.at), trial.at)
    return [Tally(*key, dict(ends[key]), by_hand[key], last.get(key)) for key in sorted(ends)]


def fair(trials: Sequence[Trial]) -> list[Trial]:
    """Keep the newest few of each object and each namespace; `trials` are the newest first."""
    seen: Counter[tuple[str, ...]] = Counter()
    kept: list[Trial] = []
    for trial in trials:
        mine = ("object", trial.action, trial.owner_uid)
        place = ("namespace", trial.action, trial.namespace)
        if seen[mine] >= OF_ONE_OBJECT or (trial.namespace and seen[place] >= OF_ONE_NAMESPACE):
            continue
        seen.update((mine, place))
        kept.append(trial)
    return kept


def of_object(experience: Experience | None, uids: set[str]) -> list[Trial]:
    """Give the runs on one of these objects or on what they own, the newest first."""
    near = experience.near if experience else ()
    return [trial for trial in near if uids & {trial.target_uid, trial.owner_uid}]


def futile(
    experience: Experience | None, action: str, target: Target, uids: set[str], now: datetime
) -> str | None:
    """Say why an action is not proposed on a target again, or None.

    Only where a run looked well and was not: what did not even verify, the gate's rules count.
    """
    tries = [
        trial
        for trial in of_object(experience, uids)
        if trial.action == action
        and not trial.by_hand
        and trial.end is not End.TOO_EARLY
        and now - trial.at <= GIVE_UP_WITHIN
    ][:GIVE_UP_AFTER]
    helped = any(trial.end is End.HELPED for trial in tries)
    if len(tries) < GIVE_UP_AFTER or helped or not {t.end for t in tries} & _LOOKED_WELL:
        return None
    told = "; ".join(f"at {t.at:%H:%M} UTC, after which {_WORDS[t.end]}" for t in reversed(tries))
    return (
        f"{action} was done {len(tries)} times for this alert on {target} or its owner within a "
        f"day and did not help for good ({told}): it is not the cure"
    )
