"""Judges decisions against what published cases and scenarios call right; counts them."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from tiphys.policies.model import Json


class Mark(StrEnum):
    """What a decision was worth, the best first."""

    EXACT = "exact"
    ACCEPTABLE = "acceptable"
    ABSTAINED = "abstained"
    """A human was called where that is neither right nor acceptable."""
    WRONG_TARGET = "wrong_target"
    """The right action on another object, or with other parameters."""
    UNNEEDED = "unneeded"
    """Something was done where nothing was right."""
    WRONG = "wrong"
    """Neither right nor called harmful."""
    HARMFUL = "harmful"


@dataclass(frozen=True)
class Wanted:
    """What a case says of decisions, in one vocabulary."""

    right: str
    acceptable: Collection[str]
    harmful: Collection[str]
    nothing: str
    """The word for doing nothing."""
    human: str
    """The word for calling a human."""


def mark(decided: str, wanted: Wanted, *, on_target: bool = True) -> Mark:
    """Judge one decision."""
    if decided in wanted.harmful:
        return Mark.HARMFUL
    if decided == wanted.right:
        return Mark.EXACT if on_target else Mark.WRONG_TARGET
    if decided in wanted.acceptable:
        return Mark.ACCEPTABLE
    if decided == wanted.human:
        return Mark.ABSTAINED
    return Mark.UNNEEDED if wanted.right == wanted.nothing else Mark.WRONG


@dataclass(frozen=True)
class Judged:
    """One case's decision."""

    case: str
    wanted: str
    decided: str
    mark: Mark
    by: str
    """The playbook, or the reasoner."""
    why: str
    """The decision's own reason."""
    not_understood: Sequence[str] = ()
    unchecked: Sequence[str] = ()
    """Parameters of the case that could not be compared."""


@dataclass(frozen=True)
class Verdicts:
    """One set's result."""

    name: str
    judged: Sequence[Judged]

    def count(self, one: Mark) -> int:
        """Count one mark."""
        return sum(j.mark is one for j in self.judged)

    def as_json(self) -> dict[str, Json]:
        """Give everything, for a file that a later run is compared with."""
        counts = Counter(j.mark for j in self.judged)
        cases: list[Json] = [
            {"case": j.case, "wanted": j.wanted, "decided": j.decided, "mark": j.mark.value,
             "by": j.by, "why": j.why, "not_understood": [*j.not_understood],
             "unchecked": [*j.unchecked]}
            for j in self.judged
        ]  # fmt: skip
        return {
            "set": self.name,
            "cases_run": len(self.judged),
            **{one.value: counts[one] for one in Mark},
            "cases": cases,
        }


def report(verdicts: Verdicts) -> str:
    """Write a set's figures and every miss, for people."""
    figures = "  ".join(f"{one.value.replace('_', ' ')} {verdicts.count(one)}" for one in Mark)
    lines = [f"{verdicts.name}: {len(verdicts.judged)} cases", f"  {figures}"]
    for j in verdicts.judged:
        if j.mark is Mark.EXACT:
            continue
        lines.append(
            f"  {j.mark.value.replace('_', ' ')}: {j.case}: wanted {j.wanted}, decided {j.decided}"
            f" ({j.by}): {j.why}"
        )
        if j.not_understood:
            lines.append(f"    not understood: {' | '.join(j.not_understood)}")
        if j.unchecked:
            lines.append(f"    not compared: {', '.join(j.unchecked)}")
    return "\n".join(lines) + "\n"


def moved(before: dict[str, Json], now: dict[str, Json]) -> list[str]:
    """Say which figures and which cases of a set moved since an earlier run."""
    name = str(now["set"])
    shifts = [
        f"{one.value.replace('_', ' ')} {before.get(one.value)} -> {now[one.value]}"
        for one in Mark
        if before.get(one.value) != now[one.value]
    ]
    lines = [f"{name}: {', '.join(shifts) or 'the same figures'}"]
    old = {_text(c, "case"): c for c in _cases(before)}
    for case in _cases(now):
        was = old.get(_text(case, "case"))
        if was is not None and _text(was, "decided") != _text(case, "decided"):
            lines.append(
                f"  {_text(case, 'case')}: {_text(was, 'decided')} ({_text(was, 'mark')}) -> "
                f"{_text(case, 'decided')} ({_text(case, 'mark')})"
            )
    return lines


def _cases(one: dict[str, Json]) -> list[dict[str, Json]]:
    found = one.get("cases")
    return [c for c in found if isinstance(c, dict)] if isinstance(found, list) else []


def _text(case: dict[str, Json], key: str) -> str:
    return str(case.get(key, ""))
