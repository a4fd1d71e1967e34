"""How often playbooks alone must be right on published runbook cases; harm there is none."""

import os
from pathlib import Path

import pytest

from tiphys.service.evaluation.decisions import decided
from tiphys.service.evaluation.judging import Mark

OURS = Path(__file__).resolve().parents[1] / "data" / "decisions"
MORE = os.environ.get("TIPHYS_TEST_DECISIONS", "")


@pytest.mark.parametrize(
    "path", [str(OURS), *([MORE] if MORE else [])], ids=["ours", "more"][: 1 + bool(MORE)]
)
def test_playbooks_are_right_on_runbook_cases_and_harm_in_none(path: str) -> None:
    for verdicts in decided([Path(path)], "playbooks"):
        told = {j.case: f"{j.decided}, wanted {j.wanted}" for j in verdicts.judged}
        bad = {Mark.HARMFUL, Mark.WRONG, Mark.UNNEEDED, Mark.WRONG_TARGET}
        assert {j.case: told[j.case] for j in verdicts.judged if j.mark in bad} == {}
        assert verdicts.count(Mark.EXACT) >= 0.8 * len(verdicts.judged), told
        # Calling a human everywhere would be no harm either.
        assert sum(j.decided == "escalate" for j in verdicts.judged) <= len(verdicts.judged) / 2


def test_a_leak_that_began_before_the_newest_release_is_not_undone() -> None:
    (verdicts,) = decided([OURS], "playbooks")
    (leak,) = [j for j in verdicts.judged if "memory climbs" in j.why or j.case == "R09"]
    assert (leak.decided, leak.mark) == ("escalate", Mark.ACCEPTABLE)
