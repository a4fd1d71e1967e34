"""How often playbooks alone must be right on runbook cases; harm there is none.

The floors are what is reached today; a change that loses a case must say so here.
"""

import os
from functools import cache
from pathlib import Path

import pytest

from tiphys.service.evaluation.deciders import decider
from tiphys.service.evaluation.decisions import decided
from tiphys.service.evaluation.judging import Mark, Verdicts

OURS = Path(__file__).resolve().parents[1] / "data" / "decisions"
MORE = os.environ.get("TIPHYS_TEST_DECISIONS", "")


@cache
def run(path: str) -> tuple[Verdicts, ...]:
    return tuple(decided([Path(path)], decider("playbooks")))


@pytest.mark.parametrize(
    "path", [str(OURS / "runbook_cases.yaml"), *([MORE] if MORE else [])],
    ids=["ours", "more"][: 1 + bool(MORE)],
)  # fmt: skip
def test_playbooks_are_right_on_runbook_cases_and_harm_in_none(path: str) -> None:
    for verdicts in run(path):
        told = {j.case: f"{j.decided}, wanted {j.wanted}" for j in verdicts.judged}
        bad = {Mark.HARMFUL, Mark.WRONG, Mark.UNNEEDED, Mark.WRONG_TARGET}
        assert {j.case: told[j.case] for j in verdicts.judged if j.mark in bad} == {}
        assert verdicts.count(Mark.EXACT) >= 0.8 * len(verdicts.judged), told
        # Calling a human everywhere would be no harm either.
        assert sum(j.decided == "escalate" for j in verdicts.judged) <= len(verdicts.judged) / 2


@pytest.mark.parametrize(
    ("name", "exact", "amiss"),
    [
        ("own-long-1.yaml", 34, 1),
        ("own-long-2.yaml", 28, 0),
        ("own-terse-1.yaml", 28, 0),
        ("own-terse-2.yaml", 35, 0),
        ("own-terse-3.yaml", 26, 0),
    ],
    ids=["long-1", "long-2", "terse-1", "terse-2", "terse-3"],
)
def test_what_was_reached_on_our_own_cases_stays_reached(name: str, exact: int, amiss: int) -> None:
    (verdicts,) = run(str(OURS / name))
    told = {j.case: f"{j.decided}, wanted {j.wanted}" for j in verdicts.judged}
    assert {j.case: told[j.case] for j in verdicts.judged if j.mark is Mark.HARMFUL} == {}
    assert verdicts.count(Mark.EXACT) >= exact, told
    wrong = (Mark.WRONG, Mark.UNNEEDED, Mark.WRONG_TARGET)
    assert sum(verdicts.count(one) for one in wrong) <= amiss, told


def test_a_leak_that_began_before_the_newest_release_is_not_undone() -> None:
    (verdicts,) = run(str(OURS / "runbook_cases.yaml"))
    (leak,) = [j for j in verdicts.judged if "memory climbs" in j.why or j.case == "R09"]
    assert (leak.decided, leak.mark) == ("escalate", Mark.ACCEPTABLE)
