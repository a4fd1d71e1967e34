"""The cluster that tests run on: the one started here, or the one that a variable names.

Invariant: a plain KUBECONFIG is never read; a test must not touch a cluster by accident.
"""

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.cluster import builds
from tools.cluster.paths import NODE_IP, Cache
from tools.cluster.processes import is_alive
from tools.cluster.report import Trouble

KUBECONFIG = "TIPHYS_TEST_KUBECONFIG"
HOST_ADDRESS = "TIPHYS_TEST_HOST_ADDRESS"
NEEDED = ("kubectl", "helm", "kube-state-metrics")
IMAGES = {
    name: f"docker.io/tiphys/{name}:dev" for name in ("service", "step", "test-base", "pause")
}
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Target:
    """A cluster with Argo Workflows in it, and an administrator's rights."""

    kubeconfig: Path
    node_ip: str
    """Where pods reach a program of this machine."""
    bin: Mapping[str, str]
    images: Mapping[str, str]
    own: bool
    """Whether it is the one started here, whose processes a test may kill."""
    pids: Mapping[str, int] = field(default_factory=dict[str, int])

    def kubectl(self, *argv: str, stdin: str | None = None, seconds: float = 60) -> str:
        """Run kubectl as the administrator; Trouble with its words when it fails."""
        done = subprocess.run(
            [self.bin["kubectl"], f"--kubeconfig={self.kubeconfig}", *argv],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )
        if done.returncode:
            raise Trouble(f"kubectl {' '.join(argv)}: {done.stderr.strip()[-2000:]}")
        return done.stdout

    def apply(self, *manifests: Mapping[str, Any]) -> None:
        """Server-side apply of plain dicts; JSON is YAML."""
        text = "\n---\n".join(json.dumps(m) for m in manifests)
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)

    def token(self, namespace: str, account: str, minutes: int = 60) -> str:
        """Return a new token of a ServiceAccount, as the TokenRequest API gives it."""
        duration = f"--duration={minutes}m"
        return self.kubectl("-n", namespace, "create", "token", account, duration).strip()

    def kubeconfig_for(self, token: str, path: Path) -> Path:
        """Write a kubeconfig with the same server and another identity: a bearer token alone."""
        raw = self.kubectl("config", "view", "--raw", "--minify", "--flatten", "-o", "json")
        content = json.loads(raw)
        content["users"][0]["user"] = {"token": token}
        path.touch(mode=0o600)
        path.write_text(json.dumps(content))
        return path


def other(cache: Cache, environment: Mapping[str, str] = os.environ) -> Path | None:
    """Return the kubeconfig that the variable names, unless it is that of the cluster here."""
    named = environment.get(KUBECONFIG)
    return Path(named) if named and Path(named) != cache.kubeconfig else None


def find(environment: Mapping[str, str] = os.environ, cache: Cache | None = None) -> Target:
    """Return the cluster to test on; Trouble says what to do when there is none."""
    cache = cache or Cache.default()
    if named := other(cache, environment):
        return _foreign(named, environment, cache)
    try:
        state = json.loads(cache.state.read_text())
    except (OSError, ValueError):
        state = None
    if state is None or not all(map(is_alive, state["pids"].values())):
        raise Trouble(
            "no test cluster is running: `make cluster-up` starts one on this machine, or "
            f"{KUBECONFIG} names the kubeconfig of another (a plain KUBECONFIG is not read)"
        )
    return Target(
        kubeconfig=Path(state["kubeconfig"]),
        node_ip=state["node_ip"],
        bin=state["bin"],
        images={**IMAGES, **state["images"]},
        own=True,
        pids=state["pids"],
    )


def _foreign(kubeconfig: Path, environment: Mapping[str, str], cache: Cache) -> Target:
    """Another cluster: its images are loaded by whoever made it (docs/cluster.md)."""
    if not kubeconfig.is_file():
        raise Trouble(f"{KUBECONFIG} names {kubeconfig}, which is not a file")
    bins = builds.ensure(cache, NEEDED)
    return Target(
        kubeconfig=kubeconfig,
        node_ip=environment.get(HOST_ADDRESS, NODE_IP),
        bin={name: str(path) for name, path in bins.items()},
        images=IMAGES,
        own=False,
    )


def wait_until(what: str, look: Callable[[], bool], seconds: float = 60) -> None:
    """Look until it is true; Trouble says what was waited for."""
    deadline = time.monotonic() + seconds
    while not look():
        if time.monotonic() > deadline:
            raise Trouble(f"{what} did not come true within {seconds:.0f} s")
        time.sleep(POLL_SECONDS)
