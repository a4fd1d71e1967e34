"""The tour names files that exist, and every stage of the pipeline is on it."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOUR = (ROOT / "docs" / "tour.md").read_text()
NAMED = set(re.findall(r"`([a-z_]+/[a-z_/]+\.(?:py|yaml))`", TOUR))


def test_every_file_on_the_tour_exists() -> None:
    assert NAMED
    assert [name for name in sorted(NAMED) if not (ROOT / name).is_file()] == []


def test_every_stage_and_agent_is_on_the_tour() -> None:
    app = (ROOT / "service" / "app.py").read_text()
    stages = re.search(r"def _pipeline.*?def _office", app, re.DOTALL)
    assert stages
    classes = {name for name in re.findall(r"\b([A-Z][a-z]+)\(", stages[0]) if name != "Pipeline"}
    files = {f"service/{name.lower()}.py" for name in classes if name not in {"State", "Alert"}}
    assert len(files) >= 4
    assert files <= NAMED | {"service/paging.py"}
    assert {"agents/on_call.py", "agents/analysis.py", "agents/kubectl.py"} <= NAMED


def test_the_readme_links_to_what_exists() -> None:
    readme = (ROOT / "README.md").read_text()
    links = re.findall(r"\]\(([^)#:]+)\)", readme)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
