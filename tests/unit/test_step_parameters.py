"""A step does nothing under parameters that its action does not know, whoever signed them."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tiphys.policies.model import Change, Check, DecidedBy, Json, Plan, Target
from tiphys.policies.plan import digest, encode, workflow_name
from tiphys.workflow_templates.action import Result, StepName
from tiphys.workflow_templates.catalogue import find, template_name
from tiphys.workflow_templates.run_step import run
from tiphys.workflow_templates.signature import public_hex, sign

POD = Target(cluster="c", api_version="v1", kind="Pod", namespace="shop", name="p", uid="u-pod")
SHOP = Target(
    cluster="c", api_version="apps/v1", kind="Deployment", namespace="shop", name="w", uid="u-shop"
)


def said(
    step: StepName, action: str, target: Target, parameters: dict[str, Json], folder: Path
) -> tuple[Result, str]:
    """Run a step of a signed plan at an API server where nobody answers."""
    plan = Plan(
        incident="i",
        attempt=1,
        action=action,
        version=1,
        target=target,
        parameters=parameters,
        changes=(Change(path="/spec", present=None, intended=True),),
        check=Check(),
        policy="p",
        evidence_hash="0" * 64,
        decided_by=DecidedBy(reasoner="human"),
    )
    key = Ed25519PrivateKey.generate()
    not_after = (datetime.now(UTC) + timedelta(minutes=5)).strftime("%Y-%m-%dT%H:%M:%SZ")
    (folder / "token").write_text("t")
    report = run(
        step,
        {
            "TIPHYS_PLAN": encode(plan),
            "TIPHYS_PUBLIC_KEY": public_hex(key),
            "TIPHYS_NOT_AFTER": not_after,
            "TIPHYS_SIGNATURE": sign(key, digest(plan), not_after),
            "TIPHYS_WORKFLOW": workflow_name(plan),
            "TIPHYS_TARGET": target.uid,
            "TIPHYS_ACTION": template_name(find(action)),
            "TIPHYS_SERVICE_ACCOUNT_DIR": str(folder),
            "TIPHYS_KUBERNETES_URL": "http://127.0.0.1:1",
        },
    )
    return report.result, report.message


@pytest.mark.parametrize("step", StepName)
def test_a_wish_that_no_step_would_heed_is_not_passed_over(step: StepName, tmp_path: Path) -> None:
    """Who approved it read of a grace that the pod would not be given."""
    wished: dict[str, Json] = {"grace_seconds": 600}
    expected = (Result.REFUSED, "the plan's parameters do not fit the action")
    assert said(step, "restart-pod", POD, wished, tmp_path) == expected
    result, message = said(step, "restart-pod", POD, {}, tmp_path)
    assert (result, "/api" in message) == (Result.CRASHED, True)


@pytest.mark.parametrize("step", StepName)
@pytest.mark.parametrize("wanted", [{}, {"replicas": -1}, {"replicas": 10**6}, {"replicas": "3"}])
def test_a_size_that_the_action_does_not_allow_is_refused_before_anything_is_asked(
    step: StepName, wanted: dict[str, Json], tmp_path: Path
) -> None:
    expected = (Result.REFUSED, "the plan's parameters do not fit the action")
    assert said(step, "scale-workload", SHOP, wanted, tmp_path) == expected
