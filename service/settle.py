"""Stage: incidents that wait, for an approval, for the alert to end or for a human.

Invariants: an incident closes only when every one of its alerts has ended and none of their
expressions is true, and one that froze its target only after a human acknowledged it; one that
waits past its deadline pages, in doubt too; a page that nobody received is sent again.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from tiphys.agents.ports import Case
from tiphys.policies.lifecycle import Move, State
from tiphys.policies.model import Evidence, Incident, Outcome, Plan, Severity
from tiphys.service import episodes, following
from tiphys.service.cases import Cases
from tiphys.service.errors import WorldRefusedError
from tiphys.service.incidents import Step
from tiphys.service.ledger import Job, Ledger
from tiphys.service.records import AuditEvent


class Closer(Protocol):
    """The agents, at the end of an incident."""

    async def still_true(self, case: Case) -> bool | None:
        """Tell whether an alert's expression is true; None when nobody can say."""
        ...

    async def damage(self, plan: Plan) -> Evidence:
        """Read what stands where a rollback did not hold."""
        ...

    async def forget(self, incident: str) -> None:
        """Drop what was kept to resume the incident's investigations."""
        ...


class Pager(Protocol):
    """Tells humans; one adapter for each way."""

    async def page(self, incident: Incident, *, until: timedelta) -> str:
        """Tell them and say how; must be repeated within `until`. Raises `WorldRefusedError`."""
        ...

    async def resolve(self, incident: Incident) -> None:
        """Tell them that it is over. Raises `WorldRefusedError`."""
        ...


@dataclass(frozen=True)
class Waits:
    """How long humans may take before they are told again, by severity, and how often at least."""

    acknowledge: Mapping[Severity, timedelta]
    max_attempts: int
    listings: int
    """How many listings an alert must be missing from; 0 where no Alertmanager is configured."""
    repeat: timedelta = timedelta(seconds=60)


_DOUBT = timedelta(seconds=5)
_LOOK = timedelta(seconds=10)
"""How long a page waits for what stands on a frozen target."""
_DONE = {State.MONITORING, State.ACKNOWLEDGED}
"""Where a person's wish, of which no alert speaks, is over: verified, or in somebody's hands."""
_PAGED = {State.ESCALATED, State.AWAITING_APPROVAL}
_LATE = {
    State.MONITORING: "the alert still fires, long after it should have ended",
    State.AWAITING_APPROVAL: "nobody approved in time",
}


def _with_repair(incident: Incident, damage: Evidence) -> Incident:
    """Say in a page what is wrong and where the commands are."""
    words = (
        f"{incident.reason}. {damage.summary}. To repair it: tiphys incidents show {incident.id}"
    )
    return incident.model_copy(update={"reason": words})


def _how_it_ended(incident: Incident) -> str:
    done = incident.outcome is Outcome.VERIFIED
    if incident.wish is not None:
        missed = "not undone" if incident.undoes else "not done"
        return incident.reason if done else f"{missed}: {incident.reason}"
    return f"{'healed: ' if done else ''}every alert has ended"


def _unread(incident: Incident) -> bool:
    """Whether a human must hear of it even if the alert is over: the target is frozen."""
    frozen = incident.outcome in {Outcome.ROLLBACK_FAILED, Outcome.UNKNOWN}
    return frozen and incident.state == State.ESCALATED


class Settle:
    """Closes what is over, escalates what is late, pages what is escalated."""

    def __init__(
        self, ledger: Ledger, cases: Cases, agents: Closer, pager: Pager, waits: Waits
    ) -> None:
        self._ledger = ledger
        self._cases = cases
        self._agents = agents
        self._pager = pager
        self._waits = waits

    async def run(self, job: Job) -> None:
        """Look at one waiting incident."""
        incident, now = job.incident, self._ledger.clock()
        async with self._ledger.database.reading() as tx:
            over = await episodes.gone(tx, incident.id, listings=self._waits.listings)
            joined = await episodes.began_after(tx, incident.id, incident.changed_at)
            again = await following.must_look(tx, incident, now)
        if incident.wish is not None:
            over = incident.state in _DONE
        if over and not _unread(incident) and await self._is_false(incident):
            await self._close(job)
        elif joined and incident.state == State.MONITORING:
            await self._look_into(job)
        elif again and not over:
            await self._look_again(job, again)
        elif incident.state in _LATE and incident.deadline_at and now >= incident.deadline_at:
            await self._ledger.escalate(job, _LATE[State(incident.state)])
        elif incident.state in _PAGED:
            await self._page(job)
        else:
            later = incident.deadline_at or now + timedelta(hours=1)
            if incident.standby is not None:
                later = min(later, incident.standby.again_at)
            async with self._ledger.entry(job) as entry:
                await entry.look_again(min(later, now + _DOUBT) if over else later)

    async def _is_false(self, incident: Incident) -> bool:
        """Tell whether the alerts' expressions are false, too; in doubt it is not over."""
        if incident.wish is not None:
            return True
        case = await self._cases.case(incident, self._ledger.clock())
        return await self._agents.still_true(case) is False

    async def _close(self, job: Job) -> None:
        incident = job.incident
        if incident.paged_at is not None:
            try:
                await self._pager.resolve(incident)
            except WorldRefusedError:
                return  # asked again at the next look: a page must not outlive its incident
        async with self._ledger.entry(job) as entry:
            if not await episodes.gone(entry.tx, incident.id, listings=self._waits.listings):
                return
            await entry.move(Step(Move.RESOLVE, _how_it_ended(incident)))
            await following.wake_followers(entry.tx, entry.incident, entry.now)
            await self._ledger.leases.forget(entry.tx, incident.id)
        await self._agents.forget(incident.id)

    async def _damage(self, incident: Incident) -> Evidence | None:
        """Read what stands on a frozen target; the page does not wait for it for long."""
        plan = await self._cases.plan(incident)
        if plan is None:
            return None
        try:
            async with asyncio.timeout(_LOOK.total_seconds()):
                return await self._agents.damage(plan)
        except TimeoutError:
            return None

    async def _look_into(self, job: Job) -> None:
        """An alert joined, or came back, after we had decided only to watch."""
        async with self._ledger.entry(job) as entry:
            incident = entry.incident
            if incident.outcome is not None and incident.attempt >= self._waits.max_attempts:
                why = f"it fires again after {incident.attempt} attempts"
                await entry.move(Step(Move.ESCALATE, why))
                return
            await entry.move(
                Step(Move.REINVESTIGATE, "another alert has joined", next_attempt=True)
            )

    async def _look_again(self, job: Job, why: str) -> None:
        """Ask the agents anew, who waited for something: it counts as the same attempt."""
        await self._agents.forget(job.incident.id)
        async with self._ledger.entry(job) as entry:
            await entry.move(Step(Move.REINVESTIGATE, why))

    async def _page(self, job: Job) -> None:
        incident = job.incident
        repeat = self._waits.repeat
        damage = await self._damage(incident) if _unread(incident) else None
        told = _with_repair(incident, damage) if damage else incident
        async with self._ledger.database.reading() as tx:
            told = following.with_followers(told, await following.followers(tx, incident))
        try:
            how = await self._pager.page(told, until=3 * repeat)
        except WorldRefusedError:
            return
        async with self._ledger.entry(job) as entry:
            if damage:
                await self._cases.keep_damage(entry, damage)
            limit = self._waits.acknowledge[told.severity]
            if incident.paged_at is None or entry.now - incident.paged_at >= limit:
                await entry.record(
                    AuditEvent.PAGED,
                    {"state": incident.state, "how": how, "reason": told.reason},
                )
                await self._ledger.incidents.paged(entry.tx, entry.incident, entry.now)
            await entry.look_again(
                min(entry.now + repeat, incident.deadline_at or entry.now + repeat)
            )
