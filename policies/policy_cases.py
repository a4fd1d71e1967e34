"""The test cases that a policy carries: a request, a time, and what the gate must answer to it.

Invariant: what a case leaves out is a request to which no built-in rule objects, autonomy apart, so
that an answer which is not `allowed` comes of what the case says or of what the policy says.
"""

import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Final, Literal, cast

from pydantic import BeforeValidator, Field

from tiphys.policies.gate import judge, rules_of
from tiphys.policies.model import (
    ActionName,
    AlertFacts,
    AlertSeen,
    Change,
    Check,
    DecidedBy,
    EvidenceFact,
    Facts,
    HistoryFacts,
    IncidentFacts,
    Instant,
    Json,
    Noun,
    ObjectReference,
    Proposal,
    Risk,
    Severity,
    Source,
    StopFacts,
    Target,
    TargetFacts,
)
from tiphys.policies.policy import Policy
from tiphys.policies.protected import OptedIn
from tiphys.policies.verdict import Allowed, ApprovalFact, Judgement, RuleVerdict

MAX_CASES: Final = 200
MAX_REQUEST: Final = 16_384
"""Bytes of one case's request as JSON: an expression may loop over what it holds."""
WHEN: Final = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
"""The time of a case that names none: a Wednesday noon."""
_DIGEST: Final = "0" * 64
_COUNTS: Final = (
    "open_runs_in_cluster",
    "open_runs_in_namespace",
    "open_runs_on_nodes",
    "open_runs_on_target",
    "other_workloads",
    "recent_launches_in_cluster",
    "recent_launches_in_namespace",
    "recent_launches_on_target",
    "spent_in_cluster",
    "spent_in_namespace",
)
_Who = Annotated[str, Field(min_length=1, max_length=200)]


def _one_or_more(given: object) -> object:
    if isinstance(given, str):
        return (given,)
    return tuple(cast("list[object]", given)) if isinstance(given, list) else given


class Answer(StrEnum):
    """What the gate, or one rule, answers."""

    ALLOWED = "allowed"
    NEEDS_APPROVAL = "needs_approval"
    DENIED = "denied"


def answer_of(judgement: Judgement) -> Answer:
    """Give the answer of the whole gate."""
    if judgement.allowed:
        return Answer.ALLOWED
    return Answer.NEEDS_APPROVAL if judgement.needs_approval else Answer.DENIED


# --- as the file spells it ------------------------------------------------------------------------


class _Action(Noun):
    name: ActionName = "restart-pod"
    version: Annotated[int, Field(ge=1)] = 1
    risk: Risk = Risk.LOW
    reversible: bool = True
    always_asks: bool = False
    undoes: bool = False
    confidence: Annotated[float, Field(ge=0, le=1)] = 1.0
    reasoner: Literal["playbooks", "model", "human"] = "playbooks"


class _Object(Noun):
    api_version: str = "v1"
    kind: str
    namespace: str = ""
    name: str


class _Change(Noun):
    of: _Object | None = None
    path: str = "/spec/replicas"
    present: Json = 1
    intended: Json = 2


class _Alert(Noun):
    firing: bool = True
    silenced: bool = False
    inhibited: bool = False
    names: tuple[str, ...] = ("TestAlert",)
    severity: Severity = Severity.WARNING
    labels: dict[str, str] = {}


class _Incident(Noun):
    id: str = "inc-test"
    severity: Severity = Severity.WARNING
    subject: str = "deployment default/web"
    attempt: Annotated[int, Field(ge=1)] = 1
    opened_minutes_ago: Annotated[int, Field(ge=0)] = 5


class _Evidence(Noun):
    source: Source = Source.KUBERNETES
    ok: bool = True
    cited: bool = True
    age_seconds: Annotated[int, Field(ge=0)] = 10


class _Place(Noun):
    cluster: str = "test"
    api_version: str = "apps/v1"
    kind: str = "Deployment"
    namespace: str = "default"
    name: str = "web"
    uid: str = "uid-of-the-target"


class RequestEntry(Noun):
    """A request, as far as a case spells it out."""

    action: _Action = _Action()
    parameters: dict[str, Json] = {}
    changes: tuple[_Change, ...] = (_Change(),)
    alert: _Alert = _Alert()
    alerts: tuple[AlertSeen, ...] | None = None
    """Instead of `alert`'s names, severity and labels."""
    incident: _Incident = _Incident()
    target: dict[str, Json] = {}
    """Where it is, and whatever else `TargetFacts` says."""
    history: dict[str, Json] = {}
    """Whatever `HistoryFacts` says."""
    stop: StopFacts = StopFacts(engaged=False)
    evidence: tuple[_Evidence, ...] = (_Evidence(),)
    unreadable: tuple[Literal["alert", "target", "history", "stop", "incident"], ...] = ()
    """Facts that could not be read."""


class CaseEntry(Noun):
    """One entry of `tests`."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    at: Instant = WHEN
    request: RequestEntry = RequestEntry()
    approved_by: Annotated[
        tuple[_Who, ...], BeforeValidator(_one_or_more), Field(max_length=20)
    ] = ()
    """People who have approved exactly this plan, or a team that stands for one of its people."""
    expect: Answer | None = None
    rules: dict[str, Answer] = {}
    """What single rules must answer, by the names that `tiphys policy explain` shows."""

    def facts(self, policy: Policy) -> Facts:
        """Give the facts; raises `pydantic.ValidationError` below `target` or `history`."""
        given = self.request
        known = Facts(
            alert=_alert_facts(given, self.at),
            target=_target_facts(given, self.at, policy),
            history=_history_facts(given),
            stop=given.stop,
            evidence=tuple(
                EvidenceFact(
                    id=f"ev-{number}",
                    source=one.source,
                    ok=one.ok,
                    asked_at=self.at - timedelta(seconds=one.age_seconds),
                )
                for number, one in enumerate(given.evidence, start=1)
            ),
            incident=_incident_facts(given.incident, self.at),
        )
        return known.model_copy(update=dict.fromkeys(given.unreadable))

    def proposal(self) -> Proposal:
        """Give what is proposed; raises `pydantic.ValidationError` below `target`."""
        given, action = self.request, self.request.action
        return Proposal(
            action=action.name,
            version=action.version,
            target=_target(given),
            parameters=given.parameters,
            changes=_changes(given),
            risk=action.risk,
            reversible=action.reversible,
            always_ask="its contract says so" if action.always_asks else "",
            blast_radius="as the test says",
            undo="as the test says",
            reason="a test of the policy",
            check=Check(),
            evidence=tuple(
                f"ev-{number}" for number, one in enumerate(given.evidence, start=1) if one.cited
            ),
            confidence=action.confidence,
            decided_by=DecidedBy(reasoner="human" if action.undoes else action.reasoner),
            undoes="tiphys-" + "a" * 40 if action.undoes else None,
        )


PLACE_KEYS: Final = frozenset(_Place.model_fields)
"""Keys of a case's `target` that say where it is; the others are facts about it."""


def _target(given: RequestEntry) -> Target:
    place = {key: value for key, value in given.target.items() if key in PLACE_KEYS}
    return Target(**_Place.model_validate_json(json.dumps(place), strict=True).model_dump())


def _changes(given: RequestEntry) -> tuple[Change, ...]:
    return tuple(
        Change(
            of=ObjectReference(**one.of.model_dump(), uid="uid-of-another") if one.of else None,
            path=one.path,
            present=one.present,
            intended=one.intended,
        )
        for one in given.changes
    )


def _target_facts(given: RequestEntry, at: datetime, policy: Policy) -> TargetFacts:
    target, opted_in = _target(given), policy.rule(OptedIn)
    consent: Json = {opted_in.label: opted_in.value}
    facts: dict[str, Json] = {
        "target": target.model_dump(),
        "changes": [change.model_dump(mode="json") for change in _changes(given)],
        "managed_cluster": True,
        "namespace_labels": consent if target.namespace else {},
        "labels": {} if target.namespace else consent,
        "annotations": {},
        "rollout_in_progress": False,
        "impact": {"workloads": 10, "nodes": 10, "nodes_away": 0, "pool": 4, "pool_away": 0},
        "read_at": at.isoformat(),
        **{key: value for key, value in given.target.items() if key not in PLACE_KEYS},
    }
    return TargetFacts.model_validate_json(json.dumps(facts), strict=True)


def _history_facts(given: RequestEntry) -> HistoryFacts:
    facts = {**dict.fromkeys(_COUNTS, 0), "past": [], **given.history}
    return HistoryFacts.model_validate_json(json.dumps(facts), strict=True)


def _alert_facts(given: RequestEntry, at: datetime) -> AlertFacts:
    alert = given.alert
    each = given.alerts
    if each is None:
        each = tuple(
            AlertSeen(name=name, severity=alert.severity, labels=alert.labels)
            for name in alert.names
        )
    return AlertFacts(
        firing=alert.firing,
        silenced=alert.silenced,
        inhibited=alert.inhibited,
        names=tuple(sorted({one.name for one in each})),
        alerts=each,
        read_at=at,
    )


def _incident_facts(given: _Incident, at: datetime) -> IncidentFacts:
    opened = at - timedelta(minutes=given.opened_minutes_ago)
    return IncidentFacts(**given.model_dump(exclude={"opened_minutes_ago"}), opened_at=opened)


# --- judged ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PolicyCase:
    """One case, ready to be judged."""

    name: str
    proposal: Proposal
    facts: Facts
    at: datetime
    approved_by: tuple[str, ...]
    expect: Answer | None
    rules: Mapping[str, Answer]
    timed: bool = False
    """Whether it says the time itself, so that calendars have a say."""

    def run(self, policy: Policy) -> "CaseResult":
        """Ask the gate."""
        approvals = [_approval(name, self.at) for name in self.approved_by]
        judgement = judge(self.proposal, self.facts, policy, self.at, approvals)
        return CaseResult(self.name, judgement, tuple(self._faults(judgement)))

    def _faults(self, judgement: Judgement) -> Iterable[str]:
        got = answer_of(judgement)
        if self.expect is not None and got is not self.expect:
            yield f"expected {self.expect}, got {got}{_because(judgement)}"
        answers = {verdict.rule: verdict for verdict in judgement.verdicts}
        for rule, expected in self.rules.items():
            said = answers[rule]
            if said.verdict.verdict != expected:
                yield f"expected {expected} of {rule}, got {_said(said)}"


@dataclass(frozen=True)
class CaseResult:
    """What came of one case."""

    name: str
    judgement: Judgement
    faults: tuple[str, ...]
    """What was expected and what came instead; none: it passed."""

    @property
    def passed(self) -> bool:
        """Whether everything was as expected."""
        return not self.faults


def case_of(entry: CaseEntry, policy: Policy) -> PolicyCase:
    """Fill a case up; raises `pydantic.ValidationError` below `request`."""
    return PolicyCase(
        entry.name,
        entry.proposal(),
        entry.facts(policy),
        entry.at,
        entry.approved_by,
        entry.expect,
        entry.rules,
        timed="at" in entry.model_fields_set,
    )


def unknown_rules(entry: CaseEntry, policy: Policy) -> dict[str, str]:
    """Give the rules that a case names and that do not exist, each with what may be meant."""
    known = [rule.title for rule in rules_of(policy)]
    unknown = [rule for rule in entry.rules if rule not in known]
    near = {rule: difflib.get_close_matches(rule, known, 1) for rule in unknown}
    return {rule: "".join(f"; did you mean {one}?" for one in near[rule]) for rule in unknown}


def _approval(by: str, at: datetime) -> ApprovalFact:
    """A yes to exactly this plan, given just now."""
    return ApprovalFact(
        approved_digest=_DIGEST, plan_digest=_DIGEST, by=by, expires_at=at + timedelta(minutes=1)
    )


def _because(judgement: Judgement) -> str:
    against = [*judgement.denials, *judgement.approvals]
    return f": {'; '.join(against)}" if against else ", no rule objects"


def _said(answer: RuleVerdict) -> str:
    verdict = answer.verdict
    if isinstance(verdict, Allowed):
        return Answer.ALLOWED + (f": {verdict.reason}" if verdict.reason else "")
    return f"{verdict.verdict}: {verdict.reason}"
