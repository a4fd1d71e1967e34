"""The node's address, the kernel settings that pods need, and their removal.

Invariant: what `up` changes, `down` puts back: the earlier values of kernel settings are written
down before the first is changed.
"""

import json
import shutil
import subprocess
from pathlib import Path

from tools.cluster.paths import BRIDGE, NODE_IP, POD_FIRST, POD_LAST, POD_RANGE, Cache
from tools.cluster.processes import run

COMMENT = "tiphys-test-cluster"
CNI_NETWORK = "tiphys-test"
# The kubelet sets the last three whatever its flags say.
_SETTINGS = {
    "net.ipv4.ip_forward": "1",
    "vm.overcommit_memory": None,
    "kernel.panic": None,
    "kernel.panic_on_oops": None,
}
_FORWARD = (
    ("FORWARD", "-s", POD_RANGE, "-m", "comment", "--comment", COMMENT, "-j", "ACCEPT"),
    ("FORWARD", "-d", POD_RANGE, "-m", "comment", "--comment", COMMENT, "-j", "ACCEPT"),
)


def _setting(name: str) -> Path:
    return Path("/proc/sys") / name.replace(".", "/")


def bring_up(cache: Cache) -> None:
    """Give the bridge the node's address, let pods' packets pass, and write the CNI network."""
    earlier = cache.run / "sysctl.json"
    if not earlier.exists():
        values = {name: _setting(name).read_text().strip() for name in _SETTINGS}
        earlier.write_text(json.dumps(values))
    for name, value in _SETTINGS.items():
        if value is not None:
            _setting(name).write_text(value)
    run(["ip", "link", "add", BRIDGE, "type", "bridge"])
    run(["ip", "addr", "add", f"{NODE_IP}/16", "dev", BRIDGE])
    run(["ip", "link", "set", BRIDGE, "up"])
    # A machine with Docker drops what it does not know.
    for rule in _FORWARD:
        run(["iptables", "-w", "10", "-I", *rule])
    _write_cni(cache)


def _write_cni(cache: Cache) -> None:
    """Point-to-point links: every packet passes the node's own routing, so that a Service works
    between two pods of this node without the bridge-netfilter module, which many machines lack.
    """
    folder = cache.run / "cni"
    folder.mkdir(exist_ok=True)
    ipam = {
        "type": "host-local",
        "dataDir": str(cache.run / "cni-addresses"),
        "ranges": [[{"subnet": POD_RANGE, "rangeStart": POD_FIRST, "rangeEnd": POD_LAST}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    network = {
        "cniVersion": "0.4.0",
        "name": CNI_NETWORK,
        "plugins": [{"type": "ptp", "ipMasq": False, "ipam": ipam}],
    }
    (folder / "10-tiphys.conflist").write_text(json.dumps(network, indent=1))


def take_down(cache: Cache) -> None:
    """Remove links, rules and CNI's leftovers, and restore the kernel's settings."""
    _remove_links()
    for family in ("iptables", "ip6tables"):
        if shutil.which(family):
            _remove_rules(family)
    for path in Path("/var/lib/cni/results").glob(f"{CNI_NETWORK}-*"):
        path.unlink(missing_ok=True)
    earlier = cache.run / "sysctl.json"
    if earlier.exists():
        for name, value in json.loads(earlier.read_text()).items():
            _setting(name).write_text(value)


def _remove_links() -> None:
    """The bridge, and the veth ends whose route is in the pods' range."""
    routes = json.loads(run(["ip", "-j", "-4", "route", "show", "root", POD_RANGE]) or "[]")
    links = {route["dev"] for route in routes if str(route.get("dev", "")).startswith("veth")}
    for link in (*sorted(links), BRIDGE):
        subprocess.run(["ip", "link", "del", link], check=False, capture_output=True)


def _remove_rules(family: str) -> None:
    for table in ("nat", "filter", "mangle"):
        listed = subprocess.run(
            [f"{family}-save", "-t", table], check=False, capture_output=True, text=True
        ).stdout
        if orders := removal_of(listed.splitlines()):
            text = "\n".join([f"*{table}", *orders, "COMMIT", ""])
            run([f"{family}-restore", "--noflush", "-w", "10"], stdin=text)


def removal_of(listed: list[str]) -> list[str]:
    """Return what deletes our own rules, kube-proxy's chains and the jumps to them; no other.

    `listed` is what iptables-save prints of one table.
    """
    chains = [line[1:].split()[0] for line in listed if line.startswith(":KUBE-")]
    rules = [
        line
        for line in listed
        if line.startswith("-A ")
        and not line.startswith("-A KUBE-")
        and (COMMENT in line or " -j KUBE-" in line)
    ]
    deleted = [f"-D {rule.removeprefix('-A ')}" for rule in rules]
    return deleted + [f"-F {chain}" for chain in chains] + [f"-X {chain}" for chain in chains]
