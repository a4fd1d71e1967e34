"""The nouns of the loop, from alert to outcome, as frozen typed records.

Invariant: nothing here is a free-form verb. A record that does not fit its type raises
`pydantic.ValidationError` where it enters; after that it is trusted.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from tiphys.policies.parts import (
    ActionName,
    Cause,
    Check,
    DecidedBy,
    Impact,
    Instant,
    Json,
    Noun,
    ObjectReference,
    Outcome,
    Owner,
    PastRun,
    PauseFact,
    Risk,
    RuledOut,
    RunName,
    Severity,
    Standby,
    StopFacts,
    Target,
    Undoing,
    Wish,
    is_empty,
    is_nothing,
)


def _without(plain: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in plain.items() if name != key}


# --- what came in -------------------------------------------------------------------------------


class AlertStatus(StrEnum):
    """As Alertmanager says it."""

    FIRING = "firing"
    RESOLVED = "resolved"


class Alert(Noun):
    """One alert of one post, enriched by the webhook."""

    id: str
    """Stable: equal for equal (cluster, fingerprint, starts_at, status)."""
    cluster: str
    fingerprint: str
    status: AlertStatus
    starts_at: Instant
    ends_at: Instant | None = None
    labels: dict[str, str]
    annotations: dict[str, str] = {}
    generator_url: str = ""
    receiver: str = ""
    group_key: str = ""
    source: str = ""
    """The Alertmanager's external URL."""
    teller: str = Field(default="", exclude_if=is_empty)
    """Which of several equal Prometheus told it, where its labels say so."""
    received_at: Instant

    @property
    def name(self) -> str:
        """The alert's name; Alertmanager accepts alerts that have none."""
        return self.labels.get("alertname", "(unnamed)")

    @property
    def severity(self) -> Severity:
        """The severity label in our three grades."""
        given = self.labels.get("severity", "").lower()
        if given in {"critical", "page", "error", "emergency"}:
            return Severity.CRITICAL
        return Severity.INFO if given in {"info", "none"} else Severity.WARNING


# --- what was seen ------------------------------------------------------------------------------


class Source(StrEnum):
    """Where a piece of evidence was read."""

    ALERTMANAGER = "alertmanager"
    HISTORY = "history"
    KUBERNETES = "kubernetes"
    LOGS = "logs"
    MODEL = "model"
    PROMETHEUS = "prometheus"


class Evidence(Noun):
    """One question asked of the outside and its answer, as it was."""

    id: str
    """`ev-` and the first 16 hex digits of the SHA-256 of the other fields' canonical JSON."""
    source: Source
    question: str
    """The exact query, such as PromQL or `get deployments.apps shop/cart`."""
    asked_at: Instant
    ok: bool
    """False: the source did not answer; `answer` then holds the reason."""
    answer: Json
    summary: str
    """One sentence for people, with the numbers that matter."""


# --- what is proposed ---------------------------------------------------------------------------


class Change(Noun):
    """One field that the action will change: what it is now and what it will be."""

    of: ObjectReference | None = None
    """The object; None: the target itself."""
    path: str
    """JSON pointer (RFC 6901) into the object; `` (whole object) when it is deleted."""
    present: Json
    intended: Json

    @property
    def place(self) -> str:
        """Name the field for people; two changes of one plan never have the same."""
        return f"{self.of} {self.path}".rstrip() if self.of else self.path or "the object"

    @model_serializer(mode="wrap")
    def _without_nothing(self, given: SerializerFunctionWrapHandler) -> dict[str, Json]:
        """Leave `of` out where it is the target: plans keep the bytes that they always had."""
        plain: dict[str, Json] = given(self)
        return plain if self.of else _without(plain, "of")


class Proposal(Noun):
    """One catalogued action on one resolved target, with everything an approver must see."""

    answer: Literal["proposal"] = "proposal"
    action: ActionName
    version: int = Field(ge=1)
    target: Target
    parameters: dict[str, Json] = {}
    changes: tuple[Change, ...]
    risk: Risk
    reversible: bool
    always_ask: str = ""
    """Why its action always needs approval; the launcher takes the catalogue's word for it."""
    blast_radius: str
    undo: str
    reason: str
    ruled_out: tuple[RuledOut, ...] = ()
    risks: str = ""
    """What could go wrong, where whoever decided says more than the action itself."""
    check: Check
    evidence: tuple[str, ...]
    confidence: float = Field(default=1.0, ge=0, le=1)
    decided_by: DecidedBy
    undoes: RunName | None = None
    """The finished run of this action whose changes these are, turned round; None: not an undo."""


class NoAction(Noun):
    """Doing nothing is right, and this is why."""

    answer: Literal["no_action"] = "no_action"
    reason: str
    ruled_out: tuple[RuledOut, ...] = ()
    evidence: tuple[str, ...] = ()
    decided_by: DecidedBy
    cause: Cause | None = Field(default=None, exclude_if=is_nothing)
    again: float | None = Field(default=None, exclude_if=is_nothing)
    """Seconds after which it must be looked at again; None: it is watched until it ends."""


class Escalate(Noun):
    """A human must decide, and this is why."""

    answer: Literal["escalate"] = "escalate"
    reason: str
    ruled_out: tuple[RuledOut, ...] = ()
    evidence: tuple[str, ...] = ()
    decided_by: DecidedBy
    cause: Cause | None = Field(default=None, exclude_if=is_nothing)


Decision = Annotated[Proposal | NoAction | Escalate, Field(discriminator="answer")]
"""All that may leave the agents' graph."""


# --- what the gate knows ------------------------------------------------------------------------


class AlertSeen(Noun):
    """One alert that is there now."""

    name: str
    severity: Severity
    labels: dict[str, str]


class AlertFacts(Noun):
    """The incident's alerts as their source knows them now."""

    firing: bool
    silenced: bool
    inhibited: bool
    names: tuple[str, ...]
    alerts: tuple[AlertSeen, ...] | None = None
    """Each of them; None: nobody looked, or they are too many to be told one by one."""
    read_at: Instant

    @model_serializer(mode="wrap")
    def _without_nothing(self, given: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave `alerts` out where it is None: earlier facts keep the bytes they always had."""
        plain: dict[str, Any] = given(self)
        return plain if self.alerts is not None else _without(plain, "alerts")


class TargetFacts(Noun):
    """The target as the cluster knows it now; read again before each launch."""

    target: Target
    changes: tuple[Change, ...]
    """What the proposed action would change if it were planned now."""
    managed_cluster: bool
    namespace_labels: dict[str, str]
    labels: dict[str, str]
    annotations: dict[str, str]
    """The target's and its owners' annotations under `tiphys.io/`, the nearest winning."""
    owners: tuple[Owner, ...] = ()
    field_owner: str | None = None
    """The GitOps controller or operator that owns a field in `changes`, or None."""
    autoscaler: str | None = None
    """An autoscaler that owns the replicas, or None."""
    rollout_in_progress: bool
    ends_long_job: str | None = None
    """Why the action would end a long job (a GPU request, a Job, a training operator), or None."""
    gpu_hours_at_stake: float = 0.0
    open_mark: str | None = None
    """Another run's unfinished `tiphys.io/run` mark, or None."""
    impact: Impact | None = None
    """None: nobody has read it, and the rules that need it deny."""
    read_at: Instant


class HistoryFacts(Noun):
    """What the database knows about runs, breakers and freezes, counted under one lock.

    None, where it may be, means that nobody counted: the rule that needs it denies.
    """

    open_runs_on_target: int
    open_runs_in_cluster: int
    open_runs_in_namespace: int | None = None
    recent_launches_in_namespace: int
    """Within the window of `launch-rate`, and since the breaker there was reset."""
    recent_launches_on_target: int | None = None
    recent_launches_in_cluster: int | None = None
    spent_in_namespace: int | None = None
    """Launches within the window of `budget`."""
    spent_in_cluster: int | None = None
    other_workloads: int | None = None
    """Others of the namespace with an open run, or one within the window of `namespace-share`."""
    open_runs_on_nodes: int | None = None
    """Open runs of the cluster that take a node away, but for those on this target."""
    past: tuple[PastRun, ...] | None = None
    """The last runs on this target or its owner that changed something or may yet, oldest first."""
    breakers: tuple[str, ...] = ()
    """Tripped breakers that cover this target, as sentences."""
    last_run_ended_at: Instant | None = None
    """On this target or its owner."""
    frozen: str | None = None
    """Why the target is frozen, or None."""
    pauses: tuple[PauseFact, ...] = ()
    """Those that last and cover this target."""


class EvidenceFact(Noun):
    """What the gate needs to know of a piece of evidence."""

    id: str
    source: Source
    asked_at: Instant
    ok: bool


class IncidentFacts(Noun):
    """What the gate needs to know of the incident."""

    id: str
    severity: Severity
    subject: str
    attempt: int
    opened_at: Instant
    wants: Wish | None = Field(default=None, exclude_if=is_nothing)
    """What a person asked for, where that is what it is about."""


class Facts(Noun):
    """Everything the gate judges by. None means that it could not be read: no action."""

    alert: AlertFacts | None
    target: TargetFacts | None
    history: HistoryFacts | None
    stop: StopFacts | None
    evidence: tuple[EvidenceFact, ...]
    incident: IncidentFacts | None = None

    @model_serializer(mode="wrap")
    def _without_nothing(self, given: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave `incident` out where it is None: earlier facts keep the bytes they always had."""
        plain: dict[str, Any] = given(self)
        return plain if self.incident else _without(plain, "incident")


# --- what was decided ---------------------------------------------------------------------------


class Plan(Noun):
    """What will be done, whole: the approver signs this and every step carries it."""

    format: Literal["tiphys/plan/v1"] = "tiphys/plan/v1"
    incident: str
    attempt: int = Field(ge=1)
    action: ActionName
    version: int = Field(ge=1)
    target: Target
    parameters: dict[str, Json]
    changes: tuple[Change, ...]
    check: Check
    policy: str
    evidence_hash: str
    decided_by: DecidedBy
    undoes: RunName | None = None
    """The finished run of this action whose changes these are, turned round; None: not an undo."""

    @model_serializer(mode="wrap")
    def _without_nothing(self, given: SerializerFunctionWrapHandler) -> dict[str, Json]:
        """Leave `undoes` out where it is none: other plans keep the bytes that they always had."""
        plain: dict[str, Json] = given(self)
        return plain if self.undoes else _without(plain, "undoes")


class Incident(Noun):
    """One thing that is wrong, with all alerts that speak of it; or a person's wish."""

    id: str
    cluster: str
    subject: str
    """What the alerts' labels name, such as `deployment shop/cart`; the correlation key."""
    title: str
    severity: Severity
    state: str
    """A `lifecycle.State`."""
    attempt: int
    reason: str
    """Why it is in this state, for people."""
    opened_at: Instant
    changed_at: Instant
    deadline_at: Instant | None
    """When silence becomes an escalation."""
    target: Target | None = None
    outcome: Outcome | None = None
    decision: str | None = None
    """What the agents last answered: `proposal`, `no_action` or `escalate`."""
    acknowledged_by: str | None = None
    paged_at: Instant | None = None
    """When a human was last told."""
    undoes: Undoing | None = None
    wants: Wish | None = Field(default=None, exclude_if=is_nothing)
    cause: str | None = Field(default=None, exclude_if=is_nothing)
    """The subject of what it follows from, or tells of where no incident is about that itself."""
    standby: Standby | None = Field(default=None, exclude_if=is_nothing)

    @property
    def wish(self) -> Undoing | Wish | None:
        """Why it is there, where no alert is: an undo or an action that a person asked for."""
        return self.undoes or self.wants

    @property
    def proposer(self) -> str:
        """Who wants what it is about, where that is a person's wish; else empty."""
        return self.wish.by if self.wish else ""


Object = Mapping[str, Json]
"""A Kubernetes object as the API server's JSON."""
