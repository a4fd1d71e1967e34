"""The cluster's own certificate authority, its certificates and its kubeconfigs, by openssl."""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.cluster.paths import API_PORT, NODE, NODE_IP, SERVICE_API
from tools.cluster.processes import run

DAYS = "365"
_CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
API = f"https://{NODE_IP}:{API_PORT}"

# Who talks to the API server: file name -> (user, group). Names are Kubernetes' own, see
# https://kubernetes.io/docs/setup/best-practices/certificates/.
CLIENTS = {
    "admin": ("tiphys-test-admin", "system:masters"),
    "controller-manager": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
    "kubelet": (f"system:node:{NODE}", "system:nodes"),
    "kube-proxy": ("system:kube-proxy", ""),
    "coredns": ("tiphys-test-dns", ""),
    "front-proxy": ("tiphys-test-front-proxy", ""),
    "apiserver-kubelet": ("tiphys-test-apiserver", "system:masters"),
}
_API_NAMES = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost")
SERVERS = {
    "apiserver": (
        *(f"DNS:{name}" for name in (*_API_NAMES, "kubernetes.default.svc.cluster.local")),
        f"IP:{SERVICE_API}",
        f"IP:{NODE_IP}",
        "IP:127.0.0.1",
    ),
    "kubelet-server": (f"DNS:{NODE}", f"IP:{NODE_IP}", "IP:127.0.0.1"),
    "control-plane": ("DNS:localhost", f"IP:{NODE_IP}", "IP:127.0.0.1"),
}


@dataclass(frozen=True)
class Certificates:
    """A folder of `NAME.crt` and `NAME.key`."""

    folder: Path

    def crt(self, name: str) -> Path:
        """Return a certificate's path; `ca` is the authority."""
        return self.folder / f"{name}.crt"

    def key(self, name: str) -> Path:
        """Return a private key's path."""
        return self.folder / f"{name}.key"

    def _issue(self, name: str, subject: str, extensions: Sequence[str]) -> None:
        added = [part for text in extensions for part in ("-addext", text)]
        run(
            [
                *("openssl", "req", "-x509", *_CURVE, "-days", DAYS, "-subj", subject),
                *("-CA", self.crt("ca"), "-CAkey", self.key("ca")),
                *("-keyout", self.key(name), "-out", self.crt(name)),
                *("-addext", "basicConstraints=critical,CA:FALSE", *added),
            ]
        )

    def make(self) -> None:
        """Write the authority, every client's and server's pair, and the tokens' signing key."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)
        run(
            [
                *("openssl", "req", "-x509", *_CURVE, "-days", DAYS),
                *("-subj", "/CN=tiphys-test-ca", "-addext", "keyUsage=critical,keyCertSign"),
                *("-keyout", self.key("ca"), "-out", self.crt("ca")),
            ]
        )
        for name, (user, group) in CLIENTS.items():
            subject = f"/O={group}/CN={user}" if group else f"/CN={user}"
            self._issue(name, subject, ["extendedKeyUsage=clientAuth"])
        for name, names in SERVERS.items():
            san = f"subjectAltName={','.join(names)}"
            self._issue(name, f"/CN={name}", ["extendedKeyUsage=serverAuth", san])
        signing = self.key("service-accounts")
        run(["openssl", "genrsa", "-out", signing, "2048"])
        run(["openssl", "rsa", "-in", signing, "-pubout", "-out", self.folder / "tokens.pub"])

    def kubeconfig(self, name: str, path: Path) -> Path:
        """Write a kubeconfig that holds its certificates inside, readable by its owner alone."""

        def inline(file: Path) -> str:
            return base64.b64encode(file.read_bytes()).decode()

        cluster = {"server": API, "certificate-authority-data": inline(self.crt("ca"))}
        user = {
            "client-certificate-data": inline(self.crt(name)),
            "client-key-data": inline(self.key(name)),
        }
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "tiphys-test", "cluster": cluster}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": name, "context": {"cluster": "tiphys-test", "user": name}}],
            "current-context": name,
        }
        path.touch(mode=0o600)
        # JSON is YAML, so no library is needed to write it.
        path.write_text(json.dumps(content, indent=1))
        return path
