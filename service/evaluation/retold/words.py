"""Finds in retold evidence what is said and what is denied, by a lexicon of phrases.

Invariants: a denied phrase is never taken for a said one; every pattern's time grows with the
length of the text only, and that is bounded.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, Final

import yaml

_SUBJECT: Final = 60
"""Characters of a question that is read together with its answer."""
MAX_ANSWER: Final = 20_000
"""Characters of one answer that are read."""
_ENDS: Final = re.compile(
    r"[;\n|]|(?<=[a-z0-9)%\"'])[.!?](?=\s|$)|,? (?:but|whereas|although|though|yet) |, while |\. "
)
_NEGATORS: Final = re.compile(
    r"\b(?:no|not|none|never|without|neither|nor|nothing|nobody|cannot|isn't|wasn't|aren't)\b"
)
_REACH: Final = 4
"""Words between a denial and what it denies."""
_DENIED_AFTER: Final = re.compile(
    r"(?::|=|,)?[ ]?(?:(?:is|are|was|were|stays?|at|has|have)[ ]){0,2}"
    r"(?:0|none|absent|false|inactive|ruled out|no(?! \w)"
    r"|not (?:seen|there|found|involved|active|present))"
    r"(?![\w./:-]|\s*(?:/|->|to\b|min|s\b|h\b|%))"
    r"|[ ]\w{1,15}[:=][ ]?(?:not active|inactive|false|none|no|0)(?![\w.])"
)
_NONE_OF_IT: Final = re.compile(
    r"(?:there (?:is|are|was|were) )?"
    r"(?:none|nothing|no|no one|empty|no resources found|0|<none>|\[\])"
    r"(?: (?:at all|today|here|there|so far|found|configured|defined|in the last .{1,20}"
    r"|this week|for (?:days|weeks|months|a week|a month)))?"
)
_PLAIN: Final = (
    ("\u2019", "'"), ("\u2013", "-"), ("\u2014", "-"), ("\u2192", " to "), ("->", " to "),
    ("can't", "can not"), ("cannot", "can not"), ("won't", "will not"), ("n't", " not"),
    ("\u201c", '"'), ("\u201d", '"'), ("per cent", "%"), ("percent", "%"), (" minutes", " min"),
    (" mins", " min"), ("behaviour", "behavior"), ("utilisation", "utilization"),
    ("unauthorised", "unauthorized"), (" midday", " 12:00"), (" noon", " 12:00"),
    (" midnight", " 00:00"),
)  # fmt: skip


def plain(words: str) -> str:
    """Write a text in one way: lower case, one kind of quote, denials in full."""
    found = words[:MAX_ANSWER].lower()
    for old, new in _PLAIN:
        found = found.replace(old, new)
    return found


def pattern(phrase: str) -> str:
    """Turn a phrase of the lexicon into a regular expression of bounded repeats."""
    parts = [
        r"[\s_/\-=:\"']{1,4}".join(map(_word, gap.split())) for gap in plain(phrase).split(" .. ")
    ]
    body = r"\W{1,3}(?:[\w./:%'-]{1,40}\W{1,3}){0,4}?".join(parts)
    front = r"(?<![a-z0-9])" if body[:1].isalnum() or body[:1] in "[(\\" else ""
    return front + body + r"(?![a-z0-9])"


def _word(word: str) -> str:
    """Write one word of a phrase, or any of `a|b`."""
    each = [
        re.escape(one).replace(r"\*", r"\w{0,24}").replace(r"\#", r"[\d][\d.,]{0,12}")
        for one in word.split("|")
    ]
    return each[0] if len(each) == 1 else f"(?:{'|'.join(each)})"


_TOKEN: Final = re.compile(r"[a-z0-9]+")


def _key(token: str) -> str:
    return token[:3]


class Lexicon:
    """Phrases by concept, compiled; each is tried only where a word of it may be in the text."""

    def __init__(self, concepts: Mapping[str, str]) -> None:
        self._always: list[tuple[str, re.Pattern[str]]] = []
        self._by_key: defaultdict[str, list[tuple[str, re.Pattern[str]]]] = defaultdict(list)
        for name, phrases in concepts.items():
            for phrase in (p.strip() for p in phrases.split(",")):
                if phrase:
                    self._add(name, phrase)

    def _add(self, name: str, phrase: str) -> None:
        one = (name, re.compile(pattern(phrase)))
        # Tried only where a word stands of which every spelling is long enough to look for.
        each = [
            [max(_TOKEN.findall(one), key=len, default="") for one in word.split("|")]
            for word in plain(phrase).split()
            if "#" not in word
        ]
        best = max(each, key=lambda spellings: min(map(len, spellings)), default=[""])
        if min(map(len, best)) >= 3:
            for key in {_key(t) for t in best}:
                self._by_key[key].append(one)
        else:
            self._always.append(one)

    def find(self, text: str) -> Iterator[tuple[str, re.Match[str]]]:
        """Give each concept with the place of each phrase of it."""
        tried = list(self._always)
        for key in {_key(t) for t in _TOKEN.findall(text)}:
            tried += self._by_key.get(key, ())
        for name, compiled in tried:
            for match in compiled.finditer(text):
                yield name, match


@cache
def lexicon() -> Lexicon:
    """Give the concepts of the tables beside this module."""
    return Lexicon({**table("lexicon.yaml")["concepts"], **table("tellings.yaml")["concepts"]})


@cache
def table(name: str) -> Any:
    """Read a table beside this module."""
    return yaml.safe_load((files(__package__ or "") / name).read_text(encoding="utf-8"))


@dataclass
class Statement:
    """One sentence or clause."""

    text: str
    said: set[str] = field(default_factory=set[str])
    denied: set[str] = field(default_factory=set[str])


@dataclass
class Item:
    """One question of a case with its answer."""

    kind: str
    question: str
    answer: str
    statements: Sequence[Statement]
    topic: set[str]
    """Concepts that the question names."""

    @property
    def said(self) -> set[str]:
        """Everything said anywhere in the answer, or asked about."""
        return self.topic.union(*(s.said for s in self.statements))


def read_item(
    kind: str, question: str, answer: str, names: Mapping[str, str] | None = None
) -> Item:
    """Read one question and its answer; `names` are written as what they name."""
    asked, said = (_named(plain(text), names or {}) for text in (question, answer))
    statements = [_statement(part) for part in _parts(said)]
    topic = _statement(asked).said
    if statements and _NONE_OF_IT.fullmatch(statements[0].text):
        # `get hpa`: `none` denies what the question asks for.
        statements[0].denied |= topic
        topic = set()
    elif len(asked) <= _SUBJECT:
        for one in statements:
            _with_question(asked, one)
    return Item(kind, asked, said, statements, topic)


def _with_question(asked: str, statement: Statement) -> None:
    """Add what only question and statement say together: `other nodes`: `connected`."""
    text = f"{asked}: {statement.text}"
    border = len(asked)
    for name, match in lexicon().find(text):
        if match.start() < border < match.end():
            denied = _is_denied(text, match.start(), match.end())
            (statement.denied if denied else statement.said).add(name)


def _named(text: str, names: Mapping[str, str]) -> str:
    for name, role in names.items():
        plain_name = name.lower()
        text = re.sub(rf"(?<![\w-]){re.escape(plain_name)}(?![\w-])", f"this {role}", text)
        # `main-1` for `prometheus-main-1`, and with it `main-0`.
        short = re.search(r"-([a-z]{3,20}-)\d+$", plain_name)
        if short and role == "pod":
            own = plain_name[short.start() + 1 :]
            text = re.sub(rf"(?<![\w-]){re.escape(own)}(?![\w-])", f"this {role}", text)
            text = re.sub(rf"(?<![\w-]){short[1]}\d+(?![\w-])", f"other {role}", text)
        # `gpu-12` beside `gpu-7`, `db-1` beside `db-0`: others of its kind.
        front = re.match(r"[a-z][a-z0-9.-]*?-(?=[a-z]{0,3}\d+$)", plain_name)
        if front:
            alike = rf"(?<![\w-]){re.escape(front[0])}[a-z]{{0,3}}\d+(?![\w-])"
            text = re.sub(alike, f"other {role}", text)
    return text


def _parts(answer: str) -> Iterable[str]:
    return [part.strip() for part in _ENDS.split(answer) if part and part.strip()]


def _statement(text: str) -> Statement:
    found = Statement(text)
    for name, match in lexicon().find(text):
        denied = _is_denied(text, match.start(), match.end())
        (found.denied if denied else found.said).add(name)
    return found


def _is_denied(text: str, start: int, end: int) -> bool:
    """Tell whether a denial reaches a phrase; one that is part of the phrase does not count."""
    before = text[max(0, start - 60) : start]
    nearest = max((m.end() for m in _NEGATORS.finditer(before)), default=None)
    if nearest is not None:
        between = before[nearest:]
        # `no Xid 48, 63`: a list goes on right after the comma, a clause begins with more.
        rest = between.rpartition(",")[2].split()
        verb = re.search(r"\b(?:is|are|was|were|has|have)\b", between)
        listed = "," in between and not verb and len(rest) <= 1 and rest != ["the"]
        if len(between.split()) <= _REACH and ("," not in between or listed):
            return True
    return bool(_DENIED_AFTER.match(text, end))
