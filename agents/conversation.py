"""One conversation with a model: each turn a typed answer, within the budget, or an error.

Invariants: every request is admitted by the meter before it is sent, retries and the one repair
included; a request is repeated only where nothing was answered (no connection, 429, 5xx), never
past the seconds that the incident has left.
"""

import asyncio
import json
import re
import time
from collections.abc import Callable
from typing import Final

import openai
from openai.types.chat import ChatCompletionMessageParam, ParsedChatCompletion

from tiphys.agents.answers import Answered, Ask
from tiphys.agents.budget import Meter, OverBudgetError, Purpose
from tiphys.agents.model_endpoint import Endpoint
from tiphys.agents.model_failures import (
    Failure,
    ModelFailedError,
    NotRecordedError,
    failure_of,
    nonsensical,
)
from tiphys.agents.question import repair
from tiphys.agents.redact import redact

MAX_ANSWER_TOKENS: Final = 1_200
CHARACTERS_A_TOKEN: Final = 3
"""Fewer than there are on average, so that a prompt's size is not underestimated."""


class Talk:
    """The client and what every conversation has in common."""

    def __init__(
        self, client: openai.AsyncOpenAI, endpoint: Endpoint, meter: Meter, prompt: str
    ) -> None:
        self.client = client
        self.endpoint = endpoint
        self.meter = meter
        self.prompt = prompt
        self.model = endpoint.model

    def begin(self, purpose: Purpose, first: str) -> "Conversation":
        """Begin a conversation with the first message; nothing is sent yet."""
        return Conversation(self, purpose, first)

    async def close(self) -> None:
        """Close the connections."""
        await self.client.close()


class Conversation:
    """One investigation's turns."""

    def __init__(self, talk: Talk, purpose: Purpose, first: str) -> None:
        self._talk = talk
        self._purpose = purpose
        self._repaired = False
        self._messages: list[ChatCompletionMessageParam] = [
            {"role": "system", "content": talk.prompt},
            {"role": "user", "content": first},
        ]

    def tell(self, asked: Ask, answer: str) -> None:
        """Add what the model asked for, in our words for it, and what was read."""
        reads = [read.model_dump(mode="json") for read in asked.reads]
        said = json.dumps({"decision": {"answer": "ask", "reads": reads}}, sort_keys=True)
        self._messages.append({"role": "assistant", "content": said})
        self._messages.append({"role": "user", "content": answer})

    async def answer(self, kind: type[Answered], unusable: Callable[[Answered], str]) -> Answered:
        """Ask; once in a conversation a malformed answer may be mended.

        `unusable` says what a well-formed answer lacks. Raises `ModelFailedError`.
        """
        try:
            return await self._once(kind, unusable)
        except ModelFailedError as error:
            if error.kind is not Failure.NONSENSICAL or self._repaired:
                raise
            if self._talk.meter.calls_left(self._purpose) < 1:
                raise
            self._repaired = True
            self._messages.append({"role": "user", "content": repair(str(error))})
        return await self._once(kind, unusable)

    async def _once(self, kind: type[Answered], unusable: Callable[[Answered], str]) -> Answered:
        completion = await self._patiently(kind)
        try:
            parsed = _parsed(completion)
        except (AttributeError, TypeError, ValueError, LookupError) as error:
            # The client does not check what it is sent: a list may stand where an object should.
            raise nonsensical(type(error).__name__) from error
        if lack := unusable(parsed):
            raise nonsensical(lack)
        return parsed

    async def _patiently(self, kind: type[Answered]) -> ParsedChatCompletion[Answered]:
        endpoint, again = self._talk.endpoint, 0
        while True:
            try:
                return await self._ask(kind)
            except _Unanswered as gone:
                again += 1
                named = gone.pause
                pause = endpoint.pause * 2 ** (again - 1) if named is None else named
                left = self._talk.meter.seconds_left(self._purpose.incident)
                more = again <= endpoint.retries and pause < left
                if not more or self._talk.meter.calls_left(self._purpose) < 1:
                    raise gone.failure from gone
            await asyncio.sleep(pause)

    async def _ask(self, kind: type[Answered]) -> ParsedChatCompletion[Answered]:
        talk = self._talk
        size = sum(len(str(message.get("content", ""))) for message in self._messages)
        try:
            call = talk.meter.admit(
                self._purpose,
                size // CHARACTERS_A_TOKEN,
                MAX_ANSWER_TOKENS,
                talk.endpoint.timeout,
            )
        except OverBudgetError as error:
            raise ModelFailedError(
                Failure.OVER_BUDGET, f"the model was not asked, over budget: {error}"
            ) from error
        began, seconds = time.monotonic(), call.seconds
        given: object = None
        said: object = None
        try:
            async with asyncio.timeout(seconds):
                answer = await talk.client.chat.completions.parse(
                    model=talk.model,
                    messages=self._messages,
                    response_format=kind,
                    temperature=0,
                    max_completion_tokens=MAX_ANSWER_TOKENS,
                )
            if answer.usage:
                given, said = answer.usage.prompt_tokens, answer.usage.completion_tokens
        except NotRecordedError:
            raise
        except Exception as error:
            failure = failure_of(error, seconds)
            if _may_repeat(error):
                raise _Unanswered(failure, _named_pause(error)) from error
            raise failure from error
        finally:
            talk.meter.settle(call, given=given, said=said, seconds=time.monotonic() - began)
        return answer


class _Unanswered(Exception):
    """Nothing was answered, so that asking again does no harm."""

    def __init__(self, failure: ModelFailedError, pause: float | None) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.pause = pause
        """Seconds that the endpoint wants us to wait; None: it named none."""


def _may_repeat(error: Exception) -> bool:
    """Tell whether nothing was answered but that the endpoint is away, busy or broken."""
    if isinstance(error, openai.APIStatusError):
        return error.status_code == 429 or error.status_code >= 500
    away = isinstance(error, openai.APIConnectionError)
    return away and not isinstance(error, openai.APITimeoutError)


def _named_pause(error: Exception) -> float | None:
    if not isinstance(error, openai.APIStatusError):
        return None
    named = error.response.headers.get("retry-after", "")
    return float(named) if re.fullmatch("[0-9]{1,6}", named) else None


def _parsed(completion: ParsedChatCompletion[Answered]) -> Answered:
    message = completion.choices[0].message if completion.choices else None
    if message is None:
        raise nonsensical("it has no choices")
    if message.refusal:
        words = " ".join(redact(str(message.refusal)[:2_000]).split())
        said = "".join(c for c in words if c.isprintable())
        raise ModelFailedError(Failure.REFUSED, f"the model refused: {said[:200]}")
    if message.parsed is None:
        raise nonsensical("it is empty")
    return message.parsed
