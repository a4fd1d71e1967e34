"""Where the test cluster keeps its things, and its fixed addresses and versions."""

import os
from dataclasses import dataclass
from pathlib import Path

from tools.cluster.processes import Home

CHECKOUT = Path(__file__).resolve().parents[2]
GO_MODULES = Path(__file__).resolve().parent / "go"

KUBERNETES = "v1.35.4"
ARGO = "v4.0.2"
HELM = "v3.19.0"

BRIDGE = "tb0"
NODE = "tiphys-test"
NODE_IP = "10.88.0.1"
POD_RANGE = "10.88.0.0/16"
# Pods get addresses above the node's own, so that a service on the bridge is never shadowed.
POD_FIRST, POD_LAST = "10.88.1.1", "10.88.255.254"
SERVICE_RANGE = "10.96.0.0/16"
SERVICE_API = "10.96.0.1"
SERVICE_DNS = "10.96.0.10"
API_PORT = 6443
ETCD_PORT, ETCD_PEER_PORT = 12379, 12380
DNS_PORT = 10053
DNS_READY_PORT = 18181
# kubelet, kube-proxy's two, controller manager, scheduler.
NODE_PORTS = (10250, 10249, 10256, 10257, 10259)


@dataclass(frozen=True)
class Cache:
    """The folder outside the checkout: binaries and images stay, `run` goes with the cluster."""

    root: Path

    @classmethod
    def default(cls) -> "Cache":
        """`TIPHYS_CLUSTER_CACHE`, else `~/.cache/tiphys-cluster`."""
        named = os.environ.get("TIPHYS_CLUSTER_CACHE")
        return cls(Path(named).resolve() if named else Path.home() / ".cache/tiphys-cluster")

    @property
    def bin(self) -> Path:
        """Binaries, each in a folder named after its version and the hash of its sources."""
        return self.root / "bin"

    @property
    def images(self) -> Path:
        """Image archives, each named after the hash of its content."""
        return self.root / "images"

    @property
    def run(self) -> Path:
        """Everything of the running cluster; gone after `down`."""
        return self.root / "run"

    @property
    def logs(self) -> Path:
        """One log per component; kept as `last-logs` after `down`."""
        return self.run / "logs"

    @property
    def home(self) -> Home:
        """What the cluster's processes are marked with."""
        return Home(self.run, self.logs)

    @property
    def state(self) -> Path:
        """What others read: kubeconfig, binaries, images, process ids."""
        return self.run / "cluster.json"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.run / "admin.kubeconfig"
