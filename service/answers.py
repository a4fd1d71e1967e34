"""Answers to a question about an incident: sentences of its evidence, each with its id, or none.

Pure and deterministic: no model, nothing is made up, and the same question gets the same answer.
Invariants: every sentence is cited from the evidence as it stands there; where none fits, that is
the answer; secrets are hidden as they are from models.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from tiphys.agents.redact import redact
from tiphys.policies.model import Evidence, Json, Noun

MAX_QUESTION: Final = 500
MOST: Final = 4
"""Sentences of one answer."""
_LONGEST: Final = 400
_LINES: Final = 400
"""Sentences that are looked at in one piece of evidence."""
_FITS: Final = 0.34
"""The share of what the question asks for, by rarity, that a sentence must speak of."""
_UNKNOWN: Final = 2.0
"""What a word counts for that the evidence does not know at all."""
_WORD: Final = re.compile(r"[a-z0-9]+")
_COMMON_WORDS: Final = (
    "a about after all an and any are as at be because been before being but by can could "
    "did do does done for from go going had happen happened happening has have how i if "
    "in into is it its just know me my no not of on or our out please say says show since "
    "so tell than that the their them then there these they this those to up us was we "
    "many much often were what when where which while who why will with would you your"
)
_COMMON: Final = frozenset(_COMMON_WORDS.split())
_SAME: Final = {
    "ram": "memory", "mem": "memory", "oom": "memory", "oomkilled": "memory", "disk": "volume",
    "storage": "volume", "pvc": "volume", "crashloopbackoff": "crash", "crashes": "crash",
    "crashed": "crash", "crashing": "crash", "restarts": "restart", "restarted": "restart",
    "latency": "slow", "error": "fail", "failure": "fail", "failed": "fail", "deployed": "rollout",
    "deploy": "rollout", "deployment": "deployment", "release": "rollout", "image": "image",
}  # fmt: skip


class Cited(Noun):
    """One sentence and where it is from."""

    evidence: str
    """The evidence's id."""
    sentence: str
    question: str
    """What was asked of the outside to learn it."""
    source: str


class Answer(Noun):
    """What the evidence says; nothing, where it says nothing of it."""

    question: str
    found: tuple[Cited, ...]

    @property
    def nothing(self) -> str:
        """Say plainly that there is no answer."""
        return "Nothing in this incident's evidence speaks of that."


def answer(evidence: Sequence[Evidence], question: str) -> Answer:
    """Find the sentences that fit a question's words best, the best first."""
    asked = question[:MAX_QUESTION]
    wanted = _terms(asked)
    sentences = [(item, line) for item in evidence for line in _sentences(item)]
    if not wanted or not sentences:
        return Answer(question=asked, found=())
    rarity = _rarity([_terms(line) | _terms(item.question) for item, line in sentences])
    whole = sum(rarity(term) for term in wanted)
    marks: list[tuple[float, int]] = []
    for place, (item, line) in enumerate(sentences):
        own, context = _terms(line), _terms(item.question)
        # What the sentence itself says counts in full, what it was asked with for half.
        mark = sum(rarity(t) * (1.0 if t in own else 0.5) for t in wanted & (own | context))
        if wanted & own and mark >= _FITS * whole:
            marks.append((-mark, place))
    best = [sentences[place] for _, place in sorted(marks)]
    return Answer(question=asked, found=tuple(_cited(best)))


def _cited(best: list[tuple[Evidence, str]]) -> Iterator[Cited]:
    seen: set[str] = set()
    for item, line in best:
        if line not in seen and len(seen) < MOST:
            seen.add(line)
            asked = redact(item.question)[:_LONGEST]
            yield Cited(evidence=item.id, sentence=line, question=asked, source=item.source)


def _sentences(item: Evidence) -> Iterator[str]:
    """Give a summary's sentences, then the lines of the answer itself."""
    found = [*re.split(r"(?<=[.;!?])\s+", item.summary), *_lines("", item.answer)]
    for line in found[:_LINES]:
        words = " ".join(redact(line).split())
        if words:
            yield words if len(words) <= _LONGEST else words[: _LONGEST - 1] + "…"


def _lines(place: str, value: Json, depth: int = 0) -> Iterator[str]:
    """Give every leaf of an answer with its place, such as `status.phase: Failed`."""
    if depth > 8:
        return
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _lines(f"{place}.{key}" if place else str(key), item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            yield from _lines(place, item, depth + 1)
    elif value is not None and value != "":
        for line in str(value).splitlines():
            yield f"{place}: {line}" if place else line


def _terms(text: str) -> frozenset[str]:
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", text).lower()
    return frozenset(_stem(word) for word in _WORD.findall(spaced) if word not in _COMMON)


def _stem(word: str) -> str:
    """Bring a word to what its forms share; crude, and the same for question and evidence."""
    if word in _SAME:
        return _SAME[word]
    for end in ("ing", "ed", "es", "s"):
        if word.endswith(end) and len(word) - len(end) >= 3:
            return _SAME.get(word[: -len(end)], word[: -len(end)])
    return word


class _rarity:  # noqa: N801 - used as a function
    """How much a term tells: much, where few sentences have it."""

    def __init__(self, sentences: Sequence[frozenset[str]]) -> None:
        self._counts = Counter(term for terms in sentences for term in terms)
        self._total = len(sentences)

    def __call__(self, term: str) -> float:
        if term not in self._counts:  # nobody can say how much it would tell
            return _UNKNOWN
        return 1.0 + math.log((self._total + 1) / (self._counts[term] + 1))
