"""The mutation run reaches the steps: what is taken out there turns the kit red."""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from tools.mutants.copies import MUTATED, ROOT
from tools.mutants.lane import Task, attempt
from tools.mutants.reach import reachable
from tools.mutants.rules import Mutant, mutants

FOLDER = ROOT / MUTATED


def mutant(module: str, function: str, gone: str) -> Mutant:
    text = (FOLDER / f"{module}.py").read_text()
    found = mutants(module, text, reachable(FOLDER)[module])
    return next(one for one in found if one.function == function and one.gone == gone)


@pytest.mark.parametrize(
    ("module", "function", "gone", "properties"),
    [
        ("cluster", "_exactly", '{"uid": uid}', ["fences every write"]),
        ("restart_pod", "RestartPod._look", "pod is None", ["acts once when run twice"]),
        (
            "restart_pod",
            "RestartPod.rollback",
            "mark.close_door(run)",
            ["does not act after a rollback that found nothing"],
        ),
    ],
)
def test_it_is_found(module: str, function: str, gone: str, properties: Sequence[str]) -> None:
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        gone_from = mutant(module, function, gone)
        task = Task(gone_from, "restart-pod", dict.fromkeys(properties, 1.0))
        tried = pool.submit(attempt, gone_from, [task]).result()
    assert tried.found_by in properties
