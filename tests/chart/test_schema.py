"""The schema refuses what is not a value, everywhere, and knows everything that is one."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml
from charts import CHART, MODES, Helm, values

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
VALIDATOR = jsonschema.Draft7Validator(SCHEMA)


def ci(mode: str) -> Any:
    """Give the whole values of a mode, as helm merges them."""
    merged = copy.deepcopy(VALUES)

    def merge(into: Any, given: Any) -> None:
        for key, value in given.items():
            if isinstance(value, dict) and isinstance(into.get(key), dict):
                merge(into[key], value)
            else:
                into[key] = value

    merge(merged, yaml.safe_load((CHART / "ci" / f"{mode}-values.yaml").read_text()))
    return merged


FREE = {
    "monitoring.labels", "monitoring.dashboardLabels", "playbooks", "pods.nodeSelector",
}  # fmt: skip
"""Maps with names of the user's own."""


def maps(value: Any, path: str = "") -> Iterator[str]:
    """Give the path of every map within a value, the free ones left out."""
    if isinstance(value, dict):
        if path not in FREE and not path.endswith("matchLabels"):
            yield path
        for key, item in value.items():
            yield from maps(item, f"{path}.{key}".lstrip("."))
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield from maps(item, f"{path}.{number}")


def at(value: Any, path: str) -> Any:
    for part in path.split(".") if path else []:
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value


@pytest.mark.parametrize("mode", MODES)
def test_the_values_that_ship_are_valid(mode: str) -> None:
    assert [error.message for error in VALIDATOR.iter_errors(ci(mode))] == []


@pytest.mark.parametrize("path", sorted({p for mode in MODES for p in maps(ci(mode))}))
def test_a_key_that_nobody_reads_is_refused_everywhere(path: str) -> None:
    for mode in MODES:
        changed = ci(mode)
        try:
            place = at(changed, path)
        except (KeyError, IndexError):
            continue
        if not isinstance(place, dict):
            continue
        place["tpyo"] = 1
        assert not VALIDATOR.is_valid(changed), f"{mode}: {path or 'the top'}"


def objects(schema: Any) -> Iterator[Any]:
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield schema
        for inner in schema.values():
            yield from objects(inner)
    if isinstance(schema, list):
        for inner in schema:
            yield from objects(inner)


def test_every_object_of_the_schema_is_closed_or_a_map_of_the_users() -> None:
    found = list(objects(SCHEMA))
    assert len(found) > 25
    for schema in found:
        assert "additionalProperties" in schema, schema
        assert schema["additionalProperties"] is not True


def test_every_value_has_a_default_and_every_default_a_schema() -> None:
    assert set(VALUES) | {"global"} == set(SCHEMA["properties"])


BAD: dict[str, tuple[str, Any]] = {
    "a mode": ("mode", "both"),
    "a quote in an image": ("images.step", 'a"b'),
    "a line break in an image": ("images.step", "a\nb"),
    "a placeholder in an image": ("images.step", "@@PUBLIC_KEY@@"),
    "a quote in a user": ("boundary.publisherUsers", ["a' || true || '"]),
    "a quote in a group": ("boundary.publisherGroups", ["a'b"]),
    "a short key": ("signing.publicKey", "abcd"),
    "upper case in a key": ("signing.publicKey", "AB" * 32),
    "a password in a URL": ("prometheus.url", "http://a:b@c"),
    "a template in a URL": ("prometheus.url", "http://x/{{workflow.name}}"),
    "no replica": ("gateway.replicas", 0),
    "text for a number": ("launcher.replicas", "2"),
    "root": ("pods.user", 0),
    "a namespace that is none": ("namespaces", ["Shop"]),
    "a namespace twice": ("namespaces", ["shop", "shop"]),
    "a peer that means everybody": ("networkPolicy.egress.database.to", [{}]),
    "no port": ("networkPolicy.egress.database.ports", []),
    "an address for a block": ("networkPolicy.egress.dns.to", [{"ipBlock": {"cidr": "10.0.0.1"}}]),
    "a toleration's typo": ("steps.tolerations", [{"key": "a", "operater": "Exists"}]),
    "megabytes in words": ("nats.persistence.size", "4 GB"),
    "an unnamed Alertmanager": ("alertmanager.urls", [""]),
    "events in the open": ("events.url", "http://events.example/in"),
    "a password in the events' URL": ("events.url", "https://a:b@c/in"),
    "an event that is a sentence": ("events.types", ["run ended"]),
    "a channel's name for its id": ("slack.channel", "#incidents"),
    "a header with a line break": ("people.header", "X-A\nB"),
    "a proxy's name for its address": ("people.proxies", ["proxy.svc"]),
    "a playbook that is no YAML file": ("playbooks", {"a.txt": ""}),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_nonsense_is_refused(name: str) -> None:
    path, value = BAD[name]
    changed = ci("split")
    *parents, last = path.split(".")
    at(changed, ".".join(parents))[last] = value
    assert not VALIDATOR.is_valid(changed)


def test_helm_says_which_key_it_does_not_know(helm: Helm) -> None:
    argv = ["template", "tiphys", str(CHART), *values("split"), "--set", "gateway.replica=3"]
    done = helm(*argv)
    assert done.returncode != 0
    assert "/gateway" in done.stderr
    assert "'replica' not allowed" in done.stderr
