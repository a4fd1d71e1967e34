"""Finds runbook cases and scenarios at or below paths, and has a reasoner decide them."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tiphys.agents.model_failures import NotRecordedError
from tiphys.service.errors import BadInputError
from tiphys.service.evaluation.deciders import Opener
from tiphys.service.evaluation.judging import Verdicts
from tiphys.service.evaluation.runbooks import RunbookSet, judged, runbooks_in

_DEPTH: Final = 6
"""Folders below a path given in which cases are looked for."""


def decided(paths: Sequence[Path], opened: Opener) -> list[Verdicts]:
    """Run everything that needs a decision; raises `UsageError`, or `BadInputError` for a replay.

    Each set of cases, and each scenario, is decided by a reasoner of its own.
    """
    runbooks: list[RunbookSet] = []
    scenarios: list[Path] = []
    for file in (file for path in paths for file in files_under(path)):
        if (found := runbooks_in(file)) is not None:
            runbooks.append(found)
        elif looks_like_a_scenario(file):
            scenarios.append(file)
    try:
        return asyncio.run(_decided(runbooks, scenarios, opened))
    except NotRecordedError as error:
        raise BadInputError(f"--replay: {error}") from error


async def _decided(
    runbooks: Sequence[RunbookSet], scenarios: Sequence[Path], opened: Opener
) -> list[Verdicts]:
    verdicts: list[Verdicts] = []
    for one in runbooks:
        async with opened(None) as reasoner:
            verdicts.append(await judged(one, reasoner))
    if scenarios:
        # The simulated world is loaded only where there is something to play in it.
        from tiphys.service.evaluation.scenarios import played, read_scenario

        verdicts.append(await played([read_scenario(path) for path in scenarios], opened))
    return verdicts


def looks_like_a_scenario(path: Path) -> bool:
    """Tell a scenario from another YAML file by its keys."""
    text = path.read_text(encoding="utf-8", errors="replace")
    return "\nexpect:" in text and "\nfault:" in text


def files_under(path: Path) -> list[Path]:
    """Give the YAML files at or below a path, in order of their names."""
    if path.is_file():
        return [path] if path.suffix in {".yaml", ".yml"} else []
    found = [p for p in path.rglob("*.y*ml") if p.suffix in {".yaml", ".yml"} and p.is_file()]
    return sorted(p for p in found if len(p.relative_to(path).parts) <= _DEPTH)
