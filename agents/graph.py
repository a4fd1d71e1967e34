"""The agents as one LangGraph graph per incident and attempt.

    on_call ─┬─▶ analysis ─┬─▶ second_look ─┬─▶ gather ─▶ decide
             ├─▶ kubectl ──┘                └── (a verdict) ──▲
             └──────────────── (a verdict) ───────────────────┘

Invariants: nodes have no side effects, so that one may run again after a crash; the state is plain
JSON, checkpointed before the next node runs; nothing but a `Decision` leaves.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Protocol, cast

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from pydantic import TypeAdapter

from tiphys.agents.analysis import Analysis
from tiphys.agents.by_hand import no_alert
from tiphys.agents.deciding import ChoiceRefusedError, Decider, plan
from tiphys.agents.gather import Gatherer
from tiphys.agents.kubectl import Kubectl
from tiphys.agents.notebook import Notebook, short
from tiphys.agents.on_call import OnCall
from tiphys.agents.playbooks import Playbooks
from tiphys.agents.ports import (
    AlertSource,
    Case,
    ClusterReader,
    Metrics,
    Reasoner,
    UnansweredError,
)
from tiphys.agents.read_allowance import Allowance, AllowedReader
from tiphys.agents.repair import read_damage
from tiphys.agents.second_look import SecondLook
from tiphys.agents.state import (
    State,
    case_from_json,
    case_to_json,
    evidence_of,
    sentences,
)
from tiphys.agents.target_facts import TargetGoneError
from tiphys.agents.undoing import plan_undo, propose_undo
from tiphys.agents.wishing import propose_wish
from tiphys.policies.model import AlertFacts, Decision, Evidence, Plan, Proposal, TargetFacts
from tiphys.workflow_templates.action import NotApplicableError

_DECISION: Final[TypeAdapter[Decision]] = TypeAdapter(Decision)
_MISSED_THREADS: Final = 5
"""So many attempts in a row without a checkpoint mean that there are no more."""
_LOG = logging.getLogger(__name__)


class Look(Protocol):
    """A node: reads the state and gives a part of it."""

    async def __call__(self, state: State) -> State:
        """Look."""
        ...


@dataclass(frozen=True)
class Investigation:
    """What the agents found and what they decided."""

    decision: Decision
    evidence: list[Evidence]
    """In the order in which it was asked for."""
    facts: TargetFacts | None
    """The proposal's target; None without a proposal."""
    alert: AlertFacts | None
    """None where no Alertmanager was asked or none answered."""
    notes: list[str]
    """Each agent's findings, in sentences."""


@dataclass(frozen=True)
class Inspection:
    """The proposal's world just now; None is what could not be read."""

    alert: AlertFacts | None
    target: TargetFacts | None
    evidence: list[Evidence]
    """What was asked; where a source did not answer, or the target is gone, `ok` is false."""


@dataclass
class Agents:
    """The read-only half of Tiphys; see the module's picture."""

    metrics: Metrics | None
    cluster: ClusterReader
    alerts: AlertSource | None
    reasoner: Reasoner
    playbooks: Playbooks
    checkpointer: BaseCheckpointSaver[Any] | None
    clock: Callable[[], datetime]
    hold_seconds: int = 30
    """How long verify wants healthy to last."""
    allowance: Allowance = field(default_factory=Allowance)
    """How much of the cluster one investigation may read."""

    def __post_init__(self) -> None:
        self._reader = AllowedReader(self.cluster, self.allowance)
        self._on_call = OnCall(self.metrics, self.alerts, self.clock)
        self._analysis = Analysis(self.metrics, self._reader, self.clock)
        self._kubectl = Kubectl(self._reader, self.metrics, self.clock)
        self._second_look = SecondLook(self._reader, self.metrics, self.clock)
        self._gatherer = Gatherer(self.metrics, self.playbooks, self.clock)
        self._decider = Decider(self._reader, self.reasoner, self.clock, self.hold_seconds)
        self._graph = self._compile()

    async def investigate(self, case: Case) -> Investigation:
        """Decide on a case; goes on where an aborted investigation of it stopped.

        A finished one gives its recorded result without asking anybody again.
        """
        with self._reader.investigation():
            return await self._investigate(case)

    async def _investigate(self, case: Case) -> Investigation:
        if found := await self._by_hand(case):
            return found
        config = _thread(case.incident, case.attempt)
        given: State | None = State(case=case_to_json(case))
        if self.checkpointer is None:
            return _result(cast("State", await self._graph.ainvoke(given)))
        snapshot = await self._graph.aget_state(config)
        if snapshot.values and not snapshot.next:
            return _result(cast("State", snapshot.values))
        given = None if snapshot.next else given
        final = await self._graph.ainvoke(given, config, durability="sync")
        return _result(cast("State", final))

    async def inspect(self, case: Case, proposal: Proposal) -> Inspection:
        """Read alert and target anew, for the gate just before a launch."""
        book = Notebook(self.clock)
        with self._reader.investigation():
            alert, target = await asyncio.gather(
                self._alert_now(case, proposal, book), self._target_now(case, proposal, book)
            )
        return Inspection(alert, target, list(book.evidence))

    async def _by_hand(self, case: Case) -> Investigation | None:
        """Plan what a person asked for, if anybody did; nobody needs to reason about it."""
        book, hold = Notebook(self.clock), self.hold_seconds
        if case.undone:
            decision, facts = await propose_undo(self._reader, case, case.undone, hold, book)
        elif case.wanted:
            decision, facts = await propose_wish(self._reader, case, case.wanted, hold, book)
        else:
            return None
        return Investigation(decision, [*book.evidence], facts, no_alert(book.now()), book.notes)

    async def still_true(self, case: Case) -> bool | None:
        """Tell whether the expression of any of the alerts is true now; None: cannot be told."""
        try:
            return await self._on_call.anything_true(case)
        except UnansweredError:
            return None

    async def damage(self, plan: Plan) -> Evidence:
        """Read what stands where a rollback did not hold, for whoever repairs it by hand."""
        with self._reader.investigation():
            return await read_damage(self._reader, plan, Notebook(self.clock))

    async def forget(self, incident: str) -> None:
        """Delete the incident's checkpoints."""
        if self.checkpointer is None:
            return
        attempt, missed = 0, 0
        while missed < _MISSED_THREADS:
            attempt += 1
            config = _thread(incident, attempt)
            if await self.checkpointer.aget_tuple(config) is None:
                missed += 1
                continue
            missed = 0
            await self.checkpointer.adelete_thread(f"{incident}/{attempt}")

    # --- the graph ------------------------------------------------------------------------------

    def _compile(self) -> Any:
        graph = StateGraph(State)
        graph.add_node("on_call", _guarded("on_call", self._look_on_call))
        graph.add_node("analysis", _guarded("analysis", self._look_back))
        graph.add_node("kubectl", _guarded("kubectl", self._look_around))
        graph.add_node("second_look", _guarded("second_look", self._look_once_more))
        graph.add_node("gather", _guarded("gather", self._look_closer))
        graph.add_node("decide", self._decider.look)
        graph.add_edge(START, "on_call")
        graph.add_conditional_edges("on_call", _next, ["decide", "analysis", "kubectl"])
        graph.add_edge(["analysis", "kubectl"], "second_look")
        graph.add_conditional_edges("second_look", _after_kubectl, ["decide", "gather"])
        graph.add_edge("gather", "decide")
        graph.add_edge("decide", END)
        return graph.compile(checkpointer=self.checkpointer)

    async def _look_on_call(self, state: State) -> State:
        return await self._on_call.look(_case(state))

    async def _look_back(self, state: State) -> State:
        return await self._analysis.look(_case(state), state.get("check") or {})

    async def _look_around(self, state: State) -> State:
        return await self._kubectl.look(_case(state))

    async def _look_once_more(self, state: State) -> State:
        return await self._second_look.look(_case(state), state)

    async def _look_closer(self, state: State) -> State:
        return await self._gatherer.look(_case(state), state.get("facts", {}))

    # --- inspecting -----------------------------------------------------------------------------

    async def _alert_now(self, case: Case, proposal: Proposal, book: Notebook) -> AlertFacts | None:
        if case.undone or case.wanted:
            return no_alert(book.now())
        try:
            known = await self._on_call.alert_facts(case, book)
            if known is None:
                return None
            still = await self._on_call.still_true(proposal.check, book)
        except UnansweredError:
            return None
        return known.model_copy(update={"firing": known.firing and still})

    async def _target_now(
        self, case: Case, proposal: Proposal, book: Notebook
    ) -> TargetFacts | None:
        wanted = (proposal.action, proposal.parameters)
        try:
            if case.undone:
                return (await plan_undo(self._reader, case, case.undone, book)).facts
            return (await plan(self._reader, wanted, proposal.target, case, book)).facts
        except (ChoiceRefusedError, NotApplicableError, TargetGoneError) as error:
            book.refuse(f"plan {proposal.action} on {proposal.target}", str(error))
        except UnansweredError as error:
            book.refuse(f"read {proposal.target}", str(error))
        return None


def _case(state: State) -> Case:
    return case_from_json(state.get("case", {}))


def _thread(incident: str, attempt: int) -> Any:
    return {"configurable": {"thread_id": f"{incident}/{attempt}"}}


def _next(state: State) -> list[str]:
    return ["decide"] if state.get("verdict") else ["analysis", "kubectl"]


def _after_kubectl(state: State) -> str:
    return "decide" if state.get("verdict") else "gather"


def _guarded(name: str, look: Look) -> Look:
    """Turn a node's own failure into something that could not be seen: a human is told."""

    async def run(state: State) -> State:
        try:
            return await look(state)
        except Exception as error:
            _LOG.exception("the %s agent failed", name)
            why = short(f"the agent itself failed: {type(error).__name__}: {error}")
            failed = State(unseen={name: [why]})
            if name == "on_call":
                failed["verdict"] = {"answer": "escalate", "reason": why}
            return failed

    return run


def _result(state: State) -> Investigation:
    alert, facts = state.get("alert"), state.get("target_facts")
    return Investigation(
        decision=_DECISION.validate_python(state.get("decision")),
        evidence=evidence_of(state),
        facts=TargetFacts.model_validate(facts) if facts else None,
        alert=AlertFacts.model_validate(alert) if alert else None,
        notes=sentences(state.get("notes", {})),
    )
