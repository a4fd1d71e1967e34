"""What the analysis agent says of a service and its neighbours: what came first, what followed."""

from typing import Any

import pytest
from shop_metrics import EXPRESSION, released, shop, stepped


def first_cause(facts: dict[str, Any]) -> dict[str, Any]:
    return facts["analysis"]["causes"][0]


async def test_a_release_two_calls_down_is_the_cause_of_the_slow_front() -> None:
    world = shop(slow={"front": 12, "cart": 12, "stock": 13})
    world.objects += released("stock", 14)
    facts, notes = await world.analysed()
    cause = first_cause(facts)
    assert (cause["component"], cause["what"], cause["established"]) == ("stock", "release", True)
    assert any("changed image" in words for words in cause["evidence"])
    assert any(words.startswith("stock latency (") for words in cause["evidence"])
    assert facts["analysis"]["first"].startswith("stock: revision 2 was rolled out")
    assert facts["analysis"]["began_with_release"] is False
    assert 12 <= facts["analysis"]["onset_minutes"] <= 14
    assert any(n.startswith("likeliest cause: stock: revision 2") for n in notes)
    assert any(n.startswith("what follows from it") and "front latency" in n for n in notes)


async def test_a_release_after_the_trouble_began_is_innocent_and_said_to_be() -> None:
    world = shop(slow={"front": 15})
    world.objects += released("front", 6)
    facts, notes = await world.analysed()
    assert facts["analysis"]["release_innocent"] is True
    assert facts["analysis"]["began_with_release"] is False
    assert first_cause(facts)["what"] == "metrics"
    assert any("after the trouble had begun: that is not the cause" in n for n in notes)


async def test_a_release_right_before_the_trouble_began_is_not_innocent() -> None:
    world = shop(slow={"front": 12})
    world.objects += released("front", 13.5)
    facts, _ = await world.analysed()
    assert facts["analysis"]["release_innocent"] is False
    assert facts["analysis"]["began_with_release"] is True
    assert first_cause(facts)["what"] == "release"


async def test_a_release_that_no_metric_follows_is_told_apart_from_one_that_is() -> None:
    world = shop(slow={"front": 12})
    world.objects += released("stock", 12.5)
    facts, _ = await world.analysed()
    named = {c["component"]: c for c in facts["analysis"]["causes"]}
    assert named["front"]["established"] is True
    assert named["stock"]["established"] is False, "it precedes the trouble, and no more is known"
    assert named["stock"]["what"] == "release"


async def test_nothing_is_said_to_have_happened_where_nothing_did() -> None:
    facts, notes = await shop().analysed()
    analysis = facts["analysis"]
    assert (analysis["silent"], analysis["unseen"]) == (True, [])
    assert analysis["first"] == ""
    assert not any(c["established"] for c in analysis["causes"])
    assert analysis["changes"] == []
    assert any("no series around the alert stands out" in n for n in notes)


@pytest.mark.parametrize(
    ("name", "labels", "level", "what", "words"),
    [
        pytest.param("kube_deployment_spec_replicas", {"deployment": "cart"},
                     stepped(2, 1, 13), "scaling", "scaled from 2 to 1", id="scaling"),
        pytest.param("kube_node_status_condition", {"node": "n1", "condition": "Ready",
                     "status": "true"}, stepped(1, 0, 13), "node", "no longer ready", id="node"),
        pytest.param("kube_node_spec_unschedulable", {"node": "n1"}, stepped(0, 1, 13),
                     "node", "was cordoned", id="cordon"),
        pytest.param("kube_configmap_metadata_resource_version", {"configmap": "rates"},
                     stepped(4711, 4805, 13), "configuration", "ConfigMap rates", id="config"),
        pytest.param("kube_statefulset_metadata_generation", {"statefulset": "front"},
                     stepped(3, 4, 13), "release", "its spec was edited", id="statefulset"),
    ],
)  # fmt: skip
async def test_what_was_changed_right_before_is_found(
    name: str, labels: dict[str, str], level: Any, what: str, words: str
) -> None:
    world = shop(slow={"front": 12, "cart": 12})
    world.objects[1]["spec"]["template"]["spec"]["volumes"] = [{"configMap": {"name": "rates"}}]
    stateful = "statefulset" in labels
    if stateful:
        world.objects = [o for o in world.objects if not o["metadata"]["name"].startswith("front")]
    namespace = {} if "node" in labels else {"namespace": "shop"}
    world.forget(name, labels)
    world.record(name, {**namespace, **labels}, level)
    facts, notes = await (
        world.analysed(deployment="", statefulset="front") if stateful else world.analysed()
    )
    found = [c for c in facts["analysis"]["causes"] if c["what"] == what]
    assert found, notes
    assert any(words in e for e in found[0]["evidence"])


async def test_every_kind_is_asked_once_for_the_whole_namespace() -> None:
    world = shop()
    many = shop()
    for i in range(40):
        many.objects += released(f"other-{i}", 900)
        many.record("kube_deployment_spec_replicas",
                    {"namespace": "shop", "deployment": f"other-{i}"}, lambda _: 1)  # fmt: skip
    await world.analysed()
    await many.analysed()
    assert len(many.asked) == len(world.asked) <= 40
    assert many.listed == ["Deployment shop", "ReplicaSet shop"]
    assert EXPRESSION in many.asked


async def test_what_only_looks_alike_is_not_held_against_a_stranger_of_the_graph() -> None:
    world = shop(slow={"cart": 12, "front": 12})
    world.objects += released("stock", 12.5)
    facts, _ = await world.analysed(deployment="stock")
    assert "stock" in {c["component"] for c in facts["analysis"]["causes"]}
    # front and cart call stock, not the other way round: their trouble is none of its causes.
    assert first_cause(facts)["component"] == "stock"


async def test_without_a_call_graph_all_of_the_namespace_is_looked_at() -> None:
    world = shop(slow={"front": 12, "stock": 13}, mesh=False)
    world.objects += released("stock", 14)
    facts, _ = await world.analysed()
    assert first_cause(facts)["component"] == "stock"
