"""Why a model gave no usable answer, in words that repeat nothing the endpoint wrote."""

from collections.abc import Sequence
from enum import StrEnum

import openai
from pydantic import ValidationError

from tiphys.agents.ports import ReasonerFailedError
from tiphys.policies.model import Evidence


class Failure(StrEnum):
    """The kinds of failure."""

    ALREADY_FAILED = "already_failed"
    """It failed on the same cause a moment ago, and was not asked again."""
    BROKEN = "broken"
    """Our own fault."""
    DOWN = "down"
    NONSENSICAL = "nonsensical"
    OVER_BUDGET = "over_budget"
    REFUSED = "refused"
    SLOW = "slow"
    UNASKED = "unasked"
    """There is nothing to ask about, or too much."""
    UNLIKE = "unlike"
    """The cause was investigated for an incident whose facts are others."""


class ModelFailedError(ReasonerFailedError):
    """The model has no usable answer; `kind` and the message say why."""

    def __init__(self, kind: Failure, message: str, fetched: Sequence[Evidence] = ()) -> None:
        super().__init__(message)
        self.kind = kind
        self.fetched = tuple(fetched)


class AnswerUnreadableError(Exception):
    """The endpoint's answer is too large or encoded: it was not read."""


class NotRecordedError(Exception):
    """The file of recorded exchanges has no answer to this prompt; nobody guesses one."""


def nonsensical(what: str) -> ModelFailedError:
    """Say what of an answer cannot be used."""
    return ModelFailedError(Failure.NONSENSICAL, f"the model's answer is nonsensical: {what}")


def failure_of(error: Exception, seconds: float) -> ModelFailedError:
    """Say what went wrong with a call that could take so many seconds."""
    if isinstance(error, TimeoutError | openai.APITimeoutError):
        return ModelFailedError(
            Failure.SLOW, f"the model is too slow: no answer within {seconds:g} s"
        )
    if isinstance(error, openai.ContentFilterFinishReasonError):
        return ModelFailedError(
            Failure.REFUSED, "the model refused: its content filter stopped the answer"
        )
    if isinstance(error, openai.LengthFinishReasonError):
        return nonsensical("it was cut off")
    if isinstance(error, openai.APIStatusError):
        return ModelFailedError(Failure.DOWN, f"the model is down: HTTP status {error.status_code}")
    if isinstance(error, openai.APIConnectionError):
        return ModelFailedError(Failure.DOWN, "the model is down: it cannot be reached")
    if isinstance(error, AnswerUnreadableError):
        return nonsensical(str(error))
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        # The last part of an unknown field's place is its name: the model's own words.
        place = first["loc"][:-1] if first["type"] == "extra_forbidden" else first["loc"]
        where = ".".join(str(part) for part in place[:4])
        return nonsensical(f"{where or 'the whole'}: {first['type']}")
    return nonsensical(type(error).__name__)
