"""The small records that the larger ones in `model` are made of, and what all of them share."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue

Json = JsonValue
Instant = AwareDatetime
ActionName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{1,40}$")]
"""An action's name as the catalogue spells it, such as `restart-pod`; the catalogue is closed."""
RunName = Annotated[str, Field(pattern=r"^tiphys-[a-z2-7]{40}$")]
"""A run, by the name of its Workflow."""


class Noun(BaseModel):
    """A frozen record; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ObjectReference(Noun):
    """One object of a cluster; beside a plan's target, one that an action changes too."""

    api_version: str
    kind: str
    namespace: str
    """Empty for a cluster-scoped object."""
    name: str
    uid: str

    def __str__(self) -> str:
        place = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.kind} {place}"


class Target(ObjectReference):
    """The one object an action works on, as the resolver read it from its cluster."""

    cluster: str


class Owner(Noun):
    """One link of an owner chain, nearest first."""

    api_version: str
    kind: str
    name: str
    uid: str


class Check(Noun):
    """How verify asks Prometheus whether the alert is over; an empty query: not configured."""

    query: str = ""
    """The alert rule's own expression, without its `for`."""
    labels: dict[str, str] = {}
    """Series of the answer that bear these labels are the incident's."""
    pod_prefix: str = ""
    """When set, series whose `pod` begins with it are the incident's too: successors of a pod."""
    settle_seconds: int = Field(default=0, ge=0)
    """The expression's longest range and two evaluations: how long old samples can speak."""
    hold_seconds: int = Field(default=30, ge=0)
    """How long healthy must last."""


class DecidedBy(Noun):
    """Who decided: a playbook, a model or a human, exactly enough to ask it again."""

    reasoner: Literal["playbooks", "model", "human"]
    playbook: str = ""
    playbook_version: str = ""
    model: str = ""
    prompt_hash: str = ""
    note: str = ""


class RuledOut(Noun):
    """An action that would have been tempting, and why it was not chosen."""

    action: ActionName
    because: str


class StopFacts(Noun):
    """The stop switch as read just now."""

    engaged: bool
    reason: str = ""


class Undoing(Noun):
    """A person's wish that a finished run is undone."""

    run: RunName
    by: str
    reason: str


class Wish(Noun):
    """A person's wish that an action is done to one object, named as people name it."""

    action: ActionName
    api_version: str
    kind: str
    namespace: str
    """Empty for a cluster-scoped object."""
    name: str
    parameters: dict[str, Json] = {}
    by: str
    reason: str

    @property
    def object(self) -> str:
        """Name the object as a target is named."""
        return f"{self.kind} {self.place}"

    @property
    def place(self) -> str:
        """Give `namespace/name`, or the name of what is in no namespace."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name

    def is_for(self, action: str, target: Target, parameters: dict[str, Json]) -> bool:
        """Tell whether a use of an action is just what was wished."""
        named = (target.api_version, target.kind, target.namespace, target.name)
        wished = (self.api_version, self.kind, self.namespace, self.name)
        return (action, named, parameters) == (self.action, wished, self.parameters)


def is_nothing(value: object) -> bool:
    """Tell that a field has nothing to say, so that a record keeps the bytes it always had."""
    return value is None


class Severity(StrEnum):
    """How soon a human must know; an alert without a severity counts as a warning."""

    CRITICAL = "critical"
    WARNING = "warning"
    INFO = "info"


class Risk(StrEnum):
    """How much an action can hurt when it is wrong."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


def is_empty(value: object) -> bool:
    """Tell that a text is empty, so that a record keeps the bytes it always had."""
    return value == ""


class Outcome(StrEnum):
    """How a run ended."""

    VERIFIED = "verified"
    """Acted, and the alert's own expression stayed false."""
    REFUSED = "refused"
    """Precheck refused: nothing was changed."""
    INEFFECTIVE = "ineffective"
    """Acted without effect, and there is nothing to put back."""
    ROLLED_BACK = "rolled_back"
    """Acted without effect, and the plan's values are back."""
    ROLLBACK_FAILED = "rollback_failed"
    """The plan's values are not back: the target is frozen and a human paged."""
    UNKNOWN = "unknown"
    """Nobody can say: the target is frozen and a human paged; never retried."""


class PastRun(Noun):
    """One run on a target, as the rules about repetition see it."""

    action: ActionName
    move: str
    """What it did to its target: `oscillation.move_of`."""
    undo: bool
    """Whether a person had another run undone by it."""
    began_at: Instant
    ended_at: Instant | None = None
    outcome: Outcome | None = None
    """None while nobody knows."""

    @property
    def failed_to_help(self) -> bool:
        """Whether it is known that it did not help, or nobody can say that it did."""
        return self.outcome not in {None, Outcome.VERIFIED, Outcome.REFUSED}


class Impact(Noun):
    """How much of what is around a target the action takes at once, and what is away already."""

    pods: int = 0
    """That the target's workload wants; 0: it has none that are replicas of each other."""
    pods_taken: int = 0
    """Of them that may be away at one moment because of the action."""
    rolling: bool = False
    """Whether they go as the workload's own rollout lets them."""
    workloads: int | None = None
    """Deployments, StatefulSets and DaemonSets of the target's namespace; None: it has none."""
    nodes: int | None = None
    """Of the cluster; None, as for the rest: the action takes no node away."""
    nodes_away: int | None = None
    """Other nodes than the target that take no pods: not ready, closed or about to go."""
    pool: int | None = None
    """Nodes with GPUs of the target's kind, the target among them; 0 where it has none."""
    pool_away: int | None = None
    """Others of them that are away."""


class Cause(Noun):
    """What alerts follow from that are not about it: a node that is gone, a source that is away."""

    subjects: tuple[str, ...] = Field(min_length=1)
    """Of incidents that would be about it, such as `node worker-3`."""
    words: str
    """Such as `node worker-3 is not ready`."""


class Standby(Noun):
    """How an incident stands by about which something else must happen first."""

    since: Instant
    """When it began to."""
    looks: int = 0
    """How often it has been looked at again."""
    again_at: Instant
    """When it is looked at again, at the latest."""
    follows: str | None = None
    """The incident that handles its cause; None: there is none, or it waits for something else."""


class PauseFact(Noun):
    """A person's pause that covers the target."""

    scope: str
    """`cluster`, or `namespace:NAME`."""
    by: str
    reason: str = ""
    until: Instant

    def __str__(self) -> str:
        why = f": {self.reason}" if self.reason else ""
        return f"{self.scope} is paused by {self.by} until {self.until:%Y-%m-%d %H:%M:%S} UTC{why}"
