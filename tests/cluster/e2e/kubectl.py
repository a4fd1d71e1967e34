"""kubectl as the cluster's administrator, and waiting with a bound."""

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
POLL_SECONDS = 0.25


class KubectlError(Exception):
    """kubectl refused; the message is its own."""


@dataclass(frozen=True)
class Kubectl:
    """One kubectl and one kubeconfig."""

    binary: str
    kubeconfig: Path

    def __call__(self, *words: str, stdin: str = "", seconds: float = 60) -> str:
        """Run it; raises `KubectlError`."""
        done = subprocess.run(
            [self.binary, f"--kubeconfig={self.kubeconfig}", *words],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        if done.returncode:
            raise KubectlError(f"kubectl {' '.join(words)}: {done.stderr.strip()[-2000:]}")
        return done.stdout

    def get(self, kind: str, name: str, namespace: str = "") -> dict[str, Any]:
        """Read one object."""
        where = ["-n", namespace] if namespace else []
        return json.loads(self("get", kind, name, *where, "-o", "json", "--show-managed-fields"))

    def every(self, kind: str, namespace: str, selector: str = "") -> list[dict[str, Any]]:
        """List objects."""
        chosen = ["-l", selector] if selector else []
        return json.loads(self("get", kind, "-n", namespace, *chosen, "-o", "json"))["items"]

    def apply(self, text: str, namespace: str = "default") -> None:
        """Create or change objects."""
        self("apply", "-n", namespace, "-f", "-", stdin=text)

    def ask(self, namespace: str, pod_or_service: str, path: str) -> str:
        """GET from a pod or a service, such as `pods/cart-1:8080`, through the API server."""
        return self("get", "--raw", f"/api/v1/namespaces/{namespace}/{pod_or_service}/proxy/{path}")


def wait(what: str, look: Callable[[], T], seconds: float) -> T:
    """Look until it is truthy; the failure says what was waited for and what was seen last."""
    until = time.monotonic() + seconds
    while True:
        try:
            seen: T | str = look()
        except (KubectlError, OSError, subprocess.TimeoutExpired, ValueError) as error:
            seen = f"{type(error).__name__}: {error}"
        else:
            if seen:
                return seen
        if time.monotonic() > until:
            raise AssertionError(f"waited {seconds:.0f} s for {what}; last seen: {seen}")
        time.sleep(POLL_SECONDS)
