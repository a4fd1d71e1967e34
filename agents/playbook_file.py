"""Reads playbooks from YAML; a mistake is told with its file, line, key and what was expected.

Every action, parameter name, fact path and placeholder is checked when the file is read, so that
none of them can fail for the first time at night.
"""

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, NoReturn

import promql_parser
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from tiphys.agents.fact_list import KNOWN
from tiphys.policies.expressions import (
    Expression,
    ExpressionInvalidError,
    compile_expression,
)
from tiphys.policies.model import ActionName, Json
from tiphys.policies.strict_yaml import Document, YamlUnreadableError, read_yaml
from tiphys.workflow_templates.catalogue import UnknownActionError, find

PLACES: Final = ("namespace", "pod", "deployment", "statefulset", "daemonset", "node", "workload",
                 "workload_pods", "job_name", "persistentvolumeclaim", "instance",
                 "job")  # fmt: skip
"""What `{…}` may name in a query; `workload_pods` goes with `=~`, the others with `=`."""
PLACE: Final = re.compile(r"\{(" + "|".join(PLACES) + r")\}")
_BARE: Final = re.compile(r"\{\s*([A-Za-z_]+)\s*\}")
"""A name alone in braces, which is no PromQL."""
FACT: Final = re.compile(r"\{([a-z_]+(?:\.[a-zA-Z0-9_]+)+)\}")


class PlaybookInvalidError(Exception):
    """A playbook cannot be used; the message gives file, line, key and what was expected."""


class _Part(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", coerce_numbers_to_str=True, use_attribute_docstrings=True
    )


class Match(_Part):
    """Which alerts a playbook is for."""

    alerts: tuple[str, ...] = ()
    """Names, exactly."""
    pattern: str = ""
    """Or a regular expression that the whole name matches."""
    labels: dict[str, str] = {}
    """And labels with regular expressions that their whole values match."""

    @model_validator(mode="after")
    def _complete(self) -> "Match":
        if bool(self.alerts) == bool(self.pattern):
            raise ValueError("either `alerts` or `pattern` is needed")
        for written in (self.pattern, *self.labels.values()):
            try:
                re.compile(written)
            except re.error as error:
                raise ValueError(f"{written!r} is no regular expression: {error}") from None
        return self


class Gather(_Part):
    """One more question for Prometheus; its greatest value becomes `gathered.<name>`."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,40}$")
    query: str = Field(max_length=2_000)


class Act(_Part):
    """One action of the catalogue on one resolved target."""

    action: ActionName
    target: Literal["claim", "pod", "workload", "node", "pool"]
    parameters: dict[str, Json] = {}
    """Plain values, or `{cel: expression}`."""
    reason: str = Field(min_length=1, max_length=1_000)
    next: bool = False
    """It may follow an earlier attempt that did not help."""


class Ruling(_Part):
    """An action that would be tempting where an answer holds, and why it is not right."""

    action: ActionName
    because: str = Field(min_length=1, max_length=300)


class Answer(_Part):
    """What to do where a condition holds; exactly one of `act`, `nothing`, `escalate`."""

    when: str = "true"
    act: Act | None = None
    nothing: str | None = Field(default=None, min_length=1, max_length=1_000)
    escalate: str | None = Field(default=None, min_length=1, max_length=1_000)
    rules_out: tuple[Ruling, ...] = Field(default=(), max_length=6)
    risks: str = Field(default="", max_length=400)
    """What could go wrong with `act`, beyond what the action says of itself."""

    @field_validator("when", mode="before")
    @classmethod
    def _written_plainly(cls, value: object) -> object:
        return str(value).lower() if isinstance(value, bool) else value

    @model_validator(mode="after")
    def _one(self) -> "Answer":
        if sum(x is not None for x in (self.act, self.nothing, self.escalate)) != 1:
            raise ValueError("exactly one of `act`, `nothing` and `escalate` is needed")
        if self.risks and self.act is None:
            raise ValueError("`risks` is for an answer that acts")
        return self

    @property
    def words(self) -> str:
        """The reason, whichever the answer is."""
        return self.act.reason if self.act else (self.nothing or self.escalate or "")


class Playbook(_Part):
    """How one kind of alert is investigated and answered."""

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,80}$")
    version: str = Field(pattern=r"^[0-9A-Za-z.-]{1,20}$")
    match: Match
    asked: Literal["", "last"] = ""
    """`last`: for alerts that no other playbook is for, and where all that is known was retold."""
    gather: tuple[Gather, ...] = ()
    answers: tuple[Answer, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _asks_nothing_last(self) -> "Playbook":
        if self.asked and self.gather:
            raise ValueError(
                "a playbook with `asked: last` has no `gather`; leave one of them out"
            )
        return self


class Compiled:
    """A playbook with its expressions ready to run."""

    def __init__(self, book: Playbook, where: str, document: Document) -> None:
        """Raises `ExpressionInvalidError` with the key in its message."""
        self.book = book
        self.where = where
        """The file it came from."""
        self.document = document
        """What it was read from, with the lines."""
        self.conditions: list[Expression] = []
        self.parameters: list[Mapping[str, Expression | Json]] = []
        self._pattern = re.compile(book.match.pattern) if book.match.pattern else None
        self._labels = {k: re.compile(v) for k, v in book.match.labels.items()}
        for i, answer in enumerate(book.answers):
            place = f"answers.{i}"
            self.conditions.append(
                compile_expression(answer.when, where=f"{place}.when", known=KNOWN)
            )
            given = answer.act.parameters if answer.act else {}
            self.parameters.append(
                {k: _value(v, f"{place}.act.parameters.{k}") for k, v in given.items()}
            )

    def covers(self, labels: Mapping[str, str]) -> bool:
        """Tell whether it is for an alert with these labels."""
        name = labels.get("alertname", "")
        named = self._pattern.fullmatch(name) if self._pattern else name in self.book.match.alerts
        return bool(named) and all(
            pattern.fullmatch(labels.get(key, "")) for key, pattern in self._labels.items()
        )


def _value(value: Json, where: str) -> Expression | Json:
    if isinstance(value, dict) and set(value) == {"cel"}:
        return compile_expression(str(value["cel"]), where=where, known=KNOWN)
    return value


class PlaybookFile:
    """One file with one or more playbooks, each a YAML document."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._document = Document(None, {})

    def read(self) -> list[Compiled]:
        """Give the file's playbooks; raises `PlaybookInvalidError`."""
        try:
            text = self.path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            self._refuse(1, "", f"readable text was expected: {error}")
        documents = [self._parsed(part) for part in _parts(text)]
        found = [document for document in documents if document.value is not None]
        if not found:
            self._refuse(1, "", "a playbook was expected, the file is empty")
        return [self._one(document) for document in found]

    def _parsed(self, text: str) -> Document:
        try:
            return read_yaml(text)
        except YamlUnreadableError as error:
            self._refuse(error.line, "", error.problem)

    def _one(self, document: Document) -> Compiled:
        self._document = document
        try:
            book = Playbook.model_validate(document.value)
        except ValidationError as error:
            # A key that nobody knows explains the one that is missing.
            first = min(
                error.errors(include_url=False), key=lambda e: e["type"] != "extra_forbidden"
            )
            self._refuse_at(first["loc"], first["msg"].removeprefix("Value error, "))
        self._check(book)
        try:
            return Compiled(book, str(self.path), document)
        except ExpressionInvalidError as error:
            key, _, why = str(error).partition(": ")
            self._refuse_at(_split(key), why)

    def _check(self, book: Playbook) -> None:
        for i, answer in enumerate(book.answers):
            if answer.act is not None:
                self._check_act(answer.act, ("answers", i, "act"))
            self._check_words(answer.words, ("answers", i))
            self._check_words(answer.risks, ("answers", i, "risks"))
            for j, ruling in enumerate(answer.rules_out):
                self._check_ruling(ruling, answer, ("answers", i, "rules_out", j))
        for i, gather in enumerate(book.gather):
            filled = PLACE.sub('"x"', gather.query)
            for name in _BARE.findall(filled):
                close = difflib.get_close_matches(name, PLACES, n=1)
                meant = f"; did you mean {{{close[0]}}}?" if close else ""
                self._refuse_at(("gather", i, "query"), f"{{{name}}} names nothing{meant}")
            try:
                promql_parser.parse(filled)
            except ValueError as error:
                self._refuse_at(("gather", i, "query"), f"PromQL was expected: {error}")

    def _check_words(self, words: str, at: tuple[str | int, ...]) -> None:
        for path in FACT.findall(words):
            if not any(_known(path, entry) for entry in KNOWN):
                self._refuse_at(at, f"the reason names {path}, which is no fact")

    def _check_ruling(self, ruling: Ruling, answer: Answer, at: tuple[str | int, ...]) -> None:
        try:
            find(ruling.action)
        except UnknownActionError as error:
            self._refuse_at((*at, "action"), f"an action of the catalogue was expected: {error}")
        if answer.act is not None and answer.act.action == ruling.action:
            self._refuse_at((*at, "action"), f"{ruling.action} is what the answer does")
        self._check_words(ruling.because, (*at, "because"))

    def _check_act(self, act: Act, at: tuple[str | int, ...]) -> None:
        try:
            action = find(act.action)
        except UnknownActionError as error:
            self._refuse_at((*at, "action"), f"an action of the catalogue was expected: {error}")
        known = set(action.parameters.model_fields)
        for name in act.parameters:
            if name not in known:
                listed = ", ".join(sorted(known)) or "none"
                expected = f"{act.action} has no parameter {name}; it has {listed}"
                self._refuse_at((*at, "parameters", name), expected)

    def _refuse_at(self, path: tuple[str | int, ...], expected: str) -> NoReturn:
        self._refuse(self._document.line(path), ".".join(map(str, path)), expected)

    def _refuse(self, line: int, key: str, expected: str) -> NoReturn:
        place = f"{self.path}:{line}: " + (f"{key}: " if key else "")
        raise PlaybookInvalidError(place + expected)


def _parts(text: str) -> list[str]:
    """Split a file at its `---` lines; blank lines in front keep the numbers of the lines right."""
    parts: list[list[str]] = [[]]
    for number, line in enumerate(text.splitlines()):
        if line.rstrip() == "---":
            parts.append([""] * (number + 1))
        else:
            parts[-1].append(line)
    return ["\n".join(part) for part in parts]


def _known(path: str, entry: str) -> bool:
    return path == entry or (entry.endswith("*") and path.startswith(entry[:-1]))


def _split(key: str) -> tuple[str | int, ...]:
    return tuple(int(p) if p.isdigit() else p for p in key.split("."))
