"""Finds runbook cases and scenarios at or below paths, and has a reasoner decide them."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from tiphys.agents.playbooks import Playbooks
from tiphys.agents.ports import Reasoner
from tiphys.service.errors import UsageError
from tiphys.service.evaluation.judging import Verdicts
from tiphys.service.evaluation.runbooks import RunbookSet, judged, runbooks_in

REASONERS: Final[Mapping[str, Callable[[], Reasoner]]] = {"playbooks": Playbooks.load}
"""Who may decide, by the name that `--reasoner` takes."""
_DEPTH: Final = 6
"""Folders below a path given in which cases are looked for."""


def reasoner_named(name: str) -> Reasoner:
    """Make a reasoner; raises `UsageError`."""
    if name not in REASONERS:
        raise UsageError(f"--reasoner {name}: one of {', '.join(REASONERS)} was expected")
    return REASONERS[name]()


def decided(paths: Sequence[Path], name: str) -> list[Verdicts]:
    """Run everything that needs a decision; raises `UsageError`."""
    reasoner = reasoner_named(name)
    runbooks: list[RunbookSet] = []
    scenarios: list[Path] = []
    for file in (file for path in paths for file in files_under(path)):
        if (found := runbooks_in(file)) is not None:
            runbooks.append(found)
        elif looks_like_a_scenario(file):
            scenarios.append(file)
    return asyncio.run(_decided(runbooks, scenarios, reasoner))


async def _decided(
    runbooks: Sequence[RunbookSet], scenarios: Sequence[Path], reasoner: Reasoner
) -> list[Verdicts]:
    verdicts = [await judged(one, reasoner) for one in runbooks]
    if scenarios:
        # The simulated world is loaded only where there is something to play in it.
        from tiphys.service.evaluation.scenarios import played, read_scenario

        verdicts.append(await played([read_scenario(path) for path in scenarios], reasoner))
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
