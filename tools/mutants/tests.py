"""The project's own tests, asked of a mutant that no property of the kit tells from the original.

Fences and whole steps are the kit's to find: of those no test is asked.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tiphys.service.conform.trials import TRIALS
from tools.mutants import witness
from tools.mutants.copies import MUTATED, ROOT, Copy
from tools.mutants.reach import Lines, passes
from tools.mutants.rules import Mutant, Rule

FOLDERS = ("tests/unit", "tests/world")
OF_THE_KIT = {Rule.FENCE, Rule.STEP}
_OF_ALL = {"boundary", "boundary_policy", "boundary_templates", "catalogue", "render"}
SECONDS = 60.0
"""For the tests of one mutant, as long as they take with the code as it is."""
_PATIENCE = 400
"""Seconds for a run of tests to end."""
_NO_END = "no end"
_FAILED = re.compile(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", re.MULTILINE)
"""A test's name may have spaces, between its brackets."""


@cache
def files_about(module: str) -> Sequence[str]:
    """Give the files of tests that speak of a module, or of one that imports it; quick ones first.

    What imports every action speaks of none.
    """
    sources = [path for path in (ROOT / MUTATED).glob("*.py") if path.stem not in _OF_ALL]
    users = sorted(path.stem for path in sources if _imports(path.read_text(), module))
    found = [one for name in (module, *users) for one in _speaking_of(name)]
    return [*dict.fromkeys(found)]


@dataclass(frozen=True)
class Watched:
    """One test that passes with the code as it is."""

    test: str
    """As pytest asks for it."""
    seconds: float
    lines: Lines
    """What it comes by, in the steps that it starts too."""


def watched(file: str, copy: Copy) -> Sequence[Watched]:
    """Run a file's tests with the code as it is; gives those that pass, so may speak of mutants."""
    copy.watch()
    copy.tests.unlink(missing_ok=True)
    _asked([file], copy.folder, "-p", witness.NAME)
    said = copy.tests.read_text().splitlines() if copy.tests.exists() else ()
    ran = [json.loads(one) for one in said]
    return [
        Watched(one["test"], one["seconds"], frozenset((m, n) for m, n in one["lines"]))
        for one in ran
        if one["passed"]
    ]


def chosen(mutant: Mutant, among: Iterable[Watched]) -> Iterator[str]:
    """Give the tests that come by a mutant, the quick ones first, for about a minute of them."""
    if not may_find(mutant):
        return
    left = SECONDS
    for one in sorted(among, key=lambda one: one.seconds):
        if passes(one.lines, mutant.module, mutant.fires):
            left -= one.seconds
            if left < 0:
                return
            yield one.test


def may_find(mutant: Mutant) -> bool:
    """Say whether tests are asked of a mutant at all."""
    return mutant.rule not in OF_THE_KIT


def found_by(tests: Sequence[str], packages: Path) -> tuple[str, str]:
    """Ask tests of a mutant; gives the one that failed, twice, and its words.

    `packages`: the folder whose `tiphys` holds the mutant. Empty strings: it survived.
    """
    rest = [*tests]
    while rest and (failed := first_failed(_asked(rest, packages, "-x"))):
        if failed == _NO_END:
            return rest[0].partition("::")[0], _NO_END
        if first_failed(again := _asked([failed], packages, "-x")):
            return failed, _last_words(again)
        # It fails now and then: those after it have not been asked yet.
        rest = rest[rest.index(failed) + 1 :] if failed in rest else []
    return "", ""


def first_failed(said: str) -> str:
    """Give the name of the first test that failed, as pytest asks for it; empty: none did."""
    found = _FAILED.search(said)
    return found[1] if found else ""


def _asked(what: Sequence[str], packages: Path, *how: str) -> str:
    """Run files' tests, or single ones; a run that takes too long has failed."""
    listed = packages / "asked"
    listed.write_text("\n".join(what))
    plain = ["-q", "-p", "no:cacheprovider"]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *plain, *how, f"@{listed}"],
            cwd=ROOT,
            env={**_environment(), "PYTHONPATH": str(packages)},
            capture_output=True,
            text=True,
            check=False,
            timeout=_PATIENCE,
        )
    except subprocess.TimeoutExpired:
        return f"FAILED {_NO_END}"
    return done.stdout + done.stderr


def _environment() -> Mapping[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(("TIPHYS_", "PYTEST_"))}


def _last_words(said: str) -> str:
    lines = [line for line in said.splitlines() if line.startswith("E ")]
    return lines[-1].removeprefix("E").strip() if lines else ""


def _speaking_of(module: str) -> Sequence[str]:
    found = [path for name in FOLDERS for path in (ROOT / name).rglob("test_*.py")]
    action = f'"{module.replace("_", "-")}"'
    of_action = action[1:-1] in TRIALS

    def speaks(text: str) -> bool:
        return _imports(text, module) or (of_action and action in text)

    found = [path for path in found if speaks(_with_helpers(path))]
    found.sort(key=lambda path: ("world" in path.parts, path.stat().st_size))
    return [str(one.relative_to(ROOT)) for one in found]


@cache
def _with_helpers(path: Path) -> str:
    """Give a file's text with that of the files beside it that it imports."""
    text = path.read_text()
    used = [
        one
        for one in path.parent.glob("*.py")
        if re.search(rf"^(?:from|import) {one.stem}\b", text, re.MULTILINE)
    ]
    return text + "".join(one.read_text() for one in used)


def _imports(text: str, module: str) -> bool:
    plain = rf"tiphys\.{MUTATED}\.{module} import"
    among = rf"from tiphys\.{MUTATED} import (\([^)]*|[^(\n]*)\b{module}\b"
    return re.search(f"{plain}|{among}", text) is not None
