"""What an action is tried with: a world in which it helps, and what may be in its way."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tiphys.policies.model import Plan
from tiphys.service.conform.runs import plan_on, shop
from tiphys.service.conform.wire import Json, Wire, place
from tiphys.service.conform.worlds import World


@dataclass
class Stage:
    """One namespace that opted in, in which one property is tried."""

    world: World

    @cached_property
    def namespace(self) -> str:
        """Its name; it is made when it is asked for."""
        return shop(self.world)

    @property
    def wire(self) -> Wire:
        """An administrator's."""
        return self.world.wire

    def objects(self, api_version: str, kind: str) -> list[Json]:
        """List a kind here, oldest first; those that are about to end are left out."""
        found = self.wire.items(place(api_version, kind, self.namespace))
        alive = [one for one in found if "deletionTimestamp" not in one["metadata"]]
        alive.sort(key=lambda one: (one["metadata"]["creationTimestamp"], one["metadata"]["name"]))
        return [{"apiVersion": api_version, "kind": kind, **one} for one in alive]

    def place(self, api_version: str, kind: str, name: str) -> str:
        """Give the path of an object here."""
        return place(api_version, kind, self.namespace, name)

    def full(self, pods: int) -> None:
        """Let no more pods in than these."""
        meta = {"name": "full", "namespace": self.namespace}
        quota: Json = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta}
        self.wire.create({**quota, "spec": {"hard": {"pods": str(pods)}}})


Disturb = Callable[[Stage, Json], None]
"""Does something to a stage, whose target is given."""


@dataclass(frozen=True)
class Trial:
    """One action's."""

    action: str
    build: Callable[[Stage], Json]
    """Make everything, wait until it is as the action expects, and give the target."""
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    violations: Mapping[str, Disturb] = field(default_factory=dict[str, Disturb])
    """What may come between planning and precheck, by a name that says it: each is refused."""
    spoil: Disturb | None = None
    """Between planning and launching: what is planned can be done now, and does not help."""
    meddle: Disturb | None = None
    """After act: somebody else changes what the run has changed. None: there is nothing left."""

    def plan(self, stage: Stage, target: Json, *, hold: int = 1) -> Plan:
        """Plan the action on a target as the agents would."""
        return plan_on(stage.world, target, self.action, hold=hold, **self.parameters)
