"""Playbooks as a reasoner: the first answer whose condition holds is the choice.

Invariant: a condition without an answer ends in a human's hands; the answers after it are not
tried, since nobody knows whether this one should have applied. A playbook that is asked last never
answers for an alert whose own playbook had facts of the cluster to read.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Final

from tiphys.agents.notebook import short
from tiphys.agents.objects import dig
from tiphys.agents.on_call import firing
from tiphys.agents.playbook_file import FACT, Compiled, PlaybookFile, PlaybookInvalidError
from tiphys.agents.playbook_file import Answer as Written
from tiphys.agents.ports import Answer, Case, Choice, Findings
from tiphys.policies.expressions import Expression, ExpressionFailedError, Scope
from tiphys.policies.model import Alert, DecidedBy, Json, RuledOut
from tiphys.workflow_templates.catalogue import find

BUILT_IN: Final = Path(str(files("tiphys.agents") / "playbooks"))
"""The folder of the playbooks that we bring."""
DEFAULT: Final = "default"
"""The name of the answer for alerts that no playbook covers."""


@dataclass(frozen=True)
class Chosen:
    """A choice, and by which of the playbook's answers."""

    choice: Choice
    number: int | None
    """Counts from 1; None where no answer holds, or nobody can tell which."""


class Playbooks:
    """The built-in playbooks and a team's own, which override by name."""

    def __init__(self, playbooks: Sequence[Compiled], theirs: Collection[str] = ()) -> None:
        self.all: Mapping[str, Compiled] = {p.book.name: p for p in playbooks}
        self.theirs = frozenset(theirs)
        """The names of a team's own."""

    @staticmethod
    def load(folder: Path | None = None) -> "Playbooks":
        """Read the built-in playbooks, then a folder's; raises `PlaybookInvalidError`."""
        with_ours = _read(BUILT_IN)
        if folder is None:
            return Playbooks(list(with_ours.values()))
        if not folder.is_dir():
            raise PlaybookInvalidError(f"{folder}: a folder of playbooks was expected")
        # Theirs come first: where both cover an alert under different names, the team's decides.
        theirs = _read(folder)
        kept = {name: p for name, p in with_ours.items() if name not in theirs}
        return Playbooks([*theirs.values(), *kept.values()], theirs)

    def covering(self, alert: Alert) -> Compiled | None:
        """Give the first playbook that is for this alert; those asked last do not count."""
        return next(
            (p for p in self.all.values() if not _last(p) and p.covers(alert.labels)), None
        )

    def match(self, case: Case) -> Compiled | None:
        """Give the playbook of the gravest alert that has one."""
        found = (self.covering(alert) for alert in firing(case))
        return next((p for p in found if p is not None), None)

    async def decide(self, findings: Findings) -> Choice:
        """Choose by the case's playbooks: the first answer that holds."""
        return self.chosen(findings).choice

    def chosen(self, findings: Findings) -> Chosen:
        """Choose, and say by which answer."""
        own = self.match(findings.case)
        theirs = own is not None and own.book.name in self.theirs
        if own is None or (findings.retold and not theirs):
            labels = [alert.labels for alert in firing(findings.case)]
            last = [p for p in self.all.values() if _last(p) and any(map(p.covers, labels))]
            if (choice := _agreed([c for p in last for c in _holding(p, findings)])) is not None:
                return choice
        return _uncovered(findings) if own is None else _chosen(own, findings)


def _read(folder: Path) -> dict[str, Compiled]:
    found: dict[str, Compiled] = {}
    for path in sorted(folder.glob("*.y*ml")):
        for playbook in PlaybookFile(path).read():
            if playbook.book.name in found:
                other = found[playbook.book.name].where
                raise PlaybookInvalidError(
                    f"{path}:1: name: {playbook.book.name} is already in {other}"
                )
            found[playbook.book.name] = playbook
    return found


def _last(playbook: Compiled) -> bool:
    return playbook.book.asked == "last"


def _holding(playbook: Compiled, findings: Findings) -> list[Chosen]:
    """Give every answer that holds of a playbook that is asked last.

    An answer that reads a fact which is not there does not hold; where none does, a human is told.
    """
    scope = Scope(findings.facts)
    held: list[Chosen] = []
    for i, condition in enumerate(playbook.conditions):
        try:
            if condition.holds(scope):
                held.append(Chosen(_answered(playbook, i, findings, scope), i + 1))
        except ExpressionFailedError:
            continue
    return held


def _agreed(every: Sequence[Chosen]) -> Chosen | None:
    """Give the first; where they differ, evidence that speaks for both goes to a human."""
    held = [one.choice for one in every]
    if len({(one.answer, one.action) for one in held}) <= 1:
        return every[0] if every else None
    said = "; ".join(f"{one.action or one.answer.value}: {one.reason}" for one in held)
    why = short(f"the evidence speaks for different answers ({said})", 1_500)
    first = replace(
        held[0], answer=Answer.ESCALATE, reason=why, action="", target="", parameters={}
    )
    return Chosen(replace(first, ruled_out=(), risks=""), None)


def _uncovered(findings: Findings) -> Chosen:
    alerts = firing(findings.case)
    name = alerts[0].name if alerts else "(none)"
    seen = filled("{symptoms.seen}", findings.facts)
    what = f"; seen: {seen}" if seen not in {"(unknown)", "none"} else ""
    why = short(f"no playbook for alert {name}{what}", 1_500)
    return Chosen(_choice(findings, DEFAULT, Answer.ESCALATE, why), None)


def _chosen(playbook: Compiled, findings: Findings) -> Chosen:
    try:
        scope = Scope(findings.facts)
        for i in range(len(playbook.book.answers)):
            if playbook.conditions[i].holds(scope):
                return Chosen(_answered(playbook, i, findings, scope), i + 1)
    except ExpressionFailedError as error:
        why = f"the playbook could not be followed: {error}"
        return Chosen(_choice(findings, playbook, Answer.ESCALATE, why), None)
    why = "the playbook has no answer for what was seen"
    return Chosen(_choice(findings, playbook, Answer.ESCALATE, why), None)


def _answered(playbook: Compiled, i: int, findings: Findings, scope: Scope) -> Choice:
    """Give the answer that holds as a choice; raises `ExpressionFailedError`."""
    answer = playbook.book.answers[i]
    reason = filled(answer.words, findings.facts)
    if answer.act is None:
        kind = Answer.NOTHING if answer.nothing is not None else Answer.ESCALATE
        return _explained(_choice(findings, playbook, kind, reason), answer, findings)
    if findings.case.attempts and not answer.act.next:
        return _choice(findings, playbook, Answer.ESCALATE, tried(findings.case))
    parameters = {
        name: value.evaluate(scope) if isinstance(value, Expression) else value
        for name, value in playbook.parameters[i].items()
    }
    act = (answer.act.action, answer.act.target, parameters)
    choice = _choice(findings, playbook, Answer.ACT, reason, act=act)
    return _explained(choice, answer, findings)


def _explained(choice: Choice, answer: Written, findings: Findings) -> Choice:
    """Add what was ruled out, of what could be done to these targets, and what could go wrong."""
    kinds = {(target.api_version, target.kind) for target in findings.targets.values()}
    ruled_out = [
        RuledOut(action=one.action, because=filled(one.because, findings.facts))
        for one in answer.rules_out
        if not kinds or kinds & set(find(one.action).kinds)
    ]
    return replace(choice, ruled_out=ruled_out, risks=filled(answer.risks, findings.facts))


def tried(case: Case) -> str:
    """Say what earlier attempts did."""
    listed = "; ".join(
        f"attempt {a.number}: {a.action} on {a.target} was {a.outcome.replace('_', ' ')}"
        + (f" ({short(a.message, 200)})" if a.message else "")
        for a in case.attempts
    )
    return f"the alert is still there after what was tried: {listed}"


def filled(words: str, facts: Mapping[str, Json]) -> str:
    """Put facts into a reason; one that is missing says so."""

    def value(path: str) -> str:
        found = dig(dict(facts), *path.split("."))
        if found is None:
            return "(unknown)"
        if isinstance(found, list):
            return ", ".join(str(item) for item in found) or "none"
        return f"{found:.3g}" if isinstance(found, float) else str(found)

    return short(FACT.sub(lambda m: short(value(m[1]), 300), words), 1_500)


def _choice(
    findings: Findings,
    playbook: Compiled | str,
    answer: Answer,
    reason: str,
    act: tuple[str, str, Mapping[str, Json]] = ("", "", {}),
) -> Choice:
    named = playbook if isinstance(playbook, str) else playbook.book.name
    version = "1" if isinstance(playbook, str) else playbook.book.version
    return Choice(
        answer=answer,
        reason=reason,
        evidence=[e.id for e in findings.evidence if e.ok],
        decided_by=DecidedBy(reasoner="playbooks", playbook=named, playbook_version=version),
        action=act[0],
        target=act[1],
        parameters=act[2],
    )
