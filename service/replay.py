"""What another policy would have answered: recorded decisions, judged again.

Invariant: judged again by the policy that judged it, a decision has the verdicts on record; one
that has not is named, never passed over.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from tiphys.policies.gate import judge
from tiphys.policies.model import Facts, Noun, Proposal
from tiphys.policies.policy import Policy
from tiphys.policies.policy_cases import Answer, answer_of
from tiphys.policies.rule import RuleName
from tiphys.policies.verdict import Judgement, NeedsApproval, Verdict
from tiphys.service.calendars import CalendarsAt


class NotReplayableError(Exception):
    """A line of an export holds no decision that could be judged again; the message says why."""


class RecordedDecision(Noun):
    """One proposal as the gate judged it last, with all that it judged by."""

    incident: str
    attempt: int
    proposal: Proposal
    facts: Facts
    judgement: Judgement

    def judged_by(self, given: Policy | CalendarsAt) -> Judgement:
        """Judge it again at its own time; an approval that was given then is given still."""
        if self.judgement.at is None:
            raise NotReplayableError(f"{self.name} was judged before the time was kept")
        policy = given if isinstance(given, Policy) else given(self.judgement.at)
        again = judge(self.proposal, self.facts, policy, self.judgement.at)
        fresh = {key: getattr(again, key) for key in ("verdicts", "policy", "calendars")}
        return self.judgement.model_copy(update=fresh)

    @property
    def name(self) -> str:
        """Incident and attempt."""
        return f"{self.incident}, attempt {self.attempt}"


@dataclass(frozen=True)
class RuleChange:
    """One rule that answers otherwise; None where a policy does not have it."""

    rule: str
    before: Verdict | None
    after: Verdict | None


@dataclass(frozen=True)
class Difference:
    """One decision that two policies answer differently."""

    decision: RecordedDecision
    before: Judgement
    after: Judgement

    @property
    def rules(self) -> list[RuleChange]:
        """Every rule that answers otherwise, in the order of the policies."""
        old = {v.rule: v.verdict for v in self.before.verdicts}
        new = {v.rule: v.verdict for v in self.after.verdicts}
        changes = [RuleChange(rule, old.get(rule), new.get(rule)) for rule in {**old, **new}]
        return [change for change in changes if change.before != change.after]

    def plain(self) -> dict[str, Any]:
        """Give it as plain JSON."""
        proposal = self.decision.proposal
        return {
            "incident": self.decision.incident,
            "attempt": self.decision.attempt,
            "at": self.before.at.isoformat() if self.before.at else None,
            "action": proposal.action,
            "target": str(proposal.target),
            "before": answer_of(self.before),
            "after": answer_of(self.after),
            "rules": [
                {
                    "rule": change.rule,
                    "before": change.before.model_dump(mode="json") if change.before else None,
                    "after": change.after.model_dump(mode="json") if change.after else None,
                }
                for change in self.rules
            ],
        }


@dataclass
class Comparison:
    """What came of a whole record."""

    decisions: int = 0
    by_old: int = 0
    """Decisions that the older policy itself had judged."""
    differences: list[Difference] = field(default_factory=list[Difference])
    problems: list[str] = field(default_factory=list[str])
    """Decisions that could not be judged again, or not as they were, as sentences."""

    def plain(self) -> dict[str, Any]:
        """Give it as plain JSON."""
        return {
            "decisions": self.decisions,
            "judged_by_old": self.by_old,
            "differences": [difference.plain() for difference in self.differences],
            "problems": self.problems,
        }


def compare(
    lines: Iterable[str], old: Policy | CalendarsAt, new: Policy | CalendarsAt
) -> Comparison:
    """Judge every decision of an export by both policies."""
    found = Comparison()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        found.decisions += 1
        try:
            decision = _read(line, number)
            before, after = decision.judged_by(old), decision.judged_by(new)
        except NotReplayableError as error:
            found.problems.append(str(error))
            continue
        if decision.judgement.policy == before.policy:
            found.by_old += 1
            found.problems += _moved(decision, before)
        if _effect(before) != _effect(after):
            found.differences.append(Difference(decision, before, after))
    return found


def _read(line: str, number: int) -> RecordedDecision:
    try:
        return RecordedDecision.model_validate_json(line)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the line"
        raise NotReplayableError(
            f"line {number} is no recorded decision: {where}: {first['msg']}"
        ) from error


def _moved(decision: RecordedDecision, again: Judgement) -> Iterator[str]:
    """Say where the very policy does not answer as it did: rules or calendars have changed."""
    rules = [change.rule for change in Difference(decision, decision.judgement, again).rules]
    then = decision.judgement.calendars
    for name, now in again.calendars.items():
        if name in then and then[name] != now:
            yield (
                f"{decision.name} was judged by the calendar {name} as it was then, sha256 "
                f"{then[name]}; here it is judged by the file as it is now, sha256 {now}"
            )
            rules = [rule for rule in rules if rule != RuleName.FREEZE_WINDOWS]
    if rules:
        named = ", ".join(rules)
        yield f"{decision.name} does not replay exactly: another release judged it; see {named}"


def _effect(judgement: Judgement) -> tuple[Answer, frozenset[tuple[int, tuple[str, ...]]]]:
    """Give what counts of a judgement: the answer, and of whom which agreement is needed."""
    needs = [v.verdict for v in judgement.verdicts if isinstance(v.verdict, NeedsApproval)]
    asked = frozenset((need.people, tuple(sorted(need.by))) for need in needs)
    answer = answer_of(judgement)
    return answer, frozenset() if answer is Answer.DENIED else asked


def line_of(row: Any, always_ask: str) -> str:
    """Write a stored row as one line of an export, unread: the reader says what is wrong with it.

    The gate takes the catalogue's word for `always_ask`, and so does a replay.
    """
    return json.dumps(
        {
            "incident": row.incident_id,
            "attempt": row.attempt,
            "proposal": {**json.loads(row.decision), "always_ask": always_ask},
            "facts": json.loads(row.facts),
            "judgement": json.loads(row.judgement),
        },
        ensure_ascii=False,
        separators=(",", ":"),
    )
