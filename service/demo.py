"""`tiphys demo`: breaks something in a simulated cluster and tells what happens, as it happens."""

import asyncio
import json
import signal
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tiphys.sandbox.scenario import Scenario, ScenarioError, find, names
from tiphys.service.errors import BadInputError
from tiphys.service.narration import Narrator
from tiphys.service.playing import Play
from tiphys.service.rehearsal import Rehearsal


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
    try:
        return asyncio.run(_play(scenario, directory.absolute(), narrator, linger=linger))
    except asyncio.CancelledError:
        return 128 + signal.SIGTERM


def _new_directory(scenario: Scenario) -> Path:
    root = Path(tempfile.gettempdir()) / "tiphys-demo"
    return root / f"{scenario.name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"


async def _play(scenario: Scenario, directory: Path, narrator: Narrator, *, linger: bool) -> int:
    narrator.title(scenario.name, scenario.title, scenario.story)
    began = time.monotonic()
    if task := asyncio.current_task():  # SIGTERM ends it as tidily as Ctrl-C does
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    async with Rehearsal(scenario, directory) as stage:
        narrator.ready(stage.url, time.monotonic() - began)
        stage.world.on_told = narrator.told
        play = Play(stage, narrator.record)
        await play.strike()
        summary = await play.finish()
        narrator.summary(summary)
        if linger:
            narrator.lingering(stage.url, stage.token)
            await asyncio.to_thread(sys.stdin.readline)
    return 1 if summary.complaints else 0
