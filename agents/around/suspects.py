"""Ranks causes from what the metrics show and from what was changed, and says how sure it is.

A change of a component counts as a cause where trouble began right after it: of the component
itself, or of what calls it. A change that came after the trouble began followed it, and is innocent
of it. What could not be seen is said beside, and nothing is called silent while anything is unseen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tiphys.agents.around.calls import below
from tiphys.agents.around.happenings import Happening, What, clock
from tiphys.agents.causes.evidence import SUREST, Change
from tiphys.agents.causes.ranking import Cause, Causes, find_causes
from tiphys.agents.causes.signals import Scene
from tiphys.agents.causes.words import told

SOON: Final = 600.0
"""Seconds within which trouble begins that a change brings about."""
CLEARLY: Final = 60.0
"""Seconds by which trouble must have begun before a release for that to be innocent of it."""
CREDIT: Final[Mapping[What, float]] = {
    What.RELEASE: SUREST,
    What.CONFIGURATION: SUREST,
    What.NODE: SUREST,
    What.SCALING: SUREST / 2,
}
"""What a change right before the trouble counts, as much as the surest of metrics at most."""
UNPLACED: Final = 0.25
"""The share of it for a component of which nobody knows whether the affected one depends on it, and
whose own metrics show nothing."""
MOST: Final = 5
"""Causes that are named."""


@dataclass(frozen=True)
class Known:
    """Everything that was read, and when the trouble was there at the latest."""

    scene: Scene
    affected: str
    """The component that the alert is about; empty where that is not known."""
    latest: float
    """Unix seconds by which the trouble had begun: the alert's start, or its expression's."""
    happenings: Sequence[Happening]
    changes_read: bool
    """The cluster and the metrics told of changes; else a release may have gone unseen."""
    unseen: Sequence[str]
    """What could not be read, in words."""


@dataclass
class Suspect:
    """One component with all that speaks against it."""

    component: str
    score: float
    established: bool
    cause: Cause | None
    """What its metrics say."""
    acts: list[Happening] = field(default_factory=list[Happening])
    """What was changed about it right before the trouble."""

    @property
    def since(self) -> float | None:
        """Unix seconds of the first of it."""
        times = [a.at for a in self.acts]
        if self.cause is not None:
            times += [c.at for c in self.cause.evidence if c.established] or [
                c.at for c in self.cause.evidence[:1]
            ]
        return min(times, default=None)

    @property
    def what(self) -> str:
        """Name the kind of cause."""
        return self.acts[0].what.value if self.acts else "metrics"


@dataclass(frozen=True)
class Verdict:
    """The answer."""

    suspects: Sequence[Suspect]
    """Best first."""
    onset: float
    """Unix seconds by which the trouble had begun, as early as anything shows it."""
    shown: bool
    """A metric shows the onset; else it is the alert's own start, and may have been earlier."""
    first: Happening | Change | None
    """What changed before all else."""
    followed: Sequence[Happening]
    """What was changed when the trouble had begun."""
    release: Happening | None
    """The affected component's last release within the time looked at."""
    causes: Causes | None
    """What the metrics say; None where the time was too short to judge."""
    changes: Sequence[Change]
    """All established changes of metrics, oldest first."""
    known: Known

    @property
    def began_with_release(self) -> bool | None:
        """Whether the trouble began right after the affected component's release."""
        if self.release is None:
            return False if self.known.affected and self.known.changes_read else None
        return _right_before(self.release, self.onset, self.known)

    @property
    def release_innocent(self) -> bool | None:
        """Whether the trouble had clearly begun before that release."""
        if self.release is None:
            return False if self.known.affected and self.known.changes_read else None
        step = self.known.scene.window.step if self.shown else 0.0
        # At the earliest that it can have been, against the latest that the trouble began.
        released = self.release.at - self.release.blunt
        return released - (self.onset + step) >= CLEARLY

    @property
    def silent(self) -> bool:
        """Nothing happened that anything shows, and everything was seen."""
        return (
            self.causes is not None
            and not any(s.established or s.acts for s in self.suspects)
            and not self.changes
            and not self.unseen
        )

    @property
    def unseen(self) -> Sequence[str]:
        """What is not known to be healthy: what was not answered, and whose series say nothing."""
        found = [*self.known.unseen]
        signals = self.known.scene.signals
        affected = self.known.affected
        if not any(affected in {"", s.component} for s in signals):
            found.append(f"{affected or 'everything'}: no series of its own were found")
        if self.causes is None:
            return found
        found += [f"{c}: no readable series" for c in self.causes.blind]
        mine = (u for u in self.causes.unseen if u.component == affected)
        return found + sorted({f"{u.component} {u.kind.value}: {u.why}" for u in mine})


def judge(known: Known) -> Verdict:
    """Rank; takes long where there are many signals, so it is for a thread."""
    try:
        causes = find_causes(known.scene)
    except ValueError:
        causes = None
    changes = _established(causes)
    onset, shown = _onset(known, causes, changes)
    acts = sorted(known.happenings, key=lambda h: h.at)
    suspects = _suspects(known, causes, changes, onset)
    blamed = {id(act) for s in suspects for act in s.acts}
    mine = [h for h in acts if h.component == known.affected and h.what is What.RELEASE]
    first: list[Happening | Change] = [
        *(h for h in acts if id(h) in blamed),
        *([causes.first] if causes and causes.first else []),
    ]
    return Verdict(
        suspects=suspects,
        onset=onset,
        shown=shown,
        first=min(first, key=lambda f: f.at, default=None),
        followed=[h for h in acts if h.at - h.blunt > onset + _slack(known)],
        release=mine[-1] if mine else None,
        causes=causes,
        changes=changes,
        known=known,
    )


def _established(causes: Causes | None) -> list[Change]:
    if causes is None:
        return []
    found: dict[int, Change] = {}
    for cause in causes.ranked:
        found |= {id(c): c for c in cause.evidence if c.established}
    found |= {id(c): c for c in (*causes.followed, *causes.elsewhere) if c.established}
    found |= {id(causes.first): causes.first} if causes.first else {}
    return sorted(found.values(), key=lambda c: (c.at, c.component, c.name))


def _onset(known: Known, causes: Causes | None, changes: Sequence[Change]) -> tuple[float, bool]:
    """Give when trouble was there at the latest: of the affected, or of its likeliest cause."""
    mine = [c.at for c in changes if c.component == known.affected]
    if causes is not None and causes.ranked and causes.ranked[0].established:
        top = causes.ranked[0]
        if not known.affected or known.affected in (top.component, *top.explains):
            mine += [c.at for c in top.evidence if c.established]
    seen = min(mine, default=known.latest)
    return (seen, True) if seen < known.latest else (known.latest, bool(mine))


def _suspects(
    known: Known, causes: Causes | None, changes: Sequence[Change], onset: float
) -> list[Suspect]:
    found: dict[str, Suspect] = {}
    for cause in causes.ranked if causes else ():
        found[cause.component] = Suspect(cause.component, cause.score, cause.established, cause)
    own: dict[str, float] = {}
    for change in changes:
        own.setdefault(change.component, change.at)
    depends = {known.affected, *below(known.affected, known.scene.calls)}
    graph = set(known.scene.calls) | {c for cs in known.scene.calls.values() for c in cs}
    beside = {known.affected} <= graph
    for act in sorted(known.happenings, key=lambda h: h.at):
        one = act.component
        began = min(own.get(one, onset), onset) if one in depends else own.get(one, onset)
        if not _right_before(act, began, known):
            continue
        placed = one in depends or one in own
        if not placed and beside and one in graph:
            continue  # what was complained about does not depend on it
        suspect = found.setdefault(one, Suspect(one, 0.0, established=False, cause=None))
        suspect.acts.append(act)
        if len(suspect.acts) == 1:
            suspect.score += CREDIT[act.what] * (1.0 if placed else UNPLACED)
        # The alert itself is the trouble of the affected; of others only their metrics tell.
        suspect.established |= one == known.affected and act.what is not What.SCALING
    # Python sorts in place order where scores are equal: a name decides nothing.
    return sorted(found.values(), key=lambda s: -s.score)[: 4 * MOST]


def _slack(known: Known) -> float:
    return known.scene.window.step


def _right_before(act: Happening, began: float, known: Known) -> bool:
    """Tell whether trouble began within minutes after an act; neither is known to the second."""
    return -_slack(known) <= began - (act.at - act.blunt) and began - act.at <= SOON


def reasons(suspect: Suspect) -> list[str]:
    """Say what speaks against it, the acts first."""
    said = [f"{act.words} at {clock(act.at)}" for act in suspect.acts]
    cause = suspect.cause
    if cause is not None:
        said += [told(c) + ("" if c.established else " (a hint)") for c in cause.evidence[:3]]
        if cause.explains:
            said.append(f"it would explain the trouble of {', '.join(cause.explains[:3])}")
    return said
