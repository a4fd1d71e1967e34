"""The chart lints, renders in every mode, and gives what the code renders."""

import re
from typing import Any

import pytest
from charts import CHART, MODES, Helm, Render, as_values, one, pods, values
from walkthrough import PAGE, sections

from tiphys.service.settings import Settings
from tiphys.workflow_templates.boundary import BoundarySettings, boundary
from tiphys.workflow_templates.render import RenderSettings, manifests, role_bindings

KEY = "ab" * 32
CLUSTER_WIDE = {
    "ClusterRole", "ClusterRoleBinding", "Namespace", "PriorityClass", "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
}  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_it_lints(helm: Helm, mode: str) -> None:
    done = helm("lint", "--strict", str(CHART), "-n", "tiphys-system", *values(mode))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("mode", MODES)
def test_every_object_is_ours_named_once_and_placed(render: Render, mode: str) -> None:
    objects = render(mode)
    names = [
        (thing["kind"], thing["metadata"].get("namespace"), thing["metadata"]["name"])
        for thing in objects
    ]
    assert len(names) == len({*names})
    for thing in objects:
        meta = thing["metadata"]
        assert (thing["kind"] in CLUSTER_WIDE) == ("namespace" not in meta), meta["name"]
        kept = meta.get("annotations", {}).get("helm.sh/resource-policy") == "keep"
        assert kept or meta["labels"]["app.kubernetes.io/part-of"] == "tiphys", meta["name"]


@pytest.mark.parametrize("mode", MODES)
def test_no_placeholder_is_left(helm: Helm, mode: str) -> None:
    done = helm("template", "tiphys", str(CHART), "-n", "tiphys-system", *values(mode))
    assert done.returncode == 0, done.stderr
    assert re.findall("@@.*", done.stdout) == []


def test_what_argo_substitutes_is_left_to_argo(render: Render) -> None:
    template = str(one(render("split"), "WorkflowTemplate", "restart-pod-v1"))
    for name in ("plan", "notAfter", "signature", "target"):
        assert f"{{{{workflow.parameters.{name}}}}}" in template


def bare(manifest: Any) -> Any:
    """Leave out what the chart adds to a rendered object."""
    labels = {
        key: value
        for key, value in manifest["metadata"].get("labels", {}).items()
        if key != "app.kubernetes.io/part-of"
    }
    found = {**manifest, "metadata": {**manifest["metadata"], "labels": labels}}
    found.pop("imagePullSecrets", None)
    return found


def found_in(objects: Any, wanted: Any) -> Any:
    kind, meta = wanted["kind"], wanted["metadata"]
    return bare(one(objects, kind, meta["name"], meta.get("namespace")))


@pytest.mark.parametrize("url", ["", "http://prometheus.monitoring.svc:9090"])
def test_actions_are_as_the_code_renders_them(render: Render, url: str) -> None:
    objects = render(
        "split", {"prometheus.url": url, "images.step": "step.example/a@sha256:" + "0" * 64}
    )
    settings = RenderSettings(
        image="step.example/a@sha256:" + "0" * 64,
        public_key=KEY,
        prometheus_url=url,
        priority_class="tiphys-steps",
    )
    for wanted in [*manifests(settings), *role_bindings(settings, "shop")]:
        given = found_in(objects, wanted)
        if not url:  # an empty variable is as good as none
            given = without(given, {"name": "TIPHYS_PROMETHEUS_URL", "value": ""})
        assert given == bare(wanted)


def without(value: Any, item: Any) -> Any:
    if isinstance(value, dict):
        return {key: without(inner, item) for key, inner in value.items()}
    if isinstance(value, list):
        return [without(inner, item) for inner in value if inner != item]
    return value


def test_the_boundary_is_as_the_code_renders_it(render: Render) -> None:
    changes = {
        "boundary.publisherUsers": ["system:serviceaccount:flux:kustomize", "jane@example.com"],
        "actionsNamespace": "x-actions",
        "stopNamespace": "x-stop",
        "argo": {"namespace": "x-argo", "serviceAccount": "controller"},
        "images.executor": "quay.io/argoproj/argoexec:v9",
    }
    settings = BoundarySettings(
        images=("docker.io/tiphys/step:0.1.0", "quay.io/argoproj/argoexec:v9"),
        publisher_users=("system:serviceaccount:flux:kustomize", "jane@example.com"),
        actions_namespace="x-actions",
        stop_namespace="x-stop",
        argo_namespace="x-argo",
        controller="system:serviceaccount:x-argo:controller",
    )
    objects = render("split", changes)
    wanted = boundary(settings)
    assert [found_in(objects, policy) for policy in wanted] == [bare(policy) for policy in wanted]


def test_in_one_process_there_is_one_identity_and_the_boundary_knows_it(render: Render) -> None:
    objects = render("single")
    launcher = "system:serviceaccount:tiphys-system:tiphys-launcher"
    settings = BoundarySettings(
        images=("docker.io/tiphys/step:0.1.0", "quay.io/argoproj/argoexec:v4.1.2"),
        launcher=launcher,
        gateway=launcher,
        agents=launcher,
    )
    for policy in boundary(settings):
        assert found_in(objects, policy) == bare(policy)
    ours = [thing for thing in objects if thing["kind"] == "ServiceAccount"]
    named = {a["metadata"]["name"] for a in ours if a["metadata"]["namespace"] == "tiphys-system"}
    assert named == {"tiphys-launcher", "tiphys-test"}


def test_tolerations_and_priority_of_steps_are_the_values(render: Render) -> None:
    only = {"key": "gpu", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}
    changes = {"steps": {"tolerations": [only], "priorityClass": "", "createPriorityClass": False}}
    objects = render("split", changes)
    spec = one(objects, "WorkflowTemplate", "rollout-undo-v1")["spec"]
    assert (spec["tolerations"], spec["podPriorityClassName"]) == ([only], "")
    assert not [thing for thing in objects if thing["kind"] == "PriorityClass"]


@pytest.mark.parametrize(
    ("mode", "change", "said"),
    [
        ("split", {"signing.publicKey": ""}, "signing.publicKey is required"),
        ("split", {"signing.existingSecret": ""}, "signing.existingSecret is required"),
        ("single", {"signing.existingSecret": ""}, "signing.existingSecret is required"),
        ("split", {"database.existingSecret": ""}, "database.existingSecret is required"),
        ("split", {"nats.embedded": False}, "nats.existingSecret is required"),
    ],
)
def test_what_is_needed_is_asked_for(
    helm: Helm, mode: str, change: dict[str, Any], said: str
) -> None:
    argv = ("template", "tiphys", str(CHART), *values(mode, change))
    done = helm(*argv, stdin=as_values(change))
    assert done.returncode != 0
    assert said in done.stderr


def test_namespaces_are_created_only_when_told_and_a_users_stay(render: Render) -> None:
    def namespaces(changes: dict[str, Any]) -> dict[str, Any]:
        objects = render("split", changes)
        return {n["metadata"]["name"]: n for n in objects if n["kind"] == "Namespace"}

    assert set(namespaces({})) == {"tiphys-actions", "tiphys-stop"}
    assert namespaces({"createOwnNamespaces": False}) == {}
    made = namespaces({"namespaces": ["shop"], "createNamespaces": True})
    assert made["shop"]["metadata"]["labels"]["tiphys.io/heal"] == "enabled"
    assert made["shop"]["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    level = "pod-security.kubernetes.io/enforce"
    assert made["tiphys-actions"]["metadata"]["labels"][level] == "restricted"


def test_a_changed_setting_starts_new_pods(render: Render) -> None:
    def digest(changes: dict[str, Any]) -> str:
        found = one(render("split", changes), "Deployment", "tiphys-agents")
        return found["spec"]["template"]["metadata"]["annotations"]["checksum/settings"]

    assert len({digest({}), digest({"cluster": "other"}), digest({"policy": "a: 1"})}) == 3


def test_tokens_are_made_where_none_are_given(render: Render) -> None:
    made = one(render("split"), "Secret", "tiphys-tokens")["data"]
    assert made["webhook"] != made["api"]
    assert all(len(token) >= 40 for token in made.values())
    secrets = [thing for thing in render("full") if thing["kind"] == "Secret"]
    assert secrets == []


@pytest.mark.parametrize("mode", MODES)
def test_every_pod_of_ours_says_what_it_needs(render: Render, mode: str) -> None:
    for name, spec in pods(render(mode)).items():
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}, name
            assert "memory" in container["resources"]["limits"], name


def test_every_setting_that_the_chart_writes_is_one_of_the_service(render: Render) -> None:
    known = {f"TIPHYS_{name.upper()}" for name in Settings.model_fields}
    tuned = {"pollInterval": 1, "leaseSeconds": 10, "reconcileInterval": 30, "modelTimeout": 9}
    tuned |= {"investigationSeconds": 30, "notAfterSeconds": 300, "prometheusTimeout": 2}
    tuned |= {"tellerLabels": "prometheus", "investigationCalls": 99}
    tuned |= {
        "investigationLogBytes": 2_097_152,
        "modelCallsPerHour": 9,
        "modelMoneyPerDay": 2.5,
        "modelAlone": True,
    }
    for mode in MODES:
        objects = render(mode, {"tuning": tuned})
        written = {*one(objects, "ConfigMap", "tiphys-settings")["data"]}
        assert len([name for name in written if name in known]) >= 8 + len(tuned)
        settings = one(objects, "ConfigMap", "tiphys-settings")["data"]
        assert settings["TIPHYS_INVESTIGATION_LOG_BYTES"] == "2097152"
        for name, spec in pods(objects).items():
            for container in spec["containers"]:
                names = {v["name"] for v in container.get("env", [])}
                if name != "tiphys-test":
                    written |= {v for v in names if v.startswith("TIPHYS_")}
        # The last two only make pods start anew.
        assert written - known <= {"TIPHYS_POLICY_SHA256", "TIPHYS_PLAYBOOKS_SHA256"}


def test_people_chat_and_events_are_the_gateways_alone(render: Render) -> None:
    """Their secrets are read from Secrets, and no other role is given them."""
    spoken = {"TIPHYS_PEOPLE", "TIPHYS_SLACK", "TIPHYS_EVENTS"}
    for name, spec in pods(render("full")).items():
        container = spec["containers"][0]
        given = {
            v["name"]: v
            for v in container.get("env", [])
            if any(v["name"].startswith(begin) for begin in spoken)
        }
        mounted = {m["name"] for m in container.get("volumeMounts", []) if m["name"] == "people"}
        if name != "tiphys-gateway":
            assert (given, mounted) == ({}, set()), name
            continue
        secret = {n for n, v in given.items() if "valueFrom" in v}
        assert secret == {
            "TIPHYS_PEOPLE_PROXY_SECRET",
            "TIPHYS_SLACK_BOT_TOKEN",
            "TIPHYS_SLACK_APP_TOKEN",
            "TIPHYS_SLACK_SIGNING_SECRET",
            "TIPHYS_EVENTS_SECRET",
        }
        assert given["TIPHYS_EVENTS_TYPES"]["value"] == "run_ended,target_frozen"
        assert given["TIPHYS_EVENTS_BATCH"]["value"] == "50"
        [volume] = [v for v in spec["volumes"] if v["name"] == "people"]
        assert volume["secret"]["secretName"] == "tiphys-people"
        assert given["TIPHYS_PEOPLE"]["value"].startswith("/etc/tiphys/people/")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"slack": {"channel": "C012"}, "people": {"existingSecret": "p"}}, "slack.existingSecret"),
        ({"slack": {"channel": "C012", "existingSecret": "s"}}, "people.existingSecret"),
        ({"people": {"existingSecret": "p", "header": "X-User"}}, "need each other"),
        ({"people": {"header": "X-User", "proxies": ["10.0.0.1"]}}, "people.existingSecret"),
        ({"events": {"url": "https://events.example"}}, "events.existingSecret"),
    ],
)
def test_what_people_chat_and_events_lack_is_said(
    helm: Helm, changes: dict[str, Any], words: str
) -> None:
    argv = ["template", "tiphys", str(CHART), *values("split", changes)]
    done = helm(*argv, stdin=as_values(changes))
    assert done.returncode != 0
    assert words in done.stderr


def test_the_page_deletes_every_template_that_the_chart_makes_again(render: Render) -> None:
    upgrade = "\n".join(sections(PAGE.read_text())["Upgrade"])
    place, key, value = re.findall(
        r"-n (\S+) delete workflowtemplates -l ([^=\s]+)=(\S+)\nhelm upgrade ", upgrade
    )[0]
    made = [t["metadata"] for t in render("split") if t["kind"] == "WorkflowTemplate"]
    assert made
    assert {(meta["namespace"], meta["labels"][key]) for meta in made} == {(place, value)}
