"""What the machine must have, and the command that installs what is missing."""

import os
import platform
import shutil
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from tools.cluster.builds import go_command
from tools.cluster.paths import (
    API_PORT,
    DNS_PORT,
    DNS_READY_PORT,
    ETCD_PEER_PORT,
    ETCD_PORT,
    NODE_PORTS,
)
from tools.cluster.processes import run
from tools.cluster.report import Trouble, say

# What is looked for -> Debian's package.
NEEDED = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "/usr/lib/cni/ptp": "containernetworking-plugins",
    "/usr/lib/cni/host-local": "containernetworking-plugins",
    "/usr/lib/cni/portmap": "containernetworking-plugins",
    "iptables": "iptables",
    "ip": "iproute2",
    "openssl": "openssl",
    "buildah": "buildah",
    "debootstrap": "debootstrap",
    "prometheus": "prometheus",
    "prometheus-alertmanager": "prometheus-alertmanager",
    "/usr/lib/postgresql/*/bin/initdb": "postgresql",
}


def _found(what: str) -> bool:
    if what.startswith("/"):
        return any(Path("/").glob(what.lstrip("/")))
    places = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    return shutil.which(what, path=places) is not None


def missing(needed: Mapping[str, str] = NEEDED) -> list[str]:
    """Return the Debian packages that are not there, each once."""
    return sorted({package for what, package in needed.items() if not _found(what)})


def check() -> None:
    """Trouble when the machine cannot do it; with CI=true missing packages are installed."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise Trouble("the test cluster needs Linux on x86_64; or name one: TIPHYS_TEST_KUBECONFIG")
    if os.geteuid() != 0:
        raise Trouble("the test cluster needs root: it mounts, makes links and starts containers")
    go_command()
    if packages := missing():
        install(packages)
        if still := missing():
            raise Trouble(f"still missing after apt-get: {', '.join(still)}")


def install(packages: Sequence[str], environment: Mapping[str, str] = os.environ) -> None:
    """Install with apt-get where CI=true; elsewhere Trouble with the exact command to run."""
    command = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    if environment.get("CI") != "true":
        raise Trouble(
            f"missing: {', '.join(packages)}. Install with\n  apt-get update && {' '.join(command)}"
        )
    say(f"installing {', '.join(packages)}")
    run(["apt-get", "update", "-q"], seconds=300)
    run(["env", "DEBIAN_FRONTEND=noninteractive", *command], seconds=900)


_PORTS = {
    **dict.fromkeys((ETCD_PORT, ETCD_PEER_PORT, DNS_READY_PORT), "127.0.0.1"),
    **dict.fromkeys((API_PORT, DNS_PORT, *NODE_PORTS), "0.0.0.0"),
}


def check_ports(wanted: Mapping[int, str] = _PORTS) -> None:
    """Trouble when another program holds a port that the cluster needs."""
    for port, address in wanted.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError as taken:
                who = f"`ss -ltnp 'sport = :{port}'` says which"
                raise Trouble(f"another program listens on port {port}; {who}") from taken
