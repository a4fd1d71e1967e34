"""A scenario on stage: the simulated outside, a real `tiphys serve`, and all that they do."""

import asyncio
import contextlib
import os
import signal
import sqlite3
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tiphys.sandbox.machine_provider import PROVIDER
from tiphys.sandbox.scenario import Scenario, find
from tiphys.sandbox.store import AdmissionRequest
from tiphys.service.narration import Summary
from tiphys.service.playing import Play
from tiphys.service.rehearsal import Rehearsal

OURS = ("tiphys-system", "tiphys-actions", "tiphys-stop")
ACTORS = "system:serviceaccount:tiphys-actions:act-"


@dataclass(frozen=True)
class Answer:
    """What a command said."""

    code: int
    out: str
    err: str


async def run_tiphys(*words: str, environment: Mapping[str, str] | None = None) -> Answer:
    """Run the command line as a process; a traceback is never an answer."""
    ours = {k: v for k, v in os.environ.items() if not k.startswith("TIPHYS_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tiphys.service.main", *words),
        env={**ours, **(environment or {}), "COLUMNS": "500"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(90):
            out, err = (text.decode() for text in await process.communicate())
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            await process.wait()
    assert "Traceback" not in out + err, out + err
    return Answer(process.returncode or 0, out, err)


async def wait_until(true: Callable[[], Awaitable[Any]], seconds: float = 60.0) -> Any:
    """Wait for something to be so, and give it."""
    deadline = time.monotonic() + seconds
    while not (found := await true()):
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.1)
    return found


@dataclass
class Drama:
    """One scenario on stage, and a recorder of what was written to its cluster."""

    stage: Rehearsal
    play: Play
    writes: list[AdmissionRequest] = field(default_factory=list)
    """Every write that came over HTTP and changed something, in order."""
    intended: dict[str, int] = field(default_factory=dict)
    """How often each Workflow's intent stood on the disk when the Workflow was created."""

    _asked: AdmissionRequest | None = None

    def watch(self) -> None:
        """Begin to record."""
        self.stage.world.store.admission.append(self._ask)
        self.stage.world.store.subscribe(self._made)

    def _made(self, _event: str, obj: dict[str, Any]) -> None:
        """The store has made what was asked last: it was neither a dry run nor refused."""
        asked, self._asked = self._asked, None
        if asked and asked.kind == obj["kind"]:
            assert asked.obj["metadata"]["name"] == obj["metadata"]["name"]
            self.writes.append(asked)

    def _ask(self, request: AdmissionRequest) -> None:
        # Without a user it is the world itself: controllers, and people of the scenario.
        self._asked = request if request.user else None
        if request.user and request.kind == "Workflow" and request.operation == "CREATE":
            name = request.obj["metadata"]["name"]
            self.intended[name] = self._recorded("launch_intended", name)

    def _recorded(self, event: str, word: str) -> int:
        path = self.stage.directory / "tiphys.db"
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            query = "select count(*) from audit where event = ? and instr(body, ?) > 0"
            return int(database.execute(query, (event, word)).fetchone()[0])

    async def command(self, *words: str) -> Answer:
        """Run the command line against this service."""
        return await run_tiphys(*words, environment=self.stage.command_environment())

    async def records(self, *events: str) -> list[dict[str, Any]]:
        """Read the audit, or only some events of it."""
        found = await self.stage.get("/api/audit", limit=10_000)
        return [record for record in found if not events or record["event"] in events]

    async def until_recorded(self, event: str, seconds: float = 60.0) -> dict[str, Any]:
        """Wait for the first record of an event."""

        async def recorded() -> dict[str, Any] | None:
            return next(iter(await self.records(event)), None)

        return await wait_until(recorded, seconds)

    async def until_state(self, *states: str, seconds: float = 60.0) -> dict[str, Any]:
        """Wait for an incident in one of these states; gives its view."""

        async def found() -> dict[str, Any] | None:
            listed = await self.stage.get("/api/incidents", state=list(states))
            return await self.view(listed[0]["id"]) if listed else None

        return await wait_until(found, seconds)

    async def view(self, incident: str) -> dict[str, Any]:
        """Read one incident whole."""
        return await self.stage.get(f"/api/incidents/{incident}")

    @property
    def touches(self) -> list[AdmissionRequest]:
        """Every write to the cluster's own objects, the Events about them left out."""
        return [
            write
            for write in self.writes
            if write.obj["metadata"].get("namespace") not in OURS
            and write.kind != "Event"
            and write.user != PROVIDER
        ]

    @property
    def acts(self) -> list[AdmissionRequest]:
        """Those that changed what an object shall be, or ended it; not a mark alone."""
        return [
            write
            for write in self.touches
            if write.operation != "UPDATE" or (write.old or {}).get("spec") != write.obj.get("spec")
        ]

    @property
    def workflows(self) -> list[dict[str, Any]]:
        """Every Workflow of this world."""
        return self.stage.world.store.list("Workflow", "tiphys-actions")

    async def check_lawful(self, summary: Summary) -> None:
        """Hold what happened against the laws that bind every scenario."""
        assert not [c for c in summary.complaints if "record" in c]
        runs = {a["run"]["workflow"]: a for v in summary.views for a in v["attempts"] if a["run"]}
        intents = [r["body"]["workflow"] for r in await self.records("launch_intended")]
        assert sorted(intents) == sorted(runs), "every run has one intent"
        assert {w["metadata"]["name"] for w in self.workflows} == {
            name for name, attempt in runs.items() if attempt["run"]["created"]
        }, "every Workflow has its record, every record its Workflow"
        order = await self.records("launch_intended", "workflow_created")
        for record in order:
            name = record["body"]["workflow"]
            first = next(r for r in order if r["body"]["workflow"] == name)
            assert first["event"] == "launch_intended"
        assert all(count == 1 for count in self.intended.values()), "intended before created"
        allowed = {f"{ACTORS}{a['run']['action'].rpartition('-v')[0]}" for a in runs.values()}
        writers = {write.user for write in self.touches}
        assert writers <= allowed, "only the actions that were launched wrote to the cluster"


@contextlib.asynccontextmanager
async def _on_stage(
    scenario: Scenario | str,
    directory: Path,
    *,
    policy: dict[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> AsyncGenerator[Drama]:
    story = find(scenario) if isinstance(scenario, str) else scenario
    if policy is not None:
        story = story.model_copy(update={"policy": {**story.policy, **policy}})
    async with Rehearsal(story, directory / story.name, environment) as stage:
        drama = Drama(stage, Play(stage))
        drama.watch()
        yield drama


@pytest.fixture
def on_stage() -> Callable[..., Any]:
    """Put a scenario on stage: `async with on_stage(name, directory) as drama`."""
    return _on_stage


@pytest.fixture
def tiphys() -> Callable[..., Awaitable[Answer]]:
    """Run the command line with the given environment."""
    return run_tiphys


@pytest.fixture
def until() -> Callable[..., Awaitable[Any]]:
    """Wait for something to be so."""
    return wait_until
