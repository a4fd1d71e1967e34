"""Counts what the gate must know of runs, breakers and freezes, under the budget's lock.

Invariant: between the counting and the end of the transaction no other replica counts, so what is
allowed by these numbers and recorded in the same transaction never exceeds a limit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, func, not_, or_, select

from tiphys.policies.blast_radius import NamespaceShare, takes_nodes
from tiphys.policies.limits import Budget, LaunchRate
from tiphys.policies.model import HistoryFacts, Instant, Outcome, Plan, Target, TargetFacts
from tiphys.policies.oscillation import REMEMBERED, move_of
from tiphys.policies.parts import PastRun
from tiphys.policies.policy import Policy
from tiphys.service.breakers import reset_at
from tiphys.service.database import Database, Transaction, moment, stamp
from tiphys.service.runs import breaker_scopes, root_uid
from tiphys.service.tables import breakers, freezes, plans, runs

MEMORY: Final = timedelta(days=30)
"""No rule looks further back."""
_ACTED: Final = runs.c.created & or_(
    runs.c.outcome.is_(None), runs.c.outcome != Outcome.REFUSED.value
)
"""Runs that changed something, or that may."""


class History:
    """Reads it for one proposal."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of(
        self, tx: Transaction, target: Target, facts: TargetFacts, policy: Policy, now: Instant
    ) -> HistoryFacts:
        """Count; the lock is held until the transaction ends."""
        await self._database.lock(tx, "budget")
        return await _Count(tx, target, root_uid(target, facts), now).facts(policy)


@dataclass(frozen=True)
class _Count:
    tx: Transaction
    target: Target
    root: str
    now: datetime

    async def facts(self, policy: Policy) -> HistoryFacts:
        """Ask the database for everything."""
        rate, budget = policy.rule(LaunchRate), policy.rule(Budget)
        here, all_over, mine = self._namespace, self._cluster, self._on_target
        since_reset = await reset_at(self.tx, breaker_scopes(self.target))
        window = max(self._since(rate.window_seconds), since_reset)
        return HistoryFacts(
            open_runs_on_target=await self._count(mine, runs.c.open),
            open_runs_in_cluster=await self._count(all_over, runs.c.open),
            open_runs_in_namespace=await self._count(here, runs.c.open),
            recent_launches_in_namespace=await self._launches(here, window),
            recent_launches_on_target=await self._launches(
                mine, self._since(rate.target_window_seconds)
            ),
            recent_launches_in_cluster=await self._launches(
                all_over, self._since(rate.cluster_window_seconds)
            ),
            spent_in_namespace=await self._launches(here, self._since(budget.window_seconds)),
            spent_in_cluster=await self._launches(all_over, self._since(budget.window_seconds)),
            other_workloads=await self._others(policy.rule(NamespaceShare).window_seconds),
            open_runs_on_nodes=await self._on_nodes(),
            past=await self._past(),
            breakers=await self._breakers(),
            last_run_ended_at=await self._last_end(),
            frozen=await self._frozen(),
        )

    @property
    def _on_target(self) -> ColumnElement[bool]:
        return or_(runs.c.target_uid == self.target.uid, runs.c.owner_uid == self.root)

    @property
    def _cluster(self) -> ColumnElement[bool]:
        return runs.c.cluster == self.target.cluster

    @property
    def _namespace(self) -> ColumnElement[bool]:
        return self._cluster & (runs.c.namespace == self.target.namespace)

    def _since(self, seconds: int) -> str:
        return stamp(self.now - timedelta(seconds=seconds))

    async def _launches(self, where: ColumnElement[bool], since: str) -> int:
        return await self._count(where, runs.c.intended_at >= since)

    async def _count(self, *conditions: ColumnElement[bool]) -> int:
        query = select(func.count()).select_from(runs).where(*conditions)
        return int((await self.tx.execute(query)).scalar_one())

    async def _past(self) -> tuple[PastRun, ...]:
        """Give the last runs on the target, oldest first, with what their plans did."""
        query = (
            select(runs, plans.c.body)
            .join(plans, plans.c.digest == runs.c.plan_digest)
            .where(self._on_target, _ACTED, runs.c.intended_at >= stamp(self.now - MEMORY))
            .order_by(runs.c.intended_at.desc())
            .limit(REMEMBERED)
        )
        rows: Sequence[Row[Any]] = (await self.tx.execute(query)).all()
        return tuple(_past_run(row) for row in reversed(rows))

    async def _others(self, seconds: int) -> int:
        """Count the namespace's other workloads that are worked on, or were just now."""
        lately = _ACTED & (runs.c.ended_at >= self._since(seconds))
        query = select(func.count(runs.c.owner_uid.distinct())).where(
            self._namespace, not_(self._on_target), or_(runs.c.open, lately)
        )
        return int((await self.tx.execute(query)).scalar_one())

    async def _on_nodes(self) -> int:
        query = (
            select(plans.c.body)
            .join(runs, runs.c.plan_digest == plans.c.digest)
            .where(self._cluster, not_(self._on_target), runs.c.open)
        )
        bodies = (await self.tx.execute(query)).scalars()
        opened = [Plan.model_validate_json(body) for body in bodies]
        return sum(takes_nodes(plan.target, plan.changes) for plan in opened)

    async def _last_end(self) -> datetime | None:
        query = select(func.max(runs.c.ended_at)).where(self._on_target, _ACTED)
        ended = (await self.tx.execute(query)).scalar()
        return moment(ended) if ended else None

    async def _breakers(self) -> tuple[str, ...]:
        query = select(breakers.c.scope, breakers.c.reason).where(
            breakers.c.scope.in_(breaker_scopes(self.target))
        )
        return tuple(f"{row.scope}: {row.reason}" for row in await self.tx.execute(query))

    async def _frozen(self) -> str | None:
        uids = {self.target.uid, self.root}
        query = select(freezes.c.reason).where(freezes.c.target_uid.in_(uids))
        return (await self.tx.execute(query)).scalar()


def _past_run(row: Row[Any]) -> PastRun:
    plan = Plan.model_validate_json(row.body)
    return PastRun(
        action=plan.action,
        move=move_of(plan.action, plan.changes),
        undo=plan.undoes is not None and plan.decided_by.reasoner == "human",
        began_at=moment(row.intended_at),
        ended_at=moment(row.ended_at) if row.ended_at else None,
        outcome=Outcome(row.outcome) if row.outcome else None,
    )
