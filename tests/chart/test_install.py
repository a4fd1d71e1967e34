"""docs/install.md word for word: installed, tested, upgraded, stopped and uninstalled for real.

Also in one pod. Each release has a name and namespaces of its own, so it meets no other on the same
cluster, and leaves nothing behind but what the page says.
"""

import base64
import json
import re
import secrets
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from charts import CHART, Helm
from postgres import ANYWHERE, ROLES, make_users
from walkthrough import Walk

from tiphys.workflow_templates.signature import create_key, public_hex
from tools.cluster.monitoring import postgresql
from tools.cluster.report import Trouble
from tools.cluster.target import Target

POSTS = Path(__file__).parents[1] / "data" / "alertmanager" / "webhook_posts.jsonl"
EXECUTOR = "docker.io/tiphys/argoexec:v4.0.2"
pytestmark = pytest.mark.timeout(1200)


@dataclass(frozen=True)
class Release:
    """One release, by a name that nobody else uses."""

    name: str
    cluster: Target
    helm: Helm

    @property
    def namespace(self) -> str:
        return f"{self.name}-system"

    def run(self, *argv: str, stdin: str = "") -> str:
        """Run helm on the test cluster; fails with helm's own words."""
        there = (f"--kubeconfig={self.cluster.kubeconfig}", "-n", self.namespace)
        done = self.helm(*argv, *there, stdin=stdin, seconds=600)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    def get(self, *argv: str) -> Any:
        return json.loads(self.cluster.kubectl("-n", self.namespace, "get", *argv, "-o", "json"))

    def own_names(self) -> dict[str, Any]:
        """Give the values that keep it apart from others on the same cluster."""
        return {
            "actionsNamespace": f"{self.name}-actions",
            "stopNamespace": f"{self.name}-stop",
            "steps": {"priorityClass": f"{self.name}-steps"},
        }


@contextmanager
def released(cluster: Target, helm: Helm) -> Iterator[Release]:
    """Give a name; whatever bears it is gone afterwards."""
    release = Release(f"chart-{secrets.token_hex(3)}", cluster, helm)
    try:
        yield release
    finally:
        there = (f"--kubeconfig={cluster.kubeconfig}", "-n", release.namespace)
        helm("uninstall", release.name, "--ignore-not-found", *there, seconds=300)
        names = [f"{release.name}-{end}" for end in ("system", "actions", "stop", "argo", "shop")]
        cluster.kubectl("delete", "namespace", "--ignore-not-found", "--wait=false", *names)
        sweep(cluster)


def sweep(cluster: Target) -> None:
    """Remove what earlier releases of ours keep, but for one.

    An API server that once had no such binding never looks at ConfigMaps again
    (kubernetes/kubernetes#130887), and the next stop would stop nothing.
    """
    kinds = "validatingadmissionpolicybindings", "validatingadmissionpolicies"
    for kind in kinds:
        listed = cluster.kubectl("get", kind, "-o", "name").split()
        kept = [name for name in listed if re.search("/chart-[0-9a-f]{6}-stop$", name)]
        living = cluster.kubectl("get", "namespaces", "-o", "name")
        gone = [n for n in kept if f"/{n.split('/')[1].removesuffix('-stop')}-system" not in living]
        if spare := sorted(gone)[1:]:
            cluster.kubectl("delete", "--ignore-not-found", *spare)


@dataclass(frozen=True)
class Reader:
    """Somebody who follows the page, and the release that comes of it."""

    walk: Walk
    release: Release


@pytest.fixture(scope="module")
def reader(
    cluster: Target, helm: Helm, helm_binary: str, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Reader]:
    """Follow docs/install.md up to its step 7."""
    folder = tmp_path_factory.mktemp("walk")
    with (
        postgresql(cluster.node_ip, folder / "postgres", allowed=ANYWHERE) as server,
        released(cluster, helm) as release,
    ):
        egress = {"to": [{"ipBlock": {"cidr": f"{server.host}/32"}}], "ports": [server.port]}
        own = {
            **release.own_names(),
            "nats": {"persistence": {"enabled": False}},
            "gateway": {"replicas": 1},
            "agents": {"replicas": 1},
            "networkPolicy": {"egress": {"database": egress}},
        }
        replaced = {
            r"PLACE=postgres.postgres.svc:5432": f"PLACE={server.address}",
            r"quay.io/argoproj/argoexec:v4.1.2": EXECUTOR,
            r"docker.io/library/busybox:1.37": cluster.images["test-base"],
            r"monitoring-prometheus\.monitoring\.svc": "192.0.2.1",
            r"alertmanager-monitoring-[a-z0-9.-]+\.svc": "192.0.2.1",
        }
        walk = Walk(release.name, cluster, helm_binary, folder / "reader", replaced, own)
        walk.run("Namespaces")
        walk.run("The signing key")
        walk.run("PostgreSQL")
        keys = folder / "reader" / "tiphys-keys"
        make_users(server, {role: (keys / role).read_text().strip() for role in ROLES})
        walk.run("Tiphys")
        yield Reader(walk, release)


@pytest.fixture(scope="module")
def single(
    cluster: Target, helm: Helm, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Release]:
    """Every role in one pod, whose disk is gone with it; the chart makes its own namespaces."""
    key = tmp_path_factory.mktemp("key") / "launcher.key"
    public = public_hex(create_key(key))
    with released(cluster, helm) as release:
        values = {
            **release.own_names(),
            "mode": "single",
            "single": {"persistence": {"enabled": False}},
            "images": {**{n: cluster.images[n] for n in ("service", "step")}, "executor": EXECUTOR},
            "signing": {"publicKey": public, "existingSecret": "tiphys-signing"},
        }
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        meta = {"name": "tiphys-signing", "namespace": release.namespace}
        cluster.apply(
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": release.namespace, "labels": labels},
            },
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": meta,
                "stringData": {"launcher.key": key.read_text()},
            },
        )
        argv = ("upgrade", "--install", release.name, str(CHART), "-f", "-", "--wait")
        release.run(*argv, "--timeout", "420s", stdin=json.dumps(values))
        yield release


def check(release: Release) -> None:
    """Let the chart test itself; its account must not outlive that."""
    told = release.run("test", release.name, "--timeout", "300s")
    assert told.count("Phase:          Succeeded") == 4
    listed = release.get("serviceaccounts,pods")["items"]
    assert "tiphys-test" not in {thing["metadata"]["name"] for thing in listed}


# --- the page, in its order -----------------------------------------------------------------------


def test_a_webhook_with_the_token_that_the_page_reads_is_taken(reader: Reader) -> None:
    reader.walk.run("Alertmanager")
    token = (reader.walk.folder / "tiphys-keys" / "webhook").read_text()
    kept = reader.release.get("secret", "tiphys-tokens")["data"]["webhook"]
    assert base64.b64decode(kept).decode() == token
    assert post(reader.release, token) == "200"
    assert post(reader.release, "x" * len(token)) == "401"


def post(release: Release, token: str) -> str:
    """Post alerts from the gateway's own pod, by the Service's name; gives the status."""
    program = (
        "import os, sys, urllib.error, urllib.request as r\n"
        "url = 'http://tiphys-gateway:8080/webhooks/alertmanager'\n"
        f"q = r.Request(url, sys.stdin.buffer.read(), {{'Authorization': 'Bearer {token}'}})\n"
        "try: print(r.urlopen(q, timeout=10).status)\n"
        "except urllib.error.HTTPError as e: print(e.code)\n"
    )
    argv = ("-n", release.namespace, "exec", "-i", "deployment/tiphys-gateway", "--")
    body = POSTS.read_text().splitlines()[0]
    return release.cluster.kubectl(*argv, "python", "-c", program, stdin=body).strip()


def test_incidents_can_be_listed_and_a_workload_can_break(reader: Reader) -> None:
    assert "incident" in reader.walk.run("The first suggestion")


def test_a_policy_is_checked_and_installed_and_every_password_stays(reader: Reader) -> None:
    def kept() -> dict[str, Any]:
        items = reader.release.get("secrets")["items"]
        names = {"tiphys-tokens", "tiphys-nats"}
        return {s["metadata"]["name"]: s["data"] for s in items if s["metadata"]["name"] in names}

    before = kept()
    assert set(before) == {"tiphys-tokens", "tiphys-nats"}
    assert "good" in reader.walk.run("Let it act")
    assert kept() == before


def test_the_stop_is_engaged_by_the_service_and_released_by_a_person(reader: Reader) -> None:
    told = reader.walk.run("Stop everything")
    assert re.search(r"configmap \"?stop-\S+ deleted", told)
    stops = reader.release.cluster.kubectl(
        "-n",
        f"{reader.release.name}-stop",
        "get",
        "configmaps",
        "-l",
        "tiphys.io/stop",
        "-o",
        "name",
    )
    assert stops == ""


def test_what_an_installation_decides_reaches_published_templates(reader: Reader) -> None:
    release = reader.release
    argv = (
        "upgrade",
        release.name,
        str(CHART),
        "--reset-then-reuse-values",
        "--wait",
        "--timeout",
        "420s",
    )
    release.run(*argv, "--set", "prometheus.url=http://192.0.2.2:9090")
    there = ("-n", f"{release.name}-actions", "get", "workflowtemplate", "restart-pod-v1")
    assert "http://192.0.2.2:9090" in release.cluster.kubectl(*there, "-o", "yaml")
    check(release)


def test_templates_with_a_lost_releases_key_are_mended_as_the_page_says(reader: Reader) -> None:
    release = reader.release
    there = ("-n", f"{release.name}-actions", "get", "workflowtemplate", "restart-pod-v1")
    ours = (reader.walk.folder / "tiphys-keys" / "launcher.pub").read_text()
    theirs = "0" * len(ours)
    template = release.cluster.kubectl(*there, "-o", "json")
    assert ours in template
    release.cluster.kubectl("replace", "-f", "-", stdin=template.replace(ours, theirs))
    argv = ("upgrade", release.name, str(CHART), "--reset-then-reuse-values", "--wait")
    release.run(*argv, "--timeout", "420s")
    assert theirs in release.cluster.kubectl(*there, "-o", "json"), "helm mends it by itself"
    assert ours in reader.walk.run("Upgrade")
    template = release.cluster.kubectl(*there, "-o", "json")
    assert ours in template
    assert theirs not in template


def test_the_test_fails_when_the_boundary_is_gone(reader: Reader) -> None:
    release = reader.release
    binding = f"validatingadmissionpolicybinding/{release.name}-pods"
    saved = json.loads(release.cluster.kubectl("get", binding, "-o", "json"))
    release.cluster.kubectl("delete", binding)
    try:
        there = (f"--kubeconfig={release.cluster.kubeconfig}", "-n", release.namespace)
        done = release.helm("test", release.name, "--timeout", "300s", *there, seconds=400)
        assert done.returncode != 0
        assert "would be accepted" in done.stdout + done.stderr
    finally:
        fields = ("resourceVersion", "uid", "creationTimestamp", "managedFields", "generation")
        meta = {k: v for k, v in saved["metadata"].items() if k not in fields}
        release.cluster.apply({**saved, "metadata": meta})


def test_an_uninstall_leaves_what_the_page_says(reader: Reader) -> None:
    manifest = everything(reader.release)
    reader.walk.run("Uninstall")
    # The namespaces are the reader's, and stay.
    reader.release.cluster.kubectl("get", "namespace", f"{reader.release.name}-actions")
    nothing_left(reader.release, manifest, {"tiphys-database", "tiphys-signing"})


def test_in_one_pod_it_is_ready_and_the_boundary_stands(single: Release) -> None:
    check(single)


def test_in_one_pod_the_stop_can_be_engaged(single: Release) -> None:
    argv = ("-n", single.namespace, "exec", "statefulset/tiphys", "--", "tiphys", "stop")
    assert "stopped" in single.cluster.kubectl(*argv, "--by", "a test")
    stops = ("-n", f"{single.name}-stop", "delete", "configmaps", "-l", "tiphys.io/stop=true")
    assert "stop-" in single.cluster.kubectl(*stops)


def test_in_one_pod_an_uninstall_takes_the_namespaces_that_the_chart_made(single: Release) -> None:
    manifest = everything(single)
    single.run("uninstall", single.name, "--wait", "--timeout", "300s")
    names = [f"{single.name}-{end}" for end in ("actions", "stop")]
    for name in names:
        single.cluster.kubectl(
            "wait", "--for=delete", "--timeout=120s", f"namespace/{name}", seconds=150
        )
        with pytest.raises(Trouble, match="NotFound"):
            single.cluster.kubectl("get", "namespace", name)
    nothing_left(single, manifest, {"tiphys-signing"})


def everything(release: Release) -> str:
    return release.run("get", "manifest", release.name) + release.run("get", "hooks", release.name)


def nothing_left(release: Release, manifest: str, secrets_kept: set[str]) -> None:
    """Look for every object of the release, and for all that is in its namespace."""
    # Helm waits for a Deployment to go, not for its pods to have ended.
    gone = ("wait", "--for=delete", "pods", "-l", f"app.kubernetes.io/instance={release.name}")
    release.cluster.kubectl("-n", release.namespace, *gone, "--timeout=120s", seconds=150)
    argv = ("get", "-f", "-", "--ignore-not-found", "-o", "name")
    # The stop's policy stays on purpose: docs/boundary.md.
    kind = "validatingadmissionpolicy{}.admissionregistration.k8s.io"
    kept = {f"{kind.format(end)}/{release.name}-stop" for end in ("", "binding")}
    assert {*release.cluster.kubectl(*argv, stdin=manifest).split()} == kept
    kinds = "all,configmaps,secrets,serviceaccounts,roles,rolebindings,networkpolicies,pvc,pdb"
    left = release.cluster.kubectl("-n", release.namespace, "get", kinds, "-o", "name").split()
    ordinary = {"configmap/kube-root-ca.crt", "serviceaccount/default"}
    assert {*left} == ordinary | {f"secret/{name}" for name in secrets_kept}
