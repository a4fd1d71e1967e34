"""CoreDNS as a process of the node; pods reach it as the service kube-dns at 10.96.0.10."""

import urllib.request
from typing import Any

from tools.cluster.certs import Certificates
from tools.cluster.control_plane import Binaries
from tools.cluster.paths import (
    API_PORT,
    DNS_PORT,
    DNS_READY_PORT,
    NODE_IP,
    SERVICE_DNS,
    Cache,
)
from tools.cluster.processes import Daemon, start

Manifest = dict[str, Any]
_USER = "tiphys-test-dns"


def start_coredns(cache: Cache, bins: Binaries, certificates: Certificates) -> Daemon:
    """Answer for the cluster's names; say at once that any other does not exist."""
    kubeconfig = certificates.kubeconfig("coredns", cache.run / "coredns.kubeconfig")
    path = cache.run / "Corefile"
    path.write_text(
        f"""(node) {{
  bind {NODE_IP}
  errors
}}
cluster.local:{DNS_PORT} in-addr.arpa:{DNS_PORT} {{
  import node
  ready 127.0.0.1:{DNS_READY_PORT}
  kubernetes cluster.local in-addr.arpa {{
    kubeconfig {kubeconfig}
    pods insecure
    ttl 1
  }}
}}
.:{DNS_PORT} {{
  import node
  template ANY ANY . {{
    rcode NXDOMAIN
  }}
}}
"""
    )
    return start(cache.home, "coredns", [bins["coredns"], "-conf", path])


def is_ready() -> bool:
    """Tell whether CoreDNS has read the cluster's services."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{DNS_READY_PORT}/ready", timeout=2) as reply:
            return reply.status == 200
    except OSError:
        return False


def _slice(service: str, namespace: str, ports: list[dict[str, Any]]) -> Manifest:
    """A service without a selector, answered by the node itself."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{service}-node",
            "namespace": namespace,
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [NODE_IP], "conditions": {"ready": True}}],
        "ports": ports,
    }


def _rights() -> list[Manifest]:
    """What CoreDNS' kubernetes plugin reads."""
    api, read = "rbac.authorization.k8s.io", ["get", "list", "watch"]
    things = ["services", "pods", "namespaces", "nodes"]
    return [
        {
            "apiVersion": f"{api}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": _USER},
            "rules": [
                {"apiGroups": [""], "resources": things, "verbs": read},
                {
                    "apiGroups": ["discovery.k8s.io"],
                    "resources": ["endpointslices"],
                    "verbs": read,
                },
            ],
        },
        {
            "apiVersion": f"{api}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": _USER},
            "roleRef": {"apiGroup": api, "kind": "ClusterRole", "name": _USER},
            "subjects": [{"apiGroup": api, "kind": "User", "name": _USER}],
        },
    ]


def manifests() -> list[Manifest]:
    """The DNS service, CoreDNS' right to read, and where `kubernetes` and `kube-dns` lead."""
    protocols = {"dns": "UDP", "dns-tcp": "TCP"}
    service = {
        "clusterIP": SERVICE_DNS,
        "ports": [
            {"name": name, "port": 53, "protocol": protocol, "targetPort": DNS_PORT}
            for name, protocol in protocols.items()
        ],
    }
    meta = {"name": "kube-dns", "namespace": "kube-system"}
    answering = [{"name": n, "port": DNS_PORT, "protocol": p} for n, p in protocols.items()]
    serving = [{"name": "https", "port": API_PORT, "protocol": "TCP"}]
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": service},
        _slice("kube-dns", "kube-system", answering),
        _slice("kubernetes", "default", serving),
        *_rights(),
    ]
