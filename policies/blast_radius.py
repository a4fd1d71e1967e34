"""How much of a whole may be away at once: replicas, workloads, nodes, machines of a pool.

A share is rounded down, but one of anything may always be acted on: the only replica, the only node
in trouble; otherwise nothing small could ever be healed. What a person has undone is put back.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Final

from pydantic import Field
from pydantic.dataclasses import dataclass

from tiphys.policies.limits import Count, Seconds
from tiphys.policies.model import Change, Impact, Target
from tiphys.policies.rule import ALLOWED, SETTINGS, Request, Rule, RuleName, known
from tiphys.policies.verdict import Denied, Verdict

Percent = Annotated[int, Field(ge=1, le=100)]
WORKLOADS: Final = {"DaemonSet", "Deployment", "Job", "Pod", "ReplicaSet", "StatefulSet"}
"""Kinds of targets that are pods or have them."""
_MACHINES: Final = {"Machine", "Node"}


def takes_nodes(target: Target, changes: Sequence[Change]) -> bool:
    """Whether what a plan does takes nodes away: it closes one, or lets machines of a pool go."""
    if target.kind == "Node":
        return True
    return any(change.of is not None and change.of.kind in _MACHINES for change in changes)


def fewer(changes: Sequence[Change]) -> int:
    """Give by how many replicas, pods or machines, the target gets smaller."""
    for change in changes:
        if change.of is None and change.path == "/spec/replicas":
            present, intended = change.present, change.intended
            if isinstance(present, int) and isinstance(intended, int):
                return max(0, present - intended)
    return 0


def share(whole: int, percent: int) -> int:
    """Give how many of a whole that is, at least one."""
    return max(1, whole * percent // 100)


def _impact(request: Request) -> Impact:
    return known(request.target.impact, "how much the action takes at once")


@dataclass(frozen=True, config=SETTINGS)
class BlastRadius(Rule):
    """Few of a workload's replicas are away at one moment because of an action."""

    name: ClassVar[RuleName] = RuleName.BLAST_RADIUS

    percent: Percent = 10
    """Of the replicas that an action may take."""
    rollout_percent: Percent = 25
    """The same where the workload's own rollout takes them; Kubernetes' own default."""

    def judge(self, request: Request) -> Verdict:
        """Deny what takes more."""
        target = request.proposal.target
        if request.undo or target.kind not in WORKLOADS:
            return ALLOWED
        impact = _impact(request)
        percent = self.rollout_percent if impact.rolling else self.percent
        allowed = share(impact.pods, percent)
        if impact.pods_taken <= allowed:
            return ALLOWED
        how = "its rollout" if impact.rolling else request.proposal.action
        return Denied(
            reason=f"{how} takes {impact.pods_taken} of {impact.pods} pods of {target} away at "
            f"once, at most {allowed} may be ({percent} %)"
        )


@dataclass(frozen=True, config=SETTINGS)
class NamespaceShare(Rule):
    """Few of a namespace's workloads are worked on within a while; more is trouble elsewhere."""

    name: ClassVar[RuleName] = RuleName.NAMESPACE_SHARE

    percent: Percent = 30
    """Of the namespace's workloads."""
    at_least: Count = 3
    """So many in any case."""
    window_seconds: Seconds = 3600
    """How long ago a run may have ended for its workload to count."""

    def judge(self, request: Request) -> Verdict:
        """Deny one workload too many."""
        target = request.proposal.target
        if request.undo or target.kind not in WORKLOADS:
            return ALLOWED
        workloads = known(_impact(request).workloads, "the workloads of the namespace")
        others = known(request.history.other_workloads, "the other workloads with runs")
        allowed = max(self.at_least, share(workloads, self.percent))
        if others < allowed:
            return ALLOWED
        return Denied(
            reason=f"{others} other workloads of namespace {target.namespace} were worked on "
            f"within {self.window_seconds} s, at most {allowed} of {workloads} may be"
        )


@dataclass(frozen=True, config=SETTINGS)
class NodesAtOnce(Rule):
    """One node at a time, and none while too many are away already."""

    name: ClassVar[RuleName] = RuleName.NODES_AT_ONCE

    at_once: Count = 1
    """Open runs in the cluster that take nodes away."""
    away_percent: Percent = 10
    """Of the cluster's nodes that may be away, the target among them."""

    def judge(self, request: Request) -> Verdict:
        """Deny another node."""
        proposal = request.proposal
        if request.undo or not takes_nodes(proposal.target, proposal.changes):
            return ALLOWED
        opened = known(request.history.open_runs_on_nodes, "the open runs on nodes")
        if opened >= self.at_once:
            return Denied(
                reason=f"{opened} runs that take nodes away are open, at most {self.at_once} may be"
            )
        impact = _impact(request)
        nodes = known(impact.nodes, "the nodes of the cluster")
        away = known(impact.nodes_away, "the nodes that are away")
        allowed = share(nodes, self.away_percent)
        taken = max(1, fewer(proposal.changes))
        if away + opened + taken <= allowed:
            return ALLOWED
        return Denied(
            reason=f"{away} other nodes of {nodes} are away; with {taken} more it is over "
            f"{allowed} ({self.away_percent} %)"
        )


@dataclass(frozen=True, config=SETTINGS)
class PoolShare(Rule):
    """Few machines of a pool of GPUs, or nodes with one kind of GPU, are away at once."""

    name: ClassVar[RuleName] = RuleName.POOL_SHARE

    percent: Percent = 25
    """Of the pool."""

    def judge(self, request: Request) -> Verdict:
        """Deny what takes more."""
        proposal = request.proposal
        if request.undo or not takes_nodes(proposal.target, proposal.changes):
            return ALLOWED
        impact = _impact(request)
        pool = known(impact.pool, "the size of the pool")
        away = known(impact.pool_away, "the machines of the pool that are away")
        taken = max(1, fewer(proposal.changes))
        allowed = share(pool, self.percent)
        if pool == 0 or away + taken <= allowed:
            return ALLOWED
        return Denied(
            reason=f"{away + taken} of {pool} machines of the pool of {proposal.target} would be "
            f"away at once, at most {allowed} may be ({self.percent} %)"
        )
