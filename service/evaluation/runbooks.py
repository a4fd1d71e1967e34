"""Runs runbook cases: an alert, what was seen, and which decision the runbook calls right.

The evidence is retold in English; docs/evaluation.md has the format. The decision is made by the
reasoner that production uses, on facts that service/evaluation/retold reads.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tiphys.agents.notebook import make_evidence
from tiphys.agents.playbooks import Playbooks
from tiphys.agents.ports import Case, Choice, Findings, Reasoner
from tiphys.agents.resolver import CLAIM, WORKLOADS
from tiphys.policies.model import Alert, Evidence, Json, Source, Target
from tiphys.policies.strict_yaml import Document, YamlUnreadableError, read_yaml
from tiphys.service.evaluation.cases import UnreadableSetError
from tiphys.service.evaluation.judging import Judged, Mark, Verdicts, Wanted, mark
from tiphys.service.evaluation.retold.reader import Reading, read
from tiphys.service.evaluation.vocabulary import Deed, deed_of
from tiphys.workflow_templates.scale_gpu_pool import KINDS

_CASES: Final = re.compile(r"^cases:", re.MULTILINE)
_SOURCES: Final = {"promql": Source.PROMETHEUS, "log": Source.LOGS}
"""Where a kind of question is put; the others to the cluster."""
_ROLES: Final[Mapping[str, tuple[tuple[str, str], str]]] = {
    "claim": (CLAIM, "persistentvolumeclaim"),
    "node": (("v1", "Node"), "node"),
    "pod": (("v1", "Pod"), "pod"),
    "pool": (next(iter(KINDS)), "node_pool"),
}
"""The kind of each role, and the label that names it."""
_NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", coerce_numbers_to_str=True)


class Seen(_Part):
    """One question and its answer, in English."""

    kind: str = ""
    q: str
    a: str


class RunbookCase(_Part):
    """One case; keys that are not listed here are for people."""

    id: str
    alert: str = Field(min_length=1)
    labels: Mapping[str, str] = {}
    evidence: tuple[Seen, ...] = Field(min_length=1)
    action: Deed
    params: Mapping[str, str] = {}
    also_ok: tuple[Deed, ...] = ()
    never: tuple[Deed, ...] = ()


@dataclass(frozen=True)
class RunbookSet:
    """One file of cases."""

    path: Path
    cases: Sequence[RunbookCase]


def runbooks_in(path: Path) -> RunbookSet | None:
    """Read a file of runbook cases; None for another file. Raises `UnreadableSetError`."""
    try:
        text = path.read_text(encoding="utf-8")
        if not _CASES.search(text):
            return None
        document = read_yaml(text)
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableSetError(f"{path}: cannot be read: {error}") from error
    except YamlUnreadableError as error:
        raise UnreadableSetError(f"{path}:{error.line}: {error.problem}") from error
    whole = document.value
    listed = whole.get("cases") if isinstance(whole, dict) else None
    if not isinstance(listed, list):
        return None
    return RunbookSet(path, [_case(path, i, one, document) for i, one in enumerate(listed)])


def _case(path: Path, i: int, one: object, document: Document) -> RunbookCase:
    try:
        return RunbookCase.model_validate(one)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ("cases", i, *first["loc"])
        line = document.line(place)
        key = ".".join(map(str, place))
        raise UnreadableSetError(f"{path}:{line}: {key}: {first['msg']}") from error


async def judged(one: RunbookSet, reasoner: Reasoner) -> Verdicts:
    """Run every case of a file."""
    books = Playbooks.load()
    return Verdicts(one.path.name, [await _judged(case, reasoner, books) for case in one.cases])


async def _judged(case: RunbookCase, reasoner: Reasoner, books: Playbooks) -> Judged:
    told = [seen.model_dump() for seen in case.evidence]
    reading = read(case.alert, case.labels, told)
    findings = Findings(
        _incident(case), reading.facts, _targets(case.labels), _seen(case), retold=True
    )
    findings = replace(findings, facts=await _read_as(findings, reading, books))
    choice = await reasoner.decide(findings)
    deed = deed_of(choice)
    aims, unchecked = _compared(case, choice, reading)
    wanted = Wanted(case.action, case.also_ok, case.never, Deed.NONE, Deed.ESCALATE)
    worth = mark(deed, wanted, on_target=aims)
    by = choice.decided_by.playbook or choice.decided_by.reasoner
    missed = () if worth is Mark.EXACT else reading.not_understood
    return Judged(case.id, case.action, deed, worth, by, choice.reason, missed, unchecked)


async def _read_as(findings: Findings, reading: Reading, books: Playbooks) -> Mapping[str, Json]:
    """Choose between what follows from the evidence and the story that it likely tells.

    The story is taken where nothing follows, where it overrules, and where what follows is not
    borne out by it; whoever decides then is asked once.
    """
    told = reading.told
    deed = deed_of(await books.decide(findings))
    if told is None or (deed is Deed.ESCALATE and told.story is None):
        return reading.facts
    if deed is not Deed.ESCALATE and not told.overrules and deed.value in told.borne_out:
        return reading.facts
    return reading.likely


def _incident(case: RunbookCase) -> Case:
    alert = Alert.model_validate(
        {
            "id": case.id, "cluster": "retold", "fingerprint": case.id, "status": "firing",
            "starts_at": _NOW, "labels": {**case.labels, "alertname": case.alert},
            "received_at": _NOW,
        }
    )  # fmt: skip
    return Case(case.id, 1, "retold", True, case.alert, [alert])


def _seen(case: RunbookCase) -> list[Evidence]:
    """Give what was retold as evidence, for a reasoner that reads."""
    return [
        make_evidence(_SOURCES.get(one.kind, Source.KUBERNETES), one.q, _NOW, (one.a, one.a))
        for one in case.evidence
    ]


def _targets(labels: Mapping[str, str]) -> dict[str, Target]:
    """Stand in for the objects that nobody resolved: one of each role, under the alert's names."""
    label = next((name for name in WORKLOADS if labels.get(name)), "deployment")
    roles = {**_ROLES, "workload": (WORKLOADS[label], label)}
    return {
        role: Target(
            cluster="retold", api_version=version, kind=kind, name=labels.get(name) or "as-told",
            uid=f"{role}-as-told",
            namespace="" if role == "node" else labels.get("namespace", "as-told"),
        )
        for role, ((version, kind), name) in roles.items()
    }  # fmt: skip


def _compared(case: RunbookCase, choice: Choice, reading: Reading) -> tuple[bool, list[str]]:
    """Compare the parameters that a case gives; tell which could not be compared."""
    unchecked: list[str] = []
    for name, wanted in case.params.items():
        given = choice.parameters.get(name)
        if name == "to" and choice.action == "rollout-undo":
            times = re.findall(r"\b\d{1,2}:\d{2}\b", wanted)
            # rollout-undo takes back the newest revision and no other.
            if times and reading.newest_release and times[0] != reading.newest_release:
                return False, unchecked
        elif isinstance(given, int) and (number := re.fullmatch(r"(above )?(\d+)\b.*", wanted)):
            least = int(number[2])
            if not (given > least if number[1] else given == least):
                return False, unchecked
        else:
            unchecked.append(f"{name}: {wanted}")
    return True, unchecked
