"""What the agents read and whom they ask; each port is implemented by one adapter in `service`.

Every read either answers or raises `UnansweredError`: missing is never taken for healthy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from tiphys.agents.experience import Experience
from tiphys.policies.model import (
    Alert,
    AlertFacts,
    DecidedBy,
    Evidence,
    Json,
    Object,
    Outcome,
    Plan,
    RuledOut,
    Target,
    Undoing,
    Wish,
)


class UnansweredError(Exception):
    """The source did not answer; the message says which and why."""


class TooWideError(UnansweredError):
    """The answer would have more than may be read: a narrower question may be answered."""


@dataclass(frozen=True)
class Sample:
    """One series' value at one time; `labels` includes `__name__` where Prometheus gives it."""

    labels: Mapping[str, str]
    at: float
    """Unix seconds."""
    value: float


@dataclass(frozen=True)
class Series:
    """One series over time: points are (unix seconds, value), in order of time."""

    labels: Mapping[str, str]
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class AlertRule:
    """An alerting rule as Prometheus' rules API tells it."""

    name: str
    expression: str
    for_seconds: float
    labels: Mapping[str, str]
    interval_seconds: float = 30.0
    """How often its group is evaluated."""
    looks_back_seconds: float | None = None
    """How far back its samples reach, recording rules included; None: as the expression says."""


class Metrics(Protocol):
    """Prometheus, read only."""

    async def instant(self, query: str, at: datetime | None = None) -> Sequence[Sample]:
        """Evaluate at one time (default: now)."""
        ...

    async def range(
        self, query: str, start: datetime, end: datetime, step_seconds: float
    ) -> Sequence[Series]:
        """Evaluate over a time range."""
        ...

    async def rules(self) -> Sequence[AlertRule]:
        """List the alerting rules."""
        ...


class ClusterReader(Protocol):
    """The Kubernetes API with a read-only token."""

    async def get(self, api_version: str, kind: str, namespace: str, name: str) -> Object | None:
        """Read one object; None when the API server says 404."""
        ...

    async def list(
        self,
        api_version: str,
        kind: str,
        namespace: str,
        label_selector: str = "",
        field_selector: str = "",
    ) -> Sequence[Object]:
        """List objects; an empty namespace means all, a kind that is not served has none."""
        ...

    async def logs(
        self, namespace: str, pod: str, container: str, *, previous: bool, tail_lines: int
    ) -> str:
        """Read the end of a container's log, at most 64 KiB; empty where there is none yet."""
        ...


class AlertSource(Protocol):
    """The Alertmanagers of this installation."""

    async def facts(self, alerts: Sequence[Alert]) -> AlertFacts:
        """Say whether these alerts are active, silenced or inhibited now."""
        ...


@dataclass(frozen=True)
class Attempt:
    """An earlier attempt of the same incident."""

    number: int
    action: str
    target: Target
    outcome: Outcome
    message: str


@dataclass(frozen=True)
class Undone:
    """A finished run that a person wants undone."""

    plan: Plan
    wish: Undoing


@dataclass(frozen=True)
class Case:
    """What the agents are given: the incident and what the database knows around it."""

    incident: str
    attempt: int
    cluster: str
    managed: bool
    """The incident's cluster is this installation's."""
    subject: str
    alerts: Sequence[Alert]
    attempts: Sequence[Attempt] = ()
    episodes_last_hour: int = 1
    """How often its steadiest firing alert began to fire in the last hour: many means flapping."""
    handled_by: str | None = None
    """Another open incident with the same target, or None."""
    now: datetime | None = None
    waited: float = 0.0
    """Seconds for which it has waited already for something else to happen first."""
    undone: Undone | None = None
    wanted: Wish | None = None
    """What a person wants, where that is what the incident is about, and no alert."""
    experience: Experience | None = None
    """What was tried for such alerts before; None: nobody remembers."""


@dataclass(frozen=True)
class Findings:
    """What a reasoner decides on: facts under names, each with the evidence it came from."""

    case: Case
    facts: Mapping[str, Json]
    """Such as `workload.replicas`, nested under their first name; the playbooks' CEL reads them."""
    targets: Mapping[str, Target]
    """The resolved objects by role: `pod`, `workload`, `node`; a reasoner names one by its role."""
    evidence: Sequence[Evidence]
    retold: bool = False
    """People told what was seen; nothing was read of a cluster, and only symptoms are known."""


class Answer(StrEnum):
    """The three things a reasoner may answer."""

    ACT = "act"
    NOTHING = "nothing"
    ESCALATE = "escalate"


@dataclass(frozen=True)
class Choice:
    """A reasoner's answer before it becomes a `Decision`: closed lists only."""

    answer: Answer
    reason: str
    evidence: Sequence[str]
    decided_by: DecidedBy
    action: str = ""
    """A catalogue name; empty unless the answer is ACT."""
    target: str = ""
    """A role in `Findings.targets`; empty unless the answer is ACT."""
    parameters: Mapping[str, Json] = field(default_factory=dict[str, Json])
    confidence: float = 1.0
    ruled_out: Sequence[RuledOut] = ()
    """What would have been tempting, and why it was not chosen."""
    risks: str = ""
    """What could go wrong; empty: what the action says of itself."""
    fetched: Sequence[Evidence] = ()
    """What the reasoner had read beside the findings."""
    shared_from: str = ""
    """The incident that was investigated in this one's place; empty: this one was."""


class ReasonerFailedError(Exception):
    """The reasoner has no usable answer: down, slow, over budget or nonsensical; says which."""

    fetched: Sequence[Evidence] = ()
    """What it had read until then."""


class Reasoner(Protocol):
    """Playbooks or a model, behind one face."""

    async def decide(self, findings: Findings) -> Choice:
        """Choose; raises `ReasonerFailedError`."""
        ...
