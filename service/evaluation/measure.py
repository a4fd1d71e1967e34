"""Runs sets of recorded cases through the search for causes, and counts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tiphys.agents.causes.ranking import Causes, find_causes
from tiphys.policies.model import Json
from tiphys.service.evaluation.cases import CaseSet, UnreadableSetError
from tiphys.service.evaluation.nezha import NezhaDay
from tiphys.service.evaluation.petshop import PetShopTraffic

PLACES: Final = 5
_DEPTH: Final = 6
"""Folders below a path given in which sets are looked for."""


@dataclass(frozen=True)
class Outcome:
    """What one fault's ranking looked like."""

    name: str
    answer: str
    place: int
    """Of the right component in the ranking, from 1; 0 where it is not in it."""
    said: Sequence[str]
    """The first few of the ranking."""
    established: bool
    """Something was claimed, not only hinted at."""
    why: str


@dataclass(frozen=True)
class Figures:
    """One set's result. A figure of no cases is None."""

    name: str
    outcomes: Sequence[Outcome]
    quiet: int
    alarms: Sequence[str]
    """Fault-free stretches in which something was called established, and what."""

    def at(self, place: int) -> float | None:
        """Give the share of faults with the right component among the first `place`."""
        if not self.outcomes:
            return None
        return sum(0 < o.place <= place for o in self.outcomes) / len(self.outcomes)

    @property
    def average(self) -> float | None:
        """The mean of AC@1 to AC@5."""
        shares = [share for k in range(1, PLACES + 1) if (share := self.at(k)) is not None]
        return sum(shares) / PLACES if shares else None

    @property
    def silent(self) -> float | None:
        """The share of fault-free stretches without an established cause."""
        return 1 - len(self.alarms) / self.quiet if self.quiet else None

    def as_json(self) -> dict[str, Json]:
        """Give everything, for a file that a later run is compared with."""
        cases: list[Json] = [
            {"case": o.name, "answer": o.answer, "place": o.place, "said": list(o.said),
             "established": o.established, "why": o.why}
            for o in self.outcomes
        ]  # fmt: skip
        return {
            "set": self.name,
            "faults": len(self.outcomes),
            "ac_at_1": self.at(1),
            "ac_at_3": self.at(3),
            "avg_at_5": self.average,
            "quiet_stretches": self.quiet,
            "silent": self.silent,
            "cases": cases,
            "alarms": list(self.alarms),
        }


def sets_under(path: Path) -> list[CaseSet]:
    """Find every set at or below a path. Raises UnreadableSetError for one that is broken."""
    if not path.exists():
        raise UnreadableSetError(f"{path}: there is no such file or folder")
    found: list[CaseSet] = []
    waiting = [(path, 0)]
    while waiting:
        folder, depth = waiting.pop(0)
        if NezhaDay.recognises(folder):
            found.append(NezhaDay(folder))
        elif PetShopTraffic.recognises(folder):
            found.append(PetShopTraffic(folder))
        elif depth < _DEPTH and folder.is_dir():
            waiting += [(f, depth + 1) for f in sorted(folder.iterdir()) if f.is_dir()]
    return found


def measured(one: CaseSet, *, with_quiet: bool = True) -> Figures:
    """Run every case of a set."""
    outcomes: list[Outcome] = []
    for fault in one.faults():
        causes = find_causes(fault.scene)
        ranking = [c.component for c in causes.ranked]
        place = ranking.index(fault.answer) + 1 if fault.answer in ranking else 0
        outcomes.append(
            Outcome(fault.name, fault.answer, place, ranking[:PLACES], not causes.nothing,
                    _why(causes, fault.answer, place))
        )  # fmt: skip
    quiet, alarms = 0, list[str]()
    for stretch in one.quiet() if with_quiet else ():
        quiet += 1
        claimed = [c for scene in stretch.scenes if not (c := find_causes(scene)).nothing]
        if claimed:
            alarms.append(f"{stretch.name}: {claimed[0].ranked[0].component}")
    return Figures(one.name, outcomes, quiet, alarms)


def pooled(name: str, every: Sequence[Figures]) -> Figures:
    """Put several sets together, each case counting once."""
    return Figures(
        name,
        [o for f in every for o in f.outcomes],
        sum(f.quiet for f in every),
        [a for f in every for a in f.alarms],
    )


def _why(causes: Causes, answer: str, place: int) -> str:
    """Say in a few words why the right component is not first."""
    if place == 1:
        return ""
    if place == 0:
        blind = answer in causes.blind
        return "none of its signals could be read" if blind else "none of its signals stands out"
    first, right = causes.ranked[0], causes.ranked[place - 1]
    kinds = ", ".join(sorted({c.kind.value for c in first.evidence[:3]}))
    weaker = "as sure" if first.score - right.score < 1.0 else "surer"
    return f"{first.component} looks {weaker} by its {kinds} ({first.score:.1f}, {right.score:.1f})"
