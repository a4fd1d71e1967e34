"""Nothing goes in or out that is not named: who may talk to whom."""

from typing import Any

import pytest
from charts import MODES, Objects, Render

SYSTEM, ACTIONS = "tiphys-system", "tiphys-actions"
TOLD = {"prometheus.url": "http://p:9090", "alertmanager.urls": ["http://a:9093"]}
PORTS = {5432: "database", 9090: "prometheus", 9093: "alertmanager", 4222: "nats", 53: "dns"}
PORTS |= {443: "api", 6443: "api", "nats": "nats", "http": "http"}


def policies(objects: Objects, namespace: str) -> list[dict[str, Any]]:
    return [
        thing["spec"]
        for thing in objects
        if thing["kind"] == "NetworkPolicy" and thing["metadata"]["namespace"] == namespace
    ]


def labels_of(objects: Objects) -> dict[str, dict[str, str]]:
    """Give the labels of every pod that the chart starts."""
    found: dict[str, dict[str, str]] = {}
    for thing in objects:
        if thing["kind"] == "Pod":
            found[thing["metadata"]["name"]] = thing["metadata"]["labels"]
        elif thing["kind"] in {"Deployment", "StatefulSet", "Job"}:
            found[thing["metadata"]["name"]] = thing["spec"]["template"]["metadata"]["labels"]
    return found


def chosen(spec: dict[str, Any], labels: dict[str, str]) -> bool:
    return spec["podSelector"].get("matchLabels", {}).items() <= labels.items()


def reaches(objects: Objects, pod: str, way: str) -> set[str]:
    labels = labels_of(objects)[pod]
    found: set[str] = set()
    for spec in policies(objects, SYSTEM):
        if chosen(spec, labels):
            for rule in spec.get(way, []):
                found |= {PORTS[port["port"]] for port in rule["ports"]}
    return found


@pytest.mark.parametrize("mode", MODES)
def test_everything_is_denied_to_every_pod_first(render: Render, mode: str) -> None:
    objects = render(mode)
    for labels in labels_of(objects).values():
        walls = [p for p in policies(objects, SYSTEM) if chosen(p, labels)]
        assert any({*p["policyTypes"]} == {"Ingress", "Egress"} for p in walls)
    walls = [p for p in policies(objects, ACTIONS) if p["podSelector"] == {}]
    assert any("ingress" not in p and "egress" not in p for p in walls)


def test_each_role_reaches_what_it_needs(render: Render) -> None:
    objects = render("split", TOLD)
    out = {name: reaches(objects, name, "egress") for name in labels_of(objects)}
    assert out == {
        "tiphys-gateway": {"dns", "api", "database", "nats"},
        "tiphys-agents": {"dns", "api", "database", "nats", "prometheus", "alertmanager"},
        "tiphys-launcher": {"dns", "api", "database"},
        "tiphys-migrate": {"dns", "database"},
        "tiphys-nats": set(),
        "tiphys-test": {"dns", "api", "http"},
    }
    into = {name: reaches(objects, name, "ingress") for name in labels_of(objects)}
    assert into["tiphys-nats"] == {"nats"}
    assert into["tiphys-migrate"] == into["tiphys-test"] == set()


@pytest.mark.parametrize(
    ("way", "changes"),
    [
        ("slack", {"slack": {"channel": "C0123456789", "existingSecret": "s"},
                   "people": {"existingSecret": "p"}}),
        ("events", {"events": {"url": "https://events.example/in", "existingSecret": "e"}}),
    ],
)  # fmt: skip
def test_only_the_gateway_reaches_chat_and_whom_it_tells_and_only_where_asked(
    render: Render, way: str, changes: dict[str, Any]
) -> None:
    port = {f"networkPolicy.egress.{way}.ports": [8443]}

    def reaching(objects: Objects) -> set[str]:
        return {
            name
            for name, labels in labels_of(objects).items()
            for spec in policies(objects, SYSTEM)
            if chosen(spec, labels)
            for rule in spec.get("egress", [])
            if {8443} & {given["port"] for given in rule["ports"]}
        }

    assert reaching(render("split", {**changes, **port})) == {"tiphys-gateway"}
    assert reaching(render("split", port)) == set()
    assert reaching(render("single", {**changes, **port})) == {"tiphys"}


def test_steps_reach_the_api_server_and_prometheus(render: Render) -> None:
    def ports(objects: Objects) -> set[str]:
        return {
            PORTS[port["port"]]
            for spec in policies(objects, ACTIONS)
            for rule in spec.get("egress", [])
            for port in rule["ports"]
        }

    assert ports(render("split", TOLD)) == {"dns", "api", "prometheus"}
    assert ports(render("split")) == {"dns", "api"}


def test_only_the_gateway_is_open_to_whom_the_values_name(render: Render) -> None:
    monitoring = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "m"}}}
    people = {"ipBlock": {"cidr": "192.0.2.0/24"}}
    changes = {
        "networkPolicy.ingress.gateway.from": [people],
        "networkPolicy.ingress.metrics.from": [monitoring],
    }
    objects = render("split", changes)
    for name, labels in labels_of(objects).items():
        rules = [
            r for p in policies(objects, SYSTEM) if chosen(p, labels) for r in p.get("ingress", [])
        ]
        peers = [peer for rule in rules for peer in rule["from"]]
        assert (people in peers) == (name == "tiphys-gateway")
        assert (monitoring in peers) == (
            name in {"tiphys-gateway", "tiphys-agents", "tiphys-launcher"}
        )


def test_a_narrowed_way_out_is_narrow_everywhere(render: Render) -> None:
    servers = {"ipBlock": {"cidr": "10.0.0.1/32"}}
    objects = render(
        "split", {"networkPolicy.egress.apiServer": {"to": [servers], "ports": [6443]}}
    )
    rules = [
        rule
        for spec in [*policies(objects, SYSTEM), *policies(objects, ACTIONS)]
        for rule in spec.get("egress", [])
        if {"protocol": "TCP", "port": 6443} in rule["ports"]
    ]
    assert len(rules) == 5  # three roles, the steps, the test
    assert all(rule["to"] == [servers] for rule in rules)


def test_it_can_be_left_out(render: Render) -> None:
    objects = render("split", {"networkPolicy.enabled": False})
    assert not [thing for thing in objects if thing["kind"] == "NetworkPolicy"]
