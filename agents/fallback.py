"""Two reasoners as one: when the first has no usable answer, the second decides and says so."""

from dataclasses import replace

from tiphys.agents.notebook import short
from tiphys.agents.ports import Choice, Findings, Reasoner, ReasonerFailedError


class WithFallback:
    """A reasoner that never fails where its second one does not."""

    def __init__(self, primary: Reasoner, fallback: Reasoner) -> None:
        self._primary = primary
        self._fallback = fallback

    async def decide(self, findings: Findings) -> Choice:
        """Ask the first; raises `ReasonerFailedError` only where the second does."""
        try:
            return await self._primary.decide(findings)
        except ReasonerFailedError as error:
            choice = await self._fallback.decide(findings)
            note = short(f"the first reasoner had no answer: {error}")
            return replace(choice, decided_by=choice.decided_by.model_copy(update={"note": note}))
