"""Plays a scenario in a rehearsal until it rests; the demo and the acceptance tests share it."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from tiphys.policies.lifecycle import State
from tiphys.sandbox.scenario import Answer
from tiphys.service.narration import Summary
from tiphys.service.records import verify
from tiphys.service.rehearsal import Rehearsal
from tiphys.service.telling import sentence
from tiphys.service.verdict import Ended, complaints, judge

TIME_LIMIT = 90.0
"""Seconds from the fault until the scenario must have come to rest."""
REST = 1.0
"""Seconds for which nothing may change before it counts as the end."""
LOOK = 0.15


class Play:
    """One scenario from its fault to its rest; `strike` first."""

    def __init__(self, stage: Rehearsal, tell: Callable[[dict[str, Any]], str] = sentence) -> None:
        """`tell` puts an audit record into words; it is called once for each, in order."""
        self._stage = stage
        self._tell = tell
        self._seen = 0
        self._told: list[str] = []
        self._struck = time.monotonic()

    async def strike(self) -> None:
        """Begin the fault."""
        self._struck = time.monotonic()
        await self._stage.world.strike()

    async def finish(self, limit: float = TIME_LIMIT) -> Summary:
        """Follow it until it rests, for at most `limit` seconds, and judge how it ended."""
        ended = await self._until_rest(limit)
        await self._follow()
        views = await self.views()
        seconds = time.monotonic() - self._struck
        export = self._stage.directory / "audit.jsonl"
        text = await self._stage.text("/api/audit/export")
        await asyncio.to_thread(export.write_text, text)
        checked = verify(text.splitlines())
        wrong = complaints(ended, self._stage.scenario.expect, "\n".join(self._told))
        if checked.problem:
            wrong.append(f"the record does not verify: {checked.problem}")
        return Summary(
            scenario=self._stage.scenario,
            ended=ended,
            views=views,
            seconds=seconds,
            records=checked.records,
            export=export,
            complaints=wrong,
        )

    async def views(self) -> list[dict[str, Any]]:
        """Read every incident whole, the oldest first."""
        found = await self._stage.get("/api/incidents")
        return [await self._stage.get(f"/api/incidents/{one['id']}") for one in reversed(found)]

    async def _until_rest(self, limit: float) -> Ended:
        """Follow the record until every incident rests, and has done so for a while."""
        since, last = time.monotonic(), -1
        ended = Ended(None, (), (), "")
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline:
            await self._follow()
            if last != self._seen:
                since, last = time.monotonic(), self._seen
                ended = judge(await self.views())
                if ended.end:
                    await self._answer()
            elif ended.end and time.monotonic() - since >= REST and self._stage.world.fault_over:
                return ended
            await asyncio.sleep(LOOK)
        return ended

    async def _follow(self) -> None:
        for record in await self._stage.get("/api/audit", after=self._seen):
            self._seen = record["seq"]
            self._told.append(self._tell(record))

    async def _answer(self) -> None:
        """Do what the scenario's human does."""
        answer = self._stage.scenario.answer
        if answer is Answer.NONE:
            return
        person = {"by": "the simulated engineer", "reason": "as the scenario says"}
        waiting = State.AWAITING_APPROVAL.value
        for one in await self._stage.get("/api/incidents", state=waiting):
            await self._stage.post(f"/api/incidents/{one['id']}/{answer}", person)
