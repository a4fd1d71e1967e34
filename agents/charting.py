"""Keeps of a series what a chart needs."""

import math
from typing import Final

from tiphys.agents.ports import Series
from tiphys.policies.model import Json

KEPT_POINTS: Final = 60
"""Points of one series that the record keeps for its chart."""


def downsampled(series: Series) -> list[Json]:
    """Give at most `KEPT_POINTS` points, evenly chosen, the last included."""
    points = list(series.points)
    stride = max(1, math.ceil(len(points) / KEPT_POINTS))
    kept = points[::-1][::stride][::-1]
    return [[round(t), v if math.isfinite(v) else None] for t, v in kept if math.isfinite(t)]
