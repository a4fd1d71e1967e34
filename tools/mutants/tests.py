"""The project's own tests, asked of a mutant that no property of the kit tells from the original.

Fences and whole steps are the kit's to find: of those no test is asked.
"""

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from tiphys.service.conform.trials import TRIALS
from tools.mutants.copies import MUTATED, ROOT
from tools.mutants.rules import Mutant, Rule

FOLDERS = ("tests/unit", "tests/world")
OF_THE_KIT = {Rule.FENCE, Rule.STEP}
_OF_ALL = {"boundary", "boundary_policy", "boundary_templates", "catalogue", "render"}
_SECONDS = 400
"""For a run of tests that ends by itself, and a minute more for each of its files."""
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


def is_sound(file: str, packages: Path) -> bool:
    """Say whether a file's tests pass with the code as it is, and so may speak of mutants."""
    return not first_failed(_asked([file], packages))


def may_find(mutant: Mutant) -> bool:
    """Say whether tests are asked of a mutant at all."""
    return mutant.rule not in OF_THE_KIT


def found_by(mutant: Mutant, files: Sequence[str], packages: Path) -> tuple[str, str]:
    """Ask these files' tests; gives the test that failed, twice, and its words.

    `packages`: the folder whose `tiphys` holds the mutant. Empty strings: it survived.
    """
    rest = [*files] if may_find(mutant) else []
    while rest and (failed := first_failed(_asked(rest, packages))):
        if first_failed(again := _asked([failed], packages)):
            return failed, _last_words(again)
        # It fails now and then: those of the files after it have not been asked yet.
        rest = rest[rest.index(failed.partition("::")[0]) + 1 :]
    return "", ""


def first_failed(said: str) -> str:
    """Give the name of the first test that failed, as pytest asks for it; empty: none did."""
    found = _FAILED.search(said)
    return found[1] if found else ""


def _asked(what: Sequence[str], packages: Path) -> str:
    """Run files' tests, or one, until one fails; a run that takes too long has failed."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *what]
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**_environment(), "PYTHONPATH": str(packages)},
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS + 60 * len(what),
        )
    except subprocess.TimeoutExpired:
        return f"FAILED {what[0].partition('::')[0]}\nE no end"
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
