"""What a person asked for, turned into a decision; no alert speaks of it and no reasoner chooses.

Invariant: what would change is planned by the action itself on what stands there now, as for any
other proposal; where that cannot be, a human is told why.
"""

from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tiphys.agents.deciding import ChoiceRefusedError, Planned
from tiphys.agents.notebook import Notebook, short
from tiphys.agents.ports import UnansweredError
from tiphys.agents.target_facts import TargetGoneError
from tiphys.policies.model import (
    AlertFacts,
    Check,
    DecidedBy,
    Escalate,
    Proposal,
    TargetFacts,
    Undoing,
    Wish,
)
from tiphys.workflow_templates.action import NotApplicableError

MAX_REASON = 500
"""Characters of a person's words that travel in the plan."""

Decided = tuple[Proposal | Escalate, TargetFacts | None]


@dataclass(frozen=True)
class Asked:
    """A wish in words."""

    wish: Undoing | Wish
    wanted: str
    """Such as `has RUN undone`."""
    cannot: str
    """Such as `RUN cannot be undone`."""
    book: Notebook
    hold_seconds: int

    @property
    def by(self) -> DecidedBy:
        """Who decided."""
        note = short(f"{self.wish.by}: {self.wish.reason}", MAX_REASON)
        return DecidedBy(reasoner="human", note=note)

    async def planned(self, planning: Awaitable[Planned]) -> Planned | Escalate:
        """Plan it, or hand over with the reason why that cannot be."""
        try:
            return await planning
        except (ChoiceRefusedError, NotApplicableError, TargetGoneError, UnansweredError) as error:
            seen = tuple(one.id for one in self.book.evidence)
            why = short(f"{self.cannot}: {error}", 1_500)
            return Escalate(reason=why, evidence=seen, decided_by=self.by)

    def proposal(self, found: Planned, **more: Any) -> Proposal:
        """Give the proposal of what was planned, but for the words that are the wish's own."""
        fields = {
            "action": found.action.name,
            "version": found.action.version,
            "target": found.sight.target,
            "parameters": found.parameters.model_dump(mode="json"),
            "changes": found.facts.changes,
            "reason": short(f"{self.wish.by} {self.wanted}: {self.wish.reason}", 1_500),
            "check": Check(hold_seconds=self.hold_seconds),
            "evidence": tuple(dict.fromkeys(one.id for one in self.book.evidence if one.ok)),
            "decided_by": self.by,
        }
        return Proposal.model_validate({**fields, **more})


def no_alert(now: datetime) -> AlertFacts:
    """Give what there is to know of the alerts of an incident that has none."""
    nothing = {"firing": False, "silenced": False, "inhibited": False}
    return AlertFacts(**nothing, names=(), alerts=(), read_at=now)
