"""Where a pod surely finds room, and what of a pod is not judged. Pure."""

from typing import Any

import pytest

from tiphys.workflow_templates.spare_room import HOST, no_room, repels, requests

Obj = dict[str, Any]
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
CART = {"matchLabels": {"app": "cart"}}
OTHERS = {"matchLabels": {"app": "other"}}


def node(name: str, *taints: Obj) -> Obj:
    return {
        "metadata": {"name": name, "labels": {HOST: name, "pool": "a"}},
        "spec": {"taints": [*taints]},
        "status": {
            "allocatable": {"cpu": "4", "pods": "10"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def pod(name: str, where: str = "n1", **spec: Any) -> Obj:
    asked = {"requests": {"cpu": "100m"}}
    return {
        "metadata": {"name": name, "namespace": "shop", "labels": {"app": "cart"}},
        "spec": {"nodeName": where, "containers": [{"name": "m", "resources": asked}], **spec},
        "status": {"phase": "Running"},
    }


def why_not(going: Obj, *others: Obj, taint: Obj | None = None) -> str:
    """Say why the pod would find no room on n2; an empty string where it would."""
    nodes = [node("n1"), node("n2", *([taint] if taint else []))]
    return no_room([going], "n1", nodes, [going, *others]) or ""


def away(**term: Any) -> Obj:
    full = {"labelSelector": CART, "topologyKey": HOST, **term}
    return {"affinity": {"podAntiAffinity": {REQUIRED: [full]}}}


def chosen(*terms: Obj) -> Obj:
    return {"affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [*terms]}}}}


def expression(key: str, operator: str, *values: str) -> Obj:
    return {"key": key, "operator": operator, "values": [*values]}


IN_A, IN_B = expression("pool", "In", "a"), expression("pool", "In", "b")
HERE, THERE = (expression("metadata.name", "In", name) for name in ("n2", "n3"))


@pytest.mark.parametrize(
    ("terms", "why"),
    [
        ([{"matchExpressions": [IN_A]}], ""),
        ([{"matchFields": [HERE]}], ""),
        ([{"matchExpressions": [IN_A], "matchFields": [HERE]}], ""),
        ([{"matchExpressions": [IN_B]}, {"matchFields": [HERE]}], ""),
        ([{"matchExpressions": [IN_A, IN_B]}], "no other node"),
        ([{"matchExpressions": [IN_B], "matchFields": [HERE]}], "no other node"),
        ([{"matchExpressions": [IN_A], "matchFields": [THERE]}], "no other node"),
        ([{}], "no other node"),
        ([], "no other node"),
        ([{"matchFields": [expression("spec.x", "In", "n2")]}], "cannot be judged"),
    ],
)
def test_an_affinity_to_nodes_is_met_by_one_whole_term(terms: list[Obj], why: str) -> None:
    said = why_not(pod("a", **chosen(*terms)))
    assert why in said
    assert bool(said) is bool(why)


@pytest.mark.parametrize(
    ("toleration", "tolerated"),
    [
        ({"key": "k", "operator": "Exists"}, True),
        ({"operator": "Exists"}, True),
        ({"key": "k", "value": "v"}, True),
        ({"key": "k", "value": "v", "effect": "NoExecute"}, True),
        ({"key": "other", "operator": "Exists"}, False),
        ({"key": "k", "value": "w"}, False),
        ({"key": "k"}, False),
        ({"key": "other", "value": "v"}, False),
        ({"key": "k", "operator": "Exists", "effect": "NoSchedule"}, False),
        ({"key": "k", "operator": "Exists", "tolerationSeconds": 300}, False),
    ],
)
def test_a_taint_is_tolerated_wholly_or_not(toleration: Obj, tolerated: bool) -> None:
    taint = {"key": "k", "value": "v", "effect": "NoExecute"}
    said = why_not(pod("a", tolerations=[toleration]), taint=taint)
    assert bool(said) is not tolerated


@pytest.mark.parametrize("effect", ["NoSchedule", "NoExecute", "PreferNoSchedule"])
def test_a_taint_that_only_prefers_keeps_nobody_off(effect: str) -> None:
    said = why_not(pod("a"), taint={"key": "k", "effect": effect})
    assert bool(said) is (effect != "PreferNoSchedule")


@pytest.mark.parametrize(
    ("own", "others", "why"),
    [
        ({}, {}, ""),
        (away(), {}, "no other node"),
        ({}, away(), "no other node"),
        (away(labelSelector=OTHERS), away(labelSelector=OTHERS), ""),
        (away(topologyKey="zone"), {}, "more than the host"),
        (away(namespaces=["bank"]), {}, "more than the host"),
        ({}, away(topologyKey="zone"), "kept off by"),
        ({}, away(topologyKey="zone", labelSelector=OTHERS), ""),
        ({}, away(namespaces=["shop"], labelSelector=OTHERS), "kept off by"),
    ],
)
def test_pods_keep_away_from_each_other(own: Obj, others: Obj, why: str) -> None:
    said = why_not(pod("a", **own), pod("b", "n2", **others))
    assert why in said
    assert bool(said) is bool(why)


def test_who_repels_says_so_itself() -> None:
    assert repels(pod("a", **away()), pod("b"))
    assert not repels(pod("a"), pod("b", **away()))


def test_a_node_that_is_alone_is_not_emptied_even_of_nothing() -> None:
    assert "last node" in (no_room([], "n1", [node("n1")], []) or "")


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_has_ended_takes_no_room(phase: str) -> None:
    large = {"name": "m", "resources": {"requests": {"cpu": "4"}}}
    other = pod("b", "n2", containers=[large])
    assert "no other node" in why_not(pod("a"), other)
    assert not why_not(pod("a"), {**other, "status": {"phase": phase}})


def test_devices_are_placed_before_memory_can_take_the_room_beside_them() -> None:
    def of(name: str, **asked: str) -> Obj:
        return pod(name, containers=[{"name": "m", "resources": {"requests": asked}}])

    nodes = [node("n1"), node("n2"), node("n3")]
    for one in nodes:
        one["status"]["allocatable"]["memory"] = "10Gi"
    nodes[1]["status"]["allocatable"]["nvidia.com/gpu"] = "1"
    going = [of("cache", memory="9Gi"), of("train", memory="2Gi", **{"nvidia.com/gpu": "1"})]
    assert no_room(going, "n1", nodes, going) is None


def test_a_sidecar_is_counted_once() -> None:
    sidecar = {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "2"}}}
    assert float(requests(pod("a", initContainers=[sidecar]))["cpu"]) == 2.1


@pytest.mark.parametrize(("others", "room"), [(["n2"], False), (["n2", "n3"], True)])
def test_two_that_keep_away_from_each_other_do_not_go_to_the_same_node(
    others: list[str], room: bool
) -> None:
    going = [pod("a", **away()), pod("b", **away())]
    nodes = [node(name) for name in ("n1", *others)]
    assert (no_room(going, "n1", nodes, going) is None) is room
