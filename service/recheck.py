"""Stage: the agents read the alert and the target once more and lay what they saw before the gate.

Invariant: what was seen, its time and the gate's turn are one commit. Evidence goes into the record
when it differs from what this attempt saw last, so that waiting does not fill the record.
"""

from typing import Protocol

from tiphys.agents.graph import Inspection
from tiphys.agents.ports import Case
from tiphys.policies.lifecycle import Move
from tiphys.policies.model import Proposal
from tiphys.service.cases import Cases
from tiphys.service.facts import FactTable, Seen
from tiphys.service.ledger import Job, Ledger


class Inspector(Protocol):
    """The agents, reading the target and the alert once more."""

    async def inspect(self, case: Case, proposal: Proposal) -> Inspection:
        """Read; what does not answer comes back as None."""
        ...


class Recheck:
    """From PROPOSED to INSPECTED."""

    def __init__(self, ledger: Ledger, cases: Cases, agents: Inspector) -> None:
        self._ledger = ledger
        self._cases = cases
        self._agents = agents
        self._facts = FactTable(ledger.database)

    async def run(self, job: Job) -> None:
        """Look outside the transaction, lay down inside it."""
        proposal = await self._cases.proposal(job.incident)
        if proposal is None:
            await self._ledger.escalate(job, "the proposal of this attempt cannot be found")
            return
        case = await self._cases.case(job.incident, self._ledger.clock())
        found = await self._agents.inspect(case, proposal)
        seen = Seen(alert=found.alert, target=found.target)
        async with self._ledger.entry(job) as entry:
            before = await self._facts.last(entry.tx, entry.incident)
            if before is None or not seen.same_as(before.seen):
                await self._cases.keep(entry, found.evidence)
            await self._facts.lay(entry.tx, entry.incident, seen, entry.now)
            await entry.turn(Move.INSPECT)
