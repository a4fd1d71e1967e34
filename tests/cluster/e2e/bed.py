"""Everything around the workloads: rules, scraping, alerting, the database and the installed chart.

Invariant: whatever is started here ends with the context, in the reverse order, also on failure.
"""

import base64
import contextlib
import json
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import monitoring_config
from kubectl import Kubectl, wait
from people import COMMAND, Human, Tiphys, human
from postgres import postgres

from tools.cluster import monitoring
from tools.cluster.monitoring import Served
from tools.cluster.target import Target

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
CHART = ROOT / "helm" / "tiphys"
SYSTEM = "tiphys-system"
RELEASE = "tiphys"
QUEUES = ("e2e-overload", "e2e-ineffective", "e2e-undone")
"""Namespaces whose front tells Prometheus how many requests wait."""
EXECUTOR = "docker.io/tiphys/argoexec:v4.0.2"


@dataclass(frozen=True)
class Bed:
    """What the tests talk to."""

    kubectl: Kubectl
    tiphys: Tiphys
    human: Human
    prometheus: str
    """Base URL."""
    alertmanager: str
    """Base URL."""
    database: str
    """The owner's URL."""
    image: str
    """For workloads: Debian with Python."""

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Ask Prometheus."""
        asked = urllib.parse.urlencode({"query": expression})
        return _json(f"{self.prometheus}/api/v1/query?{asked}")["data"]["result"]

    def alerts(self) -> list[dict[str, Any]]:
        """List what Alertmanager knows."""
        return _json(f"{self.alertmanager}/api/v2/alerts")

    def alert(self, alertname: str, **labels: str) -> dict[str, Any] | None:
        """Find one alert at Alertmanager."""
        wanted = {"alertname": alertname, **labels}
        return next((a for a in self.alerts() if wanted.items() <= a["labels"].items()), None)


def _json(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


@contextlib.contextmanager
def made(
    target: Target, folder: Path, namespaces: Sequence[str], settled: Callable[[], None]
) -> Iterator[Bed]:
    """Start and install everything for these namespaces, which must exist and have opted in.

    `settled` returns when nothing starts any more that could be called broken: until then nobody
    hears of an alert.
    """
    kubectl, host = Kubectl(target.bin["kubectl"], target.kubeconfig), target.node_ip
    port = monitoring.free_port(host)
    with contextlib.ExitStack() as stack:
        urls = stack.enter_context(postgres(host)).urls
        somebody = stack.enter_context(human(host))
        prometheus = _prometheus(stack, target, kubectl, folder, f"{host}:{port}")
        _namespaces(kubectl)
        values = {
            **_values(target, _secrets(kubectl, urls, folder), namespaces),
            "prometheus": {"url": prometheus.url},
            "alertmanager": {"urls": [f"http://{host}:{port}"]},
            "networkPolicy": {
                "egress": {
                    "prometheus": {"ports": [prometheus.port]},
                    "alertmanager": {"ports": [port]},
                    "database": {"ports": [urllib.parse.urlsplit(urls["owner"]).port]},
                }
            },
        }
        _clear(target, kubectl, folder)
        stack.callback(_clear, target, kubectl, folder)
        _install(target, values, folder)
        tiphys, token = _gateway(kubectl)
        settled()
        home = _folder(folder, "alertmanager")
        config = monitoring_config.alertmanager(tiphys.url, token, somebody.url)
        (home / "alertmanager.yml").write_text(config)
        served = stack.enter_context(monitoring.alertmanager(host, home, port=port))
        yield Bed(
            kubectl=kubectl,
            tiphys=tiphys,
            human=somebody,
            prometheus=prometheus.url,
            alertmanager=served.url,
            database=urls["owner"],
            image=target.images["test-base"],
        )


def _folder(parent: Path, name: str) -> Path:
    made = parent / name
    made.mkdir()
    return made


def _prometheus(
    stack: contextlib.ExitStack, target: Target, kubectl: Kubectl, folder: Path, alertmanager: str
) -> Served:
    """Start kube-state-metrics and Prometheus."""
    objects = stack.enter_context(
        monitoring.kube_state_metrics(target, _folder(folder, "kube-state-metrics"))
    )
    nodes = json.loads(kubectl("get", "nodes", "-o", "json"))["items"]
    addresses = monitoring_config.Addresses(
        kube_state_metrics=objects.address,
        alertmanager=alertmanager,
        nodes=[node["metadata"]["name"] for node in nodes],
        services=[(namespace, "queue:8080") for namespace in QUEUES],
    )
    home = _folder(folder, "prometheus")
    api = monitoring_config.Api.of(target.kubeconfig, home)
    (home / "prometheus.yml").write_text(monitoring_config.prometheus(api, addresses, home))
    port = monitoring.free_port(target.node_ip)
    # The links in its alerts lead back to it.
    link = f"--web.external-url=http://{target.node_ip}:{port}/"
    return stack.enter_context(monitoring.prometheus(target.node_ip, home, link, port=port))


def _namespaces(kubectl: Kubectl) -> None:
    """Make the three that are ours; the test bed has those where Argo works already."""
    for name in (SYSTEM, "tiphys-actions", "tiphys-stop"):
        wanted = _thing("Namespace", name)
        wanted["metadata"]["labels"] = {"pod-security.kubernetes.io/enforce": "restricted"}
        kubectl.apply(json.dumps(wanted))


def _secrets(kubectl: Kubectl, urls: Mapping[str, str], folder: Path) -> str:
    """Make the two Secrets that the chart asks for, as a user would; give the public key."""
    key = folder / "launcher.key"
    keygen = [str(COMMAND), "keygen", str(key)]
    done = subprocess.run(keygen, capture_output=True, text=True, check=True, timeout=60)
    for name, data in (
        ("tiphys-signing", {"launcher.key": key.read_text()}),
        ("tiphys-database", dict(urls)),
    ):
        secret = {**_thing("Secret", name), "stringData": data}
        kubectl.apply(json.dumps(secret), SYSTEM)
    return done.stdout.strip().splitlines()[-1]


def _thing(kind: str, name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}}


def _values(target: Target, public_key: str, namespaces: Sequence[str]) -> dict[str, Any]:
    """Give what an installation decides; two replicas of each role are the chart's default."""
    images = {name: target.images[name] for name in ("service", "step")}
    return {
        "images": {**images, "executor": EXECUTOR},
        "policy": (HERE / "policy.yaml").read_text(),
        "playbooks": {path.name: path.read_text() for path in (HERE / "playbooks").iterdir()},
        "namespaces": list(namespaces),
        "createOwnNamespaces": False,
        "signing": {"publicKey": public_key, "existingSecret": "tiphys-signing"},
        "database": {"existingSecret": "tiphys-database"},
        # The test cluster has no storage class.
        "nats": {"persistence": {"enabled": False}},
    }


def _install(target: Target, values: Mapping[str, Any], folder: Path) -> None:
    """Install with helm and wait until every pod is ready."""
    file = folder / "values.json"
    file.write_text(json.dumps(values))
    words = ["upgrade", "--install", RELEASE, str(CHART), "-f", str(file)]
    _helm(target, folder, *words, "--wait", "--timeout=600s")


def _clear(target: Target, kubectl: Kubectl, folder: Path) -> None:
    """Remove the release, and what a run that was killed has left of it."""
    _helm(target, folder, "uninstall", RELEASE, "--ignore-not-found", "--wait")
    # helm would adopt templates without changing them, old public key and all.
    for kind in ("workflows", "workflowtemplates"):
        kubectl("delete", f"{kind}.argoproj.io", "--all", "-n", "tiphys-actions", seconds=120)


def _helm(target: Target, folder: Path, *words: str) -> None:
    argv = [target.bin["helm"], f"--kubeconfig={target.kubeconfig}", "-n", SYSTEM, *words]
    home = {"HOME": str(folder), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(argv, env=home, capture_output=True, text=True, check=False, timeout=1300)
    assert done.returncode == 0, f"helm {words[0]}: {done.stderr[-3000:]}"


def _gateway(kubectl: Kubectl) -> tuple[Tiphys, str]:
    """Find the installed gateway and its tokens."""
    address = kubectl.get("service", "tiphys-gateway", SYSTEM)["spec"]["clusterIP"]
    held = kubectl.get("secret", "tiphys-tokens", SYSTEM)["data"]
    tokens = {name: base64.b64decode(value).decode() for name, value in held.items()}
    tiphys = Tiphys(f"http://{address}:8080", tokens["api"])
    wait("the gateway's API", lambda: tiphys.get("/api/catalogue"), 60)
    return tiphys, tokens["webhook"]
