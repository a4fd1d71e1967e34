"""What the search for causes reads: measurements over time, of a component, of a known kind.

A kind says what a change of it can mean and in which unit it is judged; a name says nothing.
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Union

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Points = Union[Sequence[tuple[float, float]], "NDArray[np.float64]"]
"""(unix seconds, value), in any order; a value may be NaN."""

MIN_STEPS: Final = 4
"""Bins a window needs: one before a change, and two after it to call it lasting."""
MAX_HISTORY: Final = 60
"""Bins right before the window that are read; older ones tell little of what is usual now."""


class Kind(enum.Enum):
    """What a signal measures."""

    LATENCY = "latency"
    """Seconds, as the component itself measures its answers."""
    CALL_LATENCY = "call latency"
    """Seconds, as the callers of the component measure its answers; network included."""
    OUTGOING = "latency of its calls"
    """Seconds, as the component measures the answers of all those it calls together."""
    AVAILABILITY = "availability"
    """Share of requests answered well, 0 to 1."""
    CPU = "CPU"
    """Share of the limit, 0 to 1."""
    MEMORY = "memory"
    """Share of the limit, 0 to 1."""
    REQUESTS = "requests"
    """Requests taken, by time or by bin."""
    TRAFFIC = "traffic"
    """Bytes over the network, system calls for them, and the like: what requests cause."""
    RESTARTS = "restarts"
    """Of containers, within some minutes."""


SYMPTOMS: Final = frozenset({Kind.LATENCY, Kind.CALL_LATENCY, Kind.AVAILABILITY})
"""Pass from a component to those that call it."""
OWN: Final = frozenset({Kind.CPU, Kind.MEMORY, Kind.RESTARTS})
"""Belong to one component; no other component's trouble explains them."""
LOAD: Final = frozenset({Kind.REQUESTS, Kind.TRAFFIC})
"""Passes from a component to those it calls."""
FALLING_HURTS: Final = frozenset({Kind.AVAILABILITY})

SMALLEST: Final[Mapping[Kind, float]] = {
    Kind.AVAILABILITY: 0.005,
    Kind.CPU: 0.05,
    Kind.MEMORY: 0.05,
    Kind.RESTARTS: 0.5,
}
"""The kinds judged by their difference, with the least that is worth naming: 0.5 % of the requests,
5 % of a limit, one restart."""
SHARES: Final = frozenset({Kind.AVAILABILITY, Kind.CPU, Kind.MEMORY})
"""The kinds that go from 0 to 1."""
SMALLEST_RATIO: Final = 0.1
"""The least relative change worth naming, of every other kind."""


@dataclass(frozen=True)
class Signal:
    """One series of one component."""

    component: str
    kind: Kind
    name: str
    """For people; nothing is decided by it."""
    points: Points
    normal: Points = ()
    """The same series over a stretch known to be free of faults. Without it, what came before the
    window is the reference, and may hold earlier faults."""
    counter: bool = False
    """The value only grows, and starts again at zero when its process does."""


@dataclass(frozen=True)
class Window:
    """The time in which something may have begun, and how finely to look."""

    start: float
    end: float
    step: float
    """Seconds of one bin; not below the interval at which the signals are sampled."""

    @property
    def bins(self) -> int:
        """Bins from start to end."""
        return round((self.end - self.start) / self.step)


@dataclass(frozen=True)
class Symptom:
    """What was complained about: the component and the kind of the alert."""

    component: str
    kind: Kind | None = None


@dataclass(frozen=True)
class Scene:
    """Everything that is known of one moment."""

    window: Window
    signals: Sequence[Signal]
    calls: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    """Caller to the components it calls. May have cycles; empty when nothing is known."""
    symptom: Symptom | None = None
