"""scale-gpu-pool: when a pool may grow, which machines go, and admission's word for the bounds."""

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tiphys.policies.model import Risk
from tiphys.sandbox.admission import refused_by
from tiphys.workflow_templates import pools
from tiphys.workflow_templates.action import NotApplicableError
from tiphys.workflow_templates.cluster_api import (
    AUTOSCALED,
    DELETE_FIRST,
    VERSION,
    MachineDeployments,
)
from tiphys.workflow_templates.gpu_demand import machines_needed, waiting
from tiphys.workflow_templates.mark import ANNOTATION
from tiphys.workflow_templates.pool_guards import MACHINES, SCALE
from tiphys.workflow_templates.scale_gpu_pool import ScaleGpuPool, ScaleGpuPoolParameters

Obj = dict[str, Any]
ACTION = ScaleGpuPool()
RUN = f"tiphys-{'a' * 40}"
GPU = "nvidia.com/gpu"
SHORT = (
    "0/4 nodes are available: 2 Insufficient nvidia.com/gpu, 2 node(s) had untolerated taint(s)."
)


def pool(replicas: int = 2, **annotations: str) -> Obj:
    """Give a pool that is whole."""
    counts = ("replicas", "readyReplicas", "upToDateReplicas", "availableReplicas")
    owner = {"manager": "kubectl", "operation": "Update", "time": "2026-01-01T00:00:00Z"}
    notes = {pools.LEAST: "1", pools.MOST: "6", **annotations}
    return {
        "apiVersion": VERSION,
        "kind": "MachineDeployment",
        "metadata": {
            "name": "h100",
            "namespace": "research",
            "uid": "u-pool",
            "generation": 3,
            "annotations": notes,
            "managedFields": [{**owner, "fieldsV1": {"f:spec": {"f:replicas": {}}}}],
        },
        "spec": {"replicas": replicas},
        "status": {"observedGeneration": 3, **dict.fromkeys(counts, replicas)},
    }


def owned(kind: str, uid: str) -> list[Obj]:
    return [{"kind": kind, "uid": uid, "controller": True, "name": "x"}]


def machine(number: int) -> Obj:
    meta = {"name": f"m{number}", "namespace": "research", "uid": f"u-m{number}"}
    meta |= {"creationTimestamp": f"2026-01-0{number}T00:00:00Z"}
    return {
        "apiVersion": VERSION,
        "kind": "Machine",
        "metadata": {**meta, "ownerReferences": owned("MachineSet", "u-set")},
        "spec": {"providerID": f"cloud://{number}"},
        "status": {"nodeRef": {"name": f"n{number}"}, "phase": "Running"},
    }


def node(number: int, **spec: Any) -> Obj:
    notes = {
        "cluster.x-k8s.io/machine": f"m{number}",
        "cluster.x-k8s.io/cluster-namespace": "research",
    }
    labels = {"tiphys.io/heal": "enabled", "kubernetes.io/hostname": f"n{number}", "pool": "h100"}
    room = {"cpu": "64", "memory": "512Gi", "pods": "110", GPU: "8"}
    taint = {"key": GPU, "value": "present", "effect": "NoSchedule"}
    return {
        "metadata": {"name": f"n{number}", "uid": f"u-n{number}", "annotations": notes,
                     "labels": labels},
        "spec": {"providerID": f"cloud://{number}", "taints": [taint], **spec},
        "status": {"allocatable": room, "conditions": [{"type": "Ready", "status": "True"}]},
    }  # fmt: skip


def pod(name: str, gpus: int = 8, on: str = "", **spec: Any) -> Obj:
    """Give a pod of a job on a node, or one that waits for GPUs."""
    limits = {"limits": {GPU: str(gpus)}} if gpus else {}
    made: Obj = {
        "metadata": {"name": name, "namespace": "research", "uid": f"u-{name}"},
        "spec": {
            "containers": [{"name": "main", "resources": limits}],
            "tolerations": [{"key": GPU, "operator": "Exists"}],
            **spec,
        },
        "status": {"phase": "Running" if on else "Pending"},
    }
    if on:
        made["spec"]["nodeName"] = on
    else:
        refused = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
        made["status"]["conditions"] = [{**refused, "message": SHORT}]
    return made


def around(*pods: Obj, machines: int = 2, **other: list[Obj]) -> dict[str, list[Obj]]:
    """Give everything beside the pool; its machines are full unless pods are given."""
    numbers = range(1, machines + 1)
    owner = owned("MachineDeployment", "u-pool")
    return {
        "MachineSet": [{"metadata": {"name": "s", "uid": "u-set", "ownerReferences": owner}}],
        "Machine": [machine(n) for n in numbers],
        "Node": [node(n) for n in numbers],
        "Pod": [*pods],
        "ResourceQuota": [],
        **other,
    }


FULL = (pod("a", on="n1"), pod("b", on="n2"))


def planned(target: Obj, wanted: int, related: dict[str, list[Obj]]) -> list[tuple[str, Any, Any]]:
    found = ACTION.changes(target, related, ScaleGpuPoolParameters(replicas=wanted))
    return [(change.place, change.present, change.intended) for change in found]


def refusal(target: Obj, wanted: int, related: dict[str, list[Obj]]) -> str:
    with pytest.raises(NotApplicableError) as told:
        planned(target, wanted, related)
    return str(told.value)


# --- larger -------------------------------------------------------------------------------------


def test_a_pool_grows_by_what_the_waiting_pods_need() -> None:
    one = around(*FULL, pod("c"))
    assert planned(pool(), 3, one) == [("/spec/replicas", 2, 3)]
    assert refusal(pool(), 4, one) == "the pods that wait need 1 more machines, not 2"
    two = around(*FULL, pod("c"), pod("d", 4), pod("e", 4))
    assert planned(pool(), 4, two) == [("/spec/replicas", 2, 4)]


def waits_not(**spec: Any) -> dict[str, list[Obj]]:
    return around(*FULL, pod("c", **spec))


def _without_message() -> Obj:
    made = pod("c")
    made["status"]["conditions"][0]["message"] = "0/4 nodes are available: 4 Insufficient cpu."
    return made


def _changed(part: str, key: str, value: str) -> Obj:
    made = pod("c")
    made[part][key] = value
    return made


def _gated() -> Obj:
    made = pod("c")
    made["status"]["conditions"][0]["reason"] = "SchedulingGated"
    return made


@pytest.mark.parametrize(
    "related",
    [
        around(*FULL),
        waits_not(gpus=9),
        waits_not(gpus=0),
        waits_not(nodeSelector={"pool": "h200"}),
        waits_not(tolerations=[]),
        waits_not(schedulerName="volcano"),
        waits_not(
            affinity={"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{}]}}
        ),
        waits_not(
            affinity={
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {
                        "nodeSelectorTerms": [
                            {
                                "matchExpressions": [
                                    {"key": "pool", "operator": "NotIn", "values": ["h100"]}
                                ]
                            }
                        ]
                    }
                }
            }
        ),
        around(FULL[0], pod("c")),
        around(*FULL, _without_message()),
        around(*FULL, _changed("status", "nominatedNodeName", "n1")),
        around(*FULL, _changed("metadata", "deletionTimestamp", "2026-01-01T00:00:00Z")),
        around(*FULL, _gated()),
    ],
    ids=[
        "nobody",
        "too large",
        "no gpus",
        "another pool's",
        "the taint",
        "its own scheduler",
        "near another pod",
        "affinity",
        "there is room",
        "short of something else",
        "a preemption",
        "it ends",
        "it is held back",
    ],
)
def test_pods_that_one_more_machine_would_not_help_are_no_reason(
    related: dict[str, list[Obj]],
) -> None:
    assert refusal(pool(), 3, related) == "no pod waits for GPUs that one more machine would bring"


def test_room_on_a_closed_node_is_none() -> None:
    related = around(FULL[0], pod("c"))
    related["Node"][1]["spec"]["unschedulable"] = True
    assert planned(pool(), 3, related) == [("/spec/replicas", 2, 3)]


def test_a_daemon_set_s_pods_take_their_part_of_a_new_machine() -> None:
    daemon = pod("agent", 1, on="n2")
    daemon["metadata"]["ownerReferences"] = owned("DaemonSet", "u-ds")
    assert machines_needed(node(2), [], [daemon, pod("c", 8)]) == 0
    assert machines_needed(node(2), [], [daemon, pod("c", 7)]) == 1


def test_only_unplaced_pods_wait() -> None:
    assert [one["metadata"]["name"] for one in waiting([*FULL, pod("c", 1), pod("d", 2)])] == [
        "d",
        "c",
    ]


# --- whose size it is ---------------------------------------------------------------------------

NEED = around(*FULL, pod("c"))


@pytest.mark.parametrize(
    ("annotations", "why"),
    [
        ({AUTOSCALED[0]: "1"}, "cluster-autoscaler owns the pool's size"),
        ({AUTOSCALED[1]: "9"}, "cluster-autoscaler owns the pool's size"),
        ({"cluster.x-k8s.io/replicas-managed-by": "karpenter"}, "karpenter owns the pool's size"),
        ({"cluster.x-k8s.io/paused": ""}, "the pool is paused"),
        ({pools.MOST: ""}, "nobody has said how small and how large the pool may be"),
        ({pools.LEAST: "-1"}, "nobody has said how small and how large the pool may be"),
        ({pools.MOST: "2"}, "its owners allow 1 to 2 machines, not 3"),
    ],
)
def test_it_is_refused_by_what_its_owners_wrote(annotations: dict[str, str], why: str) -> None:
    assert refusal(pool(**annotations), 3, NEED) == why


def _owner(target: Obj, **entry: Any) -> None:
    target["metadata"]["managedFields"][0] |= entry


def test_a_cluster_s_topology_is_changed_there() -> None:
    target = pool()
    _owner(target, manager="capi-topology", operation="Apply")
    assert "topology owns" in refusal(target, 3, NEED)


def test_a_size_whose_owner_the_api_server_has_lost_cannot_bear_a_mark() -> None:
    target = pool()
    del target["metadata"]["managedFields"][0]["time"]
    assert "cannot say who set" in refusal(target, 3, NEED)
    _owner(target, subresource="scale")
    assert planned(target, 3, NEED) == [("/spec/replicas", 2, 3)]


def changed(path: str, value: Any) -> Obj:
    target = pool()
    *parts, last = path.split(".")
    here = target
    for part in parts:
        here = here[part]
    here[last] = value
    return target


@pytest.mark.parametrize(
    ("target", "why"),
    [
        (changed("spec.paused", True), "paused"),
        (changed("metadata.deletionTimestamp", "2026-01-01T00:00:00Z"), "being deleted"),
        (changed("metadata.generation", 4), "has not seen the newest change"),
        (changed("status.upToDateReplicas", 1), "a rollout is in progress"),
        (changed("status.readyReplicas", 1), "not whole: 1 of 2 machines are ready"),
        (changed("status.replicas", 3), "a rollout is in progress"),
    ],
)
def test_a_pool_that_is_moving_is_left_alone(target: Obj, why: str) -> None:
    assert why in refusal(target, 3, NEED)


def test_a_pool_with_a_machine_too_many_is_left_alone() -> None:
    target = changed("status.replicas", 3)
    target["status"]["upToDateReplicas"] = 3
    assert "2 of 2 machines are ready, 3 are there" in refusal(target, 3, NEED)


def test_machines_of_another_pool_are_no_business_of_this_one() -> None:
    related = around()
    others = machine(3)
    others["metadata"]["ownerReferences"] = owned("MachineSet", "u-other-set")
    related["Machine"].append(others)
    related["Node"].append(node(3))
    owner = owned("MachineDeployment", "u-other-pool")
    meta: Obj = {"name": "t", "uid": "u-other-set", "ownerReferences": owner}
    related["MachineSet"].append({"metadata": meta})
    found = MachineDeployments().members(pool(), related)
    assert not isinstance(found, str)
    assert [one.name for one in found] == ["m1", "m2"]


def test_a_quota_on_machines_counts() -> None:
    name = "count/machines.cluster.x-k8s.io"
    quota: Obj = {"metadata": {"name": "budget"}, "spec": {"hard": {name: "3"}}}
    related = {**NEED, "ResourceQuota": [quota]}
    assert refusal(pool(), 3, related) == "ResourceQuota budget has not been counted yet"
    quota["status"] = {"used": {name: "3"}}
    assert refusal(pool(), 3, related) == "ResourceQuota budget allows 3 machines"
    quota["status"] = {"used": {name: "2"}}
    assert planned(pool(), 3, related) == [("/spec/replicas", 2, 3)]


@pytest.mark.parametrize("path", ["provider", "machine", "namespace", "gone", "opt-in"])
def test_nodes_that_are_not_surely_the_pool_s_are_refused(path: str) -> None:
    related = deepcopy(NEED)
    one = related["Node"][0]
    if path == "provider":
        one["spec"]["providerID"] = "cloud://other"
    elif path == "machine":
        one["metadata"]["annotations"]["cluster.x-k8s.io/machine"] = "m9"
    elif path == "namespace":
        one["metadata"]["annotations"]["cluster.x-k8s.io/cluster-namespace"] = "other"
    elif path == "gone":
        related["Node"].pop(0)
    else:
        del one["metadata"]["labels"]["tiphys.io/heal"]
    why = refusal(pool(), 3, related)
    assert why.endswith("did not opt in" if path == "opt-in" else "is not in this cluster")


# --- smaller ------------------------------------------------------------------------------------


def test_the_newest_empty_machines_go() -> None:
    related = around(pod("a", on="n3"), machines=4)
    assert planned(pool(4), 2, related) == [
        ("Node n2 /spec/unschedulable", None, True),
        (f"Machine research/m2 /metadata/annotations/{DELETE_FIRST.replace('/', '~1')}", None,
         "tiphys"),
        ("Node n4 /spec/unschedulable", None, True),
        (f"Machine research/m4 /metadata/annotations/{DELETE_FIRST.replace('/', '~1')}", None,
         "tiphys"),
        ("/spec/replicas", 4, 2),
    ]  # fmt: skip


@pytest.mark.parametrize("gpus", [8, 0])
def test_nothing_that_runs_is_ended(gpus: int) -> None:
    related = around(pod("a", gpus, on="n1"), pod("b", gpus, on="n2"))
    assert refusal(pool(), 1, related) == (
        "0 machines of the pool are empty, not 1; nothing is evicted"
    )


def test_pods_of_daemon_sets_and_pods_that_have_ended_do_not_hold_a_machine() -> None:
    daemon, ended = pod("agent", 0, on="n2"), pod("old", 8, on="n2")
    daemon["metadata"]["ownerReferences"] = owned("DaemonSet", "u-ds")
    ended["status"]["phase"] = "Succeeded"
    related = around(FULL[0], daemon, ended)
    assert planned(pool(), 1, related)[0] == ("Node n2 /spec/unschedulable", None, True)


def test_a_pool_for_whose_gpus_pods_wait_is_not_made_smaller() -> None:
    """They could run on the very machine that is empty."""
    related = around(FULL[0], pod("c"))
    assert refusal(pool(), 1, related) == "pods wait for GPUs that machines of the pool bring"


def test_a_machine_that_has_no_node_yet_is_waited_for() -> None:
    related = deepcopy(NEED)
    del related["Machine"][1]["status"]["nodeRef"]
    assert refusal(pool(), 3, related) == "machine m2 has no node yet"


def test_a_machine_of_another_pool_or_one_that_goes_is_none_of_its() -> None:
    related = deepcopy(NEED)
    stranger, going = machine(3), machine(4)
    stranger["metadata"]["ownerReferences"] = owned("MachineSet", "u-other")
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    related["Machine"] += [stranger, going]
    assert planned(pool(), 3, related) == [("/spec/replicas", 2, 3)]


def test_a_machine_that_somebody_marked_is_not_ours_to_count_with() -> None:
    related = around(FULL[0])
    related["Machine"][0]["metadata"]["annotations"] = {DELETE_FIRST: ""}
    assert refusal(pool(), 1, related) == "somebody has marked machine m1 to go first"


def test_it_keeps_what_its_owners_want_at_least() -> None:
    assert refusal(pool(**{pools.LEAST: "2"}), 1, around()) == (
        "its owners allow 2 to 6 machines, not 1"
    )


# --- bounds -------------------------------------------------------------------------------------


@given(st.integers(0, 1200), st.integers(0, 1200))
def test_a_step_and_the_way_back_are_bounded_alike(before: int, after: int) -> None:
    assert pools.within(before, after) == pools.within(after, before)
    assert pools.within(before, after) == (abs(after - before) <= max(2, max(before, after) / 4))


@pytest.mark.parametrize("replicas", [0, -1, 1001, True, 2.0, "3"])
def test_parameters_are_bounded(replicas: Any) -> None:
    with pytest.raises(ValidationError):
        ScaleGpuPoolParameters(replicas=replicas)


def test_too_much_at_a_time_is_refused() -> None:
    many = tuple(pod(f"w{n}") for n in range(4))
    assert refusal(pool(), 5, around(*FULL, *many)) == "from 2 to 5 machines is too much at a time"


def test_it_is_always_of_high_risk_and_says_how_many() -> None:
    wanted = ScaleGpuPoolParameters(replicas=3)
    assert ACTION.risk(pool(), wanted) is Risk.HIGH
    assert ACTION.blast_radius(pool(), wanted) == (
        "MachineDeployment research/h100 goes from 2 to 3 machines: 1 are started, and cost."
    )


# --- admission ----------------------------------------------------------------------------------


def scaled(before: int, after: int, manager: str = RUN) -> list[str]:
    """Give what refuses a write of the size."""
    asked = {
        "object": {"metadata": {}, "spec": {"replicas": after}},
        "oldObject": {"metadata": {}, "spec": {"replicas": before}},
        "request": {"options": {"fieldManager": manager}},
        "run": RUN,
    }
    return refused_by(ACTION, SCALE, asked)


@given(st.integers(1, 300), st.integers(1, 300))
def test_admission_bounds_a_step_as_planning_does(before: int, after: int) -> None:
    assert (scaled(before, after) == []) == pools.within(before, after)


def test_admission_wants_the_run_s_name_on_a_size() -> None:
    assert scaled(2, 3, f"{RUN}.undone") == []
    assert scaled(2, 3, "kubectl") != []
    assert scaled(2, 3, f"tiphys-{'b' * 40}") != []


def marked(**change: Any) -> list[str]:
    """Give what refuses a write to a machine."""
    old = machine(1)
    old["metadata"]["annotations"] = {"team": "models"}
    new = deepcopy(old)
    new["metadata"]["annotations"] |= {ANNOTATION: f"{'a' * 40}.act", DELETE_FIRST: "tiphys"}
    for path, value in change.items():
        *parts, last = path.split("__")
        here = new
        for part in parts:
            here = here[part]
        here[last] = value
    asked = {"object": new, "oldObject": old, "run": RUN}
    return refused_by(ACTION, MACHINES, asked)


def test_admission_lets_a_machine_be_marked_and_nothing_else() -> None:
    assert marked() == []
    assert marked(spec__providerID="cloud://9") != []
    assert marked(metadata__labels={"pool": "other"}) != []
    assert marked(metadata__finalizers=[]) != []
    assert marked(metadata__annotations={DELETE_FIRST: "tiphys"}) != []
    other = {"team": "models", ANNOTATION: f"{'b' * 40}.act", DELETE_FIRST: "tiphys"}
    assert marked(metadata__annotations=other) != []
    gone = {ANNOTATION: f"{'a' * 40}.act"}
    assert marked(metadata__annotations=gone) != []
