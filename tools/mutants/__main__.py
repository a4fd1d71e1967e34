"""`python -m tools.mutants [ACTION …]`: exit 1 if a mutant survives."""

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed

from tiphys.service.conform.trials import TRIALS
from tools.mutants import lane
from tools.mutants.copies import MUTATED, ROOT
from tools.mutants.kept import Kept
from tools.mutants.lane import Task, Traced, Tried
from tools.mutants.reach import passes, reachable
from tools.mutants.rules import Mutant, mutants
from tools.mutants.table import Row, commit_of, line, markdown
from tools.mutants.tests import Watched, chosen, files_about

FOLDER = ROOT / MUTATED
PAGE = ROOT / "docs" / "mutants.md"
PROGRAM = "run_step"
"""The same for every action, so that any action's trial may find what is taken out of it."""
_LAST = ("fails cleanly without", "run ")
"""Properties that take long, asked when no other was red."""


def main(words: Sequence[str] | None = None) -> int:
    """Make, trace, try, print and write down."""
    told, kept, commit = _told(words), Kept(ROOT / ".mutants"), commit_of(ROOT)
    with ProcessPoolExecutor(told.lanes, multiprocessing.get_context("spawn")) as pool:
        wanted = told.actions or sorted(TRIALS)
        traces = [one for one in kept.traces() if one.action in wanted] or traced(pool, wanted)
        if broken := [one for one in traces if one.why]:
            for one in broken:
                sys.stdout.write(f"not proven as it is: {one.action}: {one.property}: {one.why}\n")
            return 1
        if not told.actions:
            kept.keep_traces(traces)
        rows = list(_tried(pool, traces, told, kept))
    lost = [row for row in rows if not row.found_by]
    sys.stdout.write(f"{len(rows) - len(lost)} of {len(rows)} mutants found\n")
    for row in lost:
        sys.stdout.write(f"survived: {line(row)}\n")
    if not (told.actions or told.only):
        PAGE.write_text(markdown(rows, kept.state, commit))
    return 1 if lost else 0


def _told(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.mutants", description=__doc__)
    parser.add_argument(
        "actions", nargs="*", help="without any, all, and docs/mutants.md is written"
    )
    parser.add_argument("--only", default="", help="only mutants whose name contains this")
    parser.add_argument("--each", action="store_true", help="shared code with every action")
    parser.add_argument("--lanes", type=int, default=2 * (os.cpu_count() or 1))
    return parser.parse_args(words)


def traced(pool: ProcessPoolExecutor, actions: Sequence[str]) -> Sequence[Traced]:
    """Prove every property of these actions as they are, and see where its steps come by."""
    cases = [(action, name) for action in actions for name in lane.asked(action)]
    began = time.monotonic()
    found = [one.result() for one in [pool.submit(lane.trace, *case) for case in cases]]
    sys.stdout.write(f"{len(found)} properties traced in {time.monotonic() - began:.0f} s\n")
    return found


def _tried(
    pool: ProcessPoolExecutor, traces: Sequence[Traced], told: argparse.Namespace, kept: Kept
) -> Iterator[Row]:
    waiting: dict[Future[Tried], Mutant] = {}
    every = [mutant for mutant in _every() if told.only in mutant.name]
    # Who names an action or a mutant wants it tried.
    whole = not (told.actions or told.only or told.each)
    known = [row for mutant in every if whole and (row := kept.row(mutant))]
    sys.stdout.write(f"{len(known)} of {len(every)} mutants were found before\n")
    yield from known
    found = {id(row.mutant) for row in known}
    wanted = [mutant for mutant in every if id(mutant) not in found]
    tests = _watched(pool, wanted, kept)
    for mutant in wanted:
        tasks = list(_tasks(mutant, traces))
        asked = [*chosen(mutant, tests)]
        each = tasks and told.each and _is_acting(mutant.module)
        for some in [[one] for one in tasks] if each else [tasks]:
            waiting[pool.submit(lane.attempt, mutant, some, asked)] = mutant
    for done in as_completed(waiting):
        seen = done.result()
        row = _heard(Row(waiting[done], seen.action, seen.found_by, seen.why))
        if whole:
            kept.keep(row)
        yield row


def _watched(pool: ProcessPoolExecutor, wanted: Sequence[Mutant], kept: Kept) -> Sequence[Watched]:
    """Give the tests that pass with the code as it is, and where they come by."""
    files = sorted({file for mutant in wanted for file in files_about(mutant.module)})
    known = {file: found for file in files if (found := kept.watched(file)) is not None}
    asked = [pool.submit(lane.watched, file) for file in files if file not in known]
    for done in as_completed(asked):
        file, known[file] = done.result()
        kept.keep_watched(file, known[file])
    found = [one for file in files for one in known[file]]
    sys.stdout.write(f"{len(found)} tests of {len(files)} files may be asked\n")
    return found


def _heard(row: Row) -> Row:
    sys.stdout.write(f"{line(row)}: {row.why[:160]}\n")
    sys.stdout.flush()
    return row


def _every() -> Iterator[Mutant]:
    for module, functions in reachable(FOLDER).items():
        yield from mutants(module, (FOLDER / f"{module}.py").read_text(), functions)


def _tasks(mutant: Mutant, traces: Sequence[Traced]) -> Iterator[Task]:
    """Give for each action the properties that come by, those likely to be red first."""
    by_action: dict[str, list[Traced]] = {}
    for one in traces:
        if passes(one.lines, mutant.module, mutant.fires):
            by_action.setdefault(one.action, []).append(one)
    for action, found in by_action.items():
        found.sort(key=lambda one: (one.property.startswith(_LAST), one.seconds))
        yield Task(mutant, action, {one.property: one.seconds for one in found})


def _is_acting(module: str) -> bool:
    """Say whether a module looks, marks or writes for a run, and is no action's own."""
    text = (FOLDER / f"{module}.py").read_text()
    acting = "import Run" in text or "    Run,\n" in text or ", Run" in text
    return module != PROGRAM and (acting or module == "cluster")


if __name__ == "__main__":
    sys.exit(main())
