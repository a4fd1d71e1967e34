"""`tiphys demo`: breaks something in a simulated cluster and tells what happens, as it happens."""

import asyncio
import json
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
from rich.console import Console
from rich.table import Table

from tiphys.policies.lifecycle import State
from tiphys.sandbox.scenario import Answer, Scenario, ScenarioError, find, names
from tiphys.service.audit import verify
from tiphys.service.errors import BadInputError
from tiphys.service.narration import Narrator, Summary
from tiphys.service.rehearsal import Rehearsal
from tiphys.service.verdict import Ended, complaints, judge

TIME_LIMIT = 90.0
"""Seconds from the fault until the scenario must have come to rest."""
REST = 1.0
"""Seconds for which nothing may change before it counts as the end."""
LOOK = 0.15


def list_scenarios(*, as_json: bool) -> None:
    """Print the scenarios."""
    found = [find(name) for name in names()]
    if as_json:
        rows = [{"name": s.name, "title": s.title, "ends": s.expect.end} for s in found]
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
        return
    table = Table(box=None, pad_edge=False)
    for column in ("scenario", "what happens", "must end"):
        table.add_column(column)
    for scenario in found:
        table.add_row(scenario.name, scenario.title, scenario.expect.end.replace("_", " "))
    Console(highlight=False, markup=False).print(table)


def run(name: str, *, as_json: bool, once: bool, data_dir: Path | None) -> int:
    """Play a scenario; 0 only if it ended as it should. Raises `BadInputError`."""
    try:
        scenario = find(name)
    except ScenarioError as error:
        raise BadInputError(str(error)) from error
    directory = data_dir or _new_directory(scenario)
    narrator = Narrator(as_json=as_json)
    linger = not once and not as_json and sys.stdin.isatty() and sys.stdout.isatty()
    return asyncio.run(_Play(scenario, directory.absolute(), narrator).run(linger=linger))


def _new_directory(scenario: Scenario) -> Path:
    root = Path(tempfile.gettempdir()) / "tiphys-demo"
    return root / f"{scenario.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"


class _Play:
    def __init__(self, scenario: Scenario, directory: Path, narrator: Narrator) -> None:
        self._scenario = scenario
        self._directory = directory
        self._narrator = narrator
        self._seen = 0
        self._told: list[str] = []

    async def run(self, *, linger: bool) -> int:
        self._narrator.title(self._scenario.name, self._scenario.title, self._scenario.story)
        began = time.monotonic()
        async with Rehearsal(self._scenario, self._directory) as stage:
            self._narrator.ready(stage.url, time.monotonic() - began)
            stage.world.on_told = self._narrator.told
            struck = time.monotonic()
            await stage.world.strike()
            ended = await self._until_rest(stage)
            await self._follow(stage)
            views = await self._views(stage)
            summary = await self._summary(stage, ended, views, time.monotonic() - struck)
            self._narrator.summary(summary)
            if linger:
                self._narrator.lingering(stage.url, stage.token)
                await asyncio.to_thread(sys.stdin.readline)
        return 1 if summary.complaints else 0

    async def _until_rest(self, stage: Rehearsal) -> Ended:
        """Follow the record until every incident rests, and has done so for a while."""
        since, last = time.monotonic(), -1
        ended = Ended(None, (), (), "")
        deadline = time.monotonic() + TIME_LIMIT
        while time.monotonic() < deadline:
            await self._follow(stage)
            if last != self._seen:
                since, last = time.monotonic(), self._seen
                ended = judge(await self._views(stage))
                if ended.end:
                    await self._answer(stage)
            elif ended.end and time.monotonic() - since >= REST and stage.world.fault_over:
                return ended
            await asyncio.sleep(LOOK)
        return ended

    async def _follow(self, stage: Rehearsal) -> None:
        for record in await stage.get("/api/audit", after=self._seen):
            self._seen = record["seq"]
            line = self._narrator.record(record)
            self._told.append(line)

    async def _views(self, stage: Rehearsal) -> list[dict[str, Any]]:
        found = await stage.get("/api/incidents")
        return [await stage.get(f"/api/incidents/{one['id']}") for one in reversed(found)]

    async def _answer(self, stage: Rehearsal) -> None:
        """Do what the scenario's human does."""
        if self._scenario.answer is Answer.NONE:
            return
        person = {"by": "the simulated engineer", "reason": "as the scenario says"}
        for one in await stage.get("/api/incidents", state=State.AWAITING_APPROVAL.value):
            await stage.post(f"/api/incidents/{one['id']}/{self._scenario.answer}", person)

    async def _summary(
        self, stage: Rehearsal, ended: Ended, views: list[dict[str, Any]], seconds: float
    ) -> Summary:
        export = self._directory / "audit.jsonl"
        text = await self._export(stage)
        await asyncio.to_thread(export.write_text, text)
        checked = verify(text.splitlines())
        wrong = complaints(ended, self._scenario.expect, "\n".join(self._told))
        if checked.problem:
            wrong.append(f"the record does not verify: {checked.problem}")
        return Summary(
            scenario=self._scenario,
            ended=ended,
            views=views,
            seconds=seconds,
            records=checked.records,
            export=export,
            complaints=wrong,
        )

    async def _export(self, stage: Rehearsal) -> str:
        async with httpx2.AsyncClient(timeout=10.0, trust_env=False) as http:
            answer = await http.get(
                f"{stage.url}/api/audit/export",
                headers={"Authorization": f"Bearer {stage.token}"},
            )
            answer.raise_for_status()
            return answer.text
