"""Writes every question put to the outside, and its answer, down as Evidence.

Invariants: a question without an answer is evidence too, with `ok` false; what is written is
bounded, so that no label, log or series can fill the record.
"""

import hashlib
import math
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TypeVar

from tiphys.agents.ports import UnansweredError
from tiphys.agents.redact import seen
from tiphys.policies.model import Evidence, Json, Source
from tiphys.policies.plan import canonical

MAX_STRING = 2_000
MAX_ITEMS = 200
MAX_DEPTH = 8
MAX_SUMMARY = 400
Answered = TypeVar("Answered")


def bounded(value: Json, depth: int = 0) -> Json:
    """Cut a value to a bounded size; numbers that JSON cannot hold become null."""
    if isinstance(value, str):
        return value if len(value) <= MAX_STRING else value[: MAX_STRING - 1] + "…"
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if depth >= MAX_DEPTH and isinstance(value, dict | list):
        return "…"
    if isinstance(value, dict):
        kept = list(value.items())[:MAX_ITEMS]
        return {key[:MAX_STRING]: bounded(item, depth + 1) for key, item in kept}
    if isinstance(value, list):
        return [bounded(item, depth + 1) for item in value[:MAX_ITEMS]]
    return value


def short(words: str, limit: int = MAX_SUMMARY) -> str:
    """Put text on one line of bounded length, without what a reader would not see."""
    line = " ".join(seen(words).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def make_evidence(
    source: Source,
    question: str,
    asked_at: datetime,
    told: tuple[Json, str],
    *,
    ok: bool = True,
    whole: bool = False,
) -> Evidence:
    """Give the record of one question; `told` is the answer and its summary in one sentence.

    `whole`: the answer is bounded already.
    """
    content: dict[str, Json] = {
        "source": source.value,
        "question": question[:4_000],
        "asked_at": asked_at.isoformat(),
        "ok": ok,
        "answer": told[0] if whole else bounded(told[0]),
        "summary": short(told[1]),
    }
    digest = hashlib.sha256(canonical(content)).hexdigest()
    return Evidence.model_validate({"id": f"ev-{digest[:16]}", **content})


class Notebook:
    """One agent's questions of one investigation, in order."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self.evidence: list[Evidence] = []
        self.notes: list[str] = []
        """Findings as sentences."""
        self.unseen: list[str] = []
        """What a source did not answer and the decision must not do without."""

    def now(self) -> datetime:
        """Give the time."""
        return self._clock()

    async def ask(
        self,
        source: Source,
        question: str,
        call: Awaitable[Answered],
        tell: Callable[[Answered], tuple[Json, str]],
    ) -> Answered:
        """Await the answer and write it down; raises `UnansweredError` after writing that down."""
        asked_at = self._clock()
        try:
            answered = await call
        except UnansweredError as error:
            told = (str(error), f"no answer: {error}")
            self.evidence.append(make_evidence(source, question, asked_at, told, ok=False))
            raise
        self.evidence.append(make_evidence(source, question, asked_at, tell(answered)))
        return answered

    def write(self, source: Source, question: str, answer: Json, summary: str) -> Evidence:
        """Write down what was known already, such as what the database told."""
        found = make_evidence(source, question, self._clock(), (answer, summary))
        self.evidence.append(found)
        return found

    def refuse(self, question: str, why: str) -> None:
        """Write down a question whose answer cannot be used."""
        told = (why, f"no usable answer: {why}")
        found = make_evidence(Source.KUBERNETES, question, self._clock(), told, ok=False)
        self.evidence.append(found)

    def note(self, sentence: str) -> None:
        """Add a finding."""
        self.notes.append(short(sentence))

    def miss(self, what: str, error: UnansweredError) -> None:
        """Remember what could not be seen."""
        self.unseen.append(short(f"{what} could not be seen: {error}"))
