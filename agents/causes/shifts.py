"""Judges, for each series, whether a lasting step in the window stands out of its own noise.

The step at a bin is by how much this bin *and* the next lie beyond both what is usual and what came
right before: one odd point is no step, neither is a level that was unusual all along. How large a
step must be is measured on the reference, with the same rule over stretches of the same length;
beyond the steps seen there the tail is taken to fall with the square, as heavy as measured on
fault-free data, so no p-value rests on a bell curve.
"""

import warnings
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from tiphys.agents.causes.bins import Matrix

TRUSTED: Final = 0.95
"""The quantile of a fault-free reference's steps from which on the tail is drawn."""
UNTRUSTED: Final = 0.75
"""The same of recent history, which may hold earlier faults in up to a quarter of it."""
TAIL: Final = 2.0
MIN_STRETCHES: Final = 8
"""Stretches of the reference below which nothing is called established: its noise is unknown."""
MIN_REFERENCE: Final = 3
"""Bins of reference below which a series says nothing at all."""
OFFSET: Final = 0.5
"""Of its typical value, added before a ratio is taken: nothing to little is not infinitely more."""


@dataclass(frozen=True)
class Steps:
    """For each row, the largest step upwards in the window."""

    p: Matrix
    """1 where there is none or too little is known."""
    onset: NDArray[np.int64]
    """Bin of the window in which it began."""
    known: NDArray[np.bool_]
    """The reference is long enough to call a step established."""
    readable: NDArray[np.bool_]
    """There is a reference, and something in the window, to compare at all."""


def as_ratios(rows: Matrix, typical: Matrix) -> Matrix:
    """Turn values into logarithms of their size against what is typical; negative ones are none."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.log(np.where(rows >= 0, rows, np.nan) / typical[:, None] + OFFSET)


def typical_of(reference: Matrix, window: Matrix) -> Matrix:
    """Return each row's typical positive value; 1 where it has none."""
    found = _middle(np.where(reference > 0, reference, np.nan))
    found = np.where(np.isfinite(found), found, _middle(np.where(window > 0, window, np.nan)))
    return np.where(np.isfinite(found), found, 1.0)


def steps_up(reference: Matrix, window: Matrix, smallest: Matrix, *, joined: bool) -> Steps:
    """Judge each row's largest step upwards. `joined`: the reference ends where the window begins.

    Raises ValueError where the window is too short to hold a step.
    """
    length = window.shape[1] - 1
    if length < 1:
        raise ValueError("a window needs two bins at least")
    usual = _middle(reference)
    if joined:
        every = _rises(np.concatenate([reference, window], axis=1), usual)
        split = reference.shape[1]
        # The last of the reference is judged with the first of the window, and left out.
        calm, rises = every[:, : split - 1], every[:, split:]
    else:
        calm, rises = _rises(reference, usual)[:, :-1], _rises(window, usual)
    largest, onset = rises.max(axis=1), _first_of(rises)
    pivot, stretches = _quantile(_stretches(calm, length), UNTRUSTED if joined else TRUSTED)
    pivot = np.maximum(pivot, smallest)  # never zero
    above = np.maximum(1 - (UNTRUSTED if joined else TRUSTED), 1 / (stretches + 1))
    p = np.where(largest > pivot, above * (pivot / np.maximum(largest, pivot)) ** TAIL, 1.0)
    readable = (np.isfinite(reference).sum(axis=1) >= MIN_REFERENCE) & (largest >= 0)
    return Steps(
        np.where(readable, p, 1.0), onset, readable & (stretches >= MIN_STRETCHES), readable
    )


def adjusted(p: Matrix) -> Matrix:
    """Adjust p-values for their number, after Benjamini and Hochberg (1995)."""
    count = len(p)
    if not count:
        return p
    order = np.argsort(p)[::-1]
    ranked = p[order] * count / np.arange(count, 0, -1)
    result = np.empty(count)
    result[order] = np.minimum(np.minimum.accumulate(ranked), 1.0)
    return result


def _rises(rows: Matrix, usual: Matrix) -> Matrix:
    """Return by how much each bin and the next lie above usual and above the three bins before.

    -1 where that cannot be told.
    """
    after = np.full_like(rows, np.nan)
    after[:, :-1] = rows[:, 1:]
    a, b, c = (_later(rows, by) for by in (1, 2, 3))
    before = np.fmax(np.fmin(a, b), np.fmin(np.fmax(a, b), c))
    rise = np.maximum(np.minimum(rows, after) - np.fmax(before, usual[:, None]), 0)
    rise[:, 0] = np.nan
    return np.where(np.isfinite(rise), rise, -1.0)


def _later(rows: Matrix, by: int) -> Matrix:
    moved = np.full_like(rows, np.nan)
    if rows.shape[1] > by:
        moved[:, by:] = rows[:, :-by]
    return moved


def _first_of(rises: Matrix) -> NDArray[np.int64]:
    """Return the first bin with at least half of the largest rise: where it began."""
    return np.argmax(rises >= rises.max(axis=1)[:, None] / 2, axis=1)


def _stretches(rises: Matrix, length: int) -> Matrix:
    """Return the largest rise of every stretch as long as the window; -1 where there is none."""
    if rises.shape[1] < length:
        return rises
    return sliding_window_view(rises, length, axis=1).max(axis=2)


def _quantile(rows: Matrix, share: float) -> tuple[Matrix, Matrix]:
    """Return the quantile of each row's entries that are not negative, and their number."""
    counts = (rows >= 0).sum(axis=1)
    if not rows.shape[1]:
        return np.zeros(len(rows)), counts.astype(np.float64)
    ordered = np.sort(rows, axis=1)
    place = (rows.shape[1] - counts) + share * np.maximum(counts - 1, 0)
    low = np.minimum(np.floor(place).astype(np.int64), rows.shape[1] - 1)
    high = np.minimum(low + 1, rows.shape[1] - 1)
    each = np.arange(len(rows))
    found = ordered[each, low] + (place - low) * (ordered[each, high] - ordered[each, low])
    return np.where(counts > 0, found, 0.0), counts.astype(np.float64)


def _middle(rows: Matrix) -> Matrix:
    """Return each row's median of what is finite; NaN where nothing is."""
    if not rows.shape[1]:
        return np.full(len(rows), np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.nanmedian(rows, axis=1)
