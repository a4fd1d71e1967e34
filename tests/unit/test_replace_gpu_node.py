"""When a GPU node's machine may be deleted, and when its pool is whole again."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from tiphys.policies.model import Change
from tiphys.policies.xid import CATALOGUE, RECOVERY_ACTION_CHANGED, Remedy, remedy_for
from tiphys.workflow_templates.action import NotApplicableError
from tiphys.workflow_templates.machine_replacement import departure, whole_again
from tiphys.workflow_templates.replace_gpu_node import ReplaceGpuNode, ReplaceGpuNodeParameters

Json = dict[str, Any]
VERSION = "cluster.x-k8s.io/v1beta2"
SPACE = "research"
ACTION = ReplaceGpuNode()
LOST = ReplaceGpuNodeParameters(device="0000:3b:00", xids=(79,))


def owned(kind: str, name: str) -> list[Json]:
    return [{"apiVersion": VERSION, "kind": kind, "name": name, "uid": name, "controller": True}]


def node(name: str, gpus: int = 8) -> Json:
    room = {"cpu": "64", "memory": "512Gi", "pods": "110", "nvidia.com/gpu": str(gpus)}
    notes = {"cluster.x-k8s.io/machine": name, "cluster.x-k8s.io/cluster-namespace": SPACE}
    return {
        "kind": "Node",
        "metadata": {"name": name, "uid": f"node-{name}", "annotations": notes,
                     "labels": {"tiphys.io/heal": "enabled"}},
        "spec": {"providerID": f"cloud://{name}"},
        "status": {"capacity": room, "allocatable": dict(room), "nodeInfo": {"bootID": "boot-1"},
                   "conditions": [{"type": "Ready", "status": "True"}]},
    }  # fmt: skip


def machine(name: str) -> Json:
    return {
        "kind": "Machine",
        "metadata": {"name": name, "namespace": SPACE, "uid": name, "labels": {},
                     "annotations": {}, "ownerReferences": owned("MachineSet", "set")},
        "spec": {"providerID": f"cloud://{name}"},
        "status": {"phase": "Running", "nodeRef": {"name": name}, "conditions": []},
    }  # fmt: skip


def group(kind: str, name: str, owners: list[Json]) -> Json:
    status = {"replicas": 2, "readyReplicas": 2, "upToDateReplicas": 2, "observedGeneration": 1}
    meta = {"name": name, "namespace": SPACE, "uid": name, "generation": 1, "annotations": {}}
    return {
        "kind": kind,
        "metadata": {**meta, "ownerReferences": owners},
        "spec": {"replicas": 2},
        "status": status,
    }


def world() -> dict[str, list[Json]]:
    """Give a pool of two machines, `a` and `b`, whose nodes are ready."""
    opted = {"name": SPACE, "labels": {"tiphys.io/heal": "enabled"}}
    return {
        "Node": [node("a"), node("b")],
        "Machine": [machine("a"), machine("b")],
        "MachineSet": [group("MachineSet", "set", owned("MachineDeployment", "pool"))],
        "MachineDeployment": [group("MachineDeployment", "pool", [])],
        "Namespace": [{"metadata": opted}],
        "ResourceQuota": [],
        "Pod": [],
    }


def plan(found: dict[str, list[Json]], parameters: ReplaceGpuNodeParameters = LOST) -> list[Change]:
    return [*ACTION.changes(found["Node"][0], found, parameters)]


def gone() -> Change:
    return plan(world())[-1]


def test_the_plan_names_the_field_and_the_machine_with_what_must_come_back() -> None:
    close, end = plan(world())
    assert (close.path, close.present, close.intended) == ("/spec/unschedulable", None, True)
    assert end.of is not None
    assert (str(end.of), end.of.uid, end.path) == ("Machine research/a", "a", "")
    pool = {"kind": "MachineDeployment", "name": "pool", "uid": "pool"}
    assert end.present == {"pool": pool, "gpus": 8, "boot": "boot-1"}


def alone(found: dict[str, list[Json]]) -> dict[str, list[Json]]:
    """Let the MachineSet belong to nothing."""
    found["MachineDeployment"] = []
    found["MachineSet"][0]["metadata"]["ownerReferences"] = []
    return found


def test_a_machine_set_alone_is_a_pool_too() -> None:
    end = plan(alone(world()))[-1]
    assert end.present == {
        "pool": {"kind": "MachineSet", "name": "set", "uid": "set"}, "gpus": 8, "boot": "boot-1",
    }  # fmt: skip


def test_one_gpu_that_fails_is_missed_in_what_can_be_given_alone() -> None:
    found = world()
    found["Node"][0]["status"]["allocatable"]["nvidia.com/gpu"] = "7"
    assert plan(found)[-1] == gone()


def test_another_boot_voids_the_plan() -> None:
    found = world()
    found["Node"][0]["status"]["nodeInfo"]["bootID"] = "boot-2"
    assert plan(found)[-1] != gone()


VIOLATIONS: dict[str, tuple[Callable[[dict[str, list[Json]]], object], str]] = {
    "no machine": (lambda w: w["Machine"].pop(0), "machine research/a of node a is not in"),
    "no names": (lambda w: w["Node"][0]["metadata"].update(annotations={}), "names no machine"),
    "no name": (lambda w: w["Node"][0]["metadata"]["annotations"].pop("cluster.x-k8s.io/machine"),
                "names no machine"),
    "no place": (lambda w: w["Node"][0]["metadata"]["annotations"].pop(
        "cluster.x-k8s.io/cluster-namespace"), "names no machine"),
    "another's": (lambda w: w["Machine"][0]["spec"].update(providerID="cloud://x"),
                  "does not say that node a is its"),
    "another's node": (lambda w: w["Machine"][0]["status"]["nodeRef"].update(name="b"),
                       "does not say that node a is its"),
    "no owner": (lambda w: w["Machine"][0]["metadata"].update(ownerReferences=[]),
                 "nothing would make another"),
    "set of something": (lambda w: w["MachineSet"][0]["metadata"].update(
        ownerReferences=owned("Rollout", "x")), "belongs to something unknown"),
    "going": (lambda w: w["Machine"][0]["metadata"].update(deletionTimestamp="now"),
              "Machine a is being deleted already"),
    "pool going": (lambda w: w["MachineDeployment"][0]["metadata"].update(deletionTimestamp="now"),
                   "MachineDeployment pool is being deleted already"),
    "paused": (lambda w: w["MachineDeployment"][0]["spec"].update(paused=True), "pool is paused"),
    "set paused": (lambda w: w["MachineSet"][0]["metadata"]["annotations"].update(
        {"cluster.x-k8s.io/paused": ""}), "set is paused"),
    "hands off": (lambda w: w["Machine"][0]["metadata"]["annotations"].update(
        {"tiphys.io/hands-off": "vendor"}), "left alone: vendor"),
    "control plane": (lambda w: w["Machine"][0]["metadata"]["labels"].update(
        {"cluster.x-k8s.io/control-plane": ""}), "bears the control plane"),
    "health check": (lambda w: w["Machine"][0]["status"]["conditions"].append(
        {"type": "HealthCheckSucceeded", "status": "False"}), "MachineHealthCheck"),
    "remediated": (lambda w: w["Machine"][0]["status"]["conditions"].append(
        {"type": "OwnerRemediated", "status": "False"}), "MachineHealthCheck"),
    "opted out": (lambda w: w["Namespace"][0]["metadata"].update(labels={}), "did not opt in"),
    "wants none": (lambda w: w["MachineDeployment"][0]["spec"].update(replicas=0), "wants no"),
    "not whole": (lambda w: w["MachineDeployment"][0]["status"].update(readyReplicas=1),
                  "is not whole: 1 of 2"),
    "one too many": (lambda w: w["MachineDeployment"][0]["status"].update(replicas=3),
                     "is not whole"),
    "unseen": (lambda w: w["MachineDeployment"][0]["metadata"].update(generation=2),
               "has not seen the newest change"),
    "other going": (lambda w: w["Machine"][1]["metadata"].update(deletionTimestamp="now"),
                    "another machine of the pool, b"),
    "other not ready": (lambda w: w["Node"][1]["status"].update(conditions=[]),
                        "another machine of the pool, b"),
    "other nodeless": (lambda w: w["Machine"][1]["status"].pop("nodeRef"),
                       "another machine of the pool, b"),
    "other closed": (lambda w: w["Node"][1]["spec"].update(unschedulable=True),
                     "another node of the pool, b, is closed"),
    "quota": (lambda w: w["ResourceQuota"].append({
        "metadata": {"name": "q", "namespace": SPACE},
        "spec": {"hard": {"count/machines.cluster.x-k8s.io": "2"}},
        "status": {"used": {"count/machines.cluster.x-k8s.io": "2"}}}), "leaves no room"),
    "uncounted": (lambda w: w["ResourceQuota"].append({
        "metadata": {"name": "q", "namespace": SPACE},
        "spec": {"hard": {"count/machines.cluster.x-k8s.io": "9"}}}), "leaves no room"),
    "no gpu": (lambda w: w["Node"][0]["status"]["capacity"].pop("nvidia.com/gpu"), "no GPU node"),
    "node opted out": (lambda w: w["Node"][0]["metadata"].update(labels={}), "did not opt in"),
    "node closed": (lambda w: w["Node"][0]["spec"].update(unschedulable=True), "closed the node"),
}  # fmt: skip


@pytest.mark.parametrize("name", VIOLATIONS)
def test_it_is_not_planned_where_it_would_harm(name: str) -> None:
    disturb, why = VIOLATIONS[name]
    found = world()
    disturb(found)
    with pytest.raises(NotApplicableError, match=why):
        plan(found)


def test_another_pools_trouble_is_not_this_ones() -> None:
    found = world()
    stranger = machine("c")
    stranger["metadata"] |= {"ownerReferences": owned("MachineSet", "other"), "uid": "c",
                             "deletionTimestamp": "now"}  # fmt: skip
    found["Machine"].append(stranger)
    found["ResourceQuota"].append(
        {"metadata": {"name": "q", "namespace": "shop"},
         "spec": {"hard": {"count/machines.cluster.x-k8s.io": "0"}}}
    )  # fmt: skip
    assert plan(found)[-1] == gone()


def test_a_node_that_an_earlier_run_has_drained_goes_on_to_be_replaced() -> None:
    found = world()
    found["Node"][0]["spec"]["unschedulable"] = True
    found["Node"][0]["metadata"]["annotations"]["tiphys.io/run"] = "abc.act"
    [end] = plan(found)
    assert end == gone()


# --- what asks for it ---------------------------------------------------------------------------


@pytest.mark.parametrize("code", [*CATALOGUE, 173])
def test_only_what_the_table_replaces_a_node_for_is_planned(code: int) -> None:
    asked = ReplaceGpuNodeParameters(xids=(code,))
    if remedy_for(code) is Remedy.REPLACE_NODE or code == RECOVERY_ACTION_CHANGED:
        assert plan(world(), asked)[-1] == gone()
        return
    with pytest.raises(NotApplicableError, match=f"Xid {code}: "):
        plan(world(), asked)
    with pytest.raises(NotApplicableError):
        plan(world(), ReplaceGpuNodeParameters(xids=(79, code)))


@pytest.mark.parametrize(
    "given", [{"device": "a b"}, {"device": "x" * 101}, {"xids": [79] * 21}, {"force": True}]
)
def test_parameters_are_bounded(given: Json) -> None:
    with pytest.raises(ValidationError):
        ReplaceGpuNodeParameters.model_validate(given)


# --- afterwards ---------------------------------------------------------------------------------


def replaced() -> dict[str, list[Json]]:
    """Give the pool with `c` in place of `a`."""
    found = world()
    found["Node"][0], found["Machine"][0] = node("c"), machine("c")
    return found


def test_a_pool_is_whole_again_with_as_many_gpus() -> None:
    health = whole_again(gone(), "a", replaced())
    assert (health.ok, "2 machines" in health.sentence) == (True, True)


def test_a_machine_set_alone_is_whole_again_with_its_own_machines() -> None:
    end = plan(alone(world()))[-1]
    health = whole_again(end, "a", alone(replaced()))
    assert (health.ok, "2 machines" in health.sentence) == (True, True)


def going(name: str) -> Json:
    made = machine(name)
    made["metadata"]["deletionTimestamp"] = "now"
    return made


def of_another_pool(found: dict[str, list[Json]]) -> None:
    """Let a second pool beside it have a machine that is well, on the node that is ready."""
    stranger = machine("c")
    stranger["metadata"]["ownerReferences"] = owned("MachineSet", "others")
    found["Machine"].append(stranger)
    found["MachineSet"].append(group("MachineSet", "others", owned("MachineDeployment", "other")))


AFTER: dict[str, Callable[[dict[str, list[Json]]], object]] = {
    "the machine is there": lambda w: w["Machine"].append(machine("a")),
    "the node is there": lambda w: w["Node"].append(node("a")),
    "none has come": lambda w: w["Machine"].pop(0),
    "it has no node": lambda w: w["Machine"][0]["status"].pop("nodeRef"),
    "it is not ready": lambda w: w["Node"][0]["status"].update(conditions=[]),
    "it is closed": lambda w: w["Node"][0]["spec"].update(unschedulable=True),
    "it has fewer GPUs": lambda w: w["Node"][0]["status"]["allocatable"].update(
        {"nvidia.com/gpu": "7"}
    ),
    "one too many still goes": lambda w: w["Machine"].append(going("d")),
    "another pool has one more": lambda w: (w["Machine"].pop(0), of_another_pool(w)),
    "another goes": lambda w: w["Machine"][1]["metadata"].update(deletionTimestamp="now"),
}


@pytest.mark.parametrize("name", AFTER)
def test_a_pool_is_not_whole_before_it_is(name: str) -> None:
    found = replaced()
    AFTER[name](found)
    assert not whole_again(gone(), "a", found).ok


def test_without_its_pool_there_is_no_hope() -> None:
    found = replaced()
    found["MachineDeployment"] = []
    health = whole_again(gone(), "a", found)
    assert (health.ok, health.hopeless) == (False, True)


def test_planning_changes_nothing_that_it_is_given() -> None:
    found = world()
    before = copy.deepcopy(found)
    departure(found["Node"][0], found)
    plan(found)
    assert found == before
