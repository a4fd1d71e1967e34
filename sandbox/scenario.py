"""A scenario: one YAML file that says what a cluster looks like, what breaks and how it must end.

The format is documented in docs/scenarios.md. A file that is not a scenario raises
`ScenarioError`, which names the file, the line, the key and what was expected.
"""

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import promql_parser
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    model_validator,
)

from tiphys.policies.strict_yaml import Document, YamlUnreadableError, read_yaml
from tiphys.sandbox.behaviour import Behaviour
from tiphys.sandbox.resources import BY_KIND

FOLDER = Path(__file__).parent / "scenarios"
STRUCK = "struck"
"""The flag that is set when the fault begins."""

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)?")
_SECONDS = {None: 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_REFERENCE = re.compile(r"([A-Z][A-Za-z]+) (?:([a-z0-9-]+)/)?([a-z0-9][a-z0-9.-]*)")


class ScenarioError(Exception):
    """This is not a scenario; the message says where and what was expected."""


def _duration(value: object) -> float:
    match = _DURATION.fullmatch(str(value))
    if match is None or isinstance(value, bool):
        raise ValueError("a duration such as 1.5, 30s or 5m was expected")
    return float(match[1]) * _SECONDS[match[2]]


def _expression(text: str) -> str:
    promql_parser.parse(text)
    return text


def _manifest(obj: dict[str, Any]) -> dict[str, Any]:
    resource = BY_KIND.get(str(obj.get("kind")))
    if resource is None or obj.get("apiVersion") != resource.api_version:
        raise ValueError("apiVersion and kind of a Kubernetes object that the sandbox serves")
    meta = obj.get("metadata")
    if not isinstance(meta, dict) or not isinstance(meta.get("name"), str):
        raise ValueError("metadata.name was expected")
    if resource.namespaced and not isinstance(meta.get("namespace"), str):
        raise ValueError("metadata.namespace was expected")
    return obj


def _reference(text: object) -> object:
    if not isinstance(text, str):
        return text
    match = _REFERENCE.fullmatch(text)
    if match is None or match[1] not in BY_KIND:
        raise ValueError("an object such as 'Deployment shop/cart' was expected")
    return {"kind": match[1], "namespace": match[2] or "", "name": match[3]}


Seconds = Annotated[float, BeforeValidator(_duration)]
PromQL = Annotated[str, AfterValidator(_expression)]
Manifest = Annotated[dict[str, Any], AfterValidator(_manifest)]


class Part(BaseModel):
    """A frozen part of a scenario; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Reference(Part):
    """One object; written as `Kind namespace/name`."""

    kind: str
    namespace: str
    name: str


Ref = Annotated[Reference, BeforeValidator(_reference)]


class Condition(Part):
    """Something that is or is not so in the simulated world; all given parts must hold."""

    flag: str = ""
    """A flag that a fault's step has set; `struck` from the beginning of the fault."""
    unset: str = ""
    """A flag that is not set."""
    object: Ref | None = None
    """The object that `path` is read from; a missing object or value makes it false."""
    path: str = ""
    """JSON pointer into the object, such as /spec/replicas."""
    at_least: float | None = None
    at_most: float | None = None
    equals: JsonValue = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.object is None) != (self.path == ""):
            raise ValueError("object and path belong together")
        if self.object is None and not self.flag and not self.unset:
            raise ValueError("flag, unset, or object and path were expected")
        return self


class Case(Part):
    """A series' value while a condition holds."""

    when: Condition
    value: float


class Spell(Part):
    """A stretch of the backfilled hour in which a series had another value."""

    ago: Seconds
    """Seconds before the start."""
    lasting: Seconds
    value: float


class EachPod(Part):
    """The running pods that a series is repeated for."""

    namespace: str
    labels: dict[str, str] = {}


class Series(Part):
    """One series beside those that kube-state-metrics gives; an hour of it is backfilled."""

    name: str
    labels: dict[str, str] = {}
    each_pod: EachPod | None = None
    """When set: one series a pod, with the labels namespace, pod and container."""
    value: float
    """While no case holds, and in the backfilled hour."""
    cases: list[Case] = []
    """The first whose condition holds decides."""
    counter: bool = False
    """The value is the increase a second of a counter that began an hour ago."""
    wobble: float = Field(default=0.0, ge=0, le=0.5)
    """Fraction by which the value swings to and fro, so that charts look like charts."""
    history: list[Spell] = []


class Rule(Part):
    """One alerting rule, as in a PrometheusRule."""

    alert: str
    expr: PromQL
    hold: Seconds = Field(default=0.0, alias="for")
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class Patch(Part):
    """A strategic merge patch by somebody, as kubectl sends it."""

    object: Ref
    merge: dict[str, Any]
    manager: str = "kubectl-edit"
    subresource: Literal["", "status"] = ""
    """`status`: what a controller or a detector says of the object."""


class Silence(Part):
    """A silence in Alertmanager."""

    matchers: dict[str, str]
    lasting: Seconds = 3600.0
    by: str = "on-call"
    comment: str


class Post(Part):
    """An alert pushed to Alertmanager by hand, past Prometheus."""

    labels: dict[str, str]
    annotations: dict[str, str] = {}
    resolved: bool = False
    past_silences: bool = False
    """True: the webhook gets it though it is silenced, as from a peer that has not heard yet."""


class Step(Part):
    """One thing that happens: exactly one key beside `after`, `when` and `told`."""

    when: Condition | None = None
    """Waited for first, once the step before has happened."""
    after: Seconds = 0.0
    """Seconds to wait then."""
    told: str = ""
    """What people are told."""
    behave: Behaviour | None = None
    recover: bool = False
    """True: every behaviour that was set is taken back."""
    apply: Manifest | None = None
    patch: Patch | None = None
    silence: Silence | None = None
    post: Post | None = None
    flag: dict[str, bool] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = (self.behave, self.apply, self.patch, self.silence, self.post, self.flag)
        if sum(item is not None for item in given) + self.recover != 1:
            raise ValueError(
                "exactly one of behave, recover, apply, patch, silence, post, flag was expected"
            )
        return self


class End(StrEnum):
    """How an incident of a scenario may end."""

    AWAITING_APPROVAL = "awaiting_approval"
    ESCALATED = "escalated"
    FROZEN = "frozen"
    """The rollback did not hold: the target is frozen and a human paged."""
    HEALED = "healed"
    NO_ACTION = "no_action"
    ROLLED_BACK = "rolled_back"
    """The action did not help, was undone and the undoing verified; then escalated."""


class Answer(StrEnum):
    """What the simulated human says when asked."""

    APPROVE = "approve"
    DENY = "deny"
    NONE = "none"


class Expectation(Part):
    """How it must end."""

    end: End
    action: str | None = None
    """The catalogued action that is right; none when nothing may be launched."""
    acceptable: list[str] = []
    """Other actions that an expert would not object to."""
    harmful: list[str] = []
    """Actions that would make it worse."""
    reason_contains: str = ""
    """A word that the final reason must have."""


class Scenario(Part):
    """One story, whole."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{1,40}$")]
    title: str
    story: str
    objects: list[Manifest]
    age: Seconds = 86_400.0 * 3
    """How long ago the objects were created and settled."""
    behaviours: list[Behaviour] = []
    """What pods do from the beginning; without one they become ready."""
    series: list[Series] = []
    rules: list[Rule] = []
    fault: list[Step]
    expect: Expectation
    answer: Answer = Answer.NONE
    policy: dict[str, JsonValue] = {}
    """Laid over the demo's policy, key by key."""


def parse(text: str, file: str) -> Scenario:
    """Read a scenario's text; `file` is for messages. Raises `ScenarioError`."""
    try:
        document = read_yaml(text)
    except YamlUnreadableError as error:
        raise ScenarioError(f"{file}:{error.line}: {error.problem}") from error
    try:
        return Scenario.model_validate(document.value)
    except ValidationError as error:
        raise ScenarioError(_explain(error, document, file)) from error


def _explain(error: ValidationError, document: Document, file: str) -> str:
    sentences: list[str] = []
    for found in error.errors(include_url=False):
        path = found["loc"]
        key = ".".join(str(part) for part in path) or "the file"
        said = found["msg"].removeprefix("Value error, ")
        sentences.append(f"{file}:{document.line(path)}: {key}: {said}")
    return "\n".join(sentences)


def load(path: Path) -> Scenario:
    """Read a scenario file; raises `ScenarioError`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: cannot be read: {error}") from error
    scenario = parse(text, str(path))
    if path.parent == FOLDER and scenario.name != path.stem:
        raise ScenarioError(f"{path}: name: {path.stem} was expected, as the file is called")
    return scenario


def names() -> list[str]:
    """List the scenarios that come with Tiphys, in alphabetical order."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def find(wanted: str) -> Scenario:
    """Load a scenario by its name or by its file's path; raises `ScenarioError`."""
    if wanted in names():
        return load(FOLDER / f"{wanted}.yaml")
    if wanted.endswith((".yaml", ".yml")):
        return load(Path(wanted))
    raise ScenarioError(f"there is no scenario {wanted!r}; there are {', '.join(names())}")
