"""Installed for real, tested, upgraded and uninstalled, in both modes, with nothing left behind.

The release has a name and namespaces of its own, so it meets no other on the same cluster.
"""

import base64
import json
import re
import secrets
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from charts import CHART, Helm
from postgres import postgres

from tiphys.workflow_templates.signature import create_key, public_hex
from tools.cluster.target import Target

POSTS = Path(__file__).parents[1] / "data" / "alertmanager" / "webhook_posts.jsonl"
WAIT = "420s"
"""Two cores, and other tests beside."""


@dataclass
class Release:
    """One release, and what its user prepared for it."""

    name: str
    cluster: Target
    helm: Helm
    values: dict[str, Any]

    @property
    def namespace(self) -> str:
        return f"{self.name}-system"

    def run(self, *argv: str) -> str:
        """Run helm on the test cluster; fails with helm's own words."""
        there = (f"--kubeconfig={self.cluster.kubeconfig}", "-n", self.namespace)
        done = self.helm(*argv, *there, stdin=json.dumps(self.values), seconds=600)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    def upgrade(self, changes: Mapping[str, Any]) -> None:
        """Install, or upgrade, and wait until every pod is ready."""
        self.values |= changes
        argv = ("upgrade", "--install", self.name, str(CHART), "-f", "-", "--wait")
        self.run(*argv, "--timeout", WAIT)

    def get(self, *argv: str) -> Any:
        return json.loads(self.cluster.kubectl("-n", self.namespace, "get", *argv, "-o", "json"))


def secret(name: str, namespace: str, data: Mapping[str, str]) -> dict[str, Any]:
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": dict(data)}


@pytest.fixture(scope="module")
def install(
    cluster: Target, helm: Helm, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Callable[[dict[str, Any], Mapping[str, str]], Release]]:
    """`install(values, database URLs)` prepares a namespace as docs/install.md says, installs."""
    made: list[Release] = []

    def new(values: dict[str, Any], urls: Mapping[str, str]) -> Release:
        name = f"chart-{secrets.token_hex(3)}"
        key = tmp_path_factory.mktemp("key") / "launcher.key"
        public = public_hex(create_key(key))
        own = {
            "actionsNamespace": f"{name}-actions",
            "stopNamespace": f"{name}-stop",
            "steps": {"priorityClass": f"{name}-steps"},
            "images": {
                "service": cluster.images["service"],
                "step": cluster.images["step"],
                "executor": "docker.io/tiphys/argoexec:v4.0.2",
            },
            "signing": {"publicKey": public, "existingSecret": "tiphys-signing"},
        }
        release = Release(name, cluster, helm, {**own, **values})
        made.append(release)
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        cluster.apply(
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": release.namespace, "labels": labels},
            },
            secret("tiphys-signing", release.namespace, {"launcher.key": key.read_text()}),
            secret("tiphys-database", release.namespace, urls),
        )
        release.upgrade({})
        return release

    try:
        yield new
    finally:
        for release in made:
            there = (f"--kubeconfig={cluster.kubeconfig}", "-n", release.namespace)
            helm("uninstall", release.name, "--ignore-not-found", *there, seconds=300)
            cluster.kubectl("delete", "namespace", release.namespace, "--wait=false")
        if made:
            sweep(cluster, made[-1].name)


def sweep(cluster: Target, last: str) -> None:
    """Remove what uninstalled releases of ours keep, the last one's left out.

    An API server that once had no such binding never looks at ConfigMaps again
    (kubernetes/kubernetes#130887), and the next stop would stop nothing.
    """
    kinds = "validatingadmissionpolicybindings,validatingadmissionpolicies"
    for name in cluster.kubectl("get", kinds, "-o", "name").split():
        if re.search("/chart-[0-9a-f]{6}-stop$", name) and f"/{last}-" not in name:
            cluster.kubectl("delete", "--ignore-not-found", name)


@pytest.fixture(scope="module")
def split(cluster: Target, install: Any) -> Generator[Release]:
    """gateway, agents and launcher, each with a database user of its own, and a broker."""
    with postgres(cluster.node_ip) as server:
        port = int(server.urls["owner"].rpartition(":")[2].partition("/")[0])
        egress = {"database": {"to": [{"ipBlock": {"cidr": f"{cluster.node_ip}/32"}}]}}
        egress["database"]["ports"] = [port]
        yield install(
            {
                "database": {"existingSecret": "tiphys-database"},
                "nats": {"persistence": {"enabled": False}},
                "networkPolicy": {"egress": egress},
                **{role: {"replicas": 1} for role in ("gateway", "agents")},
                "launcher": {"replicas": 2},
            },
            server.urls,
        )


@pytest.fixture(scope="module")
def single(install: Any) -> Release:
    """Every role in one pod, whose disk is gone with it."""
    values = {"mode": "single", "single": {"persistence": {"enabled": False}}}
    return install(values, {})


def check(release: Release) -> None:
    """Let the chart test itself; its account must not outlive that."""
    told = release.run("test", release.name, "--timeout", "300s")
    assert told.count("Phase:          Succeeded") == 4
    listed = release.get("serviceaccounts,pods")["items"]
    assert "tiphys-test" not in {thing["metadata"]["name"] for thing in listed}


@pytest.mark.timeout(900)
def test_split_it_is_ready_and_the_boundary_stands(split: Release) -> None:
    check(split)


@pytest.mark.timeout(900)
def test_an_upgrade_keeps_the_tokens_and_every_password(split: Release) -> None:
    def kept() -> dict[str, Any]:
        items = split.get("secrets")["items"]
        names = {"tiphys-tokens", "tiphys-nats"}
        return {s["metadata"]["name"]: s["data"] for s in items if s["metadata"]["name"] in names}

    before = kept()
    assert set(before) == {"tiphys-tokens", "tiphys-nats"}
    # What an installation decides about its templates reaches them, though they are published.
    split.upgrade({"cluster": "renamed", "prometheus": {"url": "http://192.0.2.1:9090"}})
    assert kept() == before
    template = split.cluster.kubectl(
        "-n", f"{split.name}-actions", "get", "workflowtemplate", "restart-pod-v1", "-o", "yaml"
    )
    assert "http://192.0.2.1:9090" in template
    check(split)


def test_the_test_fails_when_the_boundary_is_gone(split: Release) -> None:
    binding = f"validatingadmissionpolicybinding/{split.name}-pods"
    saved = json.loads(split.cluster.kubectl("get", binding, "-o", "json"))
    split.cluster.kubectl("delete", binding)
    try:
        there = (f"--kubeconfig={split.cluster.kubeconfig}", "-n", split.namespace)
        done = split.helm("test", split.name, "--timeout", "300s", *there, seconds=400)
        assert done.returncode != 0
        assert "would be accepted" in done.stdout + done.stderr
    finally:
        fields = ("resourceVersion", "uid", "creationTimestamp", "managedFields", "generation")
        meta = {k: v for k, v in saved["metadata"].items() if k not in fields}
        split.cluster.apply({**saved, "metadata": meta})


def test_a_webhook_with_the_generated_token_is_taken_and_acknowledged(split: Release) -> None:
    found = split.get("secret", "tiphys-tokens")["data"]["webhook"]
    token = base64.b64decode(found).decode()
    assert post(split, token) == "200"
    assert post(split, "x" * len(token)) == "401"


def post(release: Release, token: str) -> str:
    """Post one alert from the gateway's own pod, by the Service's name; gives the status."""
    body = POSTS.read_text().splitlines()[0]
    program = (
        "import os, sys, urllib.error, urllib.request as r\n"
        "url = 'http://tiphys-gateway:8080/webhooks/alertmanager'\n"
        f"q = r.Request(url, sys.stdin.buffer.read(), {{'Authorization': 'Bearer {token}'}})\n"
        "try: print(r.urlopen(q, timeout=10).status)\n"
        "except urllib.error.HTTPError as e: print(e.code)\n"
    )
    argv = ("-n", release.namespace, "exec", "-i", "deployment/tiphys-gateway", "--")
    return release.cluster.kubectl(*argv, "python", "-c", program, stdin=body).strip()


@pytest.mark.timeout(900)
def test_an_uninstall_leaves_nothing_of_ours(split: Release) -> None:
    leaves_nothing(split)


@pytest.mark.timeout(900)
def test_in_one_pod_it_is_ready_and_the_boundary_stands(single: Release) -> None:
    check(single)


@pytest.mark.timeout(900)
def test_in_one_pod_an_uninstall_leaves_nothing_of_ours(single: Release) -> None:
    leaves_nothing(single)


def leaves_nothing(release: Release) -> None:
    manifest = release.run("get", "manifest", release.name) + release.run(
        "get", "hooks", release.name
    )
    release.run("uninstall", release.name, "--wait", "--timeout", "300s")
    argv = ("get", "-f", "-", "--ignore-not-found", "-o", "name")
    gone = ("wait", "--for=delete", "--timeout=120s", "namespace")
    release.cluster.kubectl(*gone, f"{release.name}-actions", f"{release.name}-stop", seconds=150)
    # The stop's policy stays on purpose: docs/boundary.md.
    kind = "validatingadmissionpolicy{}.admissionregistration.k8s.io"
    kept = {f"{kind.format(end)}/{release.name}-stop" for end in ("", "binding")}
    assert {*release.cluster.kubectl(*argv, stdin=manifest).split()} == kept
    # What the user made stays, with what Kubernetes puts into every namespace.
    kinds = "all,configmaps,secrets,serviceaccounts,roles,rolebindings,networkpolicies,pvc,pdb"
    left = release.cluster.kubectl("-n", release.namespace, "get", kinds, "-o", "name").split()
    assert {*left} == {
        "configmap/kube-root-ca.crt",
        "secret/tiphys-database",
        "secret/tiphys-signing",
        "serviceaccount/default",
    }
