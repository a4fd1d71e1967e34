"""What the machine must have, and the command that installs what is missing."""

import os
import platform
import shutil
from pathlib import Path

from tools.cluster.builds import go_command
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


def missing() -> list[str]:
    """Return the Debian packages that are not there, each once."""
    return sorted({package for what, package in NEEDED.items() if not _found(what)})


def check() -> None:
    """Trouble with the exact command to run; with CI=true the packages are installed here."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise Trouble("the test cluster needs Linux on x86_64; or name one: TIPHYS_TEST_KUBECONFIG")
    if os.geteuid() != 0:
        raise Trouble("the test cluster needs root: it mounts, makes links and starts containers")
    go_command()
    packages = missing()
    if not packages:
        return
    command = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    if os.environ.get("CI") != "true":
        raise Trouble(
            f"missing: {', '.join(packages)}. Install with\n  apt-get update && {' '.join(command)}"
        )
    say(f"installing {', '.join(packages)}")
    run(["apt-get", "update", "-q"], seconds=300)
    run(["env", "DEBIAN_FRONTEND=noninteractive", *command], seconds=900)
    if still := missing():
        raise Trouble(f"still missing after apt-get: {', '.join(still)}")
