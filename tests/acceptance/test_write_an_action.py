"""docs/write-an-action.md, word for word: in a copy of the project its action comes to be, the kit
proves it, and it passes every test that asks something of every action.
"""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "write-an-action.md").read_text()
BLOCKS = re.findall(r"^`([^`\n]+)`\n\n```(python|diff)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
pytestmark = pytest.mark.timeout(600)
PACKAGES = ("agents", "policies", "sandbox", "service", "workflow_templates")
FOLDERS = (*PACKAGES, "docs", "helm", "tests", "tools")
ACTION = "pause-cronjob"
ASKED_OF_EVERY_ACTION = (
    "actions_attacked", "actions_page", "actions_pause_cronjob", "actions_planning", "boundary",
    "chart_files", "harm", "render", "step_imports",
)  # fmt: skip


@dataclass(frozen=True)
class Copy:
    """The project with the page's files in it."""

    folder: Path

    def run(self, *command: str, **environment: str) -> str:
        """Run something of the copy's own; gives what it said."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(self.folder / ".links"), **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        return said

    def python(self, *words: str, **environment: str) -> str:
        """Run a module."""
        return self.run(sys.executable, "-m", *words, **environment)

    def pytest(self, *words: str, **environment: str) -> str:
        """Run tests of the copy, in this process's manner."""
        return self.run(
            sys.executable, "-c", "import sys, pytest; sys.exit(pytest.main())",
            "-q", "-p", "no:cacheprovider", *words, **environment,
        )  # fmt: skip


def patched(text: str, diff: str) -> str:
    """Apply the page's diff: lines to find, those with a + to put among them."""
    for hunk in diff.split("@@\n"):
        lines = hunk.splitlines(keepends=True)
        old = "".join(line[1:] for line in lines if line[0] in " -")
        new = "".join(line[1:] for line in lines if line[0] in " +")
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    folder = tmp_path_factory.mktemp("project")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in [*ROOT.glob("*.toml"), *ROOT.glob("*.lock"), *ROOT.glob("*.md")]:
        shutil.copy(path, folder)
    (folder / ".links" / "tiphys").mkdir(parents=True)
    for name in PACKAGES:
        (folder / ".links" / "tiphys" / name).symlink_to(folder / name)
    for name, kind, text in BLOCKS:
        path = folder / name
        assert path.exists() is (kind == "diff"), name
        path.write_text(patched(path.read_text(), text) if kind == "diff" else text)
    return Copy(folder)


def test_the_page_has_the_files_that_its_table_names() -> None:
    own = ACTION.replace("-", "_")
    named = re.findall(r"^\|.*?`([a-z_/<>]+\.py)`", PAGE, re.MULTILINE)
    assert len(named) == 6
    assert [name for name, _, _ in BLOCKS] == [name.replace("<action>", own) for name in named]


def test_its_code_is_as_ours(copy: Copy) -> None:
    files = [name for name, _, _ in BLOCKS]
    copy.python("ruff", "check", *files)
    copy.python("ruff", "format", "--check", *files)


def test_everything_else_is_rendered_and_found(copy: Copy) -> None:
    """As `make golden` does; then whatever asks something of every action."""
    assert f"wrote templates/{ACTION}-v1.yaml" in copy.python("tools.chart")
    copy.python("tools.actions_page")
    tests = sorted((copy.folder / "tests" / "unit").glob("test_*.py"))
    golden = [str(path) for path in tests if "TIPHYS_GOLDEN" in path.read_text()]
    copy.pytest(*golden, "-k", "golden", TIPHYS_GOLDEN="write")
    assert f"`tiphys conform {ACTION}` proves" in (copy.folder / "docs/actions.md").read_text()
    copy.pytest(*(f"tests/unit/test_{name}.py" for name in ASKED_OF_EVERY_ACTION))
    copy.pytest("tests/conformance/test_catalogue.py", "-k", "every_action or sample")


def test_the_kit_proves_it(copy: Copy) -> None:
    said = " ".join(copy.python("tiphys.service.main", "conform", ACTION).split())
    for name in (
        "run heals and changes exactly what it declares",
        "refuses: somebody has suspended it",
        "refuses: its runs do not pile up any more",
        "puts back exactly what was there",
        "leaves alone what somebody else changed since",
        "fails cleanly without patch batch/cronjobs",
    ):
        assert f"{ACTION}: {name}: proven" in said
    found = re.search(r"(\d+) of (\d+) proven", said)
    assert found
    assert found[1] == found[2]
