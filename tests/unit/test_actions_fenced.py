"""What a refusal says of a target that is not as planned any more."""

from collections.abc import Sequence

import pytest

from tiphys.policies.model import Change, Check, DecidedBy, Plan, Target
from tiphys.workflow_templates.action import NotApplicableError
from tiphys.workflow_templates.fenced import deviation

REPLICAS = Change(path="/spec/replicas", present=2, intended=3)
PAUSED = Change(path="/spec/paused", present=None, intended=True)
MOVED = Change(path="/spec/replicas", present=4, intended=3)
PLAN = Plan(
    incident="i",
    attempt=1,
    action="scale-workload",
    version=1,
    target=Target(
        cluster="c", api_version="apps/v1", kind="Deployment", namespace="shop", name="w", uid="u"
    ),
    parameters={},
    changes=(PAUSED, REPLICAS),
    check=Check(),
    policy="p",
    evidence_hash="0" * 64,
    decided_by=DecidedBy(reasoner="human"),
)


@pytest.mark.parametrize(
    ("now", "fields"),
    [
        ([PAUSED, MOVED], "/spec/replicas"),
        ([REPLICAS], "/spec/paused"),
        ([REPLICAS, PAUSED], "the changes differ"),
    ],
    ids=["another value", "one less", "another order"],
)
def test_who_is_told_of_it_reads_which_fields_somebody_moved(
    now: Sequence[Change], fields: str
) -> None:
    """And not of those beside them, where nobody would find anything changed."""
    assert deviation(PLAN, lambda: now) == f"the target is not as planned: {fields}"


def test_what_is_as_planned_is_no_deviation_and_what_cannot_be_planned_says_why() -> None:
    def refused() -> Sequence[Change]:
        raise NotApplicableError("it is paused")

    assert deviation(PLAN, lambda: PLAN.changes) is None
    assert deviation(PLAN, refused) == "it is paused"
