"""One process with a simulated cluster of its own, in which mutants are tried one after another."""

import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tiphys.service.conform.every import every_property
from tiphys.service.conform.properties import Property
from tiphys.service.conform.simulated import SandboxWorld
from tiphys.service.conform.trial import staged
from tiphys.service.conform.trials import TRIALS
from tools.mutants import tests
from tools.mutants.copies import Copy
from tools.mutants.reach import Lines
from tools.mutants.rules import Mutant
from tools.mutants.witness import came_by

STEP_SECONDS = 40.0
"""For one step of a mutant, which may never end."""
QUICK_SECONDS = 8.0
"""For properties of one action before tests are asked."""
LATE_SECONDS = 20.0
"""For properties of one action after tests were asked: what takes longer to be found is as good as
not found, and wants a test. What no test is asked of is asked of every property."""
ENOUGH = 3
"""Actions whose properties are asked of code that they share, where tests are asked too."""
TRIES = 3
"""How often a property is asked that fails in words that a busy machine also causes."""
_BUSY = (
    "Connection refused",
    "HeldUp",
    "Timeout",
    "did not answer",
    "did not end",
    "in vain",
    "took longer",
)


def asked(action: str) -> Mapping[str, Property]:
    """Give an action's properties by name; its killings find nothing that others do not."""
    found = every_property(TRIALS[action])
    return {one.name: one for one in found if not one.kills}


@dataclass(frozen=True)
class Traced:
    """One property of one action, proven with the code as it is."""

    action: str
    property: str
    seconds: float
    why: str
    """Empty: proven."""
    lines: Lines


@dataclass(frozen=True)
class Tried:
    """What became of one mutant in one action."""

    action: str
    found_by: str
    """The property that was not proven, or the test that failed; empty: it survived."""
    why: str
    seconds: float


@dataclass(frozen=True)
class Task:
    """One mutant to be tried with one action."""

    mutant: Mutant
    action: str
    properties: Mapping[str, float]
    """And how many seconds each takes; in the order in which they are asked, until one is not
    proven."""


class Lane:
    """This process's world."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._folder = tempfile.TemporaryDirectory(
            prefix="tiphys-mutants-", ignore_cleanup_errors=True
        )
        folder = Path(self._folder.name)
        (folder / "world").mkdir()
        self.copy = Copy(folder / "copy")
        os.environ["PYTHONPATH"] = str(self.copy.folder)
        self.world = SandboxWorld(folder / "world")
        self.world.step_seconds = STEP_SECONDS

    def begin_anew(self) -> None:
        """Leave a world that is broken, so may not even end, and have another, and another copy."""
        with suppress(Exception):
            self.world.close()
        self._folder.cleanup()
        self._begin()

    def ask(self, action: str, name: str) -> str:
        """Ask one property; gives what is wrong, or an empty string."""
        try:
            with staged(self.world, action) as stage:
                asked(action)[name].prove(stage, TRIALS[action])
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return ""

    def ask_of(self, mutant: Mutant, action: str, name: str, mutated: bool) -> str:
        """Ask one property of a mutant, or of the code as it is."""
        self.copy.change({mutant.module: mutant.text} if mutated else {})
        return self.ask(action, name)


_lanes: list[Lane] = []


def _lane() -> Lane:
    if not _lanes:
        _lanes.append(Lane())
    return _lanes[0]


def trace(action: str, name: str) -> Traced:
    """Prove one property as it is, and see which lines its steps come by."""
    lane = _lane()
    lane.copy.watch()
    came_by(lane.copy.traces)
    began = time.monotonic()
    why = lane.ask(action, name)
    if why:
        why = lane.ask(action, name)
    seconds = time.monotonic() - began
    return Traced(action, name, seconds, why, came_by(lane.copy.traces))


def watched(file: str) -> tuple[str, Sequence[tests.Watched]]:
    """Give a file of tests, and those of them that may be asked."""
    return file, tests.watched(file, _lane().copy)


def attempt(mutant: Mutant, tasks: Sequence[Task], asked: Sequence[str] = ()) -> Tried:
    """Try a mutant until it is found: quick properties, then tests, then some more properties."""
    some = tasks[:ENOUGH] if tests.may_find(mutant) else tasks
    quick = {id(task): [*_within(QUICK_SECONDS, task)] for task in some}
    tried = _any(some, quick)
    if tried.found_by:
        return tried
    lane = _lane()
    lane.copy.change({mutant.module: mutant.text})
    began = time.monotonic()
    found, why = tests.found_by(asked, lane.copy.folder)
    if found:
        return Tried(tried.action, found, why, time.monotonic() - began)
    late = LATE_SECONDS if tests.may_find(mutant) else math.inf
    rest = {id(task): [*_within(late, task, quick[id(task)])] for task in some}
    return _any(some, rest)


def _within(limit: float, task: Task, asked: Sequence[str] = ()) -> Iterator[str]:
    """Give as many of the first properties, without those asked, as can be asked in so many s."""
    spent = 0.0
    for name, seconds in task.properties.items():
        if name in asked:
            continue
        spent += seconds
        if spent > limit:
            return
        yield name


def _any(tasks: Sequence[Task], names: Mapping[int, Sequence[str]]) -> Tried:
    tried = Tried("", "", "", 0)
    for task in tasks:
        tried = _attempt(task, names[id(task)])
        if tried.found_by:
            break
    return tried


def _attempt(task: Task, names: Sequence[str]) -> Tried:
    lane = _lane()
    began = time.monotonic()
    for name in names:
        ask = partial(lane.ask_of, task.mutant, task.action, name)
        if why := told_apart(ask, lane.begin_anew):
            return Tried(task.action, name, why, time.monotonic() - began)
    return Tried(task.action, "", "", time.monotonic() - began)


def told_apart(ask: Callable[[bool], str], begin_anew: Callable[[], None]) -> str:
    """Give why a property is not proven of a mutant; empty: it is, or nobody can tell.

    `ask`: gives what is wrong with the mutant (True) or the code as it is (False). What a busy
    machine or a broken world may cause counts where the code as it is stays proven, in another
    world (`begin_anew`) if need be.
    """
    why = ""
    for _ in range(TRIES):
        why = ask(True)
        if not any(word in why for word in _BUSY):
            return why
    if not ask(False):
        return why
    begin_anew()
    why = ask(True)
    return why if why and not ask(False) else ""
