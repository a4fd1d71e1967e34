"""A copy of the package that steps and tests import instead of the checkout's: PYTHONPATH."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from tools.mutants import witness

ROOT = Path(__file__).resolve().parents[2]
MUTATED = "workflow_templates"
BESIDE = ("agents", "policies", "sandbox", "service")
"""What is imported beside it."""


class Copy:
    """The package in a folder of its own, of which single modules can be replaced."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.traces = folder / witness.TRACES
        self.tests = folder / witness.TESTS
        self._place = folder / "tiphys" / MUTATED
        self._changed: set[str] = set()
        self._place.mkdir(parents=True)
        self.traces.mkdir()
        shutil.copy2(str(witness.__file__), folder / f"{witness.NAME}.py")
        for name in BESIDE:
            (folder / "tiphys" / name).symlink_to(ROOT / name)
        for path in (ROOT / MUTATED).glob("*.py"):
            shutil.copy2(path, self._place / path.name)

    def watch(self) -> None:
        """Let every process that imports the package, as it is, write down where it comes by."""
        self.change({"__init__": f"import {witness.NAME}\n"})

    def change(self, texts: Mapping[str, str]) -> None:
        """Replace exactly these modules; what was replaced before is as it was."""
        for module in self._changed | texts.keys():
            path = self._place / f"{module}.py"
            # A cached compilation is taken for this text's when size and second are the same.
            for old in (self._place / "__pycache__").glob(f"{module}.*.pyc"):
                old.unlink()
            if module in texts:
                path.write_text(texts[module])
            else:
                shutil.copy2(ROOT / MUTATED / path.name, path)
        self._changed = set(texts)
