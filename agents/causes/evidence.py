"""Turns signals into evidence: for each component and kind, how sure a change of it is.

The series of one component and kind are one test (its smallest p-value, times their number), and
all tests of a scene are adjusted together, so that many series do not make a false alarm likelier.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from tiphys.agents.causes.bins import Grid, Matrix, grid
from tiphys.agents.causes.shifts import Steps, adjusted, as_ratios, steps_up, typical_of
from tiphys.agents.causes.signals import (
    FALLING_HURTS,
    LOAD,
    MIN_STEPS,
    SMALLEST,
    SMALLEST_RATIO,
    Kind,
    Signal,
    Window,
)

FALSE_ALARMS: Final = 0.05
"""Of the changes called established, the share that may be chance; where nothing happened at all,
the chance that anything is called so."""
SUREST: Final = 3.0
"""Decimal digits of a p-value that count; more cannot be measured on hundreds of points."""


@dataclass(frozen=True)
class Change:
    """What one signal did. Values are in the signal's own unit."""

    component: str
    kind: Kind
    name: str
    at: float
    """Unix seconds, by the bin."""
    before: float
    after: float
    p: float
    adjusted: float
    """After the control for the number of tests; 1 where the reference is too short to tell."""

    @property
    def established(self) -> bool:
        """It is not put down to chance."""
        return self.adjusted <= FALSE_ALARMS

    @property
    def rises(self) -> bool:
        """The value went up."""
        return self.after > self.before

    @property
    def weight(self) -> float:
        """How much it counts: the digits of its p-value, 0 to `SUREST`."""
        return float(min(SUREST, max(0.0, -np.log10(max(self.p, 1e-300)))))


@dataclass(frozen=True)
class Unseen:
    """A signal that could not be judged. It is not known to be healthy."""

    component: str
    kind: Kind
    name: str
    why: str


@dataclass(frozen=True)
class Evidence:
    """Everything found in a scene."""

    changes: Mapping[tuple[str, Kind, bool], Change]
    """By component, kind and whether it rose."""
    unseen: Sequence[Unseen]


@dataclass(frozen=True)
class _Side:
    """All signals judged in one direction, on one of the two kinds of reference."""

    rows: Sequence[int]
    upwards: bool
    steps: Steps


def gather(signals: Sequence[Signal], window: Window) -> Evidence:
    """Judge every signal. Raises ValueError where the window is too short to hold a change."""
    if window.bins < MIN_STEPS:
        raise ValueError(f"a window of {window.bins} bins is too short: {MIN_STEPS} are needed")
    table = grid(signals, window)
    sides = [
        _side(signals, table, rows, upwards=upwards, joined=joined)
        for joined in (True, False)
        for upwards in (True, False)
        if (rows := _rows(signals, upwards=upwards, joined=joined))
    ]
    found: dict[tuple[str, Kind, bool], list[tuple[float, int, _Side, int]]] = {}
    for side in sides:
        for place, row in enumerate(side.rows):
            if side.steps.readable[place]:
                one = signals[row]
                key = (one.component, one.kind, side.upwards)
                found.setdefault(key, []).append((float(side.steps.p[place]), row, side, place))
    changes = _adjusted(
        {key: min(group, key=lambda g: (g[0], g[1])) for key, group in found.items()},
        {key: len(group) for key, group in found.items()},
        (signals, table, window),
    )
    read = {row for group in found.values() for _, row, _, _ in group}
    unseen = [_why(signals[i], table, i) for i in range(len(signals)) if i not in read]
    return Evidence(changes, unseen)


def _rows(signals: Sequence[Signal], *, upwards: bool, joined: bool) -> list[int]:
    def counts(kind: Kind) -> bool:
        return kind in LOAD or (kind in FALLING_HURTS) != upwards

    return [i for i, s in enumerate(signals) if counts(s.kind) and (len(s.normal) == 0) == joined]


def _side(
    signals: Sequence[Signal], table: Grid, rows: list[int], *, upwards: bool, joined: bool
) -> _Side:
    reference = (table.history if joined else table.normal)[rows]
    window = table.window[rows]
    kinds = [signals[i].kind for i in rows]
    ratio = np.array([k not in SMALLEST for k in kinds])
    typical = typical_of(reference, window)
    smallest = np.array([SMALLEST.get(k, SMALLEST_RATIO) for k in kinds])
    sign = 1.0 if upwards else -1.0

    def scaled(part: Matrix) -> Matrix:
        return sign * np.where(ratio[:, None], as_ratios(part, typical), part)

    return _Side(
        rows, upwards, steps_up(scaled(reference), scaled(window), smallest, joined=joined)
    )


def _adjusted(
    best: Mapping[tuple[str, Kind, bool], tuple[float, int, _Side, int]],
    sizes: Mapping[tuple[str, Kind, bool], int],
    read: tuple[Sequence[Signal], Grid, Window],
) -> dict[tuple[str, Kind, bool], Change]:
    p = {key: min(1.0, group[0] * sizes[key]) for key, group in best.items()}
    known = [key for key, (_, _, side, place) in best.items() if side.steps.known[place]]
    sure = dict(zip(known, adjusted(np.array([p[k] for k in known])), strict=True))
    changes: dict[tuple[str, Kind, bool], Change] = {}
    for key, (_, row, side, place) in best.items():
        if p[key] < 1.0:
            onset = int(side.steps.onset[place])
            changes[key] = _change(read, row, onset, p[key], float(sure.get(key, 1.0)))
    return changes


def _change(
    read: tuple[Sequence[Signal], Grid, Window], row: int, onset: int, p: float, sure: float
) -> Change:
    signals, table, window = read
    one = signals[row]
    past = table.normal[row] if len(one.normal) else table.history[row]
    ahead = np.concatenate([table.history[row], table.window[row][:onset]])[-3:]
    before = ahead if np.isfinite(ahead).any() else past
    return Change(
        component=one.component,
        kind=one.kind,
        name=one.name,
        at=window.start + onset * window.step,
        before=float(np.nanmedian(before)),
        after=float(np.nanmedian(table.window[row][onset : onset + 2])),
        p=p,
        adjusted=sure,
    )


def _why(one: Signal, table: Grid, row: int) -> Unseen:
    past = table.normal[row] if len(one.normal) else table.history[row]
    if np.isfinite(table.window[row]).sum() == 0:
        why = "no data in the time looked at"
        if table.astray[row]:
            why += f"; {table.astray[row]} points are stamped after its end, so its clock is wrong"
    elif np.isfinite(past).sum() == 0:
        why = "no data before, to compare with"
    else:
        why = "too few points to tell"
    return Unseen(one.component, one.kind, one.name, why)
