"""What a model may answer: pydantic types built for each question from what really exists.

Invariant: an action, a target, a piece of evidence or a read that was not offered cannot be said;
an answer that says one is malformed, and nothing of it is used.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from operator import or_
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

from tiphys.agents.reads import MOST_AT_ONCE, Offer, closed, read_types
from tiphys.policies.model import Target
from tiphys.workflow_templates.action import Action, Parameters


class Said(BaseModel):
    """What every answer says; unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reason: str
    confidence: float = Field(ge=0, le=1)
    evidence: list[Any]


class Nothing(Said):
    """Doing nothing is right."""

    answer: Literal["nothing"]


class Handover(Said):
    """A human must decide."""

    answer: Literal["escalate"]


class Act(Said):
    """One action on one target."""

    answer: Literal["act"]
    action: str
    target: Any
    parameters: Parameters


class Ask(BaseModel):
    """More has to be read first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    answer: Literal["ask"]
    why: str
    reads: list[Any] = Field(min_length=1, max_length=MOST_AT_ONCE)


class Answered(BaseModel):
    """The whole answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    decision: Act | Nothing | Handover | Ask

    @classmethod
    def model_json_schema(cls, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Give the schema that the client sends with each request; it is written once.

        That takes most of a request's processor time, and the service has one event loop.
        """
        return super().model_json_schema(*args, **kwargs) if args or kwargs else _schema_of(cls)


def _schema_of(kind: type[Answered]) -> dict[str, Any]:
    return json.loads(_schema_text(kind))  # a copy: the client changes what it is given


@lru_cache(maxsize=256)
def _schema_text(kind: type[Answered]) -> str:
    return json.dumps(super(Answered, kind).model_json_schema())


@dataclass(frozen=True)
class Option:
    """An action and the roles of the targets that it can work on."""

    action: Action
    roles: tuple[str, ...]


def options(actions: Sequence[Action], targets: Mapping[str, Target]) -> tuple[Option, ...]:
    """Give the actions that have a target, each with its targets' roles."""
    found = (
        Option(
            action,
            tuple(
                role
                for role, target in sorted(targets.items())
                if (target.api_version, target.kind) in action.kinds
            ),
        )
        for action in actions
    )
    return tuple(option for option in found if option.roles)


@lru_cache(maxsize=256)
def answer_type(
    offered: tuple[Option, ...], evidence: tuple[str, ...], reads: Offer | None = None
) -> type[Answered]:
    """Build the type of the answer: only these actions, targets, evidence and reads are in it."""
    cited = (list[closed("EvidenceId", evidence)], ...)
    kinds: list[Any] = [
        create_model(
            f"Act_{option.action.name.replace('-', '_')}",
            __base__=Act,
            action=(Literal[option.action.name], ...),  # type: ignore[valid-type]
            target=(closed(f"Target_{option.action.name.replace('-', '_')}", option.roles), ...),
            parameters=(option.action.parameters, ...),
            evidence=cited,
        )
        for option in offered
    ]
    kinds += [
        create_model("Nothing", __base__=Nothing, evidence=cited),
        create_model("Handover", __base__=Handover, evidence=cited),
    ]
    listed = read_types(reads) if reads else []
    if listed:
        either: Any = list[reduce(or_, listed)]  # type: ignore[misc]
        some = (either, Field(min_length=1, max_length=MOST_AT_ONCE))
        kinds.append(create_model("Ask", __base__=Ask, reads=some))
    whole: Any = reduce(or_, kinds)
    return create_model("Answer", __base__=Answered, decision=(whole, ...))
