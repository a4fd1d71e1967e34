"""A model as a reasoner: any OpenAI-compatible endpoint, a few typed turns, one typed answer.

Invariants: what leaves is redacted and fenced (`question`); what comes back is one of the offered
answers or reads, or an error (`answers`); no call is made that the budget does not allow. The model
has no credentials, what it may have read is a closed list (`reads`), and its words are shown to
people and decide nothing by themselves.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from importlib.resources import files
from typing import Final

import httpx2

from tiphys.agents.answers import Act, Ask, Handover, Nothing, Option, answer_type, options
from tiphys.agents.budget import Meter, Purpose
from tiphys.agents.conversation import Conversation, Talk
from tiphys.agents.model_endpoint import Endpoint, Wire, connected
from tiphys.agents.model_failures import Failure, ModelFailedError, NotRecordedError, nonsensical
from tiphys.agents.notebook import Notebook
from tiphys.agents.ports import Answer, Choice, ClusterReader, Findings, Metrics
from tiphys.agents.question import (
    NO_VIEW,
    QuestionTooLongError,
    View,
    numbered,
    question,
    what_was_read,
)
from tiphys.agents.reading import Reading
from tiphys.agents.reads import Read
from tiphys.agents.redact import redact
from tiphys.policies.model import DecidedBy, Evidence
from tiphys.workflow_templates.action import Action

MAX_REASON: Final = 800
"""Characters."""
MAX_TURNS: Final = 4
"""Answers of one investigation, reads included; the last must decide."""
PROMPT: Final = (files("tiphys.agents") / "prompts" / "decide.md").read_text(encoding="utf-8")
PROMPT_HASH: Final = hashlib.sha256(PROMPT.encode()).hexdigest()
"""Recorded with every decision, so that it can be asked again in the same words."""
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sources:
    """What a model may have read from."""

    cluster: ClusterReader
    metrics: Metrics | None


class ModelReasoner:
    """Asks a model; made by `connect`."""

    def __init__(
        self, talk: Talk, actions: Sequence[Action], meter: Meter, sources: Sources | None = None
    ) -> None:
        self._talk = talk
        self._actions = tuple(actions)
        self.meter = meter
        self._sources = sources
        self._clock: Callable[[], datetime] = meter.now

    @classmethod
    def connect(
        cls,
        endpoint: Endpoint,
        actions: Sequence[Action],
        meter: Meter,
        sources: Sources | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> "ModelReasoner":
        """Prepare the client; nothing is sent yet. Without sources nothing more can be read."""
        client = connected(endpoint, transport or Wire())
        return cls(Talk(client, endpoint, meter, PROMPT), actions, meter, sources)

    async def decide(self, findings: Findings) -> Choice:
        """Ask; raises `ReasonerFailedError` when down, slow, over budget or nonsensical."""
        return await self.investigate(findings, Purpose(findings.case.incident))

    def offered(self, findings: Findings) -> tuple[Option, ...]:
        """Give the actions that the incident's targets leave."""
        return options(self._actions, findings.targets)

    async def investigate(self, findings: Findings, purpose: Purpose) -> Choice:
        """Ask on behalf of a cause; raises `ModelFailedError`, or `NotRecordedError` in a replay.

        What was read until then is in the error too.
        """
        book = Notebook(self._clock)
        left = self.meter.seconds_left(purpose.incident)
        try:
            if left <= 0:
                raise ModelFailedError(
                    Failure.OVER_BUDGET,
                    "the model was not asked, over budget: "
                    f"{self.meter.budget.seconds_per_incident:g} s per incident are used up",
                )
            async with asyncio.timeout(left):
                choice = await self._investigate(findings, purpose, book)
        except NotRecordedError:
            raise
        except Exception as error:
            failed = _failed(error, left)
            failed.fetched = tuple(book.evidence)
            if self.meter.tally:
                self.meter.tally.failed(failed.kind)
            raise failed from error
        return replace(choice, fetched=tuple(book.evidence))

    async def close(self) -> None:
        """Close the connections."""
        await self._talk.close()

    async def _investigate(self, findings: Findings, purpose: Purpose, book: Notebook) -> Choice:
        shown = numbered(findings.evidence)
        if not shown:
            raise ModelFailedError(Failure.UNASKED, "the model was not asked: there is no evidence")
        reading: Reading | None = None
        if self._sources:
            reading = Reading(self._sources.cluster, self._sources.metrics, findings, book)
            await reading.begin()
        return await self._turns(findings, purpose, shown, reading)

    async def _turns(
        self,
        findings: Findings,
        purpose: Purpose,
        shown: dict[str, Evidence],
        reading: Reading | None,
    ) -> Choice:
        offered = self.offered(findings)
        view = NO_VIEW
        if reading:
            words = {name: redact(place.words) for name, place in reading.places.items()}
            view = View(reading.offer, words)
        try:
            first = question(findings, offered, shown, view)
        except QuestionTooLongError as error:
            raise ModelFailedError(
                Failure.UNASKED, f"the model was not asked, over budget: {error}"
            ) from error
        conversation, read = self._talk.begin(purpose, first), dict[Read, str]()
        for turn in range(MAX_TURNS):
            last = turn == MAX_TURNS - 1 or self.meter.calls_left(purpose) <= 1
            offer = None if last or reading is None else view.offer
            kind = answer_type(offered, tuple(shown), offer)
            said = await conversation.answer(kind, lambda one: _unusable(one.decision))
            decision = said.decision
            if not isinstance(decision, Ask):
                return self._choice(decision, shown)
            assert reading is not None  # or `ask` would not have been in the type
            # Of the turns left, the next may be the last.
            last = turn + 2 >= MAX_TURNS or self.meter.calls_left(purpose) <= 1
            await _read(decision, reading, (shown, read), conversation, last=last)
        raise nonsensical("it asked on and on")

    def _choice(self, said: Act | Nothing | Handover, shown: dict[str, Evidence]) -> Choice:
        answers = {"act": Answer.ACT, "nothing": Answer.NOTHING, "escalate": Answer.ESCALATE}
        cited = dict.fromkeys(shown[str(piece.value)].id for piece in said.evidence)
        acting = isinstance(said, Act)
        return Choice(
            answer=answers[said.answer],
            reason=_sentence(said.reason),
            evidence=tuple(cited),
            decided_by=DecidedBy(reasoner="model", model=self._talk.model, prompt_hash=PROMPT_HASH),
            action=said.action if acting else "",
            target=str(said.target.value) if acting else "",
            parameters=said.parameters.model_dump(mode="json") if acting else {},
            confidence=said.confidence,
        )


async def _read(
    asked: Ask,
    reading: Reading,
    known: tuple[dict[str, Evidence], dict[Read, str]],
    conversation: Conversation,
    *,
    last: bool,
) -> None:
    """Read what is asked for, name it, and lay it before the model; nothing is read twice."""
    shown, read = known
    fresh: list[tuple[str, Evidence]] = []
    again: list[str] = []
    for one in asked.reads:
        if one in read:
            again.append(read[one])
            continue
        read[one] = "what was not answered"
        for piece in await reading.read(one):
            name = f"e{len(shown) + 1}" if piece.ok else ""
            fresh.append((name, piece))
            if name:
                shown[name] = piece
                read[one] = name
    conversation.tell(asked, what_was_read(fresh, again, last=last))


def _unusable(said: Act | Nothing | Handover | Ask) -> str:
    """Say what a well-formed answer lacks; empty when nothing."""
    if isinstance(said, Ask):
        return ""
    if not _sentence(said.reason):
        return "it gives no reason"
    if not said.evidence and isinstance(said, Act | Nothing):
        return "it cites no evidence"
    return ""


def _failed(error: Exception, seconds: float) -> ModelFailedError:
    if isinstance(error, ModelFailedError):
        return error
    if isinstance(error, TimeoutError):
        return ModelFailedError(
            Failure.SLOW, f"the model is too slow: no answer within {seconds:g} s"
        )
    _LOG.exception("the model's reasoner failed")
    return ModelFailedError(
        Failure.BROKEN, f"the model's reasoner itself failed: {type(error).__name__}"
    )


def _sentence(text: str) -> str:
    """Put a model's words into one printable, redacted, bounded line."""
    words = redact(text[: 4 * MAX_REASON])  # patterns over a whole long answer would take seconds
    line = " ".join("".join(c if c.isprintable() else " " for c in words).split())
    return line if len(line) <= MAX_REASON else line[: MAX_REASON - 1] + "…"
