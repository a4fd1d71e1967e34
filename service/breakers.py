"""Breakers trip by themselves and are reset by people: a namespace's first, then the cluster's.

Invariants: what trips one is counted in the transaction that wrote it, once the audit has recorded
it there: the audit's lock is held from then on, so that two replicas never each see only their own
half; what happened before a reset counts for nothing; the cluster's breaker counts distinct
namespaces, so that one noisy tenant disarms itself.
"""

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import func, select

from tiphys.policies.limits import Breaker
from tiphys.policies.model import Outcome, Target
from tiphys.service.database import Transaction, moment, stamp
from tiphys.service.ledger import Entry
from tiphys.service.records import AuditEvent
from tiphys.service.runs import Runs, breaker_scopes
from tiphys.service.tables import breaker_resets, breakers, runs


class Breakers:
    """Trips them, by the policy's numbers."""

    def __init__(self, runs: Runs, settings: Breaker) -> None:
        self._runs = runs
        self._settings = settings

    async def after_end(self, entry: Entry, target: Target) -> None:
        """Trip the breaker of the target's namespace when its runs ended badly too often.

        To be called once the end of the run is written and recorded.
        """
        scope = breaker_scopes(target)[0]
        since = max(stamp(entry.now - self._settings.memory), await reset_at(entry.tx, [scope]))
        query = (
            select(runs.c.ended_at, runs.c.outcome)
            .where(
                runs.c.cluster == target.cluster,
                runs.c.namespace == target.namespace,
                runs.c.created,
                runs.c.outcome.is_not(None),
                runs.c.ended_at > since,
            )
            .order_by(runs.c.ended_at)
        )
        rows = await entry.tx.execute(query)
        ended = [(moment(row.ended_at), Outcome(row.outcome)) for row in rows]
        why = self._settings.trips(ended, entry.now)
        if why:
            await self.trip(entry, target, why)

    async def trip(self, entry: Entry, target: Target, why: str) -> None:
        """Trip the breaker of the target's namespace, and the cluster's if it is one too many."""
        scope, cluster = breaker_scopes(target)
        if not await self._trip(entry, scope, why):
            return
        settings = self._settings
        since = entry.now - timedelta(seconds=settings.namespaces_window_seconds)
        begins = f"namespace:{target.cluster}/"
        query = select(func.count()).select_from(breakers).where(
            breakers.c.scope.startswith(begins, autoescape=True),
            breakers.c.at > max(stamp(since), await reset_at(entry.tx, [cluster])),
        )  # fmt: skip
        count = int((await entry.tx.execute(query)).scalar_one())
        if count >= settings.namespaces:
            within = f"within {settings.namespaces_window_seconds} s"
            await self._trip(entry, cluster, f"the breakers of {count} namespaces tripped {within}")

    async def _trip(self, entry: Entry, scope: str, reason: str) -> bool:
        """Trip one and record it; False if it already was."""
        if not await self._runs.trip(entry.tx, scope, reason, entry.now):
            return False
        await entry.record(AuditEvent.BREAKER_TRIPPED, {"scope": scope, "reason": reason})
        return True


async def reset_at(tx: Transaction, scopes: Sequence[str]) -> str:
    """Give when one of these breakers was last reset, as the database writes it; `` for never."""
    query = select(func.max(breaker_resets.c.at)).where(breaker_resets.c.scope.in_(scopes))
    return str((await tx.execute(query)).scalar() or "")
