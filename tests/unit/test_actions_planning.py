"""What each action plans on which object, what it refuses, and how the catalogue stays closed."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tiphys.policies.model import Check, DecidedBy, Plan, Risk, Target
from tiphys.sandbox.patches import PatchType, apply
from tiphys.workflow_templates import catalogue
from tiphys.workflow_templates.action import Action, NotApplicableError, Result, Run
from tiphys.workflow_templates.cluster import Cluster, Gone
from tiphys.workflow_templates.pointers import at, differences, operations
from tiphys.workflow_templates.restart_pod import RestartPod, RestartPodParameters
from tiphys.workflow_templates.rollout_undo import RolloutUndo, RolloutUndoParameters
from tiphys.workflow_templates.scale_workload import ScaleWorkload, ScaleWorkloadParameters

Obj = dict[str, Any]
NONE = RolloutUndoParameters()


def owner(kind: str, uid: str = "u-owner") -> list[Obj]:
    return [{"apiVersion": "apps/v1", "kind": kind, "name": "own", "uid": uid, "controller": True}]


def pod(**changes: Any) -> Obj:
    meta = {"namespace": "shop", "name": "cart-1", "uid": "u-pod"}
    meta |= {"ownerReferences": owner("ReplicaSet"), **changes.pop("metadata", {})}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {}, **changes}


def replica_set(number: int, image: str, uid: str = "u-dep", **env: str) -> Obj:
    meta = {
        "uid": f"u-rs-{number}",
        "annotations": {"deployment.kubernetes.io/revision": str(number)},
        "ownerReferences": owner("Deployment", uid),
    }
    template = pod_template(image, **env)
    template["metadata"]["labels"]["pod-template-hash"] = f"h{number}"
    return {"metadata": meta, "spec": {"replicas": 1, "template": template}}


def pod_template(image: str, **env: str) -> Obj:
    variables = [{"name": k, "value": v} for k, v in env.items()]
    container: Obj = {"name": "main", "image": image}
    if variables:
        container["env"] = variables
    return {"metadata": {"labels": {"app": "cart"}}, "spec": {"containers": [container]}}


def deployment(image: str = "cart:2", number: int = 2, **spec: Any) -> Obj:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "namespace": "shop",
            "name": "cart",
            "uid": "u-dep",
            "generation": 3,
            "annotations": {"deployment.kubernetes.io/revision": str(number)},
        },
        "spec": {"replicas": 4, "template": pod_template(image), **spec},
        "status": {"observedGeneration": 3, "replicas": 4, "updatedReplicas": 4},
    }


# --- restart-pod --------------------------------------------------------------------------------


def test_restart_pod_plans_the_end_of_exactly_this_pod() -> None:
    related = {"ReplicaSet": [{"metadata": {"uid": "u-owner", "name": "own"}, "spec": {}}]}
    (change,) = RestartPod().changes(pod(), related, RestartPodParameters())
    assert change.path == ""
    assert change.intended is None
    assert change.present == {
        "uid": "u-pod",
        "owner": {"kind": "ReplicaSet", "name": "own", "uid": "u-owner"},
    }


@pytest.mark.parametrize(
    ("target", "found", "why"),
    [
        (pod(metadata={"ownerReferences": []}), [], "no controller would recreate"),
        (pod(metadata={"ownerReferences": owner("Node")}), [], "no controller would recreate"),
        (pod(), [], "owner is gone"),
        (pod(), [{"metadata": {"uid": "u-other"}}], "owner is gone"),
        (pod(), [{"metadata": {"uid": "u-owner", "deletionTimestamp": "x"}}], "owner is gone"),
        (pod(), [{"metadata": {"uid": "u-owner"}, "spec": {"replicas": 0}}], "wants no pods"),
        (
            pod(metadata={"deletionTimestamp": "x"}),
            [{"metadata": {"uid": "u-owner"}}],
            "being deleted already",
        ),
        (pod(status={"phase": "Succeeded"}), [{"metadata": {"uid": "u-owner"}}], "done its work"),
    ],
)
def test_restart_pod_refuses_what_nothing_would_recreate(
    target: Obj, found: list[Obj], why: str
) -> None:
    with pytest.raises(NotApplicableError, match=why):
        RestartPod().changes(target, {"ReplicaSet": found}, RestartPodParameters())


class OnlyPod(Cluster):
    """An API server that has one pod, and nothing else."""

    def __init__(self, only: Obj) -> None:
        self.only = only

    def get(self, api_version: str, kind: str, namespace: str, name: str) -> Any:
        del api_version, namespace
        if (kind, name) == ("Pod", self.only["metadata"]["name"]):
            return self.only
        raise Gone("404")


@pytest.mark.parametrize("kind", ["Workflow", "PyTorchJob", "ReplicaSet"])
def test_a_pod_whose_owner_changed_since_it_was_planned_stays(kind: str) -> None:
    related = {"ReplicaSet": [{"metadata": {"uid": "u-owner"}, "spec": {}}]}
    now = datetime(2026, 1, 1, tzinfo=UTC)
    plan = Plan(
        incident="i",
        attempt=1,
        action="restart-pod",
        version=1,
        target=Target(
            cluster="c", api_version="v1", kind="Pod", namespace="shop", name="cart-1", uid="u-pod"
        ),
        parameters={},
        changes=RestartPod().changes(pod(), related, RestartPodParameters()),
        check=Check(),
        policy="p",
        evidence_hash="e",
        decided_by=DecidedBy(reasoner="human"),
    )
    taken = OnlyPod(pod(metadata={"ownerReferences": owner(kind, "u-new")}))
    run = Run(
        plan, "d", now + timedelta(minutes=1), taken, None, now=lambda: now, sleep=lambda _: None
    )
    report = RestartPod().precheck(run)
    assert (report.result, "recreate" in report.message) == (Result.REFUSED, True)


# --- rollout-undo -------------------------------------------------------------------------------


def test_rollout_undo_plans_field_by_field() -> None:
    live = deployment("cart:2")
    live["spec"]["template"]["spec"]["containers"][0]["env"] = [{"name": "MODE", "value": "new"}]
    live["spec"]["template"]["metadata"]["annotations"] = {"team/note": "x"}
    sets = [replica_set(1, "cart:1", MODE="old"), replica_set(2, "cart:2", MODE="new")]
    found = RolloutUndo().changes(live, {"ReplicaSet": sets}, NONE)
    assert [(c.path, c.present, c.intended) for c in found] == [
        ("/spec/template/metadata/annotations", {"team/note": "x"}, None),
        ("/spec/template/spec/containers/0/env/0/value", "new", "old"),
        ("/spec/template/spec/containers/0/image", "cart:2", "cart:1"),
    ]


def test_rollout_undo_takes_the_revision_before_this_one_of_this_deployment_only() -> None:
    sets = [
        replica_set(1, "cart:0"),
        replica_set(3, "cart:1"),
        replica_set(4, "other:9", uid="u-somebody"),
        replica_set(7, "cart:2"),
    ]
    (change,) = RolloutUndo().changes(deployment(number=7), {"ReplicaSet": sets}, NONE)
    assert change.intended == "cart:1"


@pytest.mark.parametrize(
    ("live", "sets", "why"),
    [
        (deployment(), [replica_set(2, "cart:2")], "no earlier revision"),
        (deployment(paused=True), [replica_set(1, "cart:1")], "paused"),
        (deployment(), [replica_set(1, "cart:2")], "same pod template"),
        (
            {**deployment(), "status": {"observedGeneration": 2}},
            [replica_set(1, "cart:1")],
            "has not seen",
        ),
    ],
)
def test_rollout_undo_refuses(live: Obj, sets: list[Obj], why: str) -> None:
    with pytest.raises(NotApplicableError, match=why):
        RolloutUndo().changes(live, {"ReplicaSet": sets}, NONE)


# --- scale-workload -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "risk"),
    [
        (5, Risk.LOW),
        (6, Risk.LOW),
        (7, Risk.MEDIUM),
        (3, Risk.MEDIUM),
        (2, Risk.MEDIUM),
        (1, Risk.HIGH),
        (0, Risk.HIGH),
    ],
)
def test_scale_grades_by_size(wanted: int, risk: Risk) -> None:
    parameters = ScaleWorkloadParameters(replicas=wanted)
    assert ScaleWorkload().risk(deployment(), parameters) is risk
    (change,) = ScaleWorkload().changes(deployment(), {}, parameters)
    assert (change.path, change.present, change.intended) == ("/spec/replicas", 4, wanted)


def test_scale_refuses_under_an_autoscaler_of_this_workload_only() -> None:
    def scaler(kind: str, name: str) -> Obj:
        reference = {"apiVersion": "apps/v1", "kind": kind, "name": name}
        return {"metadata": {"name": "hpa"}, "spec": {"scaleTargetRef": reference}}

    six = ScaleWorkloadParameters(replicas=6)
    others = [scaler("StatefulSet", "cart"), scaler("Deployment", "cart-db")]
    related = {"HorizontalPodAutoscaler": others}
    assert ScaleWorkload().changes(deployment(), related, six)
    related = {"HorizontalPodAutoscaler": [*others, scaler("Deployment", "cart")]}
    with pytest.raises(NotApplicableError, match="HorizontalPodAutoscaler hpa owns"):
        ScaleWorkload().changes(deployment(), related, six)


def test_scale_refuses_in_a_rollout_and_when_nothing_would_change() -> None:
    moving = deployment()
    moving["status"]["updatedReplicas"] = 2
    with pytest.raises(NotApplicableError, match="rollout is in progress"):
        ScaleWorkload().changes(moving, {}, ScaleWorkloadParameters(replicas=6))
    with pytest.raises(NotApplicableError, match="4 replicas already"):
        ScaleWorkload().changes(deployment(), {}, ScaleWorkloadParameters(replicas=4))


@pytest.mark.parametrize("replicas", [-1, 101, "5", 2.5, True, None])
def test_scale_takes_only_whole_numbers_in_bounds(replicas: Any) -> None:
    with pytest.raises(ValidationError):
        ScaleWorkloadParameters.model_validate({"replicas": replicas})


# --- the catalogue ------------------------------------------------------------------------------


def test_the_catalogue_is_closed() -> None:
    assert catalogue.find("rollout-undo").reversible
    with pytest.raises(catalogue.UnknownActionError, match="no action 'rm-rf'"):
        catalogue.find("rm-rf")
    with pytest.raises(catalogue.DuplicateActionError, match="scale-workload"):
        catalogue.closed([ScaleWorkload(), RestartPod(), ScaleWorkload()])


SECRET_OR_POWER = {
    "secrets", "serviceaccounts", "serviceaccounts/token", "roles", "rolebindings", "clusterroles",
    "clusterrolebindings", "pods/exec", "pods/attach", "pods/portforward", "pods/proxy",
    "nodes/proxy", "validatingadmissionpolicies", "validatingadmissionpolicybindings",
}  # fmt: skip
VERBS = {"get", "list", "create", "update", "patch", "delete"}


@pytest.mark.parametrize("action", catalogue.every(), ids=lambda one: one.name)
def test_no_action_reads_secrets_or_gives_rights_away(action: Action) -> None:
    """Who may write what is pinned and reviewed in docs/actions.md and golden/access.yaml."""
    assert {right.resource for right in action.rights} & SECRET_OR_POWER == set()
    assert {verb for right in action.rights for verb in right.verbs} <= VERBS
    assert all(right.resource and "*" not in right.resource for right in action.rights)


# --- differences --------------------------------------------------------------------------------

_LEAVES = st.booleans() | st.integers(0, 3) | st.sampled_from(["", "a", "b"])
_NAMED = st.lists(
    st.fixed_dictionaries({"name": st.sampled_from("xyz")}, optional={"v": _LEAVES}),
    max_size=3,
)
_VALUES = st.recursive(
    _LEAVES | _NAMED,
    lambda inner: (
        st.dictionaries(st.sampled_from(["k", "m~n", "a/b", "name"]), inner, max_size=3)
        | st.lists(inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["one", "two"]), _VALUES), _VALUES)
def test_differences_applied_give_the_other_value_and_applied_backwards_the_first(
    present: Obj, extra: Any
) -> None:
    intended = {**present, "two": extra}
    before, after = {"spec": present}, {"spec": intended}
    found = list(differences(present, intended, "/spec"))
    forth = operations([(c.path, c.present, c.intended) for c in found])
    back = operations([(c.path, c.intended, c.present) for c in found])
    assert apply(before, forth, PatchType.JSON) == after
    assert apply(after, back, PatchType.JSON) == before
    for change in found:
        assert at(before, change.path) == change.present
        assert at(after, change.path) == change.intended
