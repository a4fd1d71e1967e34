"""One investigation for each cause: incidents that look alike share what the model said.

Invariants: an incident whose cause was investigated within the window makes no call, whoever
reopens it; what was answered holds for another incident only where every fact that decides is the
same, and without its parameters, which were chosen for other numbers; while a storm of one kind of
trouble lasts, its calls together stay under one limit.
"""

import asyncio
from collections import OrderedDict, deque
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from tiphys.agents.budget import Purpose
from tiphys.agents.model_failures import Failure, ModelFailedError
from tiphys.agents.model_reasoner import ModelReasoner
from tiphys.agents.notebook import short
from tiphys.agents.pictures import Likeness, likeness
from tiphys.agents.ports import Answer, Choice, Findings

STORM: Final = 20
"""Incidents of one kind of trouble within the window make a storm."""
QUIET: Final = timedelta(minutes=10)
"""Without a storm a kind of trouble has its limit of calls anew after so long."""
FAILED_FOR: Final = timedelta(minutes=1)
"""So long a cause on which the model failed is not tried again."""
MAX_KNOWN: Final = 2_000
"""Causes, and kinds of trouble, that are remembered."""


@dataclass
class _Known:
    """One investigation, under way or done."""

    incident: str
    picture: str
    began: datetime
    task: "asyncio.Task[Choice]"


@dataclass
class _Group:
    """The incidents of one kind of trouble, of late."""

    began: datetime
    times: deque[datetime] = field(default_factory=deque[datetime])


class SharedCauses:
    """A model that is asked once for each cause."""

    def __init__(self, model: ModelReasoner, window: timedelta) -> None:
        """`window`: how long an answer may be used again."""
        self._model = model
        self._window = window
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._groups: OrderedDict[str, _Group] = OrderedDict()

    async def decide(self, findings: Findings) -> Choice:
        """Ask, or give what was answered for the same cause; raises `ReasonerFailedError`."""
        alike = likeness(findings, self._model.offered(findings))
        now = self._model.meter.now()
        since = self._since(alike.group, now)
        known = self._known.get(alike.cause)
        if known is None or self._is_over(known, now):
            purpose = Purpose(findings.case.incident, alike.group, since)
            task = asyncio.create_task(self._model.investigate(findings, purpose))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            known = _Known(findings.case.incident, alike.picture, now, task)
            self._remember(alike.cause, known)
            self._count("asked")
            return await _result(known)
        try:
            choice = await _result(known)
        except ModelFailedError as error:
            said = f"it was not asked again, since it failed a moment ago: {error}"
            self._count("failed")
            raise ModelFailedError(Failure.ALREADY_FAILED, said) from error
        return self._again(choice, known, alike, findings)

    async def close(self) -> None:
        """End what is under way, and close the connections."""
        tasks = [known.task for known in self._known.values() if not known.task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._model.close()

    def _again(self, choice: Choice, known: _Known, alike: Likeness, findings: Findings) -> Choice:
        """Use an answer once more; raises `ModelFailedError` where it does not hold here."""
        if findings.case.incident == known.incident and alike.picture == known.picture:
            self._count("repeated")
            if not choice.parameters:
                return replace(choice, fetched=())
        elif choice.answer is not Answer.ESCALATE and alike.picture != known.picture:
            self._count("unlike")
            raise ModelFailedError(
                Failure.UNLIKE,
                f"the model was not asked: incident {known.incident} has the same cause and was "
                "investigated, but not all of its facts are the same",
            )
        else:
            self._count("shared")
        reason = short(f"(as for incident {known.incident}) {choice.reason}", 900)
        kept = replace(choice, reason=reason, evidence=(), fetched=(), parameters={})
        return replace(kept, shared_from=known.incident)

    def _since(self, group: str, now: datetime) -> datetime:
        """Count the incident, and say from when on calls for its kind of trouble count."""
        known = self._groups.pop(group, None) or _Group(now)
        while known.times and known.times[0] <= now - self._window:
            known.times.popleft()
        if not known.times:
            known.began = now
        known.times.append(now)
        while len(known.times) > STORM:
            known.times.popleft()
        self._groups[group] = known
        if len(self._groups) > MAX_KNOWN:
            self._groups.popitem(last=False)
        return known.began if len(known.times) >= STORM else now - QUIET

    def _is_over(self, known: _Known, now: datetime) -> bool:
        if not known.task.done():
            return False
        failed = known.task.cancelled() or known.task.exception() is not None
        return now - known.began >= (FAILED_FOR if failed else self._window)

    def _remember(self, cause: str, known: _Known) -> None:
        self._known.pop(cause, None)
        self._known[cause] = known
        while len(self._known) > MAX_KNOWN:
            oldest = next((key for key, one in self._known.items() if one.task.done()), None)
            if oldest is None:
                return
            del self._known[oldest]

    def _count(self, how: str) -> None:
        if self._model.meter.tally:
            self._model.meter.tally.answered(how)


async def _result(known: _Known) -> Choice:
    """Wait for an investigation, which goes on for the others when one of them gives up."""
    try:
        return await asyncio.shield(known.task)
    except asyncio.CancelledError:
        if known.task.cancelled():
            raise ModelFailedError(Failure.DOWN, "the model is not asked any more") from None
        raise
