"""The undo of a finished run is planned only where what that run left still stands."""

from collections.abc import Sequence
from typing import Any

import pytest

from tiphys.policies.model import Change, Check, DecidedBy, ObjectReference, Plan, Target
from tiphys.policies.plan import short_digest, workflow_name
from tiphys.workflow_templates import undoing
from tiphys.workflow_templates.action import Action, NotApplicableError
from tiphys.workflow_templates.delete_failed_job import DeleteFailedJob
from tiphys.workflow_templates.mark import ANNOTATION
from tiphys.workflow_templates.raise_memory_limit import RaiseMemoryLimit
from tiphys.workflow_templates.rollout_restart import RolloutRestart
from tiphys.workflow_templates.rollout_undo import RolloutUndo
from tiphys.workflow_templates.scale_workload import ScaleWorkload
from tiphys.workflow_templates.update_config import UpdateConfig

Obj = dict[str, Any]
RESTART = "/spec/template/metadata/annotations"
TEMPLATE = Change(path=RESTART, present=None, intended={"tiphys.io/restart": "now"})
FARES = ObjectReference(api_version="v1", kind="ConfigMap", namespace="shop", name="f", uid="u-f")
SETTING = Change(of=FARES, path="/data/size", present="20", intended="40")
POD = ObjectReference(api_version="v1", kind="Pod", namespace="shop", name="p", uid="u-p")
ENDED = Change(of=POD, path="", present={"reason": "Evicted"}, intended=None)
PAUSED = "the rollout is paused"


def plan_of(action: Action, *changes: Change, **more: Any) -> Plan:
    target = Target(
        cluster="c",
        api_version="apps/v1",
        kind="Deployment",
        namespace="shop",
        name="cart",
        uid="u",
    )
    fields: Obj = {
        "incident": "i",
        "attempt": 1,
        "action": action.name,
        "version": action.version,
        "target": target,
        "parameters": {},
        "changes": changes or (TEMPLATE,),
        "check": Check(hold_seconds=1),
        "policy": "p",
        "evidence_hash": "0" * 64,
        "decided_by": DecidedBy(reasoner="human"),
    }
    return Plan(**fields | more)


def left(plan: Plan, ending: str = "kept", **spec: Any) -> Obj:
    """Give the Deployment as a run of the plan left it."""
    template = {"metadata": {"annotations": {"tiphys.io/restart": "now"}}, "spec": {}}
    counts = ("observedGeneration", "replicas", "updatedReplicas", "readyReplicas")
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": "cart",
            "uid": "u",
            "generation": 2,
            "annotations": {ANNOTATION: f"{short_digest(plan)}.{ending}"},
        },
        "spec": {"replicas": 2, "template": template, **spec},
        "status": dict.fromkeys(counts, 2),
    }


def config_map(size: str = "40", uid: str = "u-f") -> Obj:
    return {"metadata": {"name": "f", "uid": uid}, "data": {"size": size}}


def refused(action: Action, plan: Plan, target: Obj, why: str, *configs: Obj) -> None:
    with pytest.raises(NotApplicableError, match=why):
        undoing.planned(action, plan, target, {"ConfigMap": configs})


PUT_BACK = (RaiseMemoryLimit(), RolloutRestart(), RolloutUndo())


@pytest.mark.parametrize("action", PUT_BACK, ids=lambda action: action.name)
def test_what_a_run_left_is_turned_round(action: Action) -> None:
    plan = plan_of(action)
    (back,) = undoing.planned(action, plan, left(plan), {})
    assert (back.path, back.present, back.intended) == (RESTART, TEMPLATE.intended, None)


@pytest.mark.parametrize("action", PUT_BACK, ids=lambda action: action.name)
def test_an_earlier_template_that_would_not_reach_every_pod_waits(action: Action) -> None:
    plan = plan_of(action)
    refused(action, plan, left(plan, paused=True), PAUSED)


def test_what_is_not_reversible_is_never_undone() -> None:
    plan = plan_of(DeleteFailedJob())
    assert "cannot be undone" in str(undoing.never(DeleteFailedJob(), plan))
    refused(DeleteFailedJob(), plan, left(plan), "cannot be undone")


def test_an_undo_is_never_undone() -> None:
    plan = plan_of(RolloutRestart(), undoes=f"tiphys-{'b' * 40}")
    refused(RolloutRestart(), plan, left(plan), "was itself the undo of")


def test_a_run_of_another_version_is_never_undone() -> None:
    plan = plan_of(RolloutRestart(), version=RolloutRestart.version + 1)
    refused(RolloutRestart(), plan, left(plan), "is no longer in the catalogue")


def test_what_was_deleted_alone_is_never_put_back() -> None:
    plan = plan_of(RolloutRestart(), ENDED)
    refused(RolloutRestart(), plan, left(plan), "nothing that it did can be put back")


def test_what_was_deleted_beside_other_changes_stays_away() -> None:
    plan = plan_of(RolloutRestart(), TEMPLATE, ENDED)
    assert [one.path for one in undoing.turned_round(plan)] == [RESTART]
    assert undoing.never(RolloutRestart(), plan) is None


@pytest.mark.parametrize("ending", ["undone", "back"])
def test_what_does_not_bear_the_runs_mark_is_not_undone(ending: str) -> None:
    plan, other = plan_of(RolloutRestart()), plan_of(RolloutRestart(), attempt=2)
    for target in (left(plan, ending), left(other)):
        refused(RolloutRestart(), plan, target, f"does not bear the mark of {workflow_name(plan)}")


def test_the_owner_of_the_replicas_is_a_mark_as_well() -> None:
    grown = Change(path="/spec/replicas", present=1, intended=2)
    plan = plan_of(ScaleWorkload(), grown)
    target = left(plan)
    fields = {"f:spec": {"f:replicas": {}}}
    target["metadata"] |= {
        "annotations": {},
        "managedFields": [{"manager": workflow_name(plan), "fieldsV1": fields}],
    }
    assert undoing.planned(ScaleWorkload(), plan, target, {})[0].intended == 1


def test_a_field_that_somebody_changed_since_is_not_put_back() -> None:
    plan = plan_of(RolloutRestart())
    target = left(plan)
    target["spec"]["template"]["metadata"]["annotations"]["tiphys.io/restart"] = "by hand"
    refused(RolloutRestart(), plan, target, f"somebody has changed what .* left: {RESTART}")


@pytest.mark.parametrize(
    "found",
    [[], [config_map("30")], [config_map(uid="u-another")]],
    ids=["gone", "changed", "replaced"],
)
def test_another_object_that_moved_is_not_put_back(found: Sequence[Obj]) -> None:
    plan = plan_of(UpdateConfig(), SETTING, TEMPLATE)
    refused(UpdateConfig(), plan, left(plan), "somebody has changed .*ConfigMap", *found)


def test_a_field_that_was_removed_is_not_put_back_where_its_object_is_gone() -> None:
    removed = Change(of=FARES, path="/data/size", present="20", intended=None)
    plan = plan_of(UpdateConfig(), removed, TEMPLATE)
    refused(UpdateConfig(), plan, left(plan), "somebody has changed .*ConfigMap")


def test_another_object_that_stands_is_put_back_with_the_target() -> None:
    plan = plan_of(UpdateConfig(), SETTING, TEMPLATE)
    related = {"ConfigMap": [config_map("30", "u-another"), config_map()]}
    back = undoing.planned(UpdateConfig(), plan, left(plan), related)
    assert [(one.of, one.intended) for one in back] == [(FARES, "20"), (None, None)]


def test_what_planning_does_not_read_is_left_to_precheck() -> None:
    plan = plan_of(UpdateConfig(), SETTING, TEMPLATE)
    assert len(undoing.planned(UpdateConfig(), plan, left(plan), {})) == 2
