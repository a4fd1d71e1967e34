"""The tour names files that exist, and every stage of the pipeline is on it."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOUR = (ROOT / "docs" / "tour.md").read_text()
NAMED = set(re.findall(r"`([a-z_]+/[a-z_/]+\.(?:csv|py|yaml))`", TOUR))


def test_every_file_on_the_tour_exists() -> None:
    assert NAMED
    assert [name for name in sorted(NAMED) if not (ROOT / name).is_file()] == []


def test_every_stage_and_agent_is_on_the_tour() -> None:
    stages: set[str] = set()
    for role in ("agents", "launcher"):
        wiring = ast.parse((ROOT / "service" / f"role_{role}.py").read_text())
        made = {n.module: n.names for n in ast.walk(wiring) if isinstance(n, ast.ImportFrom)}
        called = {
            node.func.id
            for node in ast.walk(wiring)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        for module, names in made.items():
            used = {alias.name for alias in names} & called
            path = ROOT / f"{(module or '').removeprefix('tiphys.').replace('.', '/')}.py"
            if used and path.is_file() and "async def run(self, job: Job)" in path.read_text():
                stages.add(str(path.relative_to(ROOT)))
    assert len(stages) == 6, stages
    assert stages <= NAMED
    assert {"agents/on_call.py", "agents/analysis.py", "agents/kubectl.py"} <= NAMED


def test_the_readme_links_to_what_exists() -> None:
    readme = (ROOT / "README.md").read_text()
    links = re.findall(r"\]\(([^)#:]+)\)", readme)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
