"""Who calls whom, read from each mesh's own metrics through a real PromQL engine."""

from typing import Any

import pytest
from promql_parser import parse
from shop_metrics import deployment, released, shop, stepped

from tiphys.agents.around import calls, standard
from tiphys.agents.around.place import Names, Place
from tiphys.agents.around.standard import recorded_kind, symptom_kind
from tiphys.agents.causes.signals import Kind

LABELS: dict[str, Any] = {
    "istio": lambda a, b: {
        "source_workload": a, "source_workload_namespace": "shop",
        "destination_workload": b, "destination_workload_namespace": "shop",
        "reporter": "destination", "response_code": "200"},
    "service graph": lambda a, b: {"client": a, "server": b},
    "linkerd": lambda a, b: {"direction": "outbound", "namespace": "shop", "deployment": a,
                             "dst_deployment": b, "dst_namespace": "shop",
                             "classification": "success"},
    "hubble": lambda a, b: {"source_workload": a, "source_namespace": "shop",
                            "destination_workload": b, "destination_namespace": "shop",
                            "reporter": "server", "status": "200"},
}  # fmt: skip
MESHES = [pytest.param(m, id=m.name.replace(" ", "-")) for m in calls.MESHES]


@pytest.mark.parametrize("mesh", MESHES)
async def test_each_mesh_tells_the_calls_and_how_they_went(mesh: calls.Mesh) -> None:
    world = shop(mesh=False)
    for caller, callee in (("front", "cart"), ("cart", "stock")):
        ends = LABELS[mesh.name](caller, callee)
        world.counter(mesh.requests, ends, lambda _: 40)
        slow = stepped(0.0, 20.0, 12)
        for le, share in (("100", 20.0), ("5000", 40.0), ("+Inf", 40.0)):
            bound = le if mesh.milliseconds or le == "+Inf" else f"{float(le) / 1000:g}"
            rate = (lambda at, s=slow: 40 - s(at)) if share == 20.0 else (lambda _: 40.0)
            world.counter(mesh.buckets, {**ends, "le": bound}, rate)
    # A call that fails since twelve minutes, of the last service only.
    ends = LABELS[mesh.name]("cart", "stock") | {
        "istio": {"response_code": "503"},
        "linkerd": {"classification": "failure"},
        "hubble": {"status": "503"},
    }.get(mesh.name, {})
    metric = mesh.failed.partition("{")[0]
    world.counter(metric, ends | ({"x": "y"} if mesh.name == "service graph" else {}),
                  stepped(0.0, 30.0, 12))  # fmt: skip
    world.objects += released("stock", 13)
    facts, _ = await world.analysed()
    cause = facts["analysis"]["causes"][0]
    assert cause["component"] == "stock"
    assert cause["what"] == "release"
    told = " ".join(cause["evidence"])
    assert f"requests answered well, {mesh.name}" in told
    kinds = {c["what"].partition(" (")[0] for c in facts["analysis"]["changes"]}
    assert mesh.latency.value in kinds
    assert any("explain" not in e for e in cause["evidence"])


async def test_what_is_called_in_another_namespace_is_read_there() -> None:
    world = shop(slow={"front": 12, "cart": 12})
    ends = {"source_workload": "cart", "source_workload_namespace": "shop",
            "destination_workload": "vault", "destination_workload_namespace": "bank",
            "reporter": "source"}  # fmt: skip
    world.counter("istio_requests_total", ends, lambda _: 9)
    far = deployment("vault")
    far["metadata"]["namespace"] = "bank"
    world.objects.append(far)
    for one in released("vault", 13):
        one["metadata"]["namespace"] = "bank"
        world.objects.append(one)
    where = {"namespace": "bank", "deployment": "vault"}
    rule = "workload:http_request_duration_seconds:p95"
    world.record(rule, where, stepped(0.01, 0.5, 12), 0.05)
    facts, _ = await world.analysed()
    cause = facts["analysis"]["causes"][0]
    assert (cause["component"], cause["what"]) == ("bank/vault", "release")
    assert world.listed[2:] == ["Deployment bank", "ReplicaSet bank"]


@pytest.mark.parametrize(
    "evil",
    [
        pytest.param('x"} or up{a="', id="quote"),
        pytest.param("x\\", id="backslash"),
        pytest.param("a|.*", id="regex"),
        pytest.param("n\nsum(up)", id="line"),
        pytest.param("ü" * 300, id="long"),
    ],
)
def test_no_name_can_become_part_of_a_query(evil: str) -> None:
    place = Place((evil, "other"), (evil, "front"))
    written = [asked.write(place) for asked in (
        standard.CPU, standard.MEMORY, standard.RESTARTS, standard.AVAILABLE, standard.REQUESTS,
        standard.FAILED, standard.LATENCY, standard.RECORDED, standard.WANTED,
        standard.GENERATIONS, standard.VERSIONS)]  # fmt: skip
    written.append(standard.tenants(place))
    for mesh in calls.MESHES:
        written += [w(mesh, place) for w in (calls.requests, calls.failures, calls.latencies)]
    for query in written:
        parse(query)
        assert "up{" not in query.replace('\\"', "").replace('"', "") or "up{a=" in evil
        assert "\n" not in query


@pytest.mark.parametrize(
    ("labels", "component"),
    [
        pytest.param({"deployment": "cart"}, "cart", id="deployment"),
        pytest.param({"statefulset": "db"}, "db", id="statefulset"),
        pytest.param({"pod": "cart-1abcdef-xyz12"}, "cart", id="pod"),
        pytest.param({"pod": "db-0"}, "db", id="stateful-pod"),
        pytest.param({"service": "cart"}, "cart", id="service"),
        pytest.param({"service": "nobody"}, "", id="unknown-service"),
        pytest.param({"job": "kube-state-metrics"}, "", id="exporter"),
        pytest.param({}, "", id="none"),
    ],
)
def test_an_alerts_labels_name_a_component_or_none(labels: dict[str, str], component: str) -> None:
    names = Names(Place(("shop",)), {("shop", "cart-1abcdef"): "cart"})
    assert names.of_alert({"namespace": "shop", **labels}) == component


def test_recording_rules_are_read_by_what_their_names_say() -> None:
    said = {
        "workload:http_request_duration_seconds:p95": (Kind.LATENCY, False),
        "workload:http_requests_errors:ratio": (Kind.AVAILABILITY, True),
        "workload:cpu_utilisation:ratio": (Kind.CPU, False),
        "workload:http_requests:rate": (Kind.REQUESTS, False),
        "workload:http_requests_errors:rate": None,
        "workload:connection_pool_waiting:max": None,
    }
    assert {rule: recorded_kind(rule) for rule in said} == said


def test_an_expression_tells_what_is_complained_about_where_its_metrics_do() -> None:
    assert symptom_kind({"http_request_duration_seconds_bucket"}) is Kind.LATENCY
    assert symptom_kind({"workload:http_requests_errors:ratio"}) is Kind.AVAILABILITY
    assert symptom_kind({"up"}) is None


def test_a_graph_with_cycles_is_walked_once() -> None:
    graph = {"a": ["b"], "b": ["c", "a"], "c": ["a"]}
    assert calls.below("a", graph) == ["b", "c"]
    assert set(calls.near("c", graph)) == {"a", "b"}
