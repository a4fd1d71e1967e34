"""What a model may answer: pydantic types built anew for each question from what really exists.

Invariant: an action, a target or a piece of evidence that was not offered cannot be said; an answer
that says one is malformed, never repaired.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import reduce
from operator import or_
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

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


class Answered(BaseModel):
    """The whole answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    decision: Act | Nothing | Handover


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


def answer_type(offered: Sequence[Option], evidence: Sequence[str]) -> type[Answered]:
    """Build the type of the answer: only these actions, targets and evidence exist in it."""
    cited = (list[_closed("EvidenceId", evidence)], ...)
    kinds: list[Any] = [
        create_model(
            f"Act_{option.action.name.replace('-', '_')}",
            __base__=Act,
            action=(Literal[option.action.name], ...),  # type: ignore[valid-type]
            target=(_closed(f"Target_{option.action.name.replace('-', '_')}", option.roles), ...),
            parameters=(option.action.parameters, ...),
            evidence=cited,
        )
        for option in offered
    ]
    kinds += [
        create_model("Nothing", __base__=Nothing, evidence=cited),
        create_model("Handover", __base__=Handover, evidence=cited),
    ]
    whole: Any = reduce(or_, kinds)
    return create_model("Answer", __base__=Answered, decision=(whole, ...))


def _closed(name: str, values: Sequence[str]) -> Any:
    return Enum(name, [(value, value) for value in values], type=str)
