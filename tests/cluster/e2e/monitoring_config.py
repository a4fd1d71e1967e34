"""What Prometheus and Alertmanager are told: the mixin's rules, real series, two routes.

Everything inside the cluster is read through the API server's proxy with the administrator's own
credentials, so that the same file serves this machine's cluster and any that a kubeconfig names.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from hasten import INTERVAL_SECONDS, hasten, shortened

HERE = Path(__file__).resolve().parent
RULES = HERE.parents[1] / "data" / "rules"
TEAM_RULES = HERE / "team_rules.yaml"
ALERTMANAGER = HERE.parents[2] / "docs" / "alertmanager.yaml"
"""What we tell users to write."""


@dataclass(frozen=True)
class Api:
    """An API server with the credentials of a kubeconfig, as files."""

    host: str
    """host:port"""
    files: dict[str, str]
    """Prometheus' names for the files, such as `ca_file`."""
    token_file: str

    @classmethod
    def of(cls, kubeconfig: Path, folder: Path) -> "Api":
        """Read a kubeconfig's current context; its inline certificates are written to `folder`."""
        given = yaml.safe_load(kubeconfig.read_text())
        context = _named(given["contexts"], given["current-context"])["context"]
        cluster = _named(given["clusters"], context["cluster"])["cluster"]
        user = _named(given["users"], context["user"])["user"]
        files = {
            "ca_file": _file(cluster, "certificate-authority", folder),
            "cert_file": _file(user, "client-certificate", folder),
            "key_file": _file(user, "client-key", folder),
        }
        token = ""
        if user.get("token"):
            token = str(folder / "token")
            Path(token).write_text(user["token"])
        host = cluster["server"].removeprefix("https://").rstrip("/")
        return cls(host, {k: v for k, v in files.items() if v}, token)

    def scrape(self, job: str, targets: list[dict[str, str]], keep: str = ".*") -> dict[str, Any]:
        """Give a scrape job behind the API server: one target for each set of labels."""
        return {
            "job_name": job,
            "scheme": "https",
            "static_configs": [{"targets": [self.host], "labels": labels} for labels in targets],
            "metric_relabel_configs": [
                {"source_labels": ["__name__"], "regex": keep, "action": "keep"}
            ],
            **self._credentials(),
        }

    def _credentials(self) -> dict[str, Any]:
        held: dict[str, Any] = {"tls_config": dict(self.files)}
        if self.token_file:
            held["authorization"] = {"credentials_file": self.token_file}
        return held


@dataclass(frozen=True)
class Addresses:
    """Where everything is, as host:port."""

    kube_state_metrics: str
    alertmanager: str
    nodes: Sequence[str]
    """The nodes' names."""
    services: Sequence[tuple[str, str]]
    """Services that tell of themselves, as (namespace, name:port)."""


def _named(items: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(item for item in items if item["name"] == name)


def _file(given: dict[str, Any], key: str, folder: Path) -> str:
    if given.get(key):
        return str(given[key])
    data = given.get(f"{key}-data")
    if not data:
        return ""
    path = folder / key
    path.write_bytes(base64.b64decode(data))
    path.chmod(0o600)
    return str(path)


def write_rules(folder: Path) -> list[str]:
    """Write the hastened mixin and the team's own rules; give the files' names."""
    written: list[str] = []
    for path in sorted(RULES.glob("prometheus_*.yaml")):
        fast = folder / path.name
        fast.write_text(yaml.safe_dump(hasten(yaml.safe_load(path.read_text())), sort_keys=False))
        written.append(str(fast))
    return [*written, str(TEAM_RULES)]


def prometheus(api: Api, addresses: Addresses, folder: Path) -> str:
    """Write Prometheus' configuration; Debian's finds nothing by itself, so all is listed."""
    every = f"{INTERVAL_SECONDS}s"
    config = {
        "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
        "rule_files": write_rules(folder),
        "alerting": {
            "alertmanagers": [{"static_configs": [{"targets": [addresses.alertmanager]}]}]
        },
        "scrape_configs": [
            {
                "job_name": "kube-state-metrics",
                "honor_labels": True,
                "static_configs": [{"targets": [addresses.kube_state_metrics]}],
            },
            # Its histograms alone would cost more than everything else here.
            api.scrape(
                "kube-apiserver",
                [{}],
                keep="kubernetes_build_info|apiserver_storage_objects",
            ),
            api.scrape(
                "kubelet",
                [_of_node(node, "/metrics") for node in addresses.nodes],
                keep="kubelet_(running_pods|node_name|volume_stats_.*)",
            ),
            # What containers use, as the kubelet tells it: cAdvisor's own metrics need containerd
            # in its usual place and look at a container every 10 to 15 s only.
            api.scrape(
                "kubelet-resource",
                [_of_node(node, "/metrics/resource") for node in addresses.nodes],
                keep="container_(cpu_usage_seconds_total|memory_working_set_bytes)",
            ),
            api.scrape("shop", [_of_service(*place) for place in addresses.services]),
        ],
    }
    return yaml.safe_dump(config, sort_keys=False)


def _of_node(node: str, path: str) -> dict[str, str]:
    where = f"/api/v1/nodes/{node}/proxy{path}"
    return {"__metrics_path__": where, "node": node, "instance": node}


def _of_service(namespace: str, service: str) -> dict[str, str]:
    where = f"/api/v1/namespaces/{namespace}/services/{service}/proxy/metrics"
    return {"__metrics_path__": where, "namespace": namespace, "instance": f"{namespace}/{service}"}


def alertmanager(gateway: str, token: str, human: str) -> str:
    """Write what we tell users to write, with our addresses and a test's patience."""
    config = yaml.safe_load(ALERTMANAGER.read_text())
    for receiver in config["receivers"]:
        (hook,) = receiver["webhook_configs"]
        if receiver["name"] == "tiphys":
            hook["url"] = gateway + urlsplit(hook["url"]).path
            hook["http_config"]["authorization"] = {"credentials": token}
        else:
            hook["url"] = human + receiver["name"]
    return yaml.safe_dump({**config, "route": _impatient(config["route"])}, sort_keys=False)


def _impatient(route: dict[str, Any]) -> dict[str, Any]:
    """Shorten a route's waits, and those of the routes below it, as the rules' are."""
    waits = ("group_wait", "group_interval", "repeat_interval")
    shorter = {key: shortened(route[key], 1) for key in waits if key in route}
    below = {"routes": [_impatient(one) for one in route["routes"]]} if "routes" in route else {}
    return {**route, **shorter, **below}
