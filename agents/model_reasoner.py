"""A model as a reasoner: any OpenAI-compatible endpoint, one question, one typed answer.

Invariants: what leaves is redacted and fenced (`question`), what comes back is one of the offered
answers or an error (`answers`), and no call is made that the budget does not allow. The model has
no tools and no credentials; its words are shown to people and decide nothing by themselves.
"""

import asyncio
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

import httpx2
import openai
from openai.types.chat import ParsedChatCompletion
from pydantic import SecretStr, ValidationError

from tiphys.agents.answers import Act, Answered, Nothing, answer_type, options
from tiphys.agents.budget import Call, Meter, OverBudgetError
from tiphys.agents.ports import Answer, Choice, Findings, ReasonerFailedError
from tiphys.agents.question import QuestionTooLongError, question
from tiphys.agents.redact import redact
from tiphys.policies.model import DecidedBy
from tiphys.workflow_templates.action import Action

MAX_ANSWER_TOKENS: Final = 1_200
MAX_REASON: Final = 800
"""Characters."""
PROMPT: Final = (files("tiphys.agents") / "prompts" / "decide.md").read_text(encoding="utf-8")
PROMPT_HASH: Final = hashlib.sha256(PROMPT.encode()).hexdigest()
"""Recorded with every decision, so that it can be asked again in the same words."""


@dataclass(frozen=True)
class Endpoint:
    """Where the model is."""

    base_url: str
    model: str
    api_key: SecretStr | None = None
    timeout: float = 20.0
    """Seconds for one call."""


class ModelReasoner:
    """Asks a model; made by `connect`."""

    def __init__(
        self,
        client: openai.AsyncOpenAI,
        endpoint: Endpoint,
        actions: Sequence[Action],
        meter: Meter,
    ) -> None:
        self._client = client
        self._endpoint = endpoint
        self._actions = tuple(actions)
        self._meter = meter

    @classmethod
    def connect(
        cls, endpoint: Endpoint, actions: Sequence[Action], meter: Meter
    ) -> "ModelReasoner":
        """Prepare the client; nothing is sent yet.

        Redirects are not followed: what was found out about a cluster goes to the configured host
        or nowhere. Nor is the environment asked for keys, proxies or organisations.
        """
        key = endpoint.api_key.get_secret_value() if endpoint.api_key else "none"
        client = openai.AsyncOpenAI(
            api_key=key,
            admin_api_key="",
            organization="",
            project="",
            base_url=endpoint.base_url,
            timeout=endpoint.timeout,
            max_retries=0,
            http_client=httpx2.AsyncClient(trust_env=False, follow_redirects=False),
        )
        client.organization = client.project = None  # or empty headers would be sent
        return cls(client, endpoint, actions, meter)

    async def decide(self, findings: Findings) -> Choice:
        """Ask; raises `ReasonerFailedError` when down, slow, over budget or nonsensical."""
        evidence = [piece for piece in findings.evidence if piece.ok]
        if not evidence:
            raise ReasonerFailedError("the model was not asked: there is no evidence")
        offered = options(self._actions, findings.targets)
        kind = answer_type(offered, [piece.id for piece in evidence])
        try:
            asked = question(findings, offered, evidence)
            call = self._meter.admit(
                findings.case.incident, (len(PROMPT) + len(asked)) // 3 + MAX_ANSWER_TOKENS
            )
        except (OverBudgetError, QuestionTooLongError) as error:
            raise ReasonerFailedError(f"the model was not asked, over budget: {error}") from error
        return self._choice(await self._ask(asked, kind, call))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _ask(
        self, asked: str, kind: type[Answered], call: Call
    ) -> ParsedChatCompletion[Answered]:
        seconds = min(self._endpoint.timeout, self._meter.seconds_left(call.incident))
        began, tokens = time.monotonic(), None
        try:
            async with asyncio.timeout(seconds):
                answer = await self._client.chat.completions.parse(
                    model=self._endpoint.model,
                    messages=[
                        {"role": "system", "content": PROMPT},
                        {"role": "user", "content": asked},
                    ],
                    response_format=kind,
                    temperature=0,
                    max_completion_tokens=MAX_ANSWER_TOKENS,
                )
            tokens = answer.usage.total_tokens if answer.usage else None
        except Exception as error:
            raise ReasonerFailedError(_failure(error, seconds)) from error
        finally:
            self._meter.settle(call, tokens=tokens, seconds=time.monotonic() - began)
        return answer

    def _choice(self, completion: ParsedChatCompletion[Answered]) -> Choice:
        message = completion.choices[0].message if completion.choices else None
        if message is None:
            raise ReasonerFailedError("the model's answer is nonsensical: it has no choices")
        if message.refusal:
            raise ReasonerFailedError(f"the model refused: {_sentence(message.refusal)[:200]}")
        if message.parsed is None:
            raise ReasonerFailedError("the model's answer is nonsensical: it is empty")
        said = message.parsed.decision
        reason = _sentence(said.reason)
        if not reason:
            raise ReasonerFailedError("the model's answer is nonsensical: it gives no reason")
        answers = {"act": Answer.ACT, "nothing": Answer.NOTHING, "escalate": Answer.ESCALATE}
        evidence = [str(piece.value) for piece in said.evidence]
        if not evidence and isinstance(said, Act | Nothing):
            raise ReasonerFailedError("the model's answer is nonsensical: it cites no evidence")
        acting = isinstance(said, Act)
        return Choice(
            answer=answers[said.answer],
            reason=reason,
            evidence=tuple(dict.fromkeys(evidence)),
            decided_by=DecidedBy(
                reasoner="model", model=self._endpoint.model, prompt_hash=PROMPT_HASH
            ),
            action=said.action if acting else "",
            target=str(said.target.value) if acting else "",
            parameters=said.parameters.model_dump(mode="json") if acting else {},
            confidence=said.confidence,
        )


def _failure(error: Exception, seconds: float) -> str:
    """Say what went wrong; nothing the endpoint wrote is repeated."""
    if isinstance(error, TimeoutError | openai.APITimeoutError):
        return f"the model is too slow: no answer within {seconds:g} s"
    if isinstance(error, openai.ContentFilterFinishReasonError):
        return "the model refused: its content filter stopped the answer"
    if isinstance(error, openai.LengthFinishReasonError):
        return "the model's answer is nonsensical: it was cut off"
    if isinstance(error, openai.APIStatusError):
        return f"the model is down: HTTP status {error.status_code}"
    if isinstance(error, openai.APIConnectionError):
        return "the model is down: it cannot be reached"
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"][:4])
        return f"the model's answer is nonsensical: {where or 'the whole'}: {first['type']}"
    return f"the model's answer is nonsensical: {type(error).__name__}"


def _sentence(text: str) -> str:
    """Put a model's words into one printable, redacted, bounded line."""
    line = " ".join("".join(c if c.isprintable() else " " for c in redact(text)).split())
    return line if len(line) <= MAX_REASON else line[: MAX_REASON - 1] + "…"
