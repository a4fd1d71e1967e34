"""What a step refuses of what it is given, before it asks the API server anything."""

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from in_process import Obj, plan_of

from tiphys.policies.model import Change, Plan
from tiphys.policies.plan import digest, encode, workflow_name
from tiphys.workflow_templates import run_step
from tiphys.workflow_templates.action import Result, StepName
from tiphys.workflow_templates.catalogue import find, template_name
from tiphys.workflow_templates.signature import public_hex, sign

KEY = Ed25519PrivateKey.generate()
NEEDED = ("PLAN", "PUBLIC_KEY", "NOT_AFTER", "SIGNATURE", "WORKFLOW", "TARGET", "ACTION", "NODE")
EACH = pytest.mark.parametrize("step", list(StepName))


def target(kind: str, version: str, **meta: str) -> Obj:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": "one", "uid": "u", **meta}}


def draining(**meta: str) -> Plan:
    change = Change(path="/spec/unschedulable", present=None, intended=True)
    return plan_of("cordon-drain-node", target("Node", "v1", **meta), [change])


def scaling(*changes: Change, **meta: str) -> Plan:
    made = target("Deployment", "apps/v1", **meta)
    return plan_of("scale-workload", made, changes, replicas=3)


MORE = Change(path="/spec/replicas", present=2, intended=3)


def given(plan: Plan, folder: Path, not_after: str = "2099-01-01T00:00:00Z") -> dict[str, str]:
    """Give what the launcher and the template set, for a server where nobody answers."""
    (folder / "token").write_text("t")
    return {
        "TIPHYS_PLAN": encode(plan),
        "TIPHYS_PUBLIC_KEY": public_hex(KEY),
        "TIPHYS_NOT_AFTER": not_after,
        "TIPHYS_SIGNATURE": sign(KEY, digest(plan), not_after),
        "TIPHYS_WORKFLOW": workflow_name(plan),
        "TIPHYS_TARGET": plan.target.uid,
        "TIPHYS_ACTION": template_name(find(plan.action)),
        "TIPHYS_NODE": plan.target.name,
        "TIPHYS_SERVICE_ACCOUNT_DIR": str(folder),
        "TIPHYS_KUBERNETES_URL": "http://127.0.0.1:1",
    }


def said(step: StepName, environment: dict[str, Any]) -> tuple[Result, str]:
    report = run_step.run(step, environment)
    return report.result, report.message


@EACH
@pytest.mark.parametrize("plan", [draining(), scaling(MORE, namespace="shop")])
def test_with_all_that_vouches_for_it_a_step_goes_on_to_ask_the_cluster(
    step: StepName, plan: Plan, tmp_path: Path
) -> None:
    result, message = said(step, given(plan, tmp_path))
    assert (result, "/api" in message) == (Result.CRASHED, True)


@EACH
@pytest.mark.parametrize("name", NEEDED)
@pytest.mark.parametrize("how", ["missing", "empty"])
def test_what_is_not_set_is_named(step: StepName, name: str, how: str, tmp_path: Path) -> None:
    """A template that lost a line must not look like a forged plan to who reads of it."""
    environment = given(draining(), tmp_path)
    if how == "missing":
        del environment[f"TIPHYS_{name}"]
    else:
        environment[f"TIPHYS_{name}"] = ""
    assert said(step, environment) == (Result.REFUSED, f"TIPHYS_{name} is not set")


@EACH
def test_a_time_without_a_zone_ends_nothing_when_it_should(step: StepName, tmp_path: Path) -> None:
    """Nobody could say when it has passed: refused, and not found out when it is compared."""
    environment = given(draining(), tmp_path, "2099-01-01T00:00:00")
    assert said(step, environment) == (Result.REFUSED, "notAfter has no time zone")


@EACH
def test_a_plan_that_changes_nothing_is_not_run_and_called_a_success(
    step: StepName, tmp_path: Path
) -> None:
    environment = given(scaling(namespace="shop"), tmp_path)
    assert said(step, environment) == (Result.REFUSED, "the plan changes nothing")


@EACH
@pytest.mark.parametrize("plan", [draining(namespace="shop"), scaling(MORE)])
def test_a_target_is_in_a_namespace_unless_it_is_a_node(
    step: StepName, plan: Plan, tmp_path: Path
) -> None:
    """Else the gate judged one namespace, and another's mutex, Events and rights are used."""
    result, message = said(step, given(plan, tmp_path))
    assert (result, "does not work on" in message) == (Result.REFUSED, True)
