"""A real cluster with Argo Workflows, named by its kubeconfig.

Everything happens in namespaces of the kit's own, which go with the world, with an Argo controller
of their own. Invariant: no kubeconfig is found by itself; whoever asks names the file.
"""

import contextlib
import secrets
import threading
from collections.abc import Generator, Sequence
from pathlib import Path

from kubernetes import client, config
from kubernetes.stream import stream  # type: ignore[import-untyped]

from tiphys.service.conform import controller
from tiphys.service.conform.wire import Json, Wire, place, place_of
from tiphys.service.conform.worlds import World

_DEPLOYMENT = ("apps/v1", "Deployment")
_KILL = (
    "import os;"
    "own = {1, os.getpid(), os.getppid()};"
    "found = {int(name) for name in os.listdir('/proc') if name.isdigit()};"
    "[os.kill(pid, 9) for pid in found - own]"
)
"""Ends what Argo's executor runs in a container; the kernel shields the first process from it."""


class LiveWorld(World):
    """A real cluster as the kit sees it."""

    def __init__(self, folder: Path, kubeconfig: Path, step_image: str, host: str = "") -> None:
        """Start the controller. `host`: this machine's address as pods see it; empty: none."""
        prefix = f"conformance-{secrets.token_hex(3)}"
        self.argo = f"{prefix}-argo"
        self._killing = threading.Lock()
        super().__init__(
            folder=folder,
            wire=Wire(kubeconfig),
            actions=f"{prefix}-actions",
            plain_image=step_image,
            step_image=step_image,
            poll=0.2,
            patience=300.0,
            hold=20,
            host=host,
            real=True,
        )
        made = self.controller()
        self.spaces += [self.argo, self.actions]
        try:
            self.install(*made)
            self._await_controller(1)
        except BaseException:
            self.close()
            raise

    def controller(self) -> Sequence[Json]:
        """Give the manifests of the kit's own controller, made like the cluster's."""
        return controller.like(controller.found(self.wire), self.argo, self.actions)

    @property
    def version(self) -> str:
        """Give what the API server says of itself, such as `Kubernetes v1.35.4`."""
        return f"Kubernetes {self.wire.get('/version')['gitVersion']}"

    def token(self, namespace: str, account: str) -> str:
        """Ask the TokenRequest API for a token."""
        path = place("v1", "ServiceAccount", namespace, account)
        self.until(f"account {account} is there", lambda: self.wire.find(path))
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": 3600},
        }
        return str(self.wire.want("POST", f"{path}/token", body)["status"]["token"])

    # --- what is killed -------------------------------------------------------------------------

    def kill_container(self, pod: Json, container: str) -> None:
        """Kill every process that Argo's executor runs in it."""
        meta = pod["metadata"]
        with config.new_client_from_config(str(self.wire.kubeconfig)) as api:
            stream(
                client.CoreV1Api(api).connect_get_namespaced_pod_exec,
                meta["name"],
                meta["namespace"],
                container=container,
                command=["python3", "-c", _KILL],
                stdout=True,
                stderr=True,
            )

    def kill_controller(self) -> None:
        """Delete its pod by force; its Deployment starts another.

        One at a time, and what is left of the old one ends with its pod: of two at once each would
        take for outdated what the other has written, and leave the run alone for ever.
        """
        with self._killing:
            before = self.controllers()
            for pod in self.wire.items(place("v1", "Pod", self.argo)):
                self.wire.delete(place_of({**pod, "apiVersion": "v1", "kind": "Pod"}), force=True)
            self.end_controllers()
            self.until("another controller is ready", self.controllers, lambda now: now - before)

    def end_controllers(self) -> None:
        """End the processes whose pods were deleted; here their kubelets do, a little later."""

    @contextlib.contextmanager
    def controller_down(self) -> Generator[None]:
        """Have no controller for a while."""
        path = place("v1", "Pod", self.argo)
        self.scale(0)
        self.end_controllers()
        self.until("no controller is left", lambda: self.wire.items(path), lambda pods: not pods)
        try:
            yield
        finally:
            self.scale(1)
            self._await_controller(1)

    def controllers(self) -> set[tuple[str, str]]:
        """Give the ready controllers, each by its pod and its container."""
        found: set[tuple[str, str]] = set()
        for pod in self.wire.items(place("v1", "Pod", self.argo)):
            for status in pod["status"].get("containerStatuses") or []:
                if status["ready"] and "deletionTimestamp" not in pod["metadata"]:
                    found.add((pod["metadata"]["uid"], status["containerID"]))
        return found

    def scale(self, replicas: int) -> None:
        """Want so many controllers."""
        path = place(*_DEPLOYMENT, self.argo, controller.CONTROLLER)
        self.wire.patch(path, {"spec": {"replicas": replicas}})

    def _await_controller(self, count: int) -> None:
        self.until(
            f"{count} controllers are ready", self.controllers, lambda now: len(now) == count
        )

    def close(self) -> None:
        """Delete every namespace, and what is outside of them, without waiting."""
        for path in self.swept:
            self.wire.delete(path, force=True)
        for name in self.spaces:
            self.wire.delete(place("v1", "Namespace", "", name))
