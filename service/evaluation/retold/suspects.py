"""Tells which change retold evidence suspects: by a time that trouble shares, or by its words."""

import re
from collections.abc import Sequence
from functools import cache
from typing import Final

from tiphys.service.evaluation.retold.numbers import minutes
from tiphys.service.evaluation.retold.timeline import changes_of, is_list, times_of
from tiphys.service.evaluation.retold.words import Item, Statement, table

_CHANGE: Final = frozenset({"changed", "t_set", "release", "t_release", "rotated"})
_TROUBLE: Final = frozenset({"trouble", "#rises", "hurting", "answers_errors", "code_fault"})
_RIGHT: Final = frozenset({"mended", "rotated", "t_source_right", "t_recreated"})
_LOADED: Final = re.compile(
    r"\b(?:pods?|process\w*|containers?|replicas?|loaded|read|(?:re)?started|created|running|uptime"
    r"|ages?|old)\b"
)
_TOLD: Final = {
    "an hour ago": 60.0, "today": 360.0, "this morning": 360.0, "yesterday": 1440.0,
    "last night": 720.0, "a week ago": 10080.0, "last week": 10080.0, "last month": 43200.0,
    "a month ago": 43200.0, "last monday": 2880.0, "last tuesday": 2880.0, "last wednesday": 2880.0,
    "last thursday": 2880.0, "last friday": 2880.0, "last saturday": 2880.0, "last sunday": 2880.0,
    "this week": 2880.0, "minutes ago": 10.0, "a minute ago": 1.0,
}  # fmt: skip
"""Ages in words, in minutes."""
_MEETS: Final = 3.0
"""Minutes from a change until the trouble that is told of the same time."""
_WORD: Final = re.compile(r"[a-z]{5,24}")


@cache
def _everyday() -> frozenset[str]:
    return frozenset(table("tellings.yaml")["everyday"].split())


def marks_of(items: Sequence[Item], subject: str) -> set[str]:
    """Give what times and words say together of the changes that are told."""
    return _meets(items) | _shares(items, subject) | _loaded_before(items)


def _loaded_before(items: Sequence[Item]) -> set[str]:
    """Tell whether pods are older than what was put right or not, by times or by ages."""
    every = [s for item in items for s in item.statements]
    right = [s for s in every if s.said & _RIGHT]
    loaded = [s for s in every if s not in right and _LOADED.search(s.text)]
    # `changed 09:58, put back 10:20`: the last of the times is the repair's.
    clocks = [at for s in right for at in times_of(s.text)[-1:]]
    ages = [age for s in right for age in _ages(s.text)]
    since = [at for s in loaded for at in times_of(s.text)]
    old = [age for s in loaded for age in _ages(s.text)]
    found: set[str] = set()
    if (clocks and since and min(since) < max(clocks)) or (
        ages and old and max(old) > 1.2 * min(ages)
    ):
        found.add("#loaded_before")
    elif (clocks and since) or (ages and old):
        found.add("#loaded_after")
    return found


def _ages(text: str) -> list[float]:
    return minutes(text) + [age for word, age in _TOLD.items() if word in text]


def _meets(items: Sequence[Item]) -> set[str]:
    every = [(item, s) for item in items for s in item.statements]
    changes = [(i, s) for i, s in every if s.said & _CHANGE and not _innocent(s)]
    troubled = {at for _, s in every if s.said & _TROUBLE for at in times_of(s.text)}
    found: set[str] = set()
    for item, statement in changes:
        near = [
            at for at in times_of(statement.text) if any(0 <= t - at <= _MEETS for t in troubled)
        ]
        if not near or (statement.said & _TROUBLE and len(troubled) == 1 and len(near) == 1):
            continue
        said = statement.said | item.topic
        found.add("#meets_config" if said & {"config"} else "#meets_release")
    return found if len(found) == 1 else set()


def _innocent(statement: Statement) -> bool:
    return bool(statement.said & {"unrelated", "t_innocent", "healthy_now", "within_objective"})


def _shares(items: Sequence[Item], subject: str) -> set[str]:
    """Tell whether one change of the workload's own is in the words of what is wrong."""
    told = {
        word
        for item in items
        if not is_list(item)
        for s in item.statements
        for word in _words(s.text, subject)
    }
    counted: list[tuple[int, bool]] = []
    for item in (i for i in items if is_list(i)):
        for words, change in changes_of(item, subject):
            if not change.unrelated:
                shared = {w for w in _words(words, subject) if any(_akin(w, t) for t in told)}
                counted.append((len(shared), change.own and not change.config))
    best = max(counted, default=(0, False))
    alone = sum(number > 0 for number, _ in counted) == 1
    return {"#shares_words"} if best[0] > 0 and best[1] and alone else set()


def _words(text: str, subject: str) -> set[str]:
    found = {w for w in _WORD.findall(text) if w not in _everyday()}
    return {w for w in found if w not in subject and subject not in w} if subject else found


def _akin(one: str, other: str) -> bool:
    return one == other or (
        min(len(one), len(other)) >= 6 and (one.startswith(other[:6]) and other.startswith(one[:6]))
    )
