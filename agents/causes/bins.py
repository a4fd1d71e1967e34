"""Puts series of any sampling onto one grid of bins, so that thousands are judged as one matrix.

A bin without a finite value is NaN and stays so: it is never filled in, and never taken for zero.
Points out of order and points of one bin are all read; points outside the time asked are counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tiphys.agents.causes.signals import MAX_HISTORY, Points, Signal, Window

Matrix = NDArray[np.float64]
_LATER: Final = 1
"""Bins that a sample may be late by without its clock being doubted."""

_REGULAR: Final = 0.9
"""How alike the phases of a series' samples are, 0 to 1, when it is called regularly sampled."""


@dataclass(frozen=True)
class Grid:
    """Signals as rows."""

    history: Matrix
    """Bins right before the window; of no width where each signal brings its normal stretch."""
    window: Matrix
    normal: Matrix
    """Bins of the normal stretches, padded with NaN; of no width where there are none."""
    astray: NDArray[np.int64]
    """Of each signal, the points stamped after the window's end: a clock that is wrong."""


def grid(signals: Sequence[Signal], window: Window) -> Grid:
    """Bin every signal; rows are in the order given."""
    first = window.start - MAX_HISTORY * window.step
    width = MAX_HISTORY + window.bins
    rows = np.full((len(signals), width), np.nan)
    astray = np.zeros(len(signals), dtype=np.int64)
    normals: list[Matrix] = []
    for i, signal in enumerate(signals):
        times, values = _arrays(signal.points, counter=signal.counter)
        astray[i] = int(np.sum(times >= window.end + _LATER * window.step))
        rows[i] = _binned(times - _lean(times, window), values, first, window.step, width)
        normals.append(_own_grid(signal, window.step))
    longest = max((len(n) for n in normals), default=0)
    normal = np.full((len(signals), longest), np.nan)
    for i, each in enumerate(normals):
        normal[i, : len(each)] = each
    return Grid(rows[:, :MAX_HISTORY], rows[:, MAX_HISTORY:], normal, astray)


def _lean(times: Matrix, window: Window) -> float:
    """Return how far from the middle of its bins a regularly sampled series is sampled.

    A series sampled at the edge of its bins would fall now into one, now into the next.
    """
    if not len(times):
        return 0.0
    turns = np.exp(2j * np.pi * ((times - window.start) / window.step - 0.5)).mean()
    if abs(turns) < _REGULAR:
        return 0.0
    return float(np.angle(turns) / (2 * np.pi) * window.step)


def _own_grid(signal: Signal, step: float) -> Matrix:
    times, values = _arrays(signal.normal, counter=signal.counter)
    if not len(times):
        return np.empty(0)
    first = float(times.min()) - step / 2
    width = min(int((float(times.max()) - first) // step) + 1, 100 * MAX_HISTORY)
    return _binned(times, values, first, step, width)


def _arrays(points: Points, *, counter: bool) -> tuple[Matrix, Matrix]:
    """Return times and values in order of time; a counter as what it grew by at each point."""
    both = np.asarray(points, dtype=np.float64).reshape(-1, 2)
    both = both[np.isfinite(both).all(axis=1)]
    both = both[np.argsort(both[:, 0], kind="stable")]
    times, values = both[:, 0], both[:, 1]
    if counter and len(values):
        grown = np.diff(values)
        # Below what it was: it was reset, and has grown by all that it shows since.
        grown = np.where(grown < 0, values[1:], grown)
        return times[1:], grown
    return times, values


def _binned(times: Matrix, values: Matrix, first: float, step: float, width: int) -> Matrix:
    """Return the middle value of each bin."""
    row = np.full(width, np.nan)
    at = np.floor((times - first) / step)
    inside = (at >= 0) & (at < width)
    if not inside.any():
        return row
    bins = at[inside].astype(np.int64)
    order = np.lexsort((values[inside], bins))
    bins, sorted_values = bins[order], values[inside][order]
    starts = np.flatnonzero(np.r_[True, bins[1:] != bins[:-1]])
    sizes = np.diff(np.r_[starts, len(bins)])
    low, high = starts + (sizes - 1) // 2, starts + sizes // 2
    row[bins[starts]] = (sorted_values[low] + sorted_values[high]) / 2
    return row
