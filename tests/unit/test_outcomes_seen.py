"""Workflows as a real Argo left them are read as what they were; the conformance suite kept them.

`TIPHYS_GOLDEN=write pytest -m cluster tests/conformance` writes them anew.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from tiphys.policies.model import Outcome
from tiphys.service.outcomes import outcome, view
from tiphys.workflow_templates.action import StepName

FOLDER = Path(__file__).parents[1] / "data" / "argo" / "workflows"
KEPT = sorted(path.stem for path in FOLDER.glob("*.json"))
ENDS = {
    "verified": Outcome.VERIFIED,
    "started-again": Outcome.VERIFIED,
    "rolled-back": Outcome.ROLLED_BACK,
    "rollback-killed": Outcome.ROLLED_BACK,
    "rollback-tried-again": Outcome.ROLLED_BACK,
    "stopped": Outcome.ROLLED_BACK,
    "past-its-deadline": Outcome.ROLLED_BACK,
    "ineffective": Outcome.INEFFECTIVE,
    "refused": Outcome.REFUSED,
    "too-late": Outcome.REFUSED,
    "not-ours": Outcome.ROLLBACK_FAILED,
    "forged": Outcome.UNKNOWN,
    "unknowable": Outcome.UNKNOWN,
    "rollback-unschedulable": None,
    "rollback-over-quota": None,
}
"""None: it has not ended, and only the service's own deadline ends the watching."""


def kept(label: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{label}.json").read_text())


@pytest.mark.parametrize("label", ENDS)
def test_a_real_end_is_read_as_what_it_was(label: str) -> None:
    seen = view(kept(label)["workflow"])
    assert (outcome(seen)[0] if seen.ended else None) is ENDS[label], seen


@pytest.mark.parametrize("label", KEPT)
def test_a_real_workflow_is_read_as_it_was_when_it_was_kept(label: str) -> None:
    found = kept(label)
    seen = view(found["workflow"])
    assert (outcome(seen)[0] if seen.ended else None) == found["outcome"]
    assert {step.step: step.result for step in seen.steps} == found["steps"]


def test_every_step_of_a_whole_run_is_found() -> None:
    steps = view(kept("rolled-back")["workflow"]).steps
    assert [step.step for step in steps] == list(StepName)
    assert all(step.started_at and step.finished_at and step.message is not None for step in steps)
