"""Puts the times of retold evidence in order: which changes came before the trouble."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tiphys.service.evaluation.retold.words import Item, Statement, read_item

_CLOCK: Final = re.compile(r"(?<![\d:.])([01]?\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?(?![\d:])")
_LISTS: Final = re.compile(
    r"(?<!get )(?<!,)\bdeploys?\b(?!/)|deployments? log|\bflags?\b|\bchanges?\b|rollout|commit"
    r"|\breleases?\b|audit|revision|\bdiff\b|calendar|history"
)
_FIRST: Final = re.compile(r"(?::\d\d)?[ ]([a-z][a-z0-9-]{1,40})(?![a-z0-9-])")
_UNTIL: Final = re.compile(r"\b(?:until|till|before|since)[ ]\Z")
_SERVICE: Final = re.compile(
    r"\b([a-z0-9-]{0,40}service)\b"
    r"|^\d+:\d+(?::\d+)?[ ]([a-z][a-z0-9]*(?:-[a-z0-9]+)*)(?=,| deployed| rolled| planned| \(|:)"
)
_WINDOW: Final = re.compile(
    r"(?<![\d:.])([01]?\d|2[0-3]):([0-5]\d) ?(?:-|to|until|till|and) ?([01]?\d|2[0-3]):([0-5]\d)"
)
_ANNOUNCED: Final = re.compile(
    r"maintenance|window|calendar|planned|scheduled|announce|game ?day|drill|experiment|exercise"
    r"|load test|upgrade|patch|chaos|backup|migration|batch|freeze"
)
_NOW: Final = re.compile(
    r"(?:\bnow|\bit is|\btime is|\bcurrently)(?: now)?,?:? ([01]?\d|2[0-3]):([0-5]\d)"
)
_PLANNED: Final = re.compile(r"calendar|schedule|maintenance|announce")
_INNOCENT: Final = {"unrelated", "t_innocent"}
NEAR: Final = 15.0
"""Minutes between a change and the trouble that it began."""


@dataclass(frozen=True)
class Changed:
    """One change with a time of day."""

    at: float
    """Minutes since midnight."""
    config: bool
    unrelated: bool
    own: bool
    """It may be the alert's own workload's; false where another is named."""


def marks_of(items: Sequence[Item], subject: str) -> set[str]:
    """Give what the order of times says; `subject` is the alert's own workload."""
    changes = [c for item in items if is_list(item) for c in _changes(item, subject)]
    began = [at for item in items if not is_list(item) for at in _onsets(item)]
    if not changes or not began:
        return set()
    onset = min(began)
    near = [c for c in changes if 0 <= onset - c.at <= NEAR]
    suspects = [c for c in near if not c.unrelated]
    # Another workload's change is looked at where the alert's own has none.
    suspects = [c for c in suspects if c.own] or suspects
    later = [c for c in changes if c.at > onset and c.own and not c.config]
    if not suspects:
        return {"#onset_apart"}
    if len(suspects) > 1:
        return {"#several_near"}
    (one,) = suspects
    found = {"#onset_near_config" if one.config else "#onset_near_release"}
    # The newest revision is what an undo would take back, whatever it is about.
    between = [c for c in near if c is not one and c.at > one.at and c.own and not c.config]
    if not one.config and (not one.own or later or between):
        found.add("#later_release")
    return found


def window_marks(items: Sequence[Item]) -> set[str]:
    """Tell whether work was announced for a time, and whether that time is now.

    Without a word on what time it is, a trouble that began within the window counts.
    """
    found: set[str] = set()
    for item in items:
        text = f"{item.question} {item.answer}"
        for window in _WINDOW.finditer(item.answer):
            if not _ANNOUNCED.search(text):
                continue
            first, last = (int(window[n]) * 60 + int(window[n + 1]) for n in (1, 3))
            found.add("#window")
            every = " ".join(i.answer for i in items)
            now = [int(m[1]) * 60 + int(m[2]) for m in _NOW.finditer(every)]
            began = [] if now else [at for i in items if i is not item for at in _onsets(i)]
            if any(_within(at, first, last) for at in now or began):
                found.add("#in_window")
                for statement in item.statements:
                    statement.said.add("#in_window")
            elif now:
                found.add("#window_past")
    return found


def _within(at: float, first: float, last: float) -> bool:
    return first <= at <= last if first <= last else at >= first or at <= last


def newest_release(items: Sequence[Item], subject: str) -> str:
    """Give the time of day of the workload's newest release, or nothing."""
    changes = [c for item in items if is_list(item) for c in _changes(item, subject)]
    times = [c.at for c in changes if c.own and not c.config]
    return f"{int(max(times)) // 60:02d}:{int(max(times)) % 60:02d}" if times else ""


def is_list(item: Item) -> bool:
    """Tell whether an item lists changes with their times."""
    return bool(_LISTS.search(item.question)) and bool(_CLOCK.search(item.answer))


def _changes(item: Item, subject: str) -> list[Changed]:
    return [change for _, change in changes_of(item, subject)]


def changes_of(item: Item, subject: str) -> list[tuple[str, Changed]]:
    """Give each change that an item lists, with its words."""
    found: list[tuple[str, Changed]] = []
    # `healthy until 11:38` tells of no change.
    every = list(_CLOCK.finditer(item.answer))
    # `10:20 shop new button; 10:40 edge ttl`: entries begin with the workload's name.
    firsts = [_FIRST.match(item.answer, place.end()) for place in every]
    by_name = any(first and first[1] == subject for first in firsts)
    places = [place for place in every if not _UNTIL.search(item.answer, 0, place.start())]
    for place, following in zip(places, [*places[1:], None], strict=False):
        end = following.start() if following else len(item.answer)
        words = item.answer[place.start() : end]
        said = read_item("", item.question, words)
        words_say = {c for s in said.statements for c in s.said}
        about = words_say | said.topic
        config = "config" in about and "release" not in about
        if _PLANNED.search(item.question) and not about & {"config", "release"}:
            continue
        first = _FIRST.match(item.answer, place.end())
        others = by_name and first is not None and first[1] != subject
        named = {n for pair in _SERVICE.findall(words) for n in pair if n and n != subject}
        own = not (named or others) or bool(
            subject and (subject in words or subject in item.question)
        )
        found.append((words, Changed(_minutes(place), config, bool(_INNOCENT & words_say), own)))
    return found


def times_of(text: str) -> list[float]:
    """Give the times of day that a text names, in minutes since midnight."""
    return [_minutes(place) for place in _CLOCK.finditer(text)]


def _onsets(item: Item) -> list[float]:
    return [at for s in item.statements if (at := _onset(s)) is not None]


def _onset(statement: Statement) -> float | None:
    if {"healthy_now", "within_objective", "on_purpose"} & statement.said:
        return None
    places = list(_CLOCK.finditer(statement.text))
    return _minutes(places[0]) if places else None


def _minutes(place: re.Match[str]) -> float:
    return int(place[1]) * 60 + int(place[2]) + int(place[3] or 0) / 60
