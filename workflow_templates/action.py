"""The contract of a catalogued action: what it may touch, how it acts and how it is undone.

An action is one module. Its planning half (`changes`, `risk`, `blast_radius`) is pure and is asked
by the agents, who read the objects; its acting half (`precheck`, `act`, `verify`, `rollback`) runs
in a pod of its own with its own ServiceAccount and nothing else.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, ConfigDict

from tiphys.policies.model import Change, Check, Object, Plan, Risk

if TYPE_CHECKING:
    from tiphys.workflow_templates.cluster import Cluster
    from tiphys.workflow_templates.metrics import Metrics


class Parameters(BaseModel):
    """Typed, bounded parameters; unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class NotApplicableError(Exception):
    """The action cannot be planned on this object; the message says why."""


class StepName(StrEnum):
    """The four steps, in their order."""

    PRECHECK = "precheck"
    ACT = "act"
    VERIFY = "verify"
    ROLLBACK = "rollback"


class Scope(StrEnum):
    """Where something is read or written."""

    NAMESPACE = "namespace"
    """In the target's namespace."""
    CLUSTER = "cluster"
    """Outside any namespace, or in all of them."""


@dataclass(frozen=True)
class Right:
    """One rule of the action's Role in the target's namespace, or of its ClusterRole."""

    api_group: str
    resource: str
    verbs: tuple[str, ...]
    scope: Scope = Scope.NAMESPACE


@dataclass(frozen=True)
class Guard:
    """What admission checks of a write that the Role allows: one CEL expression that must hold.

    It may use `object`, `oldObject`, `request`, the action's `terms` as `variables.<name>`, and
    `variables.run`, the name of the Workflow to whose pod the token is bound.
    """

    resource: str
    """Such as `apps/deployments/scale`, or `/pods`: group, resource and subresource."""
    expression: str
    message: str


@dataclass(frozen=True)
class Related:
    """A kind of object that planning or the steps must read."""

    api_version: str
    kind: str
    scope: Scope = Scope.NAMESPACE
    named_by: str = ""
    """The parameter that names the one object which is read; empty: all of the kind."""

    def place(self, namespace: str) -> str:
        """Give the namespace to list it in, for a target in this one; empty: everywhere."""
        return namespace if self.scope is Scope.NAMESPACE else ""


@dataclass(frozen=True)
class Deadlines:
    """Seconds that each step may take; verify adds the plan's settle and hold times."""

    precheck: int = 30
    act: int = 60
    verify: int = 300
    rollback: int = 300


class Result(StrEnum):
    """How a step ended; the step's process prints it and exits with `EXIT_CODES`."""

    AS_PLANNED = "as_planned"
    """precheck: the world is as the plan says; go on."""
    ALREADY_DONE = "already_done"
    """precheck, act: this run's mark is there; go on to verify, change nothing."""
    REFUSED = "refused"
    """precheck, act: not as planned; nothing was changed."""
    ACTED = "acted"
    VERIFIED = "verified"
    NOT_VERIFIED = "not_verified"
    """verify: not better in time; roll back."""
    UNKNOWABLE = "unknowable"
    """verify: Prometheus does not answer; keep, freeze, page."""
    UNDONE = "undone"
    """rollback: the plan's values are back, and were read back."""
    NOTHING_CHANGED = "nothing_changed"
    """rollback: this run never changed the target."""
    NOTHING_TO_RESTORE = "nothing_to_restore"
    """rollback: the run acted, and such an act has nothing to put back."""
    NOT_OURS = "not_ours"
    """rollback: somebody else changed the target since; left alone. Freeze and page."""
    NOT_UNDONE = "not_undone"
    """rollback: the plan's values did not hold. Freeze and page."""
    CRASHED = "crashed"
    """The step itself failed."""


EXIT_CODES: Mapping[Result, int] = {
    Result.AS_PLANNED: 0,
    Result.ALREADY_DONE: 0,
    Result.ACTED: 0,
    Result.VERIFIED: 0,
    Result.UNKNOWABLE: 0,
    Result.UNDONE: 0,
    Result.NOTHING_CHANGED: 0,
    Result.NOTHING_TO_RESTORE: 0,
    Result.CRASHED: 1,
    Result.REFUSED: 3,
    Result.NOT_VERIFIED: 4,
    Result.NOT_OURS: 5,
    Result.NOT_UNDONE: 6,
}
"""UNKNOWABLE exits 0: the change is kept, so the exit handler must not roll back."""


@dataclass(frozen=True)
class Report:
    """What a step says of itself: one JSON line on stdout and in its output parameter."""

    result: Result
    message: str
    observed: Mapping[str, object]
    """The values that were read, for the record."""


@dataclass(frozen=True)
class Run:
    """What a step is given: a verified plan, the clock and the action's own narrow rights."""

    plan: Plan
    digest: str
    """40 base32 digits; the mark on the target is `<digest>.act` or `<digest>.undone`."""
    not_after: datetime
    cluster: "Cluster"
    metrics: "Metrics | None"
    """None where Prometheus is not configured."""
    now: Callable[[], datetime]
    sleep: Callable[[float], None]
    verify_share: float = 1.0
    """The share of the action's verify deadline that verify may use; a fast world needs little."""


STARTING = 60
"""Seconds for the rollback's pod to start, in a cluster that is well."""


class Action(ABC):
    """One catalogued action; released versions are immutable."""

    name: ClassVar[str]
    version: ClassVar[int] = 1
    summary: ClassVar[str]
    kinds: ClassVar[tuple[tuple[str, str], ...]]
    """Target kinds as (api_version, kind)."""
    parameters: ClassVar[type[Parameters]]
    reads: ClassVar[tuple[Related, ...]] = ()
    rights: ClassVar[tuple[Right, ...]]
    terms: ClassVar[tuple[tuple[str, str], ...]] = ()
    """CEL expressions that the guards name."""
    guards: ClassVar[tuple[Guard, ...]]
    """What may change in each resource that `rights` let the action write."""
    works_on_nodes: ClassVar[bool] = False
    """Its rights of scope CLUSTER are given only where node actions are switched on."""
    reversible: ClassVar[bool]
    always_ask: ClassVar[str] = ""
    """Why a person must approve each use, whatever the policy grants; empty: the policy decides."""
    undo: ClassVar[str]
    """One sentence: how it is undone, or why nothing needs to be."""
    deadlines: ClassVar[Deadlines] = Deadlines()

    def longest(self, check: Check) -> int:
        """Give the seconds from the start of precheck to the end of a rollback, at most."""
        limits, hold = self.deadlines, check.settle_seconds + check.hold_seconds
        forward = limits.precheck + limits.act + limits.verify + hold
        return forward + limits.rollback + hold + STARTING

    # --- planning: pure -------------------------------------------------------------------------

    @abstractmethod
    def changes(
        self, target: Object, related: Mapping[str, Sequence[Object]], parameters: Parameters
    ) -> tuple[Change, ...]:
        """Give every field that will change, from the live target and the objects of `reads`.

        `related` maps a kind to its objects, each where its scope says. Raises
        `NotApplicableError`.
        """

    @abstractmethod
    def risk(self, target: Object, parameters: Parameters) -> Risk:
        """Grade this use of the action."""

    @abstractmethod
    def blast_radius(self, target: Object, parameters: Parameters) -> str:
        """Say in one sentence what is touched, with numbers."""

    def hindrance(self, target: Object, related: Mapping[str, Sequence[Object]]) -> str | None:
        """Say why what a run of this left must not be put back now, or None; asked for an undo.

        An undo is not planned by `changes`: whatever `changes` refuses that matters to putting back
        as well, such as an autoscaler, is refused here.
        """
        del target, related
        return None

    # --- acting: inside the pod -----------------------------------------------------------------

    @abstractmethod
    def precheck(self, run: Run) -> Report:
        """Answer AS_PLANNED, ALREADY_DONE or REFUSED; changes nothing."""

    @abstractmethod
    def act(self, run: Run) -> Report:
        """Make the plan's changes, fenced and resumable: ACTED, ALREADY_DONE or REFUSED."""

    @abstractmethod
    def verify(self, run: Run) -> Report:
        """Answer VERIFIED, NOT_VERIFIED or UNKNOWABLE."""

    @abstractmethod
    def rollback(self, run: Run) -> Report:
        """Put the plan's values back if this run changed them, and check that they hold."""
