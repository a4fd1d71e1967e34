"""What a model may have read: a closed list of questions, each with typed arguments.

Invariants: a read names an object by a word of ours, such as `workload` or `container-2`, which was
given to something that the resolver found; no name, no label and no query is ever the model's own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, create_model

MOST_AT_ONCE: Final = 3
"""Reads in one answer."""


class Read(BaseModel):
    """One question; unknown arguments are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Log(Read):
    """The end of a container's log."""

    read: Literal["log"]
    of: Any
    previous: bool
    """That of the run before this one."""


class Events(Read):
    """The latest events about an object."""

    read: Literal["events"]
    of: Any


class Describe(Read):
    """An object's state: conditions, containers, limits; no environment."""

    read: Literal["describe"]
    of: Any


class Metric(StrEnum):
    """Whose history can be read."""

    AVAILABLE = "available"
    CPU_OF_LIMIT = "cpu_of_limit"
    CPU_THROTTLED = "cpu_throttled"
    GENERATION = "generation"
    MEMORY_OF_LIMIT = "memory_of_limit"
    NODE_CPU = "node_cpu"
    NODE_MEMORY = "node_memory"
    NODE_READY = "node_ready"
    READY_PODS = "ready_pods"
    REPLICAS = "replicas"
    RESTARTS = "restarts"
    VOLUME_USED = "volume_used"


class History(Read):
    """A metric of an object over the last minutes."""

    read: Literal["history"]
    of: Any
    metric: Metric
    minutes: Literal[15, 60, 360]


class Neighbours(Read):
    """The other workloads of the namespace: how many replicas each wants and has."""

    read: Literal["neighbours"]


@dataclass(frozen=True)
class Offer:
    """What there is to be read: words of ours only."""

    containers: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    measured: tuple[str, ...] = ()
    """Roles whose metrics can be asked for."""
    neighbours: bool = False

    @property
    def told(self) -> Sequence[str]:
        """Each kind of read in a line."""
        containers, roles = ", ".join(self.containers), ", ".join(self.roles)
        measured, metrics = ", ".join(self.measured), ", ".join(Metric)
        lines = [
            (self.containers, f"log of one of {containers}; or of its run before this one"),
            (self.roles, f"events about, or describe, one of {roles}"),
            (self.measured, f"history over 15, 60 or 360 minutes of one of {measured}: {metrics}"),
            (self.neighbours, "neighbours: the namespace's other workloads"),
        ]
        return [line for there, line in lines if there]


def closed(name: str, values: Sequence[str]) -> Any:
    """Make a type that has these values and no others."""
    return Enum(name, [(value, value) for value in values], type=str)


def read_types(offer: Offer) -> list[Any]:
    """Give the types of the reads that are offered."""
    made: list[Any] = []
    if offer.containers:
        made.append(_of("Log", Log, offer.containers))
    if offer.roles:
        made += [_of("Events", Events, offer.roles), _of("Describe", Describe, offer.roles)]
    if offer.measured:
        made.append(_of("History", History, offer.measured))
    if offer.neighbours:
        made.append(Neighbours)
    return made


def _of(name: str, base: type[Read], values: Sequence[str]) -> Any:
    return create_model(f"Read{name}", __base__=base, of=(closed(f"{name}Of", values), ...))
