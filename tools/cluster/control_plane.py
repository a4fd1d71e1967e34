"""etcd, the API server, the controller manager and the scheduler, as processes of this machine."""

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tools.cluster.certs import API, Certificates
from tools.cluster.paths import (
    API_PORT,
    ETCD_PEER_PORT,
    ETCD_PORT,
    NODE_IP,
    POD_RANGE,
    SERVICE_RANGE,
    Cache,
)
from tools.cluster.processes import Daemon, start, wait_for

Binaries = Mapping[str, Path]
_LOOPBACK = "127.0.0.1"


class Api:
    """The administrator's own questions, without a client library."""

    def __init__(self, certificates: Certificates) -> None:
        self._context = ssl.create_default_context(cafile=str(certificates.crt("ca")))
        self._context.load_cert_chain(certificates.crt("admin"), certificates.key("admin"))

    def get(self, path: str) -> tuple[int, bytes]:
        """Return status and body; 0 when nobody answers."""
        try:
            with urllib.request.urlopen(f"{API}{path}", context=self._context, timeout=10) as reply:
                return reply.status, reply.read()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read()
        except OSError:
            return 0, b""

    def read(self, path: str) -> dict[str, Any] | None:
        """Return an object, or None when it is not there."""
        status, body = self.get(path)
        return json.loads(body) if status == 200 else None

    def ready(self) -> bool:
        """Tell whether `/readyz` answers 200; its text contains "ok" long before."""
        return self.get("/readyz")[0] == 200


def start_etcd(cache: Cache, bins: Binaries) -> Daemon:
    """A store that does not wait for the disk: it lives as long as the test cluster."""
    client = f"http://{_LOOPBACK}:{ETCD_PORT}"
    peer = f"http://{_LOOPBACK}:{ETCD_PEER_PORT}"
    daemon = start(
        cache.home,
        "etcd",
        [
            bins["etcd"],
            "--name=test",
            f"--data-dir={cache.run / 'etcd'}",
            "--unsafe-no-fsync",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=test={peer}",
            "--log-level=warn",
        ],
    )
    wait_for("etcd's health", lambda: _answers(f"{client}/health"), daemon)
    return daemon


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return reply.status == 200
    except OSError:
        return False


def start_apiserver(cache: Cache, bins: Binaries, certificates: Certificates) -> Daemon:
    """Node and RBAC authorisation; admission policies are on by default since 1.30."""
    return start(
        cache.home,
        "kube-apiserver",
        [
            bins["kube-apiserver"],
            f"--etcd-servers=http://{_LOOPBACK}:{ETCD_PORT}",
            f"--bind-address={NODE_IP}",
            f"--advertise-address={NODE_IP}",
            f"--secure-port={API_PORT}",
            "--endpoint-reconciler-type=none",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            "--anonymous-auth=false",
            f"--service-cluster-ip-range={SERVICE_RANGE}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--client-ca-file={certificates.crt('ca')}",
            f"--tls-cert-file={certificates.crt('apiserver')}",
            f"--tls-private-key-file={certificates.key('apiserver')}",
            f"--requestheader-client-ca-file={certificates.crt('ca')}",
            "--requestheader-allowed-names=tiphys-test-front-proxy",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={certificates.crt('front-proxy')}",
            f"--proxy-client-key-file={certificates.key('front-proxy')}",
            f"--kubelet-certificate-authority={certificates.crt('ca')}",
            f"--kubelet-client-certificate={certificates.crt('apiserver-kubelet')}",
            f"--kubelet-client-key={certificates.key('apiserver-kubelet')}",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={certificates.folder / 'tokens.pub'}",
            f"--service-account-signing-key-file={certificates.key('service-accounts')}",
            "--profiling=false",
        ],
        # Argo's full CRDs are 5 MB of schema; most of what they cost is collecting garbage.
        {"GOGC": "400", "GOMEMLIMIT": "3GiB"},
    )


def start_controllers(cache: Cache, bins: Binaries, certificates: Certificates) -> list[Daemon]:
    """The controller manager and the scheduler; only after the API server is ready."""
    config = {
        name: certificates.kubeconfig(name, cache.run / f"{name}.kubeconfig")
        for name in ("controller-manager", "scheduler")
    }

    def served(name: str) -> list[str]:
        return [
            f"--kubeconfig={config[name]}",
            f"--authentication-kubeconfig={config[name]}",
            f"--authorization-kubeconfig={config[name]}",
            f"--bind-address={NODE_IP}",
            f"--tls-cert-file={certificates.crt('control-plane')}",
            f"--tls-private-key-file={certificates.key('control-plane')}",
            "--leader-elect=false",
        ]

    return [
        start(
            cache.home,
            "kube-controller-manager",
            [
                bins["kube-controller-manager"],
                *served("controller-manager"),
                "--use-service-account-credentials=true",
                f"--root-ca-file={certificates.crt('ca')}",
                f"--service-account-private-key-file={certificates.key('service-accounts')}",
                f"--cluster-cidr={POD_RANGE}",
                "--allocate-node-cidrs=false",
                f"--flex-volume-plugin-dir={cache.run / 'kubelet-plugins'}",
            ],
        ),
        start(cache.home, "kube-scheduler", [bins["kube-scheduler"], *served("scheduler")]),
    ]
