"""Stage: ask the gate about what the agents saw, and commit the intent, a question or a refusal.

Invariants: facts, approval, budgets and the stop switch are judged in the very transaction that
records the intent; facts that have lain for long are not judged at all, the agents look again;
what was approved is exactly what is launched, or the approval is void.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from sqlalchemy import update

from tiphys.policies.gate import approvers, judge
from tiphys.policies.lifecycle import Move
from tiphys.policies.limits import Breaker, LaunchRate
from tiphys.policies.model import (
    EvidenceFact,
    Facts,
    Incident,
    IncidentFacts,
    Instant,
    Plan,
    Proposal,
    StopFacts,
)
from tiphys.policies.plan import MAX_ENCODED_PLAN, digest, encode
from tiphys.policies.policy import Policy
from tiphys.policies.rule import RuleName
from tiphys.policies.verdict import Judgement
from tiphys.service.approvals import QUESTION, Approvals
from tiphys.service.breakers import Breakers
from tiphys.service.calendar_watch import CalendarWatch
from tiphys.service.cases import Cases
from tiphys.service.experience import note_trial
from tiphys.service.facts import FactTable, Seen
from tiphys.service.history import History
from tiphys.service.incidents import Step, dump
from tiphys.service.ledger import Entry, Job, Ledger
from tiphys.service.pauses import covering
from tiphys.service.records import AuditEvent
from tiphys.service.runs import Runs, RunTimes
from tiphys.service.tables import proposals
from tiphys.workflow_templates import catalogue

WAITABLE = {
    RuleName.CLUSTER_CONCURRENCY,
    RuleName.FACTS_FRESH,
    RuleName.NAMESPACE_CONCURRENCY,
    RuleName.NODES_AT_ONCE,
    RuleName.ONE_PER_TARGET,
    RuleName.PAUSED,
    RuleName.ROLLOUT_IN_PROGRESS,
}
"""Denials that pass by themselves: worth another look before a human is woken."""

FACTS_FOR = timedelta(seconds=30)
"""How long what the agents saw may lie before the gate does not judge it any more."""

LOOK_AGAIN = timedelta(seconds=2)
"""Between two looks at a target that is denied for a while."""

OVER = {RuleName.ALERT_FIRING, RuleName.ALERT_NOT_SILENCED}
"""Denials that mean: there is nothing to do now."""

STALE = {RuleName.TARGET_UNMOVED, RuleName.EVIDENCE_FRESH}
"""Denials that a new investigation answers."""


class Switch(Protocol):
    """The stop switch."""

    async def read(self) -> StopFacts | None:
        """Tell its position; None when nobody can."""
        ...


@dataclass(frozen=True)
class Rulebook:
    """The policy and the times that go with it."""

    policy: Policy
    not_after: timedelta
    watch: timedelta
    """How long an alert may stay after we decided to do nothing."""
    calendars: CalendarWatch | None = None
    """Where the policy names calendars, which change while it does not."""

    @property
    def now(self) -> Policy:
        """The policy with its calendars as they were read last."""
        return self.calendars.policy if self.calendars else self.policy


@dataclass(frozen=True)
class Judged:
    """One asking of the gate."""

    proposal: Proposal
    facts: Facts
    plan: Plan
    judgement: Judgement
    approvers: str
    """Who has approved what was planned before, whether that counts or not."""


class Decide:
    """From INSPECTED to a launch, to a question, to watching, to a new look, or to a human."""

    def __init__(
        self,
        ledger: Ledger,
        cases: Cases,
        runs: Runs,
        approvals: Approvals,
        stop: Switch,
        rulebook: Rulebook,
    ) -> None:
        self._ledger = ledger
        self._cases = cases
        self._runs = runs
        self._approvals = approvals
        self._stop = stop
        self._rules = rulebook
        self._facts = FactTable(ledger.database)
        self._history = History(ledger.database)
        self._breakers = Breakers(runs, rulebook.policy.rule(Breaker))

    async def run(self, job: Job) -> None:
        """Read the switch outside the transaction, judge inside it."""
        proposal = await self._cases.proposal(job.incident)
        if proposal is None:
            await self._ledger.escalate(job, "the proposal of this attempt cannot be found")
            return
        stop = await self._stop.read()
        async with self._ledger.entry(job) as entry:
            seen = await self._fresh(entry)
            if seen is None:
                await entry.turn(Move.LOOK_AGAIN)
                return
            judged = await self._judge(entry, proposal, seen, stop)
            if _may_wait(entry, judged):
                await entry.turn(Move.LOOK_AGAIN, due_at=entry.now + LOOK_AGAIN)
                return  # it goes into the record only when it comes to a decision
            await self._record(entry, judged)
            await self._act(entry, judged)

    async def _fresh(self, entry: Entry) -> Seen | None:
        """Give what the agents saw, unless it is too old by the database's clock."""
        laid = await self._facts.last(entry.tx, entry.incident)
        if laid is None:
            return None
        now = await self._ledger.database.time(entry.tx, entry.now)
        return laid.seen if now - laid.at <= FACTS_FOR else None

    async def _judge(
        self, entry: Entry, proposal: Proposal, seen: Seen, stop: StopFacts | None
    ) -> Judged:
        policy = self._rules.now
        plan, proposal = self._plan(entry, proposal), _as_catalogued(proposal)
        history = None
        if seen.target is not None:
            history = await self._history.of(
                entry.tx, proposal.target, seen.target, policy, entry.now
            )
            pauses = await covering(self._ledger.database, entry.tx, proposal.target, entry.now)
            history = history.model_copy(update={"pauses": pauses})
        known = await self._cases.evidence(entry.tx, entry.incident.id)
        facts = Facts(
            alert=seen.alert,
            target=seen.target,
            history=history,
            stop=stop,
            evidence=tuple(
                EvidenceFact(id=e.id, source=e.source, asked_at=e.asked_at, ok=e.ok) for e in known
            ),
            incident=_incident_facts(entry.incident),
        )
        approvals = await self._approvals.of(entry.tx, entry.incident, digest(plan), entry.now)
        judgement = judge(proposal, facts, policy, entry.now, approvals)
        return Judged(proposal, facts, plan, judgement, approvers(approvals))

    def _plan(self, entry: Entry, proposal: Proposal) -> Plan:
        return Plan(
            incident=entry.incident.id,
            attempt=entry.incident.attempt,
            action=proposal.action,
            version=proposal.version,
            target=proposal.target,
            parameters=proposal.parameters,
            changes=proposal.changes,
            check=proposal.check.model_copy(
                update={"hold_seconds": self._rules.policy.verification.hold_seconds}
            ),
            policy=self._rules.policy.identity,
            evidence_hash=digest([*sorted(proposal.evidence)]),
            decided_by=proposal.decided_by,
            undoes=proposal.undoes,
        )

    async def _record(self, entry: Entry, judged: Judged) -> None:
        await entry.tx.execute(
            update(proposals)
            .where(
                proposals.c.incident_id == entry.incident.id,
                proposals.c.attempt == entry.incident.attempt,
            )
            .values(facts=dump(judged.facts), judgement=dump(judged.judgement))
        )
        body = {
            "judgement": judged.judgement.model_dump(mode="json"),
            "facts": digest(judged.facts),
            "plan": digest(judged.plan),
        }
        await entry.record(AuditEvent.JUDGED, body, actor="gate")

    async def _act(self, entry: Entry, judged: Judged) -> None:
        verdict, plan = judged.judgement, judged.plan
        if verdict.denied:
            await self._refuse(entry, judged)
        elif len(encode(plan)) > MAX_ENCODED_PLAN:
            await entry.move(Step(Move.ESCALATE, "the plan is too large to be signed and carried"))
        elif not await self._runs.keep_plan(entry.tx, plan, entry.now):
            await self._again(entry, judged, "the policy has changed since this was planned")
        elif verdict.allowed:
            await self._launch(entry, judged)
        else:
            await self._ask(entry, judged)

    async def _refuse(self, entry: Entry, judged: Judged) -> None:
        why, denied = "; ".join(judged.judgement.denials), judged.judgement.denied_by
        if judged.judgement.observed and judged.proposal.decided_by.reasoner != "human":
            # No deadline: people are paged by Alertmanager's own route, never for our observing.
            await entry.move(Step(Move.STAND_BY, _observation(judged), "gate"))
        elif judged.facts.alert is not None and denied & OVER and not entry.incident.wants:
            deadline = entry.now + self._rules.watch
            await entry.move(Step(Move.STAND_BY, why, "gate", deadline_at=deadline))
        elif denied <= STALE:
            await self._again(entry, judged, why)
        else:
            await self._trip(entry, judged)
            await entry.move(
                Step(Move.ESCALATE, f"{_suggestion(judged.proposal)}. Not started: {why}", "gate")
            )

    async def _again(self, entry: Entry, judged: Judged, why: str) -> None:
        """Plan anew; an approval of the old plan is void, and the attempt number says so."""
        if judged.approvers:
            body = {"reason": why, "by": judged.approvers}
            await entry.record(AuditEvent.APPROVAL_VOID, body, actor="gate")
            why = f"the approval by {judged.approvers} is void: {why}"
        if entry.incident.attempt >= self._rules.policy.attempts.per_incident:
            await entry.move(Step(Move.ESCALATE, f"no plan stays valid: {why}", "gate"))
            return
        await entry.move(Step(Move.REINVESTIGATE, why, "gate", next_attempt=True))

    async def _trip(self, entry: Entry, judged: Judged) -> None:
        history, rate = judged.facts.history, self._rules.policy.rule(LaunchRate)
        if RuleName.LAUNCH_RATE not in judged.judgement.denied_by:
            return
        if history is None or not rate.namespace_is_over(history):
            return
        why = next(d for d in judged.judgement.denials if d.startswith(RuleName.LAUNCH_RATE))
        await self._breakers.trip(entry, judged.proposal.target, why)

    async def _ask(self, entry: Entry, judged: Judged) -> None:
        void = judged.judgement.approval_void
        if void:
            await self._again(entry, judged, void)
            return
        reasons = "; ".join(judged.judgement.approvals)
        expiry = timedelta(seconds=self._rules.policy.approval.expiry_seconds)
        words = f"{_suggestion(judged.proposal)}. Needs approval: {reasons}"
        if lack := judged.judgement.approval_lacks:
            words = f"{lack}. {words}"
        if earlier := await self._approvals.earlier(entry.tx, entry.incident):
            words = f"The approval of an earlier plan by {', '.join(earlier)} is void. {words}"
        await entry.record(AuditEvent.PLANNED, _planned(judged.plan), actor="gate")
        await entry.move(Step(Move.ASK, words, "gate", deadline_at=entry.now + expiry))

    async def _launch(self, entry: Entry, judged: Judged) -> None:
        plan, facts = judged.plan, judged.facts.target
        if facts is None:  # the gate denies this; the type checker cannot know
            raise ValueError("a launch was allowed without facts about its target")
        action = catalogue.find(plan.action)
        times = RunTimes(self._rules.not_after, timedelta(seconds=action.longest(plan.check)))
        await entry.record(AuditEvent.PLANNED, _planned(plan), actor="gate")
        run = await self._runs.intend(entry.tx, plan, facts, now=entry.now, times=times)
        await note_trial(entry.tx, plan, judged.facts.alert, entry.now)
        await entry.record(
            AuditEvent.LAUNCH_INTENDED,
            {
                "workflow": run.name,
                "plan": digest(plan),
                "not_after": run.not_after.isoformat(),
                "approved_by": judged.judgement.approved_by,
            },
            actor="launcher",
        )
        await entry.move(
            Step(
                Move.LAUNCH,
                f"{'undo of ' if plan.undoes else ''}{plan.action} on {plan.target} is allowed",
                "gate",
                deadline_at=run.deadline_at,
            )
        )


def _incident_facts(incident: Incident) -> IncidentFacts:
    return IncidentFacts(
        id=incident.id,
        severity=incident.severity,
        subject=incident.subject,
        attempt=incident.attempt,
        opened_at=incident.opened_at,
        wants=incident.wants,
    )


def _as_catalogued(proposal: Proposal) -> Proposal:
    """Take the catalogue's word, not the agents', for whether a person must always be asked."""
    return proposal.model_copy(update={"always_ask": catalogue.always_ask(proposal.action)})


def _may_wait(entry: Entry, judged: Judged) -> bool:
    """Whether only what passes by itself is in the way, and its deadline leaves time to pass."""
    denied, deadline = judged.judgement.denied_by, entry.incident.deadline_at
    in_time = deadline is None or entry.now + LOOK_AGAIN < deadline
    return in_time and bool(denied) and denied <= WAITABLE and _pauses_end_by(deadline, judged)


def _pauses_end_by(deadline: Instant | None, judged: Judged) -> bool:
    """Whether no pause lasts longer than the incident may wait: a human is told of it at once."""
    pauses = judged.facts.history.pauses if judged.facts.history else ()
    return deadline is None or all(pause.until < deadline for pause in pauses)


def _planned(plan: Plan) -> dict[str, Any]:
    return {"digest": digest(plan), "plan": plan.model_dump(mode="json")}


def _observation(judged: Judged) -> str:
    """Say what would have come of it if Tiphys did more than observe there."""
    rest = judged.judgement.unobserved()
    if rest.denied:
        would = f"would not have started it: {'; '.join(rest.denials)}"
    elif rest.needs_approval:
        would = f"would have asked: {'; '.join(rest.approvals)}"
    else:
        would = "would have launched it"
    return f"Observed only, {would}. {_suggestion(judged.proposal)}"


def _suggestion(proposal: Proposal) -> str:
    what = f"undo of {proposal.action}" if proposal.undoes else proposal.action
    return f"{QUESTION}{what} on {proposal.target}: {proposal.reason}"
