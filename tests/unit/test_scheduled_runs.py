"""When a Job has ended, and why it failed: only a condition that is true says so. Pure."""

from typing import Any

import pytest

from tiphys.workflow_templates.scheduled_runs import end_of, failed_because


def job(*conditions: tuple[str, str]) -> dict[str, Any]:
    said = [{"type": kind, "status": status, "reason": "Why"} for kind, status in conditions]
    return {"metadata": {"name": "report"}, "status": {"conditions": said}}


@pytest.mark.parametrize(
    ("conditions", "end", "why"),
    [
        ((), "", ""),
        ((("Failed", "True"),), "Failed", "Why"),
        ((("Complete", "True"),), "Complete", ""),
        ((("Failed", "False"),), "", ""),
        ((("Complete", "Unknown"),), "", ""),
        ((("Suspended", "True"),), "", ""),
        ((("Failed", "False"), ("Complete", "True")), "Complete", ""),
        ((("SuccessCriteriaMet", "True"), ("Complete", "True")), "Complete", ""),
    ],
)
def test_only_a_true_condition_ends_a_job(
    conditions: tuple[tuple[str, str], ...], end: str, why: str
) -> None:
    assert (end_of(job(*conditions)), failed_because(job(*conditions))) == (end, why)
