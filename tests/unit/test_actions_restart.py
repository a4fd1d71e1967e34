"""rollout-restart: what it plans and refuses, how it grades itself, what its guards let through."""

from copy import deepcopy
from typing import Any

import pytest

from tiphys.policies.model import Risk
from tiphys.sandbox.admission import refused_by
from tiphys.sandbox.patches import PatchType, apply
from tiphys.workflow_templates.action import NotApplicableError
from tiphys.workflow_templates.mark import ANNOTATION, annotating
from tiphys.workflow_templates.pointers import operations
from tiphys.workflow_templates.rollout_restart import (
    RESTART,
    RolloutRestart,
    RolloutRestartParameters,
)
from tiphys.workflow_templates.workloads import healthy, rolling_out

Obj = dict[str, Any]
NONE = RolloutRestartParameters()
DIGEST = "a" * 40
RUN = f"tiphys-{DIGEST}"
NOTES = "/spec/template/metadata/annotations"


def workload(kind: str = "Deployment", replicas: int = 4, **spec: Any) -> Obj:
    """Give a workload that has settled."""
    status = {
        "observedGeneration": 3,
        "replicas": replicas,
        "updatedReplicas": replicas,
        "readyReplicas": replicas,
        "availableReplicas": replicas,
    }
    wanted: Obj = {"replicas": replicas}
    if kind == "DaemonSet":
        names = ("desiredNumberScheduled", "updatedNumberScheduled", "numberReady")
        wanted, status = {}, {"observedGeneration": 3, **dict.fromkeys(names, replicas)}
    template = {
        "metadata": {"labels": {"app": "cart"}},
        "spec": {"containers": [{"name": "main", "image": "cart:2"}]},
    }
    meta = {"namespace": "shop", "name": "cart", "uid": "u", "generation": 3}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {**meta, "annotations": {"team": "shop"}},
        "spec": {**wanted, "template": template, **spec},
        "status": status,
    }


def planned(target: Obj) -> list[tuple[str, Any, Any]]:
    found = RolloutRestart().changes(target, {}, NONE)
    return [(c.path, c.present, c.intended) for c in found]


def acted(target: Obj, ending: str = "act") -> Obj:
    """Give the object as act leaves it."""
    patch = [*operations(planned(target)), *annotating(target, f"{DIGEST}.{ending}")]
    return apply(target, patch, PatchType.JSON)


# --- planning -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet"])
def test_it_plans_one_annotation_and_nothing_else(kind: str) -> None:
    [(path, present, intended)] = planned(workload(kind))
    assert (path, present) == (NOTES, None)
    assert [*intended] == [RESTART]
    noted = workload(kind)
    noted["spec"]["template"]["metadata"]["annotations"] = {"x": "y", RESTART: "before"}
    [(path, present, intended)] = planned(noted)
    assert (path, present) == (f"{NOTES}/tiphys.io~1restart", "before")
    assert intended not in {None, "before"}


def test_the_value_is_new_after_each_restart_and_moves_with_the_template_alone() -> None:
    target, seen = workload(), set[str]()
    for _ in range(5):
        target = acted(target)
        seen.add(target["spec"]["template"]["metadata"]["annotations"][RESTART])
    assert len(seen) == 5
    scaled = {**workload(replicas=9), "metadata": {**workload()["metadata"], "generation": 3}}
    assert planned(scaled) == planned(workload())
    released = workload()
    released["spec"]["template"]["spec"]["containers"][0]["image"] = "cart:3"
    assert planned(released) != planned(workload())


ROLLING = {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}}


@pytest.mark.parametrize(
    ("target", "why"),
    [
        (workload(paused=True), "paused"),
        (workload(replicas=0), "wants no pods"),
        (workload("DaemonSet", 0), "wants no pods"),
        (workload("StatefulSet", updateStrategy={"type": "OnDelete"}), "OnDelete"),
        (workload("DaemonSet", updateStrategy={"type": "OnDelete"}), "OnDelete"),
        (workload("StatefulSet", updateStrategy=ROLLING), "partition"),
        ({**workload(), "status": {"observedGeneration": 2}}, "has not seen"),
        ({**workload(), "status": {"observedGeneration": 3}}, "rollout is in progress: 0 of 4"),
        (
            {**workload("StatefulSet"), "status": {"observedGeneration": 3, "updateRevision": "b"}},
            "rollout is in progress",
        ),
        (
            {
                **workload("DaemonSet"),
                "status": {
                    "observedGeneration": 3,
                    "desiredNumberScheduled": 4,
                    "updatedNumberScheduled": 1,
                },
            },
            "1 of 4 pods are updated",
        ),
    ],
)
def test_it_refuses_what_would_not_reach_every_pod_or_is_moving(target: Obj, why: str) -> None:
    with pytest.raises(NotApplicableError, match=why):
        planned(target)


def strategy(surge: Any, unavailable: Any) -> Obj:
    rolling = {"maxSurge": surge, "maxUnavailable": unavailable}
    return {"strategy": {"type": "RollingUpdate", "rollingUpdate": rolling}}


@pytest.mark.parametrize(
    ("target", "risk", "missing", "surplus"),
    [
        (workload(), Risk.LOW, 1, 1),
        (workload(replicas=1), Risk.LOW, 0, 1),
        (workload(strategy={"type": "Recreate"}), Risk.MEDIUM, 4, 0),
        (workload(**strategy(0, 1)), Risk.LOW, 1, 0),
        (workload(replicas=1, **strategy(0, 1)), Risk.MEDIUM, 1, 0),
        (workload(replicas=3, **strategy(0, "30%")), Risk.LOW, 1, 0),
        (workload(**strategy("50%", "100%")), Risk.MEDIUM, 4, 2),
        (workload("StatefulSet"), Risk.LOW, 1, 0),
        (workload("StatefulSet", 1), Risk.MEDIUM, 1, 0),
        (workload("DaemonSet"), Risk.LOW, 1, 0),
        (
            workload("DaemonSet", 9, updateStrategy={"rollingUpdate": {"maxUnavailable": "30%"}}),
            Risk.LOW,
            3,
            0,
        ),
        (
            workload(
                "DaemonSet",
                1,
                updateStrategy={"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            ),
            Risk.LOW,
            0,
            1,
        ),
    ],
)
def test_it_grades_by_what_may_be_missing_and_says_so_in_numbers(
    target: Obj, risk: Risk, missing: int, surplus: int
) -> None:
    assert RolloutRestart().risk(target, NONE) is risk
    told = RolloutRestart().blast_radius(target, NONE)
    pods = target["spec"].get("replicas") or target["status"]["desiredNumberScheduled"]
    assert told.startswith(f"All {pods} pods of {target['kind']} shop/cart")
    assert f"at most {missing} are missing and {surplus} too many" in told


def test_a_daemon_set_is_healthy_when_all_its_pods_are_of_the_newest_template() -> None:
    target = workload("DaemonSet")
    assert healthy(target).ok
    target["status"]["updatedNumberScheduled"] = 3
    assert not healthy(target).ok
    # Nothing replaces the pods of such a one but whoever deletes them.
    target["spec"]["updateStrategy"] = {"type": "OnDelete"}
    assert rolling_out(target) is None
    assert healthy(target).ok


# --- the guards ---------------------------------------------------------------------------------

RESOURCES = {
    "Deployment": "apps/deployments",
    "StatefulSet": "apps/statefulsets",
    "DaemonSet": "apps/daemonsets",
}


def refusals(before: Obj, after: Obj) -> list[str]:
    """Judge a write as the API server would: give the messages of the guards that refuse."""
    facts = {"object": after, "oldObject": before, "run": RUN}
    return refused_by(RolloutRestart(), RESOURCES[after["kind"]], facts)


@pytest.mark.parametrize("kind", [*RESOURCES])
@pytest.mark.parametrize("notes", [None, {"x": "y"}, {"x": "y", RESTART: "before"}])
def test_what_it_does_and_undoes_is_let_through(kind: str, notes: Obj | None) -> None:
    before = workload(kind)
    if notes:
        before["spec"]["template"]["metadata"]["annotations"] = notes
    after = acted(before)
    assert refusals(before, after) == []
    back = [(path, new, old) for path, old, new in planned(before)]
    patch = [*operations(back), *annotating(after, f"{DIGEST}.undone")]
    undone = apply(after, patch, PatchType.JSON)
    assert undone["spec"] == before["spec"]
    assert refusals(after, undone) == []
    kept = apply(after, annotating(after, f"{DIGEST}.kept"), PatchType.JSON)
    assert refusals(after, kept) == []


TEMPLATE = "of the pod template only the annotation tiphys.io/restart changes"
METADATA = "of the metadata only the run's mark changes"
MARK = "every change bears the mark of its run"
SPEC = "only the pod template changes"
POD = "/spec/template"


@pytest.mark.parametrize("kind", [*RESOURCES])
@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (f"{POD}/spec/containers/0/image", "cart:3", TEMPLATE),
        (f"{POD}/spec/containers/0/env", [{"name": "A", "value": "b"}], TEMPLATE),
        (f"{POD}/spec/hostNetwork", True, TEMPLATE),
        (f"{POD}/spec/volumes", [{"name": "x", "emptyDir": {}}], TEMPLATE),
        (f"{POD}/metadata/labels/x", "y", TEMPLATE),
        (f"{POD}/metadata/annotations/x", "y", TEMPLATE),
        (f"{POD}/metadata/annotations/old", "z", TEMPLATE),
        (f"{POD}/metadata/annotations", {RESTART: "1"}, TEMPLATE),
        (f"{POD}/metadata/annotations", None, TEMPLATE),
        (f"{POD}/metadata/labels", None, TEMPLATE),
        ("/spec/replicas", 9, SPEC),
        ("/spec/paused", True, SPEC),
        ("/spec/minReadySeconds", 3, SPEC),
        ("/metadata/annotations/x", "y", METADATA),
        ("/metadata/annotations/team", None, METADATA),
        ("/metadata/labels", {"x": "y"}, METADATA),
        (f"/metadata/annotations/{ANNOTATION.replace('/', '~1')}", "b" * 40 + ".act", MARK),
        (f"/metadata/annotations/{ANNOTATION.replace('/', '~1')}", None, MARK),
    ],
)
def test_everything_else_is_refused(kind: str, path: str, value: Any, message: str) -> None:
    before = workload(kind)
    before["spec"]["template"]["metadata"]["annotations"] = {"old": "x"}
    step = (
        {"op": "remove", "path": path}
        if value is None
        else {"op": "add", "path": path, "value": value}
    )
    after = apply(acted(before), [step], PatchType.JSON)
    assert message in refusals(before, after)


def test_the_api_servers_own_count_of_a_daemon_sets_templates_may_move() -> None:
    for kind in RESOURCES:
        before = workload(kind)
        after = deepcopy(acted(before))
        after["metadata"]["annotations"]["deprecated.daemonset.template.generation"] = "2"
        assert (refusals(before, after) == []) is (kind == "DaemonSet")
