"""From a reasoner's choice to the one Decision that may leave the graph.

Invariants: a proposal names a catalogued action, valid parameters and a target that was resolved
and read again here; whatever does not fit becomes an escalation that says why; an action that was
tried on a target is not proposed for it again; nor is what would do harm (`agents/harm.py`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from tiphys.agents.experience import futile
from tiphys.agents.findings import listing
from tiphys.agents.fitting import UnfitError, fitting
from tiphys.agents.harm import Proposed, harm
from tiphys.agents.notebook import Notebook, short
from tiphys.agents.objects import dig, mapping, name_of
from tiphys.agents.plan_secrets import secrets_in
from tiphys.agents.playbooks import tried
from tiphys.agents.ports import (
    Answer,
    Case,
    Choice,
    ClusterReader,
    Findings,
    Reasoner,
    ReasonerFailedError,
    UnansweredError,
)
from tiphys.agents.remembering import remembered
from tiphys.agents.resolver import Resolver, names_a_pod
from tiphys.agents.state import State, case_from_json, evidence_of, sentences, written
from tiphys.agents.symptoms import symptoms_of
from tiphys.agents.target_facts import Sight, TargetGoneError, Use, see, target_facts
from tiphys.agents.verdict import BY_ON_CALL, decision_of, silence_of
from tiphys.policies.model import (
    Change,
    Check,
    Decision,
    Escalate,
    Json,
    NoAction,
    Proposal,
    RuledOut,
    Source,
    Target,
    TargetFacts,
)
from tiphys.workflow_templates import catalogue
from tiphys.workflow_templates.action import Action, NotApplicableError, Parameters


class ChoiceRefusedError(Exception):
    """The choice cannot become a proposal; the message says why."""


@dataclass(frozen=True)
class Planned:
    """A choice that fits: everything of a proposal but the words."""

    action: Action
    parameters: Parameters
    sight: Sight
    facts: TargetFacts


def findings_of(state: State) -> Findings:
    """Give a reasoner what it decides on."""
    case = case_from_json(state.get("case", {}))
    last = case.attempts[-1] if case.attempts else None
    attempts: dict[str, Json] = {
        "count": len(case.attempts),
        "last_action": last.action if last else "",
        "last_outcome": last.outcome.value if last else "",
    }
    roles = state.get("targets", {})
    facts = state.get("facts", {})
    return Findings(
        case=case,
        facts={**facts, "attempts": attempts, "symptoms": symptoms_of(facts)},
        targets={role: Target.model_validate(t) for role, t in roles.items()},
        evidence=evidence_of(state),
    )


class Decider:
    """Asks the reasoner and checks its answer; its `look` is the graph's last node."""

    def __init__(
        self,
        cluster: ClusterReader,
        reasoner: Reasoner,
        clock: Callable[[], datetime],
        hold_seconds: int,
    ) -> None:
        self._cluster = cluster
        self._reasoner = reasoner
        self._clock = clock
        self._hold = hold_seconds

    async def look(self, state: State) -> State:
        """Give the decision, and the target's facts with a proposal."""
        book = Notebook(self._clock)
        facts: TargetFacts | None = None
        decision = self._without_asking(state)
        if decision is None:
            decision, facts = await self._ask(state, book)
        result = State(
            decision=decision.model_dump(mode="json"),
            target_facts=facts.model_dump(mode="json") if facts else None,
        )
        result.update(written("decide", book))
        return result

    def _without_asking(self, state: State) -> Decision | None:
        evidence = tuple(e.id for e in evidence_of(state))
        verdict = state.get("verdict")
        if verdict:
            return decision_of(verdict, evidence)
        unseen = sentences(state.get("unseen", {}))
        if unseen:
            reason = f"not everything could be seen, so nothing is proposed: {'; '.join(unseen)}"
            reason, cause = short(reason, 1_500), silence_of(evidence_of(state))
            return Escalate(reason=reason, evidence=evidence, decided_by=BY_ON_CALL, cause=cause)
        return None

    async def _ask(self, state: State, book: Notebook) -> tuple[Decision, TargetFacts | None]:
        findings = remembered(findings_of(state), book)
        known = [e.id for e in findings.evidence if e.ok]
        try:
            choice = await self._reasoner.decide(findings)
        except ReasonerFailedError as error:
            book.evidence += error.fetched
            reason = f"no reasoner has an answer: {error}"
            return Escalate(reason=reason, evidence=(*known,), decided_by=BY_ON_CALL), None
        book.evidence += choice.fetched
        known += [e.id for e in choice.fetched if e.ok]
        cited = tuple(dict.fromkeys(e for e in choice.evidence if e in known)) or (*known,)
        if choice.answer is not Answer.ACT:
            kind = NoAction if choice.answer is Answer.NOTHING else Escalate
            ruled, by = tuple(choice.ruled_out), choice.decided_by
            return kind(reason=choice.reason, evidence=cited, decided_by=by, ruled_out=ruled), None
        read = len(book.evidence)
        try:
            planned = await self._plan(choice, findings, book)
        except (ChoiceRefusedError, UnansweredError) as error:
            wanted = f"{choice.action} on the {choice.target}: {choice.reason}"
            reason = short(f"{error} (wanted: {wanted})", 1_500)
            ruled = (*_ruled_out(choice, error), *choice.ruled_out)
            by = choice.decided_by
            return Escalate(reason=reason, evidence=cited, decided_by=by, ruled_out=ruled), None
        seen = tuple(e.id for e in book.evidence[read:] if e.ok)
        check = self._check(state, planned.sight)
        return _proposal(choice, planned, check, (*cited, *seen)), planned.facts

    async def _plan(self, choice: Choice, findings: Findings, book: Notebook) -> Planned:
        target = target_of_choice(choice, findings)
        _refuse_futile(choice, findings, book.now())
        try:
            found = await plan(
                self._cluster, (choice.action, choice.parameters), target, findings.case, book
            )
        except (NotApplicableError, TargetGoneError) as error:
            raise ChoiceRefusedError(f"{choice.action} cannot be done: {error}") from error
        refuse_harm(found.action, found.parameters, target, findings)
        return found

    def _check(self, state: State, sight: Sight) -> Check:
        check = Check.model_validate(state.get("check") or {})
        alert = mapping(state.get("facts", {}), "alert", "labels")
        on_pods = bool(check.query) and names_a_pod(alert) and sight.workload.kind != "Pod"
        prefix = f"{name_of(sight.workload.thing)}-" if on_pods else ""
        return check.model_copy(update={"pod_prefix": prefix, "hold_seconds": self._hold})


def target_of_choice(choice: Choice, findings: Findings) -> Target:
    """Give what it would act on; raises `ChoiceRefusedError` where that is none, or was tried."""
    target = findings.targets.get(choice.target)
    if target is None:
        raise ChoiceRefusedError(_no_target(choice.target, findings))
    _refuse_again(choice.action, target, findings.case)
    return target


def fitted(wanted: tuple[str, object], target: Target) -> tuple[Action, Parameters]:
    """Give the action and its parameters; raises `ChoiceRefusedError` where one does not fit."""
    try:
        action, parameters = fitting(*wanted)
    except UnfitError as error:
        raise ChoiceRefusedError(str(error)) from error
    if (target.api_version, target.kind) not in action.kinds:
        raise ChoiceRefusedError(f"{action.name} does not work on a {target.kind}")
    return action, parameters


def refuse_harm(action: Action, parameters: Parameters, target: Target, findings: Findings) -> None:
    """Raise `ChoiceRefusedError` where it would do harm."""
    given = parameters.model_dump(mode="json")
    why = harm(Proposed(action.name, target, given, findings.facts))
    if why:
        raise ChoiceRefusedError(f"{action.name} would do harm: {'; '.join(why)}")


async def plan(
    cluster: ClusterReader,
    wanted: tuple[str, object],
    target: Target,
    case: Case,
    book: Notebook,
) -> Planned:
    """Read the target and plan one use of an action; `wanted` is its name and parameters.

    Raises `ChoiceRefusedError`, `NotApplicableError`, `TargetGoneError`, `UnansweredError`.
    """
    action, parameters = fitted(wanted, target)
    use = Use(action, parameters, lambda thing, near: action.changes(thing, near, parameters))
    return await planned(cluster, use, target, case, book)


async def planned(
    cluster: ClusterReader, use: Use, target: Target, case: Case, book: Notebook
) -> Planned:
    """Read the target and plan on it.

    Raises `ChoiceRefusedError`, `NotApplicableError`, `TargetGoneError`, `UnansweredError`.
    """
    action, name = use.action, use.action.name
    if (target.api_version, target.kind) not in action.kinds:
        raise ChoiceRefusedError(f"{name} does not work on a {target.kind}")
    sight = await see(cluster, Resolver(cluster, book), target)
    facts = await target_facts(cluster, sight, use, case.managed, book.now())
    hidden = secrets_in(facts.changes, sight.thing)
    if hidden:
        raise ChoiceRefusedError(
            f"{name} would change what looks like a secret ({', '.join(hidden[:5])}), whose value "
            "must not be written into a plan: do it by hand"
        )
    book.write(
        Source.KUBERNETES,
        f"what {name} would change on {target}",
        [change.model_dump(mode="json") for change in facts.changes],
        f"{name} {_effect(facts.changes, target)}",
    )
    return Planned(action, use.parameters, sight, facts)


def _proposal(choice: Choice, planned: Planned, check: Check, evidence: Sequence[str]) -> Proposal:
    action, thing = planned.action, planned.sight.thing
    return Proposal(
        action=action.name,
        version=action.version,
        target=planned.sight.target,
        parameters=planned.parameters.model_dump(mode="json"),
        changes=planned.facts.changes,
        risk=action.risk(thing, planned.parameters),
        reversible=action.reversible,
        always_ask=action.always_ask,
        blast_radius=action.blast_radius(thing, planned.parameters),
        undo=action.undo,
        reason=choice.reason,
        ruled_out=tuple(choice.ruled_out),
        risks=choice.risks,
        check=check,
        evidence=tuple(dict.fromkeys(evidence)),
        confidence=choice.confidence,
        decided_by=choice.decided_by,
    )


def _ruled_out(choice: Choice, error: Exception) -> tuple[RuledOut, ...]:
    """Rule out what was wanted, where the catalogue has it, by what stood against it."""
    try:
        action = catalogue.find(choice.action).name
    except catalogue.UnknownActionError:
        return ()
    return (RuledOut(action=action, because=short(str(error), 600)),)


def _no_target(role: str, findings: Findings) -> str:
    resolution = findings.facts.get("resolution")
    names = listing(dig(resolution, "candidates"))
    if names:
        return f"the alerts lead to several objects, so none is the target: {names}"
    return f"no single {role} could be resolved from the alert's labels"


def _refuse_again(action: str, target: Target, case: Case) -> None:
    for attempt in case.attempts:
        same = (attempt.target.kind, attempt.target.namespace, attempt.target.name) == (
            target.kind,
            target.namespace,
            target.name,
        )
        if attempt.action == action and (same or attempt.target.uid == target.uid):
            raise ChoiceRefusedError(f"{action} was tried on it before; {tried(case)}")


def _refuse_futile(choice: Choice, findings: Findings, now: datetime) -> None:
    """Refuse what looked well on this very object before, and was not."""
    target = findings.targets[choice.target]
    # A pod's successors have another uid and the same workload.
    roles = ("pod", "workload") if choice.target in {"pod", "workload"} else (choice.target,)
    uids = {findings.targets[role].uid for role in roles if role in findings.targets}
    why = futile(findings.case.experience, choice.action, target, uids, now)
    if why:
        raise ChoiceRefusedError(why)


def _effect(changes: Sequence[Change], target: Target) -> str:
    """Say in a few words what a plan would do."""
    count = len(changes)
    if any(change.path for change in changes):
        return f"would change {count} field{'s' * (count > 1)} of {target}"
    kinds = sorted({change.of.kind for change in changes if change.of})
    if not kinds:
        return f"would delete {target}"
    return f"would delete {count} {' and '.join(kinds)}{'s' * (count > 1)} of {target}"
