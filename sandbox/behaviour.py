"""What pods do: faults as an ordered list of rules, of which the first that matches decides."""

from collections.abc import Callable, Iterable
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from tiphys.sandbox.resources import Obj
from tiphys.workflow_templates.quantities import amount


class PodState(StrEnum):
    """How a pod fares."""

    READY = "ready"
    CRASH = "crash"
    """Its first container exits soon after each start."""
    EVICTED = "evicted"
    """Its node ends it for good: phase Failed, reason Evicted; whoever owns it starts another."""
    NOT_READY = "not_ready"
    """It runs and fails its readiness probe."""
    IMAGE_PULL = "image_pull"
    OOM = "oom"
    """Like a crash, killed for its memory: exit code 137."""
    PENDING = "pending"
    """No node takes it."""
    SUCCEEDED = "succeeded"
    """All containers exit with 0: what a Job's pod does in the end."""


def _quantity(text: str) -> str:
    if text:
        amount(text)
    return text


class Match(BaseModel):
    """Which pods a behaviour is for: all given conditions must hold; none given matches all."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    namespace: str = ""
    labels: dict[str, str] = {}
    image: str = ""
    """Shell pattern on any container's image."""
    env: dict[str, str] = {}
    """Names and values that any container's environment has."""
    node: str = ""
    """The node's name; while the pod is not bound, this does not match."""
    name: str = ""
    """Shell pattern on the pod's name."""
    memory_below: Annotated[str, AfterValidator(_quantity)] = ""
    """Only pods of which a container's memory limit is less than this, such as 300Mi."""
    first_generation_only: bool = False
    """Only pods that existed when the fault struck, by uid: a recreated pod is healthy."""

    def covers(self, pod: Obj) -> bool:
        """Whether the pod meets all conditions but the last."""
        meta, spec = pod["metadata"], pod["spec"]
        labels = meta.get("labels") or {}
        containers = spec.get("containers", [])
        env = {(e["name"], e.get("value", "")) for c in containers for e in c.get("env") or []}
        return (
            self.namespace in {"", meta["namespace"]}
            and all(labels.get(key) == value for key, value in self.labels.items())
            and (not self.image or any(fnmatchcase(c["image"], self.image) for c in containers))
            and set(self.env.items()) <= env
            and self.node in {"", spec.get("nodeName", "")}
            and fnmatchcase(meta["name"], self.name or "*")
            and (not self.memory_below or any(map(self._is_below, containers)))
        )

    def _is_below(self, container: Obj) -> bool:
        limit = ((container.get("resources") or {}).get("limits") or {}).get("memory")
        return limit is not None and amount(limit) < amount(self.memory_below)


class Behaviour(BaseModel):
    """What the matched pods do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    match: Match = Match()
    state: PodState = PodState.READY
    message: str = ""
    exit_code: int = 1
    logs: list[str] = []
    """Printed at each start of the first container."""


class Behaviours:
    """The faults in force, in order; a pod that none matches becomes ready."""

    def __init__(self) -> None:
        self.on_change: list[Callable[[], None]] = []
        """Called after the list changed, so that pods are looked at again."""
        self._rules: list[tuple[Behaviour, frozenset[str]]] = []

    def add(
        self, behaviour: Behaviour, existing: Iterable[Obj] = (), *, first: bool = True
    ) -> None:
        """Put a fault in force, before the others unless told not to.

        `existing`: the pods of this moment (`store.list("Pod")`), for `first_generation_only`.
        """
        uids = frozenset(pod["metadata"]["uid"] for pod in existing)
        self._rules.insert(0 if first else len(self._rules), (behaviour, uids))
        self._changed()

    def remove(self, behaviour: Behaviour) -> None:
        """Heal a fault; one that is not in force is ignored."""
        self._rules = [rule for rule in self._rules if rule[0] != behaviour]
        self._changed()

    def clear(self) -> None:
        """Heal everything."""
        self._rules = []
        self._changed()

    def of(self, pod: Obj) -> Behaviour:
        """Say what this pod does."""
        uid = pod["metadata"]["uid"]
        for behaviour, uids in self._rules:
            old_enough = not behaviour.match.first_generation_only or uid in uids
            if old_enough and behaviour.match.covers(pod):
                return behaviour
        return Behaviour()

    def _changed(self) -> None:
        for callback in self.on_change:
            callback()
