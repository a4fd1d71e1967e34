"""What is doubtful about playbooks that can be read: answers never reached, facts never asked for.

Errors are mistakes whatever was meant; warnings are for the author to weigh. Pure but for the
reading of the files.
"""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations
from pathlib import Path
from typing import Final

from tiphys.agents.fact_list import FACTS
from tiphys.agents.fitting import UnfitError, fitting
from tiphys.agents.playbook_file import (
    FACT,
    Act,
    Compiled,
    PlaybookFile,
    PlaybookInvalidError,
)
from tiphys.agents.resolver import CLAIM, WORKLOADS
from tiphys.policies.expression_lint import read_tokens, read_usage
from tiphys.policies.strict_yaml import Path as Place
from tiphys.workflow_templates.catalogue import find
from tiphys.workflow_templates.scale_gpu_pool import KINDS

ROLES: Final[Mapping[str, frozenset[tuple[str, str]]]] = {
    "claim": frozenset({CLAIM}),
    "pod": frozenset({("v1", "Pod")}),
    "workload": frozenset(WORKLOADS.values()),
    "node": frozenset({("v1", "Node")}),
    "pool": frozenset(KINDS),
}
"""The kinds of object that each role may be."""
ALWAYS_READ: Final = {
    "alert", "analysis", "attempts", "events", "namespace", "resolution", "symptoms",
}  # fmt: skip
"""Groups that are never empty."""
COME_WITH: Final[Mapping[str, frozenset[str]]] = {
    "workload": frozenset({"rollout", "pods", "autoscaler", "budget"}),
    "rollout": frozenset({"workload", "pods", "autoscaler", "budget"}),
    "pods": frozenset({"autoscaler", "budget"}),
}
"""Groups that are read wherever another one is."""
_BRACED: Final = re.compile(r"\{([^{}]*)\}")


class Level(StrEnum):
    """How bad a finding is."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong or doubtful."""

    level: Level
    path: str
    line: int
    key: str
    words: str

    def __str__(self) -> str:
        """Give it as one line: file, line, key, what is expected."""
        place = f"{self.path}:{self.line}: " + (f"{self.key}: " if self.key else "")
        return f"{place}{self.level}: {self.words}"


def lint(paths: Sequence[Path]) -> list[Finding]:
    """Read files, or all files of folders, and say what is wrong with them."""
    found: list[Finding] = []
    books: list[Compiled] = []
    for path in paths:
        files = sorted(path.glob("*.y*ml")) if path.is_dir() else [path]
        if not files:
            found.append(Finding(Level.ERROR, str(path), 1, "", "no playbook is in this folder"))
        for file in files:
            try:
                books += PlaybookFile(file).read()
            except PlaybookInvalidError as error:
                found.append(_unreadable(file, str(error)))
    for book in books:
        found += _of_book(book)
    return sorted([*found, *_of_all(books)], key=lambda f: (f.path, f.line, f.key))


def _unreadable(file: Path, said: str) -> Finding:
    """Take file, line and key off the loader's own sentence."""
    line, _, words = said.removeprefix(f"{file}:").partition(": ")
    if not line.isdigit():
        return Finding(Level.ERROR, str(file), 1, "", said)
    keyed = re.match(r"([a-z_]+(?:\.[A-Za-z0-9_]+)*): ", words)
    key = keyed[1] if keyed else ""
    return Finding(Level.ERROR, str(file), int(line), key, words[len(key) + 2 :] if key else words)


def _of_book(book: Compiled) -> Iterator[Finding]:
    yield from _never_reached(book)
    yield from _placeholders(book)
    seen = last = book.book.asked == "last"
    if not last:
        # Where such a one has no answer, or no fact for one, the next one is asked, or a human.
        yield from _unforeseen(book)
        yield from _guards(book)
    for i, answer in enumerate(book.book.answers):
        seen = seen or _seen(answer.when)
        if answer.act is not None:
            yield from _act(book, i, answer.act)
        elif answer.nothing is not None and not seen:
            why = "nothing is done, and no fact beyond the alert itself is asked: say what is seen"
            yield _at(book, Level.WARNING, ("answers", i, "nothing"), why)


def _at(book: Compiled, level: Level, at: Place, words: str) -> Finding:
    return Finding(level, book.where, book.document.line(at), ".".join(map(str, at)), words)


def _plain(condition: str) -> str:
    """Give a condition without what makes no difference."""
    return " ".join(token.text for token in read_tokens(condition))


def _never_reached(book: Compiled) -> Iterator[Finding]:
    before: dict[str, int] = {}
    for i, answer in enumerate(book.book.answers):
        earlier = before.get("true", before.get(_plain(answer.when)))
        if earlier is not None:
            words = f"this answer is never reached: answer {earlier + 1} holds before it"
            yield _at(book, Level.ERROR, ("answers", i), words)
        before.setdefault(_plain(answer.when), i)


def _unforeseen(book: Compiled) -> Iterator[Finding]:
    last = len(book.book.answers) - 1
    if all(_plain(answer.when) != "true" for answer in book.book.answers):
        words = "a last answer without `when` was expected: it says what to do with the unforeseen"
        yield _at(book, Level.ERROR, ("answers", last), words)


# --- facts that may be missing --------------------------------------------------------------------


def _asked(condition: str) -> set[str]:
    """Give the groups of which a condition asks with has()."""
    tokens = read_tokens(condition)
    return {
        tokens[i + 2].text
        for i, token in enumerate(tokens[:-2])
        if token.text == "has" and tokens[i + 1].text == "("
    }


def _refused(condition: str) -> set[str]:
    """Give the groups that are there in all answers after this one: it took those without."""
    parts = [part.strip() for part in condition.split("||")]
    found = (re.fullmatch(r"!\s*has\(\s*([a-z_]+)\.[A-Za-z0-9_.]+\s*\)", part) for part in parts)
    return {match[1] for match in found if match}


def _with(groups: Iterable[str]) -> set[str]:
    named = set(groups)
    return named.union(*(COME_WITH.get(group, frozenset()) for group in named))


def _guards(book: Compiled) -> Iterator[Finding]:
    sure = set(ALWAYS_READ)
    for i, answer in enumerate(book.book.answers):
        here = sure | _with(_asked(answer.when))
        for group in dict.fromkeys(path[0] for path in read_usage(answer.when).paths):
            if group not in here:
                words = (
                    f"the group {group} may be empty, and then this has no answer and a human is "
                    f"told: ask has({group}.…) first"
                )
                yield _at(book, Level.WARNING, ("answers", i, "when"), words)
        sure |= _with(_refused(answer.when))


def _seen(condition: str) -> bool:
    return any(path[0] not in {"alert", "attempts"} for path in read_usage(condition).paths)


# --- actions and words ----------------------------------------------------------------------------


def _act(book: Compiled, i: int, act: Act) -> Iterator[Finding]:
    action, at = find(act.action), ("answers", i, "act")
    if not ROLES[act.target] & set(action.kinds):
        kinds = ", ".join(kind for _, kind in action.kinds)
        words = f"{act.action} works on {kinds}, and a {act.target} is none of these"
        yield _at(book, Level.ERROR, (*at, "target"), words)
    needed = [n for n, field in action.parameters.model_fields.items() if field.is_required()]
    for name in needed:
        if name not in act.parameters:
            yield _at(book, Level.ERROR, at, f"{act.action} needs the parameter {name}")
    plain = not any(isinstance(value, dict) for value in act.parameters.values())
    if plain and set(needed) <= set(act.parameters):
        try:
            fitting(act.action, act.parameters)
        except UnfitError as error:
            yield _at(book, Level.ERROR, (*at, "parameters"), str(error))


def _placeholders(book: Compiled) -> Iterator[Finding]:
    for i, answer in enumerate(book.book.answers):
        for inside in _BRACED.findall(answer.words):
            if not FACT.fullmatch("{" + inside + "}"):
                words = f"{{{inside}}} is no fact and stays as it is{_meant(inside, FACTS)}"
                yield _at(book, Level.ERROR, ("answers", i), words)


def _meant(name: str, among: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(among), n=1)
    return f"; did you mean {{{close[0]}}}?" if close else ""


# --- playbooks together ---------------------------------------------------------------------------


def _of_all(books: Sequence[Compiled]) -> Iterator[Finding]:
    for one, other in combinations(books, 2):
        if one.book.name == other.book.name:
            words = f"{one.book.name} is already in {one.where}"
            yield _at(other, Level.ERROR, ("name",), words)
        asked = {one.book.asked, other.book.asked}
        if "last" in asked or one.book.match.labels != other.book.match.labels:
            continue
        both = _covered_by_both(one, other)
        if both:
            words = f"{', '.join(both)} is covered by {one.book.name} in {one.where} already"
            yield _at(other, Level.ERROR, ("match",), words)


def _covered_by_both(one: Compiled, other: Compiled) -> list[str]:
    """Give the alerts that both name; of two patterns only equal ones can be told."""
    mine, theirs = one.book.match, other.book.match
    if mine.pattern and mine.pattern == theirs.pattern:
        return [mine.pattern]
    found = {name for name in mine.alerts if _names(other, name)}
    return sorted(found | {name for name in theirs.alerts if _names(one, name)})


def _names(book: Compiled, alert: str) -> bool:
    match = book.book.match
    return bool(re.fullmatch(match.pattern, alert)) if match.pattern else alert in match.alerts
