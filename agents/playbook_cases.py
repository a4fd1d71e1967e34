"""Recorded evidence and the answer that is expected to it: reads case files and runs them.

A case goes the way of a real choice: the playbook that covers its alert, the resolved target, the
catalogue, what would do harm. Invariant: a fact that nobody can have read, because no such fact
exists, is refused with its line, so that no case passes by a misspelling.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Final, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tiphys.agents.deciding import ChoiceRefusedError, fitted, refuse_harm, target_of_choice
from tiphys.agents.fact_list import FACTS
from tiphys.agents.playbooks import Playbooks
from tiphys.agents.ports import Answer, Attempt, Case, Choice, Findings
from tiphys.agents.state import merged
from tiphys.agents.symptoms import symptoms_of
from tiphys.agents.untouched_facts import NOW, WITH_WORKLOAD, untouched
from tiphys.policies.model import ActionName, Alert, Json, Outcome, Target
from tiphys.policies.strict_yaml import Document, YamlUnreadableError, read_yaml
from tiphys.policies.strict_yaml import Path as Place
from tiphys.workflow_templates.catalogue import every

FORMAT: Final = "tiphys/playbook-cases/v1"
MAX_CASES: Final = 500
_TARGET: Final = re.compile(r"([A-Z][A-Za-z]+) (?:([a-z0-9.-]+)/)?([A-Za-z0-9._-]+)")
_KINDS: Final = {kind: version for action in every() for version, kind in action.kinds}
_OF_GROUP: Final = {"pod": "Pod", "node": "Node", "volume": "PersistentVolumeClaim", "job": "Job",
                    "pool": "MachineDeployment"}  # fmt: skip
_ROLE: Final = {"volume": "claim", "job": "workload"}


class CasesInvalidError(Exception):
    """A file of cases cannot be used; the message gives file, line, key and what was expected."""


class _Part(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", coerce_numbers_to_str=True, use_attribute_docstrings=True
    )


class Tried(_Part):
    """An earlier attempt of the incident."""

    action: ActionName
    target: str
    """A role among the targets."""
    outcome: Outcome = Outcome.ROLLED_BACK
    message: str = ""


class Expected(_Part):
    """What must be chosen; what is left out may be anything."""

    answer: Literal["act", "nothing", "escalate"]
    action: str = ""
    target: str = ""
    """The role of the object that is acted on."""
    parameters: dict[str, Json] | None = None
    says: tuple[str, ...] = ()
    """Words of the reason, in any order, whatever their case."""
    by: int | None = Field(default=None, ge=1)
    """The number of the answer, from 1."""
    playbook: str = ""


class Shared(_Part):
    """What all cases of the file have, unless they say otherwise."""

    alert: dict[str, str] = {}
    facts: dict[str, Json] = {}
    targets: dict[str, str] | None = None


class CaseEntry(_Part):
    """One case."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,80}$")
    alert: dict[str, str] = {}
    """Labels of the alert that fires, `alertname` among them."""
    facts: dict[str, Json] = {}
    """What was read, nested as in the table of facts; `null` takes away what the file shares."""
    targets: dict[str, str] | None = None
    """Resolved objects by role, as `Kind namespace/name`; left out: those that the facts name."""
    attempts: tuple[Tried, ...] = ()
    expect: Expected


class CasesFile(_Part):
    """A file of cases."""

    format: Literal["tiphys/playbook-cases/v1"]
    shared: Shared = Shared()
    cases: tuple[CaseEntry, ...] = Field(min_length=1, max_length=MAX_CASES)


@dataclass(frozen=True)
class Result:
    """What one case came to."""

    name: str
    answer: Answer
    action: str
    target: str
    parameters: Mapping[str, Json]
    reason: str
    playbook: str
    number: int | None
    """The answer that held, from 1."""
    faults: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether it is as expected."""
        return not self.faults


@dataclass(frozen=True)
class Prepared:
    """A case that was read."""

    name: str
    findings: Findings
    expect: Expected


class CasesReader:
    """One file of cases."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._document = Document(None, {})

    def read(self) -> list[Prepared]:
        """Give the file's cases; raises `CasesInvalidError`."""
        try:
            self._document = read_yaml(self.path.read_text(encoding="utf-8"))
            file = CasesFile.model_validate(self._document.value)
        except (OSError, UnicodeDecodeError) as error:
            self._refuse((), f"readable text was expected: {error}")
        except YamlUnreadableError as error:
            raise CasesInvalidError(f"{self.path}:{error.line}: {error.problem}") from error
        except ValidationError as error:
            told = error.errors(include_url=False)
            first = min(told, key=lambda e: e["type"] != "extra_forbidden")
            self._refuse(first["loc"], first["msg"].removeprefix("Value error, "))
        self._check_facts(("shared", "facts"), file.shared.facts)
        names: set[str] = set()
        found: list[Prepared] = []
        for i, case in enumerate(file.cases):
            if case.name in names:
                self._refuse(("cases", i, "name"), f"there is a case {case.name} already")
            names.add(case.name)
            self._check_facts(("cases", i, "facts"), case.facts)
            found.append(self._prepared(i, case, file.shared))
        return found

    def _check_facts(self, at: Place, facts: Mapping[str, Json]) -> None:
        for group, inside in facts.items():
            if group not in _GROUPS:
                self._refuse((*at, group), f"there is no group of facts {group}")
            if not isinstance(inside, dict):
                if inside is not None:
                    self._refuse((*at, group), "facts below it were expected")
                continue
            open_ended = f"{group}.*" in FACTS
            for name in inside:
                path = f"{group}.{name}"
                if not open_ended and path not in FACTS and f"{path}.*" not in FACTS:
                    self._refuse((*at, group, name), f"there is no fact {path}")

    def _prepared(self, i: int, case: CaseEntry, shared: Shared) -> Prepared:
        labels = {**shared.alert, **case.alert}
        if "alertname" not in labels:
            self._refuse(("cases", i, "alert"), "the label alertname was expected")
        facts = _facts(labels, merged(shared.facts, case.facts))
        given = case.targets if case.targets is not None else shared.targets
        told = given if given is not None else _named(labels, facts)
        targets: dict[str, Target] = {}
        for role, words in told.items():
            made = _target(words)
            if made is None:
                expected = f"`Kind namespace/name` of a kind in the catalogue was expected: {words}"
                self._refuse(("cases", i, "targets", role), expected)
            targets[role] = made
        attempts: list[Attempt] = []
        for n, one in enumerate(case.attempts):
            if one.target not in targets:
                self._refuse(
                    ("cases", i, "attempts", n, "target"), "a role of `targets` was expected"
                )
            tried = (n + 1, one.action, targets[one.target], one.outcome, one.message)
            attempts.append(Attempt(*tried))
        told_attempts: dict[str, Json] = {
            "count": len(attempts),
            "last_action": attempts[-1].action if attempts else "",
            "last_outcome": attempts[-1].outcome.value if attempts else "",
        }
        asked = Case("case", len(attempts) + 1, "test", True, case.name, [_alert(labels)], attempts)
        return Prepared(
            case.name,
            Findings(asked, {**facts, "attempts": told_attempts}, targets, []),
            case.expect,
        )

    def _refuse(self, path: Sequence[str | int], expected: str) -> NoReturn:
        key = ".".join(map(str, path))
        place = f"{self.path}:{self._document.line(tuple(path))}: " + (f"{key}: " if key else "")
        raise CasesInvalidError(place + expected)


_GROUPS: Final = {fact.partition(".")[0] for fact in FACTS}


def _facts(labels: Mapping[str, str], given: Mapping[str, Json]) -> dict[str, Json]:
    """Fill up what was told: groups that are not mentioned are empty, as where nothing was read."""
    known = untouched()
    told: dict[str, Json] = {group: {} for group in _GROUPS}
    wanted = {group: inside for group, inside in given.items() if inside is not None}
    if wanted.get("workload"):
        wanted = {group: known[group] for group in WITH_WORKLOAD if group not in given} | wanted
    for group, inside in wanted.items():
        usual = known.get(group, {}) if inside else {}
        told[group] = {**usual, **(inside if isinstance(inside, dict) else {})}
    told["resolution"] = {**known["resolution"], **_group(told, "resolution")}
    alert: dict[str, Json] = {
        "name": labels["alertname"], "names": [labels["alertname"]], "count": 1,
        "severity": labels.get("severity", "warning"), "labels": {**labels}, "minutes": 20.0,
        "episodes_last_hour": 1, "expression_true": True,
    }  # fmt: skip
    told["alert"] = {**alert, **_group(told, "alert")}
    told["symptoms"] = symptoms_of(told) | _group(told, "symptoms")
    return told


def _group(facts: Mapping[str, Json], group: str) -> dict[str, Json]:
    found = facts.get(group)
    return found if isinstance(found, dict) else {}


def _named(labels: Mapping[str, str], facts: Mapping[str, Json]) -> dict[str, str]:
    """Give the targets that resolving would give for these facts; none where it is ambiguous."""
    if _group(facts, "resolution").get("ambiguous"):
        return {}
    space = labels.get("namespace", "shop")
    found: dict[str, str] = {}
    for group in ("job", "pod", "node", "volume", "pool", "workload"):
        name = _group(facts, group).get("name")
        if not name:
            continue
        kind = str(_group(facts, group).get("kind") or _OF_GROUP.get(group, "Deployment"))
        place = str(_group(facts, group).get("namespace") or space)
        where = name if group == "node" else f"{place}/{name}"
        found[_ROLE.get(group, group)] = f"{kind} {where}"
    return found


def _target(words: str) -> Target | None:
    made = _TARGET.fullmatch(words)
    if made is None or made[1] not in _KINDS:
        return None
    kind, namespace, name = made[1], made[2] or "", made[3]
    return Target(
        cluster="test", api_version=_KINDS[kind], kind=kind, namespace=namespace, name=name,
        uid=f"uid of {words}",
    )  # fmt: skip


def _alert(labels: Mapping[str, str]) -> Alert:
    given = {"id": "a", "cluster": "test", "fingerprint": "f", "status": "firing",
             "starts_at": NOW - timedelta(minutes=20), "labels": {**labels},
             "received_at": NOW}  # fmt: skip
    return Alert.model_validate(given)


# --- running --------------------------------------------------------------------------------------


def run(case: Prepared, playbooks: Playbooks) -> Result:
    """Let the playbooks choose, and hold the choice before what every choice is held before."""
    chosen = playbooks.chosen(case.findings)
    choice, answer, reason = chosen.choice, chosen.choice.answer, chosen.choice.reason
    parameters: Mapping[str, Json] = choice.parameters
    if answer is Answer.ACT:
        try:
            target = target_of_choice(choice, case.findings)
            action, fit = fitted((choice.action, choice.parameters), target)
            refuse_harm(action, fit, target, case.findings)
        except ChoiceRefusedError as error:
            answer, reason = Answer.ESCALATE, f"{error} (wanted: {choice.action}: {reason})"
    found = Result(
        name=case.name,
        answer=answer,
        action=choice.action if answer is Answer.ACT else "",
        target=choice.target if answer is Answer.ACT else "",
        parameters=parameters if answer is Answer.ACT else {},
        reason=reason,
        playbook=choice.decided_by.playbook or "",
        number=chosen.number,
        faults=(),
    )
    return replace(found, faults=tuple(_faults(found, choice, case.expect)))


def _faults(found: Result, choice: Choice, expect: Expected) -> list[str]:
    faults: list[str] = []
    for what, is_so, wanted in (
        ("answer", found.answer.value, expect.answer),
        ("action", found.action, expect.action),
        ("target", found.target, expect.target),
        ("playbook", found.playbook, expect.playbook),
    ):
        if wanted and is_so != wanted:
            faults.append(f"{what} {wanted} was expected, it is {is_so or 'none'}")
    if expect.parameters is not None and dict(choice.parameters) != expect.parameters:
        faults.append(f"parameters {expect.parameters} were expected, they are {choice.parameters}")
    if expect.by is not None and found.number != expect.by:
        faults.append(f"answer {expect.by} was expected to hold, it was {found.number or 'none'}")
    missing = (word for word in expect.says if word.lower() not in found.reason.lower())
    return [*faults, *(f"the reason does not say {word!r}" for word in missing)]
