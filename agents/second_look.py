"""The on-call agent's second look, at what kubectl saw: is the cause elsewhere, or is it healing?

Invariants: nobody waits for ever: each reason to wait has a bound, after which a playbook, a model
or a human decides; what could not be seen is no reason to wait.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

from tiphys.agents.monitoring import PARTS
from tiphys.agents.notebook import Notebook
from tiphys.agents.objects import controller_of, dig, items, mapping, strings, text, whole
from tiphys.agents.on_call import firing
from tiphys.agents.pod_facts import Trouble
from tiphys.agents.ports import Case, ClusterReader, Metrics
from tiphys.agents.shared_cause import SharedCause
from tiphys.agents.state import State, written
from tiphys.agents.verdict import Verdict, ask_a_human, nothing
from tiphys.policies.model import Cause, Json, Object, Severity, Source

CAUSE_SECONDS: Final = {Severity.CRITICAL: 300.0, Severity.WARNING: 600.0, Severity.INFO: 600.0}
"""How long an incident waits for one that is about its cause, before it tells of that itself."""
HEALING_SECONDS: Final = 900.0
"""How long something that heals by itself is waited for."""
MAINTENANCE_SECONDS: Final = 86_400.0
"""How long a node may be out of service by somebody's hand before a human is asked."""
LOOK_SECONDS: Final = 60.0
MAINTENANCE_LOOK_SECONDS: Final = 1800.0
REBOOT_MINUTES: Final = 5.0
"""A node that has not been ready for so short a time may only be starting anew."""
STARTING_MINUTES: Final = 5.0
"""A pod so young may only be starting."""
STALLED: Final = frozenset(
    {
        "KubeDaemonSetRolloutStuck",
        "KubeDeploymentGenerationMismatch",
        "KubeDeploymentRolloutStuck",
        "KubeStatefulSetGenerationMismatch",
        "KubeStatefulSetUpdateNotRolledOut",
    }
)
"""Alerts which say that a rollout does not go on."""
_MOVING = {Trouble.STARTING.value, Trouble.UNREADY.value}
_MIRROR = "kubernetes.io/config.mirror"


class SecondLook:
    """Its `look` is a node of the graph."""

    def __init__(
        self, cluster: ClusterReader, metrics: Metrics | None, clock: Callable[[], datetime]
    ) -> None:
        self._cluster = cluster
        self._metrics = metrics
        self._clock = clock

    async def look(self, case: Case, state: State) -> State:
        """Give a verdict where something else must happen first."""
        if state.get("unseen"):
            return State()
        book = Notebook(self._clock)
        facts, where = state.get("facts", {}), state.get("whereabouts", {})
        verdict = await self._judge(case, facts, where, state.get("check") or {}, book)
        told = State()
        if verdict is not None:
            told["verdict"] = verdict.to_json()
            book.note(verdict.reason)
        told.update(written("on-call, once more", book))
        return told

    async def _judge(
        self,
        case: Case,
        facts: Mapping[str, Json],
        where: Mapping[str, Json],
        check: Mapping[str, Json],
        book: Notebook,
    ) -> Verdict | None:
        cause = await self._cause(case, facts, where, text(check, "query"), book)
        if cause is not None and case.subject not in cause.subjects:
            return _because_of(cause, case)
        if text(where, "part") in PARTS:
            return ask_a_human(
                f"{text(where, 'workload')} is a part of the monitoring, which would have to prove "
                "that an action helped: nothing is done about it but by a human"
            )
        if text(where, "node") and not case.attempts and case.waited < MAINTENANCE_SECONDS:
            why = await self._maintenance(text(where, "node"), facts, book)
            if why:
                return nothing(why, again=MAINTENANCE_LOOK_SECONDS)
        why = healing(facts, where)
        if why and case.waited < HEALING_SECONDS:
            left = max(HEALING_SECONDS - case.waited, 1.0)
            why = f"{why}: that is waited for, for at most {left / 60:.0f} more minutes"
            return nothing(why, again=min(LOOK_SECONDS, left))
        return None

    async def _cause(
        self,
        case: Case,
        facts: Mapping[str, Json],
        where: Mapping[str, Json],
        query: str,
        book: Notebook,
    ) -> Cause | None:
        """Look for what explains all of it; a claim's fill and a GPU's fault nothing explains."""
        if text(where, "claim") or mapping(facts, "gpu"):
            return None
        shared = SharedCause(self._cluster, self._metrics, book)
        if text(where, "workload"):
            return await shared.of_pods(where)
        return await shared.of_targets(firing(case), query) if query else None

    async def _maintenance(self, name: str, facts: Mapping[str, Json], book: Notebook) -> str:
        """Say that somebody has taken a node out of service: closed, and nothing left on it."""
        if dig(facts, "node", "cordoned") is not True:
            return ""
        found = await book.ask(
            Source.KUBERNETES,
            f"list pods on node {name}",
            self._cluster.list("v1", "Pod", "", field_selector=f"spec.nodeName={name}"),
            lambda pods: (len(pods), f"{len(pods)} pods are on it"),
        )
        left = [pod for pod in found if text(pod, "spec", "nodeName") == name and _is_moved(pod)]
        if left:
            return ""
        return (
            f"somebody has taken node {name} out of service (it is cordoned, and drained but for "
            "DaemonSets): maintenance, which is left alone"
        )


def _is_moved(pod: Object) -> bool:
    """Tell whether draining would move a pod away."""
    owner = controller_of(pod)
    of_daemon = owner is not None and owner.kind in {"DaemonSet", "Node"}
    over = text(pod, "status", "phase") in {"Succeeded", "Failed"}
    return not of_daemon and not over and _MIRROR not in strings(pod, "metadata", "annotations")


def _because_of(cause: Cause, case: Case) -> Verdict:
    """Wait for an incident that is about the cause; in the end, tell a human of it."""
    gravest = firing(case)[0].severity if firing(case) else Severity.WARNING
    why = f"{cause.words}: what this alert says only follows from that, and nothing is done here"
    if case.waited < CAUSE_SECONDS[gravest]:
        return nothing(f"{why}. It waits for an incident about that", cause)
    return ask_a_human(f"{why}. No alert speaks of the cause itself", cause)


def healing(facts: Mapping[str, Json], where: Mapping[str, Json]) -> str:
    """Say what heals by itself just now; empty where nothing does."""
    groups = [g for g in items(where, "groups") if text(g, "trouble") != "terminating"]
    troubles = {text(g, "trouble") for g in groups}
    if text(where, "claim"):
        return f"claim {text(where, 'claim')} is being made larger" if where["resizing"] else ""
    if _rolls_out(facts) and troubles <= _MOVING:
        return f"a rollout of {text(where, 'workload')} is under way and goes on"
    desired = whole(facts, "autoscaler", "desired")
    if desired > whole(facts, "autoscaler", "current") and troubles <= _MOVING:
        name = text(facts, "autoscaler", "name")
        return f"autoscaler {name} is on its way to {desired} replicas"
    if groups and troubles == {Trouble.STARTING.value} and _oldest(groups) <= STARTING_MINUTES:
        count = sum(whole(g, "count") for g in groups)
        return f"{count} pods of {text(where, 'workload')} are starting"
    minutes = where.get("node_minutes")
    node = text(where, "node")
    off = node and dig(facts, "node", "ready") is False
    if off and isinstance(minutes, int | float) and 0 <= minutes < REBOOT_MINUTES:
        return f"node {node} has not been ready for {minutes:.1f} min only: it may be starting anew"
    return ""


def _rolls_out(facts: Mapping[str, Json]) -> bool:
    moves = dig(facts, "rollout", "in_progress") is True
    stalled = text(facts, "alert", "name") in STALLED
    return moves and not stalled and dig(facts, "workload", "paused") is not True


def _oldest(groups: list[Object]) -> float:
    ages = [g.get("minutes") for g in groups]
    return max((float(a) for a in ages if isinstance(a, int | float)), default=0.0)
