"""Which pods are worth a machine with GPUs, what one more offers them, and which may go. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from tiphys.policies.model import Change, Object
from tiphys.workflow_templates import pools
from tiphys.workflow_templates.action import NotApplicableError, Related
from tiphys.workflow_templates.gpu_demand import busy, has_gpus, machines_needed, waiting
from tiphys.workflow_templates.nodes import open_for_pods
from tiphys.workflow_templates.pool_sizes import resized
from tiphys.workflow_templates.pools import Member
from tiphys.workflow_templates.spare_room import HOST, no_room

Obj = dict[str, Any]
GPU, SLICE = "nvidia.com/gpu", "nvidia.com/mig-1g.10gb"
ROOM = {"cpu": "64", "memory": "512Gi", "pods": "110", GPU: "8"}


def node(name: str, **spec: Any) -> Obj:
    return {
        "metadata": {
            "name": name,
            "uid": f"u-{name}",
            "labels": {HOST: name, "tiphys.io/heal": "enabled"},
        },
        "spec": spec,
        "status": {"allocatable": ROOM, "conditions": [{"type": "Ready", "status": "True"}]},
    }


def pod(name: str, asked: Mapping[str, str], on: str = "", **spec: Any) -> Obj:
    """Give a pod that runs on a node, or that waits for the GPUs it asks for."""
    where = {"nodeName": on} if on else {}
    short = ", ".join(f"2 Insufficient {what}" for what in asked if what not in {"cpu", "memory"})
    return {
        "metadata": {"name": name, "namespace": "research", "uid": f"u-{name}"},
        "spec": {"containers": [{"name": "m", "resources": {"requests": asked}}], **where, **spec},
        "status": {"phase": "Running"} if on else {"phase": "Pending", "conditions": [said(short)]},
    }


def said(short: str, **other: str) -> Obj:
    """Give the scheduler's word on a pod that no node takes."""
    message = f"0/2 nodes are available: {short}."
    return {"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": message, **other}  # fmt: skip


FULL = pod("full", {GPU: "8"}, on="n1")


# --- who waits for GPUs ---------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [{"cpu": "8", GPU: "8"}, {"cpu": "96"}])
def test_no_gpus_are_bought_for_pods_that_are_short_of_processors(asked: dict[str, str]) -> None:
    one = pod("c", asked)
    one["status"]["conditions"] = [said("2 Insufficient cpu")]
    assert waiting([one]) == []


def test_a_pod_that_has_its_node_by_now_does_not_wait_whatever_is_still_written() -> None:
    """A scheduler that learns late of its own binding writes once more that no node takes it."""
    one = pod("c", {GPU: "8"})
    assert waiting([one]) == [one]
    one["spec"]["nodeName"] = "n2"
    assert waiting([one]) == []


def test_what_a_queue_says_of_a_pod_that_it_holds_back_is_not_the_scheduler_s_word() -> None:
    one = pod("c", {GPU: "8"})
    queue = said(f"2 Insufficient {GPU}", type="queue.example.com/Admitted")
    one["status"]["conditions"] = [queue, said("", reason="SchedulingGated")]
    assert waiting([one]) == []


def test_a_pod_that_has_ended_keeps_no_other_from_being_waited_for() -> None:
    term = {"labelSelector": {}, "topologyKey": "topology.kubernetes.io/zone"}
    rule = {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
    lonely = pod("b", {GPU: "8"}, on="n1", affinity={"podAntiAffinity": rule})
    one = pod("c", {GPU: "8"})
    assert waiting([lonely, one]) == []
    lonely["status"]["phase"] = "Succeeded"
    assert waiting([lonely, one]) == [one]


def test_a_pod_that_failed_before_it_had_a_node_does_not_wait() -> None:
    one = pod("c", {GPU: "8"})
    one["status"]["phase"] = "Failed"
    assert waiting([one]) == []


def test_a_pod_that_waits_for_a_slice_of_a_gpu_is_worth_a_machine() -> None:
    like = node("n1")
    like["status"]["allocatable"] = {"pods": "110", SLICE: "7"}
    assert has_gpus(like)
    assert machines_needed(like, [], [pod("c", {SLICE: "1"})]) == 1


# --- what one more machine offers -----------------------------------------------------------------


def test_pods_are_packed_by_their_gpus_so_that_no_machine_is_bought_too_many() -> None:
    """By their memory they would need three: 4 with 3, then 5, then 4."""
    asked = [("4", "40Gi"), ("3", "30Gi"), ("5", "2Gi"), ("4", "1Gi")]
    pods = [pod(f"p{n}", {GPU: g, "memory": m}) for n, (g, m) in enumerate(asked)]
    assert machines_needed(node("n1"), [], pods) == 2


def test_no_machine_is_bought_for_a_pod_that_is_bound_to_the_name_of_another() -> None:
    nodes = [node("n1")]
    assert machines_needed(nodes[0], nodes, [FULL, pod("c", {GPU: "8"})]) == 1
    pinned = pod("c", {GPU: "8"}, nodeSelector={HOST: "n1"})
    assert machines_needed(nodes[0], nodes, [FULL, pinned]) == 0


def test_what_ails_the_node_that_is_looked_at_is_not_expected_of_a_new_one() -> None:
    ill = {"key": "node.kubernetes.io/memory-pressure", "effect": "NoSchedule"}
    one = pod("c", {GPU: "8"})
    assert machines_needed(node("n1", taints=[ill]), [], [one]) == 1
    kept = {"key": "team", "value": "vision", "effect": "NoSchedule"}
    assert machines_needed(node("n1", taints=[kept]), [], [one]) == 0


def test_a_node_that_is_being_deleted_has_room_for_nobody() -> None:
    going = node("n2")
    assert open_for_pods(going)
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    nodes, one = [node("n1"), going], pod("c", {GPU: "8"})
    assert machines_needed(nodes[0], nodes, [FULL, one]) == 1
    assert no_room([FULL], "n1", nodes, [FULL]) == "n1 is the last node that takes pods"


# --- a pool of two --------------------------------------------------------------------------------


class Pair:
    """A pool of two machines, on nodes n1 and n2."""

    kind: tuple[str, str] = ("example.com/v1", "Pair")
    reads: tuple[Related, ...] = ()

    def refusal(self, pool: Object) -> str | None:
        del pool
        return None

    def members(self, pool: Object, related: Mapping[str, Sequence[Object]]) -> list[Member]:
        del pool
        return [Member(machine(n), one) for n, one in enumerate(related["Node"], start=1)]

    def leaving(self, member: Member) -> Change:
        del member
        return Change(path="/metadata/annotations/goes", present=None, intended="first")


def machine(number: int) -> Obj:
    return {"metadata": {"name": f"m{number}", "namespace": "research", "uid": f"u-m{number}"}}


PAIR: Obj = {"metadata": {"name": "pair", "annotations": {pools.LEAST: "1", pools.MOST: "4"}}}


def test_a_machine_whose_gpus_are_not_there_does_not_speak_for_one_more() -> None:
    """Its driver may have failed: those that wait need the pool to grow all the more."""
    without = node("n2")
    without["status"]["allocatable"] = {**ROOM, GPU: "0"}
    around = {"Node": [node("n1"), without], "Pod": [FULL, pod("c", {GPU: "8"})]}
    [size] = resized(Pair(), PAIR, around, (2, 3))
    assert (size.path, size.intended) == ("/spec/replicas", 3)
    around["Node"] = [without]
    with pytest.raises(NotApplicableError, match="no ready node of the pool shows"):
        resized(Pair(), PAIR, around, (1, 2))


def closed(nodes: Sequence[Obj], *pods: Obj) -> list[str]:
    """Give the nodes that are closed to take one of two machines away."""
    changes = resized(Pair(), PAIR, {"Node": [*nodes], "Pod": [*pods]}, (2, 1))
    return [change.of.name for change in changes if change.of]


def test_a_machine_whose_node_somebody_has_closed_is_not_ours_to_delete() -> None:
    n1, n2 = node("n1"), node("n2")
    assert closed([n1, n2], FULL) == ["n2"]
    n2["spec"]["unschedulable"] = True
    with pytest.raises(NotApplicableError, match="0 machines of the pool are empty, not 1"):
        closed([n1, n2], FULL)


def test_what_a_kubelet_runs_by_itself_does_not_hold_a_machine() -> None:
    """A static pod goes with its machine, and nothing would run elsewhere for it."""
    static = pod("kube-proxy", {"cpu": "1"}, on="n2")
    assert busy(node("n2"), [static]) == [static]
    static["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "9f3c"}
    assert busy(node("n2"), [static]) == []
    assert closed([node("n1"), node("n2")], FULL, static) == ["n2"]
