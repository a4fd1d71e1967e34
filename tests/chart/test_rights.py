"""Each identity has the rights of DESIGN's table, and no credential that is another's."""

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from charts import MODES, Objects, Render, one, pods

from tiphys.service import kubernetes_reader

ROOT = Path(__file__).parents[2]
ROLES = ("gateway", "agents", "launcher")
SYSTEM, ACTIONS, STOP = "tiphys-system", "tiphys-actions", "tiphys-stop"

Granted = set[tuple[str, str, str, str]]


def granted(objects: Objects, account: str) -> Granted:
    """Give (namespace or *, group, resource, verb) for everything that an account may do."""
    found: Granted = set()
    for binding in objects:
        if binding["kind"] not in {"RoleBinding", "ClusterRoleBinding"}:
            continue
        if not any((s["name"], s["namespace"]) == (account, SYSTEM) for s in binding["subjects"]):
            continue
        place = binding["metadata"].get("namespace")
        role = one(objects, binding["roleRef"]["kind"], binding["roleRef"]["name"], place)
        for rule in role["rules"]:
            found |= {
                (place or "*", group, resource, verb)
                for group in rule["apiGroups"]
                for resource in rule["resources"]
                for verb in rule["verbs"]
            }
    return found


def test_the_launcher_handles_workflows_and_sees_the_stop(render: Render) -> None:
    workflows = {
        (ACTIONS, "argoproj.io", "workflows", verb)
        for verb in ("create", "get", "list", "watch", "patch")
    }
    stop = {(STOP, "", "configmaps", verb) for verb in ("get", "list", "watch")}
    assert granted(render("split"), "tiphys-launcher") == workflows | stop


def test_the_gateway_engages_the_stop_and_cannot_release_it(render: Render) -> None:
    wanted = {(STOP, "", "configmaps", verb) for verb in ("create", "get", "list")}
    assert granted(render("split"), "tiphys-gateway") == wanted


def test_agents_only_read_and_neither_secrets_nor_settings(render: Render) -> None:
    rights = granted(render("split"), "tiphys-agents")
    assert {verb for *_, verb in rights} == {"get", "list"}
    resources = {resource for _, _, resource, _ in rights}
    assert resources & {"secrets", "configmaps", "serviceaccounts", "pods/exec", "*"} == set()


def named_kinds() -> Iterator[tuple[str, str]]:
    """Give every (apiVersion, kind) that the agents' code and the actions' plans name."""
    versions = re.compile(r"v1|(apps|batch|policy|autoscaling)/v[12]")
    for path in sorted((ROOT / "agents").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            parts = getattr(node, "elts", None) or getattr(node, "args", None)
            if not isinstance(parts, list):
                continue
            for first, second in itertools.pairwise(parts):
                words = [getattr(first, "value", None), getattr(second, "value", None)]
                if all(isinstance(w, str) for w in words) and versions.fullmatch(str(words[0])):
                    yield str(words[0]), str(words[1])
    from tiphys.workflow_templates.catalogue import every

    for action in every():
        # What is read by name alone is read where the policy names it; see below.
        yield from ((one.api_version, one.kind) for one in action.reads if not one.named_by)
        yield from action.kinds


def test_agents_may_read_every_kind_that_an_investigation_reads(render: Render) -> None:
    rights = granted(render("split"), "tiphys-agents")
    kinds = {*named_kinds()}
    assert {"Pod", "Deployment", "Node", "HorizontalPodAutoscaler"} <= {kind for _, kind in kinds}
    for api_version, kind in kinds:
        # Others are looked up in the API's discovery.
        known = kubernetes_reader._PLURALS.get((api_version, kind))
        plural = known[0] if known else f"{kind.lower()}s"
        group = api_version.rpartition("/")[0]
        for verb in ("get", "list"):
            assert ("*", group, plural, verb) in rights, f"{verb} {api_version} {kind}"
    assert ("*", "", "pods/log", "get") in rights


POLICY = """
format: tiphys/policy/v1
name: ours
version: 1
rules:
  config-values:
    allowed:
      - {namespace: shop, configmap: fares, key: pool-size, values: ["20", "40"]}
      - {namespace: shop, configmap: fares, key: mode, values: [slow]}
      - {namespace: shop, configmap: beta, key: mode, values: [slow]}
      - {namespace: till, configmap: beta, key: mode, values: [slow]}
      - {namespace: elsewhere, configmap: beta, key: mode, values: [slow]}
"""


@pytest.mark.parametrize(("mode", "account"), [("split", "agents"), ("single", "launcher")])
def test_agents_may_read_the_config_maps_that_the_policy_names_and_no_other(
    render: Render, mode: str, account: str
) -> None:
    objects = render(mode, {"policy": POLICY, "namespaces": ["shop", "till"]})
    before = render(mode, {"namespaces": ["shop", "till"]})
    more = granted(objects, f"tiphys-{account}") - granted(before, f"tiphys-{account}")
    assert more == {(place, "", "configmaps", "get") for place in ("shop", "till")}
    named = {
        place: one(objects, "Role", "tiphys-agents-config", place)["rules"]
        for place in ("shop", "till")
    }
    assert {place: rules[0]["resourceNames"] for place, rules in named.items()} == {
        "shop": ["beta", "fares"],
        "till": ["beta"],
    }
    assert all(len(rules) == 1 for rules in named.values())


def test_in_one_process_one_identity_has_the_rights_of_all(render: Render) -> None:
    split = render("split")
    every = set[tuple[str, str, str, str]]().union(*(granted(split, f"tiphys-{r}") for r in ROLES))
    assert granted(render("single"), "tiphys-launcher") == every


def test_the_test_may_create_pods_where_the_boundary_refuses_them_and_only_for_the_test(
    render: Render,
) -> None:
    objects = render("split")
    assert granted(objects, "tiphys-test") == {(ACTIONS, "", "pods", "create")}
    for kind in ("ServiceAccount", "Role", "RoleBinding", "Pod"):
        notes = one(objects, kind, "tiphys-test")["metadata"]["annotations"]
        assert notes["helm.sh/hook"] == "test"
        gone = notes["helm.sh/hook-delete-policy"].split(",")
        assert {"hook-succeeded", "hook-failed"} <= {*gone}


@pytest.mark.parametrize("mode", MODES)
def test_nobody_but_ours_and_the_actions_is_given_anything(render: Render, mode: str) -> None:
    for binding in render(mode):
        if binding["kind"] not in {"RoleBinding", "ClusterRoleBinding"}:
            continue
        for subject in binding["subjects"]:
            assert subject["kind"] == "ServiceAccount"
            known = (SYSTEM, "tiphys-"), (ACTIONS, "act-")
            assert any(
                subject["namespace"] == place and subject["name"].startswith(prefix)
                for place, prefix in known
            )


def secrets_of(spec: dict[str, Any]) -> set[tuple[str, str]]:
    """Give (Secret, key) for all that a pod gets, in variables and in files."""
    found: set[tuple[str, str]] = set()
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        assert not any("secretRef" in source for source in container.get("envFrom", []))
        for variable in container.get("env", []):
            source = variable.get("valueFrom", {}).get("secretKeyRef")
            found |= {(source["name"], source["key"])} if source else set()
    for volume in spec.get("volumes", []):
        if "secret" in volume:
            secret = volume["secret"]
            found |= {(secret["secretName"], item["key"]) for item in secret["items"]}
    return found


def test_each_role_gets_its_own_credentials_and_no_other(render: Render) -> None:
    held = {name: secrets_of(spec) for name, spec in pods(render("split")).items()}
    assert held == {
        "tiphys-gateway": {
            ("tiphys-database", "gateway"),
            ("tiphys-nats", "gateway"),
            ("tiphys-tokens", "api"),
            ("tiphys-tokens", "webhook"),
        },
        "tiphys-agents": {("tiphys-database", "agents"), ("tiphys-nats", "agents")},
        "tiphys-launcher": {("tiphys-database", "launcher"), ("tiphys-signing", "launcher.key")},
        "tiphys-migrate": {("tiphys-database", "owner")},
        "tiphys-nats": {("tiphys-nats", "nats.conf")},
        "tiphys-test": set(),
    }


def test_the_models_key_is_the_agents_alone(render: Render) -> None:
    held = {name: secrets_of(spec) for name, spec in pods(render("full")).items()}
    holders = [name for name, keys in held.items() if ("tiphys-model", "api-key") in keys]
    assert holders == ["tiphys-agents"]


@pytest.mark.parametrize("mode", MODES)
def test_tokens_for_the_api_server_are_short_lived_and_only_where_needed(
    render: Render, mode: str
) -> None:
    for name, spec in pods(render(mode)).items():
        projected = [v["projected"] for v in spec.get("volumes", []) if "projected" in v]
        if name in {"tiphys-nats", "tiphys-migrate"}:
            assert (projected, spec["automountServiceAccountToken"]) == ([], False)
        elif name != "tiphys-test":
            assert spec["automountServiceAccountToken"] is False
            (source,) = projected
            assert source["sources"][0]["serviceAccountToken"]["expirationSeconds"] == 3600


def test_each_role_runs_as_itself(render: Render) -> None:
    specs = pods(render("split"))
    for role in ROLES:
        assert specs[f"tiphys-{role}"]["serviceAccountName"] == f"tiphys-{role}"
        (container,) = specs[f"tiphys-{role}"]["containers"]
        assert container["command"] == ["tiphys", "serve", "--role", role]
    (single,) = pods(render("single"))["tiphys"]["containers"]
    assert single["command"] == ["tiphys", "serve", "--role", "all"]
