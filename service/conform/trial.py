"""What an action is tried with: a world in which it helps, and what may be in its way."""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tiphys.policies.model import Plan
from tiphys.service.conform.planner import Edit
from tiphys.service.conform.runs import plan_on, shop
from tiphys.service.conform.snapshot import STAGE
from tiphys.service.conform.wire import Json, Wire, place
from tiphys.service.conform.worlds import World


@dataclass
class Stage:
    """One namespace that opted in, in which one property is tried."""

    world: World
    action: str = ""
    """The one that may work there; empty: every one."""

    @cached_property
    def namespace(self) -> str:
        """Its name; it is made when it is asked for."""
        return shop(self.world, self.action)

    def leave(self) -> None:
        """Delete it, if it was made, and its nodes; it is gone some time later."""
        if "namespace" not in vars(self):
            return
        nodes = self.wire.items("/api/v1/nodes", labelSelector=f"{STAGE}={self.namespace}")
        for pod in self.wire.items(place("v1", "Pod", self.namespace)) if nodes else ():
            self.wire.delete(self.place("v1", "Pod", pod["metadata"]["name"]), force=True)
        for node in nodes:
            self.wire.delete(place("v1", "Node", "", node["metadata"]["name"]), force=True)
        self.wire.delete(place("v1", "Namespace", "", self.namespace))

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


@contextmanager
def staged(world: World, action: str) -> Generator[Stage]:
    """Give a stage for one action, which goes afterwards."""
    stage = Stage(world, action)
    try:
        yield stage
    finally:
        stage.leave()


Build = Callable[[Stage], Json]
"""Makes what a property begins with, and gives the target."""
Disturb = Callable[[Stage, Json], None]
"""Does something to a stage, whose target is given."""


@dataclass(frozen=True)
class Elsewhere:
    """Another world in which an action helps, asked for in another way."""

    build: Build
    parameters: Mapping[str, Any]
    """In place of the trial's."""


@dataclass(frozen=True)
class Trial:
    """One action's."""

    action: str
    build: Build
    """Make everything, wait until it is as the action expects, and give the target."""
    also: Mapping[str, Build | Elsewhere] = field(default_factory=dict[str, Build | Elsewhere])
    """Other worlds in which it helps, by what differs in them."""
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    violations: Mapping[str, Disturb] = field(default_factory=dict[str, Disturb])
    """What may come between planning and precheck, by a name that says it: each is refused."""
    spoil: Disturb | None = None
    """Between planning and launching: what is planned can be done now, and does not help."""
    meddle: Disturb | None = None
    """After act: somebody else changes what the run has changed. None: there is nothing left."""
    clash: Disturb | None = None
    """Somebody else sets the same as the run does, before it or after its rollback; None: what
    `meddle` sets is neither what was there nor what the run sets."""
    stuck: Build | None = None
    """As `build`, but what act begins never ends, and cannot be put back either."""
    given_up: Disturb | None = None
    """After act in a world that is stuck: whoever works at it says that it cannot be done."""

    halfway: Mapping[str, Disturb] = field(default_factory=dict[str, Disturb])
    """After the first of act's several writes, by a name that says it: it writes nothing more."""

    unplannable: Mapping[str, Edit] = field(default_factory=dict[str, Edit])
    """Worlds in which it must not be planned at all, as changes of what was read of its own."""
    plannable: Mapping[str, Edit] = field(default_factory=dict[str, Edit])
    """Worlds that look like those, in which it must be planned."""

    def plan(self, stage: Stage, target: Json, *, hold: int = 1) -> Plan:
        """Plan the action on a target as the agents would."""
        return plan_on(stage.world, target, self.action, hold=hold, **self.parameters)
