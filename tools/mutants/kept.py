"""What earlier runs found, so that one that was interrupted goes on where it ended.

It counts only for exactly the same code of the actions, the kit and the simulated cluster. Tests
may have come since; a row that names a test counts while there is such a test.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from tools.mutants.copies import ROOT
from tools.mutants.lane import Traced
from tools.mutants.rules import Mutant
from tools.mutants.table import Row
from tools.mutants.tests import Watched

_ASKED = ("policies", "sandbox", "service/conform", "tools/mutants", "workflow_templates")
_TESTED = ("agents", "policies", "sandbox", "service", "workflow_templates")
"""Folders of what tests work with, data included; `_ASKED` is less."""
_TRACES = TypeAdapter(list[Traced])
_TESTS = TypeAdapter(list[Watched])


class Kept:
    """One folder, for one state of the code; what is of others is thrown away."""

    def __init__(self, folder: Path, root: Path = ROOT) -> None:
        folder.mkdir(exist_ok=True)
        self._root = root
        self.state = _state(root)
        """A hash of the code that is asked."""
        for path in folder.iterdir():
            if not path.name.startswith(self.state):
                path.unlink()
        self._traces = folder / f"{self.state}.traces.json"
        self._rows = folder / f"{self.state}.rows.jsonl"
        self._watched, self._tested = folder / f"{self.state}.tests", _whole(root)
        self._found = {one["key"]: one for one in _lines(self._rows)}

    def traces(self) -> Sequence[Traced]:
        """Give what every property of every action was seen to come by; empty: nobody looked."""
        if not self._traces.exists():
            return []
        return _TRACES.validate_json(self._traces.read_bytes())

    def keep_traces(self, traces: Sequence[Traced]) -> None:
        """Keep them."""
        self._traces.write_bytes(_TRACES.dump_json([*traces]))

    def watched(self, file: str) -> Sequence[Watched] | None:
        """Give a file's tests that passed, as they are now, with all code as it is now."""
        path = self._watched_of(file)
        return _TESTS.validate_json(path.read_bytes()) if path.exists() else None

    def keep_watched(self, file: str, tests: Sequence[Watched]) -> None:
        """Keep them."""
        self._watched_of(file).write_bytes(_TESTS.dump_json([*tests]))

    def _watched_of(self, file: str) -> Path:
        return self._watched.with_suffix(f".{self._text_of(file)}.tests")

    def _text_of(self, file: str) -> str:
        """Give what moves with a file of tests and whatever lies beside it and above."""
        whole, path = hashlib.sha256(self._tested), self._root / file
        for folder in path.relative_to(self._root).parents:
            for beside in sorted((self._root / folder).glob("*.py")):
                if beside == path or not beside.name.startswith("test_"):
                    name = str(beside.relative_to(self._root))
                    whole.update(name.encode() + b"\0" + beside.read_bytes())
        return whole.hexdigest()

    def row(self, mutant: Mutant) -> Row | None:
        """Give how a mutant was found; None: it was not, or not yet."""
        one = self._found.get(_key(mutant))
        if one is None or not _stands(one["found_by"], self._root):
            return None
        return Row(mutant, one["action"], one["found_by"], one["why"])

    def keep(self, row: Row) -> None:
        """Keep that a mutant was found; those that survive are tried again."""
        if row.found_by:
            one = {"key": _key(row.mutant), "action": row.action, "found_by": row.found_by}
            with self._rows.open("a") as file:
                file.write(json.dumps({**one, "why": row.why[:300]}) + "\n")


def _state(root: Path) -> str:
    whole = hashlib.sha256()
    for folder in _ASKED:
        for path in sorted((root / folder).rglob("*.py")):
            whole.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return whole.hexdigest()[:16]


def _whole(root: Path) -> bytes:
    whole = hashlib.sha256()
    for folder in _TESTED:
        for path in sorted((root / folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                whole.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    return whole.digest()


def _key(mutant: Mutant) -> str:
    whole = f"{mutant.name}\0{mutant.line}\0{mutant.text}"
    return hashlib.sha256(whole.encode()).hexdigest()


def _stands(found_by: str, root: Path) -> bool:
    """Say whether the test that found it is still there; a property of the kit is."""
    file, mark, test = found_by.partition("::")
    if not mark:
        return True
    name, path = test.partition("[")[0].rpartition("::")[2], root / file
    return path.exists() and f"def {name}(" in path.read_text()


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Read what was kept; a last line that was cut off is nothing."""
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            yield json.loads(line)
        except ValueError:
            return
