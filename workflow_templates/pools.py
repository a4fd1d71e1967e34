"""What a pool of machines is to an action, whatever makes its machines: the port. Pure.

A kind of pool is supported by one more `PoolKind`; Cluster API's MachineDeployment is the first
(`cluster_api`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from tiphys.policies.model import Change, Object
from tiphys.workflow_templates.action import Related
from tiphys.workflow_templates.pointers import at

LEAST, MOST = "tiphys.io/pool-min-size", "tiphys.io/pool-max-size"
"""Annotations of a pool: how small and how large Tiphys may make it. Without both: not at all."""
STEP, SHARE = 2, 4
"""At most so many machines at a time, or one in so many of the larger size."""


@dataclass(frozen=True)
class Member:
    """One machine of a pool, and its node where it has one."""

    machine: Object
    node: Object | None

    @property
    def name(self) -> str:
        """Give the machine's name."""
        return str(at(self.machine, "/metadata/name"))


class PoolKind(Protocol):
    """How one kind of pool is read; writing its size is always a PUT of its `scale`."""

    kind: tuple[str, str]
    reads: tuple[Related, ...]
    """What `members` needs of the pool's namespace."""

    def refusal(self, pool: Object) -> str | None:
        """Say why its size may not be changed now, or None: paused, rolling out, another's."""
        ...

    def members(
        self, pool: Object, related: Mapping[str, Sequence[Object]]
    ) -> Sequence[Member] | str:
        """Give its machines that are not about to go, oldest first; or why they cannot be told."""
        ...

    def leaving(self, member: Member) -> Change:
        """Give the change of a machine after which it is the first to go."""
        ...


def within(before: int, after: int) -> bool:
    """Say whether a change of size is small enough; the same in both directions."""
    change = abs(after - before)
    return change <= STEP or change * SHARE <= max(before, after)


def limits(pool: Object) -> tuple[int, int] | None:
    """Give the least and the most machines that its owners allow, or None where they do not say."""
    notes = cast("dict[str, Any]", at(pool, "/metadata/annotations") or {})
    least, most = str(notes.get(LEAST, "")), str(notes.get(MOST, ""))
    return (int(least), int(most)) if least.isdecimal() and most.isdecimal() else None


def reference(obj: Object, kind: tuple[str, str]) -> dict[str, str]:
    """Give what names an object in a change."""
    meta = cast("dict[str, str]", obj["metadata"])
    return {
        "api_version": kind[0],
        "kind": kind[1],
        "namespace": meta.get("namespace", ""),
        "name": meta["name"],
        "uid": meta["uid"],
    }
