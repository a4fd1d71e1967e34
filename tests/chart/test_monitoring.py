"""Our own alerts and the dashboard ask for metrics that exist, in queries that parse."""

import gzip
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import promql_parser
import pytest
from charts import Render, one

sys.path.append(str(Path(__file__).parents[1]))

from exported import exported

DATA = Path(__file__).parents[1] / "data"
PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
KUBE_STATE_METRICS = {
    "kube_deployment_status_replicas_available",
    "kube_pod_created",
    "kube_pod_status_phase",
}
"""What kube-state-metrics exports under these names since 2.0."""
ON = {"monitoring": {"enabled": True, "dashboard": True}}


def rules(render: Render, mode: str) -> list[dict[str, Any]]:
    (group,) = one(render(mode, ON), "PrometheusRule", "tiphys")["spec"]["groups"]
    return group["rules"]


def expressions(render: Render) -> Iterator[str]:
    for mode in ("split", "single"):
        yield from (rule["expr"] for rule in rules(render, mode))
    text = one(render("split", ON), "ConfigMap", "tiphys-dashboard")["data"]["tiphys.json"]
    for panel in json.loads(text)["panels"]:
        yield from (target["expr"] for target in panel["targets"])


def test_queries_parse_and_name_metrics_that_exist(render: Render) -> None:
    known = exported()
    found = [*expressions(render)]
    assert len(found) > 20
    for expression in found:
        promql_parser.parse(expression)
        for name in re.findall(r"\b(?:tiphys|kube)_[a-z_]+", expression):
            assert name in known | KUBE_STATE_METRICS, expression


@pytest.mark.parametrize(
    ("mode", "down"),
    [
        ("split", {"TiphysGatewayDown", "TiphysAgentsDown", "TiphysLauncherDown"}),
        ("single", {"TiphysDown"}),
    ],
)
def test_each_role_that_is_gone_is_told_of(render: Render, mode: str, down: set[str]) -> None:
    alerts = {rule["alert"]: rule for rule in rules(render, mode)}
    assert {name for name, rule in alerts.items() if "absent(up" in rule["expr"]} == down
    jobs = {thing["metadata"]["name"] for thing in render(mode, ON) if thing["kind"] == "Service"}
    for name in down:
        (job,) = re.findall('job="([^"]+)"', alerts[name]["expr"])
        assert job in jobs


def test_a_run_is_too_old_when_no_run_may_be_that_old(render: Render) -> None:
    alerts = {rule["alert"]: rule["expr"] for rule in rules(render, "split")}
    (limit,) = re.findall(r"> (\d+)", alerts["TiphysRunTooOld"])
    for template in (thing for thing in render("split") if thing["kind"] == "WorkflowTemplate"):
        spec = template["spec"]
        rollback = [t.get("activeDeadlineSeconds", 0) for t in spec["templates"]]
        longest = spec["activeDeadlineSeconds"] + max(rollback)
        assert longest < int(limit) < 2 * longest


def test_the_page_lists_every_alert_and_no_other(render: Render) -> None:
    # Its metrics are held against the code by tests/unit/test_metrics_page.py.
    _, alerts = PAGE.read_text().split("\n## Alerts\n")
    names = set[str]()
    for row in re.findall(r"^\| (`Tiphys.*?) \|", alerts, re.MULTILINE):
        names |= set(re.findall(r"`(Tiphys\w+)`", row))
    assert names == {rule["alert"] for mode in ("split", "single") for rule in rules(render, mode)}


def test_our_alerts_are_left_to_people(render: Render) -> None:
    # The gate's rule own-alerts goes by the name: policies/default.yaml.
    for mode in ("split", "single"):
        assert all(rule["alert"].startswith("Tiphys") for rule in rules(render, mode))
        assert "TiphysWatchdog" in {rule["alert"] for rule in rules(render, mode)}


def test_the_monitor_finds_every_role(render: Render) -> None:
    for mode in ("split", "single"):
        objects = render(mode, ON)
        spec = one(objects, "ServiceMonitor", "tiphys")["spec"]["selector"]
        (wanted,) = spec["matchExpressions"]
        for service in (thing for thing in objects if thing["kind"] == "Service"):
            labels = service["metadata"]["labels"]
            assert spec["matchLabels"].items() <= labels.items()
            serves = labels["app.kubernetes.io/component"] in wanted["values"]
            assert serves == (service["metadata"]["name"] != "tiphys-nats")


def test_nothing_of_it_is_there_unless_asked_for(render: Render) -> None:
    kinds = {thing["kind"] for thing in render("split")}
    assert kinds & {"ServiceMonitor", "PrometheusRule"} == set()


def strict(schema: Any) -> Any:
    """Refuse what the schema does not list, as the API server's strict validation does."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        found.setdefault("additionalProperties", False)
    return found


@pytest.mark.parametrize("mode", ["split", "single"])
@pytest.mark.parametrize("kind", ["ServiceMonitor", "PrometheusRule"])
def test_the_operator_knows_every_field(render: Render, mode: str, kind: str) -> None:
    packed = DATA / "prometheus-operator" / f"{kind.lower()}.schema.json.gz"
    schema = json.loads(gzip.decompress(packed.read_bytes()))
    schema["properties"]["metadata"] = {"type": "object"}
    validator = jsonschema.Draft202012Validator(strict(schema))
    thing = one(render(mode, ON), kind, "tiphys")
    assert [error.message for error in validator.iter_errors(thing)] == []
    assert not validator.is_valid({**thing, "spec": {**thing["spec"], "tpyo": 1}})
