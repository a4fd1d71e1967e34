"""From a policy file to a `Policy`, or to every sentence that says what is wrong with it.

Invariants: a policy is read whole or not at all; what is not understood is refused, never skipped;
a policy whose own tests fail is not used.
"""

import difflib
import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NoReturn

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from tiphys.policies import strict_yaml
from tiphys.policies.approval import Autonomy
from tiphys.policies.custom import CustomEntry, CustomRule
from tiphys.policies.expressions import Expression, ExpressionInvalidError
from tiphys.policies.freeze import FreezeWindows
from tiphys.policies.gate import RULES
from tiphys.policies.model import Json, Noun
from tiphys.policies.ownership import RolloutInProgress
from tiphys.policies.policy import ApprovalLimits, Attempts, Deadlines, Policy, Verification
from tiphys.policies.policy_cases import (
    MAX_CASES,
    MAX_REQUEST,
    CaseEntry,
    CaseResult,
    PolicyCase,
    case_of,
    unknown_rules,
)
from tiphys.policies.rule import Rule, RuleName

FORMAT: Final = "tiphys/policy/v1"
MAX_CUSTOM: Final = 200
MAX_COST: Final = 5_000_000
"""Steps that all expressions of a policy may take together, about a second: a rule with a loop
takes some 1,000, one with a loop inside a loop some 100,000."""

_WORDING: Final = {
    "Input should have timezone info": "expected a time with its zone, such as Z",
    "Input should be a valid integer": "expected a whole number",
    "Input should be a valid number": "expected a number",
    "Input should be a valid string": "expected text",
    "Input should be an object": "expected keys and values",
    "Input should be less": "expected a number less",
    "Input should be greater": "expected a number greater",
    "Input should be": "expected",
    "String should match pattern": "expected text that matches",
}
"""pydantic's sentences in ours; the first that fits counts."""

_Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]


class PolicyUnreadableError(Exception):
    """The policy cannot be used; each problem says file, line, key and what was expected."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


def _number_as_text(version: object) -> object:
    return str(version) if type(version) is int else version


class _File(Noun):
    format: Literal["tiphys/policy/v1"]
    name: _Name
    version: Annotated[str, BeforeValidator(_number_as_text), Field(min_length=1, max_length=64)]
    rules: dict[str, Json] = {}
    custom: Annotated[tuple[Json, ...], Field(max_length=MAX_CUSTOM)] = ()
    tests: Annotated[tuple[Json, ...], Field(max_length=MAX_CASES)] = ()
    verification: Verification = Verification()
    approval: ApprovalLimits = ApprovalLimits()
    deadlines: Deadlines = Deadlines()
    attempts: Attempts = Attempts()


@dataclass(frozen=True)
class PolicyFile:
    """What a file says: a policy, and the tests that it must pass before it is used."""

    name: str
    """The file's, for messages."""
    policy: Policy
    cases: tuple[PolicyCase, ...]
    lines: tuple[int, ...]
    """Where each case stands."""

    def results(self, around: Callable[[datetime], Policy] | None = None) -> list[CaseResult]:
        """Run every case.

        `around` gives the policy with its calendars for the time that a case names. One that names
        none, and every one without `around`, is judged as if no calendar had an event.
        """
        freeze = FreezeWindows(windows=self.policy.rule(FreezeWindows).windows)
        alone = replace(self.policy, settings={**self.policy.settings, freeze.name: freeze})
        return [
            case.run(around(case.at) if around and case.timed else alone) for case in self.cases
        ]

    def tested(self, around: Callable[[datetime], Policy] | None = None) -> Policy:
        """Give the policy; raises `PolicyUnreadableError` where a test of its own fails."""
        results = self.results(around)
        problems = [
            f"{self.name}:{line}: tests[{at}]: the test {result.name} fails: {fault}"
            for at, (line, result) in enumerate(zip(self.lines, results, strict=True))
            for fault in result.faults
        ]
        if problems:
            raise PolicyUnreadableError(problems)
        return self.policy


def load(path: Path | Traversable, *, actions: Collection[str] | None = None) -> Policy:
    """Read a policy file and run its tests; see `parse`."""
    return load_untested(path, actions=actions).tested()


def load_untested(
    path: Path | Traversable, *, actions: Collection[str] | None = None
) -> PolicyFile:
    """Read a policy file, the one thing in here that touches a disk; see `read`."""
    name = path.name
    try:
        with path.open("rb") as file:
            data = file.read(strict_yaml.MAX_BYTES + 1)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise PolicyUnreadableError([f"{path}: cannot be read: {why}"]) from error
    if len(data) > strict_yaml.MAX_BYTES:
        raise PolicyUnreadableError([f"{name}: at most {strict_yaml.MAX_BYTES} bytes may be"])
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise PolicyUnreadableError([f"{name}:{line}: is not UTF-8 text"]) from error
    return read(text, name, actions=actions)


def built_in_text(which: Literal["default", "demo"]) -> str:
    """Give the text of a policy that ships with Tiphys."""
    return (files("tiphys.policies") / f"{which}.yaml").read_text(encoding="utf-8")


def built_in(which: Literal["default", "demo"] = "default") -> Policy:
    """Give a policy that ships with Tiphys: `default` only suggests, `demo` is the demo's own."""
    return load(files("tiphys.policies") / f"{which}.yaml")


def parse(text: str, name: str, *, actions: Collection[str] | None = None) -> Policy:
    """Read a policy and run its tests; raises `PolicyUnreadableError`; see `read`."""
    return read(text, name, actions=actions).tested()


def read(text: str, name: str, *, actions: Collection[str] | None = None) -> PolicyFile:
    """Read a policy; raises `PolicyUnreadableError` with every problem that was found.

    `name` is the file's name for messages. `actions`, the catalogue's names: when given, a policy
    that names any other action is refused.
    """
    try:
        document = strict_yaml.read_yaml(text)
    except strict_yaml.YamlUnreadableError as error:
        raise PolicyUnreadableError([f"{name}:{error.line}: {error.problem}"]) from error
    return _Reader(document, name, actions).read(hashlib.sha256(text.encode()).hexdigest())


class _Reader:
    """Collects the problems of one document."""

    def __init__(
        self, document: strict_yaml.Document, name: str, actions: Collection[str] | None
    ) -> None:
        self._document = document
        self._name = name
        self._actions = actions
        self._problems: list[tuple[int, str]] = []

    def read(self, sha256: str) -> PolicyFile:
        """Give the policy, or raise all problems in the order of their lines."""
        file: _File | None = self._validate(TypeAdapter(_File), self._document.value, ())
        settings = self._settings(self._document.value)
        custom = self._custom(self._document.value)
        if self._problems or file is None:
            self._refuse()
        policy = Policy(
            name=file.name,
            version=str(file.version),
            sha256=sha256,
            settings=settings,
            custom=custom,
            verification=file.verification,
            approval=file.approval,
            deadlines=file.deadlines,
            attempts=file.attempts,
        )
        cases = tuple(self._cases(file.tests, policy))
        if self._problems:
            self._refuse()
        lines = tuple(self._document.line(("tests", at)) for at in range(len(cases)))
        return PolicyFile(self._name, policy, cases, lines)

    def _refuse(self) -> NoReturn:
        raise PolicyUnreadableError(text for _, text in sorted(self._problems))

    def _settings(self, whole: Json) -> dict[RuleName, Rule]:
        given = whole.get("rules") if isinstance(whole, dict) else None
        kinds = {str(kind.name): kind for kind in RULES}
        settings: dict[RuleName, Rule] = {}
        for key, value in (given if isinstance(given, dict) else {}).items():
            path = ("rules", key)
            if key not in kinds:
                self._complain(path, f"there is no such rule{_meant(key, kinds)}")
                continue
            kind = kinds[key]
            # A rule that is named with nothing below it keeps its defaults.
            rule = self._validate(TypeAdapter(kind), {} if value is None else value, path)
            if rule is not None:
                settings[kind.name] = rule
                self._check_actions(rule, path)
        return settings

    def _check_actions(self, rule: Rule, path: strict_yaml.Path) -> None:
        if self._actions is None:
            return
        named: list[tuple[strict_yaml.Path, str]] = []
        if isinstance(rule, Autonomy):
            named = [
                ((*path, "grants", at, "actions", position), action)
                for at, grant in enumerate(rule.grants)
                for position, action in enumerate(grant.actions)
            ]
        if isinstance(rule, RolloutInProgress):
            named = [
                ((*path, "may_interrupt", at), name) for at, name in enumerate(rule.may_interrupt)
            ]
        if isinstance(rule, FreezeWindows):
            named = [((*path, *place), action) for place, action in rule.actions_named()]
        for place, action in named:
            if action != "*" and action not in self._actions:
                self._complain(place, f"there is no action {action}{_meant(action, self._actions)}")

    def _custom(self, whole: Json) -> tuple[CustomRule, ...]:
        given = whole.get("custom") if isinstance(whole, dict) else None
        rules: dict[str, CustomRule] = {}
        cost = 0
        for at, value in enumerate(given[:MAX_CUSTOM] if isinstance(given, list) else []):
            path: strict_yaml.Path = ("custom", at)
            entry: CustomEntry | None = self._validate(TypeAdapter(CustomEntry), value, path)
            if entry is None:
                continue
            if entry.name in rules:
                self._complain((*path, "name"), f"there are two rules named {entry.name}")
            if misplaced := entry.misplaced():
                self._complain((*path, misplaced), f"only a rule that asks has {misplaced}")
            expressions = self._compiled(entry, path)
            if "expression" not in expressions:
                continue
            rules[entry.name] = entry.rule(expressions)
            before, cost = cost, cost + sum(e.cost for e in expressions.values())
            if before <= MAX_COST < cost:
                self._complain(
                    path,
                    f"up to here the expressions may take {cost} steps to judge, at most "
                    f"{MAX_COST} may be: spare loops inside loops and patterns inside loops",
                )
        return tuple(rules.values())

    def _compiled(self, entry: CustomEntry, path: strict_yaml.Path) -> dict[str, Expression]:
        found: dict[str, Expression] = {}
        for key in entry.sources():
            try:
                found[key] = entry.compiled(key)
            except ExpressionInvalidError as error:
                where = f"{entry.place(key)}: "
                self._complain((*path, key), str(error).removeprefix(where))
        return found

    def _cases(self, given: tuple[Json, ...], policy: Policy) -> Iterator[PolicyCase]:
        names: set[str] = set()
        for at, value in enumerate(given):
            path: strict_yaml.Path = ("tests", at)
            size = len(json.dumps(value))
            if size > MAX_REQUEST:
                self._complain(path, f"a test of {size} bytes, at most {MAX_REQUEST} may be")
                continue
            entry: CaseEntry | None = self._validate(TypeAdapter(CaseEntry), value, path)
            if entry is None:
                continue
            if entry.name in names:
                self._complain((*path, "name"), f"there are two tests named {entry.name}")
            names.add(entry.name)
            self._check_case(entry, path, policy)
            try:
                yield case_of(entry, policy)
            except ValidationError as error:
                part = "history" if error.title == "HistoryFacts" else "target"
                self._complain_of(error, (*path, "request", part))

    def _check_case(self, entry: CaseEntry, path: strict_yaml.Path, policy: Policy) -> None:
        if entry.expect is None and not entry.rules:
            self._complain(path, "the test expects nothing: say expect, or rules")
        for rule, meant in unknown_rules(entry, policy).items():
            self._complain((*path, "rules", rule), f"there is no such rule{meant}")
        action = entry.request.action.name
        if self._actions is not None and action not in self._actions:
            place = (*path, "request", "action", "name")
            self._complain(place, f"there is no action {action}{_meant(action, self._actions)}")

    def _validate(self, adapter: TypeAdapter[Any], value: Json, path: strict_yaml.Path) -> Any:
        """Give the typed value, or None after complaining; strict: "5" is no number."""
        try:
            return adapter.validate_json(json.dumps(value), strict=True)
        except ValidationError as error:
            self._complain_of(error, path)
            return None

    def _complain_of(self, error: ValidationError, path: strict_yaml.Path) -> None:
        for problem in error.errors(include_url=False):
            self._complain((*path, *problem["loc"]), _sentence(dict(problem)))

    def _complain(self, path: strict_yaml.Path, problem: str) -> None:
        line = self._document.line(path)
        key = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).lstrip(".")
        self._problems.append((line, f"{self._name}:{line}: {key or 'the policy'}: {problem}"))


def _sentence(problem: dict[str, Any]) -> str:
    if problem["type"] == "missing":
        return "is missing"
    if problem["type"] in {"extra_forbidden", "unexpected_keyword_argument"}:
        return "there is no such key"
    if problem["type"] == "value_error":
        return str(problem["msg"]).removeprefix("Value error, ")
    expected = str(problem["msg"])
    for theirs, ours in _WORDING.items():
        expected = expected.replace(theirs, ours)
    got = json.dumps(problem["input"], ensure_ascii=False, default=str)
    return f"{expected}, not {got if len(got) <= 60 else got[:57] + '...'}"


def _meant(name: str, among: Collection[str]) -> str:
    close = difflib.get_close_matches(name, list(among), n=1)
    return f"; did you mean {close[0]}?" if close else ""
