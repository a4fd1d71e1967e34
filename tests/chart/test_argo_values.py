"""What users are told to give Argo's own chart is what the tests' controller runs with."""

from typing import Any

import yaml
from charts import CHART

from tools.cluster import argo

VALUES: dict[str, Any] = yaml.safe_load((CHART / "files" / "argo-values.yaml").read_text())


def comparable(manifests: Any) -> dict[tuple[str, str, str], Any]:
    """Give rules and subjects by kind, namespace and name, whatever their order."""
    found: dict[tuple[str, str, str], Any] = {}
    for thing in manifests:
        place = thing["kind"], thing["metadata"]["namespace"], thing["metadata"]["name"]
        found[place] = {
            (group, resource, verb)
            for rule in thing.get("rules", [])
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        } or (thing["roleRef"], thing["subjects"])
    return found


def test_the_controller_has_the_rights_that_were_tried_and_no_others() -> None:
    assert comparable(VALUES["extraObjects"]) == comparable(argo.rights())
    # The chart's own are cluster-wide.
    assert VALUES["controller"]["rbac"]["create"] is False
    assert VALUES["workflow"]["rbac"]["create"] is False
    assert VALUES["createAggregateRoles"] is False
    assert VALUES["controller"]["clusterWorkflowTemplates"]["enabled"] is False


def test_the_controller_has_the_settings_that_were_tried() -> None:
    data = argo.settings()["data"]
    controller = VALUES["controller"]
    assert controller["instanceID"] == {"enabled": True, "explicitID": data["instanceID"]}
    assert controller["workflowRestrictions"] == yaml.safe_load(data["workflowRestrictions"])
    tried = yaml.safe_load(data["executor"])
    for key, value in tried["securityContext"].items():
        assert VALUES["executor"]["securityContext"][key] == value
    assert VALUES["executor"]["resources"] == tried["resources"]


def test_the_controller_is_started_as_it_was_tried() -> None:
    deployment = argo.controller()
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    (first, *_) = VALUES["controller"]["extraArgs"]
    at = container["args"].index(first)
    given = VALUES["controller"]["extraArgs"]
    assert container["args"][at : at + len(given)] == given
    tried = {one["name"]: one.get("value") for one in container["env"]}
    for variable in VALUES["controller"]["extraEnv"]:
        assert tried[variable["name"]] == variable["value"]
    account = deployment["spec"]["template"]["spec"]["serviceAccountName"]
    assert VALUES["controller"]["serviceAccount"] == {"create": True, "name": account}


def test_both_charts_mean_the_same_executor() -> None:
    ours = yaml.safe_load((CHART / "values.yaml").read_text())
    image = f"quay.io/argoproj/argoexec:{VALUES['images']['tag']}"
    assert ours["images"]["executor"] == image
    assert ours["argo"]["serviceAccount"] == VALUES["controller"]["serviceAccount"]["name"]
    assert VALUES["controller"]["workflowNamespaces"] == [ours["actionsNamespace"]]
