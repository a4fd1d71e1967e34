"""A set of recorded cases for the search for causes, whichever format it came in."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from tiphys.agents.causes.signals import Scene
from tiphys.service.errors import UsageError


class UnreadableSetError(UsageError):
    """A set of recorded cases cannot be read."""


@dataclass(frozen=True)
class FaultCase:
    """A fault that was put in, and the component that it was put into."""

    name: str
    scene: Scene
    answer: str


@dataclass(frozen=True)
class QuietCase:
    """A stretch in which nothing was put in; every scene must be answered by silence."""

    name: str
    scenes: tuple[Scene, ...]


class CaseSet(Protocol):
    """One folder of recorded cases."""

    @property
    def name(self) -> str:
        """The folder, as the report names it."""
        ...

    def faults(self) -> Iterator[FaultCase]:
        """Give its faults in the order of their names or times."""
        ...

    def quiet(self) -> Iterator[QuietCase]:
        """Give its fault-free stretches; none where the set has none."""
        ...
