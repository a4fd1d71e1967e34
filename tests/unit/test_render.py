"""What is rendered is what Argo knows, unprivileged, and as reviewed."""

import gzip
import json
import os
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tiphys.workflow_templates.catalogue import every
from tiphys.workflow_templates.render import (
    RenderSettings,
    catalogue_entries,
    manifests,
    role_bindings,
    workflow_template,
)

HERE = Path(__file__).parent
SETTINGS = RenderSettings(
    image="registry.example/tiphys-step@sha256:" + "0" * 64,
    public_key="ab" * 32,
    prometheus_url="http://prometheus.monitoring.svc:9090",
    priority_class="tiphys-steps",
)
TEMPLATES = [workflow_template(SETTINGS, action) for action in every()]
NAMES = [action.name for action in every()]


def strict(schema: Any) -> Any:
    """Refuse what the schema does not list, as `kubectl --validate=strict` does."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: strict(value) for key, value in schema.items()}
    free = schema.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and not free:
        found.setdefault("additionalProperties", False)
    return found


def schema(kind: str) -> Any:
    path = HERE.parent / "data" / "argo" / f"{kind}.schema.json.gz"
    found = json.loads(gzip.decompress(path.read_bytes()))
    found["properties"]["metadata"]["x-kubernetes-preserve-unknown-fields"] = True
    return strict(found)


@pytest.fixture(scope="module")
def argo() -> Any:
    return jsonschema.Draft202012Validator(schema("workflowtemplate"))


@pytest.mark.parametrize("template", TEMPLATES, ids=NAMES)
def test_argo_knows_every_field(argo: Any, template: Any) -> None:
    assert [error.message for error in argo.iter_errors(template)] == []


def test_the_schema_finds_a_field_that_argo_does_not_know(argo: Any) -> None:
    for path, key in (
        (("spec",), "mutex"),
        (("spec", "templates", 1, "containerSet"), "container"),
        (("spec", "templates", 1, "containerSet", "containers", 0, "securityContext"), "bogus"),
    ):
        template = json.loads(json.dumps(TEMPLATES[0]))
        place = template
        for part in path:
            place = place[part]
        place[key] = {}
        assert [error.message for error in argo.iter_errors(template)], key


def test_a_workflow_as_the_launcher_makes_it_is_valid() -> None:
    names = catalogue_entries()["scale-workload-v1"].split(",")
    workflow = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"name": "tiphys-" + "a" * 40},
        "spec": {
            "workflowTemplateRef": {"name": "scale-workload-v1"},
            "arguments": {"parameters": [{"name": n, "value": "x"} for n in names]},
        },
    }
    jsonschema.Draft202012Validator(schema("workflow")).validate(workflow)


def containers(template: Any) -> list[Any]:
    found: list[Any] = []
    for one in template["spec"]["templates"]:
        found += one.get("containerSet", {}).get("containers", [])
        found += [one["container"]] if "container" in one else []
    return found


@pytest.mark.parametrize("template", TEMPLATES, ids=NAMES)
def test_parameters_reach_code_through_the_environment_only(template: Any) -> None:
    steps = containers(template)
    assert [c["args"] for c in steps] == [["precheck"], ["act"], ["verify"], ["rollback"]]
    for one in steps:
        assert one["command"] == ["tiphys-step"]
        plain = {key: value for key, value in one.items() if key != "env"}
        assert "{{" not in json.dumps(plain)
    spec = template["spec"]
    given = {parameter["name"] for parameter in spec["arguments"]["parameters"]}
    used = set(re.findall(r"\{\{workflow\.parameters\.(\w+)\}\}", json.dumps(spec)))
    assert used == given == set(catalogue_entries()[template["metadata"]["name"]].split(","))


@pytest.mark.parametrize("template", TEMPLATES, ids=NAMES)
def test_steps_run_without_privilege(template: Any) -> None:
    spec = template["spec"]
    assert spec["serviceAccountName"] == f"act-{template['metadata']['labels']['tiphys.io/action']}"
    assert spec["securityContext"]["runAsNonRoot"]
    for one in containers(template):
        locked = one["securityContext"]
        assert locked["allowPrivilegeEscalation"] is False
        assert locked["readOnlyRootFilesystem"] is True
        assert locked["capabilities"] == {"drop": ["ALL"]}
        assert locked["seccompProfile"] == {"type": "RuntimeDefault"}


@pytest.mark.parametrize("template", TEMPLATES, ids=NAMES)
def test_rollback_runs_unless_the_workflow_succeeded(template: Any) -> None:
    spec = template["spec"]
    by_name = {one["name"]: one for one in spec["templates"]}
    ((step,),) = by_name[spec["onExit"]]["steps"]
    assert step["when"] == "{{workflow.status}} != Succeeded"
    assert by_name[step["template"]]["container"]["args"] == ["rollback"]
    assert spec["synchronization"] == {"mutexes": [{"name": "{{workflow.parameters.target}}"}]}
    assert spec["ttlStrategy"]["secondsAfterCompletion"] >= 7 * 86_400
    assert spec["podGC"] == {"strategy": "OnWorkflowCompletion"}
    order = [c.get("dependencies") for c in by_name["run"]["containerSet"]["containers"]]
    assert order == [None, ["precheck"], ["act"]]


def test_nobody_gets_more_than_a_role() -> None:
    everything = [*manifests(SETTINGS), *role_bindings(SETTINGS, "shop")]
    kinds = {str(one["kind"]) for one in everything}
    assert kinds == {"ConfigMap", "Role", "RoleBinding", "ServiceAccount", "WorkflowTemplate"}
    for role in (one for one in everything if one["kind"] == "Role"):
        assert "*" not in json.dumps(role["rules"])


@pytest.mark.parametrize("name", [*NAMES, "access"])
def test_golden(name: str) -> None:
    if name == "access":
        found: list[Any] = [
            one
            for one in [*manifests(SETTINGS), *role_bindings(SETTINGS, "shop")]
            if one["kind"] != "WorkflowTemplate"
        ]
    else:
        found = [TEMPLATES[NAMES.index(name)]]
    text = yaml.safe_dump_all(found, sort_keys=False, width=100)
    path = HERE / "golden" / f"{name}.yaml"
    if os.environ.get("TIPHYS_GOLDEN") == "write":
        path.write_text(text)
    assert path.read_text() == text, "reviewed? then: make golden"
