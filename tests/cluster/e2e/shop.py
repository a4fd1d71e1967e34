"""The workloads that break, each in a namespace of its own, and how each is broken."""

import json
import string
from dataclasses import dataclass
from pathlib import Path

from kubectl import Kubectl, wait

WORKLOADS = Path(__file__).resolve().parent / "workloads"
QUIET, LOADED = 2, 12
"""Requests a second that two workers answer at once, and that only three can answer; the database
of some services answers not even seven."""


@dataclass(frozen=True)
class Shop:
    """One namespace that opted in."""

    kubectl: Kubectl
    namespace: str
    image: str

    def make_namespace(self) -> None:
        """Create it, opted in, before the chart binds the actions' rights there."""
        wanted = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": self.namespace, "labels": {"tiphys.io/heal": "enabled"}},
        }
        self.kubectl.apply(json.dumps(wanted))

    def deploy(self, workload: str, **values: str) -> None:
        """Apply one of the workloads; `ready` waits for it."""
        programs = {path.name: path.read_text() for path in WORKLOADS.glob("*.py")}
        shop = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "shop"},
            "data": programs,
        }
        self.kubectl.apply(json.dumps(shop), self.namespace)
        text = string.Template((WORKLOADS / f"{workload}.yaml").read_text())
        self.kubectl.apply(text.substitute(image=self.image, **values), self.namespace)

    def deploy_search(self, needs_database: str) -> None:
        """Apply the front and its two workers."""
        self.deploy("search", needs_database=needs_database, quiet_rate=str(QUIET))

    def ready(self, deployment: str, seconds: float = 180) -> None:
        """Wait until every replica is available."""
        self.kubectl(
            "rollout", "status", f"deployment/{deployment}", "-n", self.namespace,
            f"--timeout={seconds:.0f}s", seconds=seconds + 10,
        )  # fmt: skip

    def release_badly(self) -> None:
        """Release a version that ends at its start."""
        self.kubectl("set", "env", "deployment/cart", "RELEASE=1.8.0", "-n", self.namespace)

    def wedge(self) -> str:
        """Leave one pod waiting for a lock that nobody holds; give its name."""
        pods = self.kubectl.every("pods", self.namespace, "app.kubernetes.io/name=cart")
        name = min(pod["metadata"]["name"] for pod in pods)
        self.kubectl.ask(self.namespace, f"pods/{name}:8080", "wedge")
        return name

    def load(self) -> None:
        """Send more requests than two workers can answer."""
        self.kubectl.ask(self.namespace, "services/queue:8080", f"rate/{LOADED}")

    def unload(self) -> None:
        """Send what two workers answer at once."""
        self.kubectl.ask(self.namespace, "services/queue:8080", f"rate/{QUIET}")

    def wait_for_pods(self, deployment: str, count: int, seconds: float = 120) -> None:
        """Wait until so many pods are ready and no other is left."""

        def look() -> bool:
            found = self.kubectl.get("deployment", deployment, self.namespace)
            status = found["status"]
            return status.get("readyReplicas") == status.get("replicas") == count

        wait(f"{count} ready pods of {self.namespace}/{deployment}", look, seconds)
