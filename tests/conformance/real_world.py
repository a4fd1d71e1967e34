"""A real cluster, with an Argo controller of the suite's own in namespaces of its own.

So the controller can be killed, a quota filled and a template deleted while others use the cluster,
and no boundary of an installation stands between the suite and what it asks Argo.
"""

import contextlib
import json
import os
import secrets
import signal
from collections.abc import Generator
from pathlib import Path
from typing import Any

from tiphys.service.conform.wire import Wire, place, place_of
from tiphys.service.conform.worlds import World
from tools.cluster import argo
from tools.cluster.target import Target, find

Json = dict[str, Any]
DEPLOYMENT = ("apps/v1", "Deployment")


class RealWorld(World):
    """The cluster that `make cluster-up` started, or the one TIPHYS_TEST_KUBECONFIG names."""

    def __init__(self, folder: Path) -> None:
        self._target: Target = find()
        prefix = f"conformance-{secrets.token_hex(3)}"
        self._argo = f"{prefix}-argo"
        super().__init__(
            folder=folder,
            wire=Wire(self._target.kubeconfig),
            actions=f"{prefix}-actions",
            plain_image=self._target.images["test-base"],
            step_image=self._target.images["step"],
            poll=0.2,
            patience=300.0,
            hold=20,
            real=True,
        )
        self._target.apply(*self._controller())
        self.spaces += [self._argo, self.actions]
        self._await_controller(1)

    def _controller(self) -> list[Json]:
        """Give the manifests of the test cluster's own controller, moved to other namespaces.

        By default Argo starts a pod that vanished again while its node is younger than ten seconds
        and gives it up after that; here always the worse happens, so that tests can count on it.
        """
        text = json.dumps(argo.manifests())
        text = text.replace(argo.NAMESPACE, self._argo).replace(argo.ACTIONS, self.actions)
        made: list[Json] = json.loads(text)
        [deployment] = [one for one in made if one["kind"] == "Deployment"]
        [container] = deployment["spec"]["template"]["spec"]["containers"]
        container["env"].append({"name": "RECENTLY_STARTED_POD_DURATION", "value": "1h"})
        return made

    def token(self, namespace: str, account: str) -> str:
        """Ask the TokenRequest API for a token."""
        self.until(
            f"account {account} is there",
            lambda: self.wire.find(place("v1", "ServiceAccount", namespace, account)),
        )
        return self._target.token(namespace, account)

    # --- Argo's controller ----------------------------------------------------------------------

    def kill_controller(self) -> None:
        """SIGKILL; its kubelet starts it again. Elsewhere its pod is deleted by force."""
        before = self._pods()
        for pid in self._pids():
            os.kill(pid, signal.SIGKILL)
        if not self._target.own:
            for pod in self.wire.items(place("v1", "Pod", self._argo)):
                self.wire.delete(place_of({**pod, "apiVersion": "v1", "kind": "Pod"}), force=True)
        self.until("another controller is ready", self._pods, lambda now: now and now != before)

    @contextlib.contextmanager
    def controller_down(self) -> Generator[None]:
        """Have no controller for a while."""
        path = place("v1", "Pod", self._argo)
        self._scale(0)
        for pid in self._pids():
            os.kill(pid, signal.SIGKILL)
        # Its pod goes when its kubelet has seen it end; by force it would go before.
        self.until("no controller is left", lambda: self.wire.items(path), lambda pods: not pods)
        assert not self._pids()
        try:
            yield
        finally:
            self._scale(1)
            self._await_controller(1)

    def _pids(self) -> list[int]:
        if not self._target.own:
            return []
        marked = f"--managed-namespace\0{self.actions}\0".encode()
        found: list[int] = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if marked in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
        return found

    def _pods(self) -> set[tuple[str, str]]:
        """Give the ready controllers, each by its pod and its container."""
        found: set[tuple[str, str]] = set()
        for pod in self.wire.items(place("v1", "Pod", self._argo)):
            for status in pod["status"].get("containerStatuses") or []:
                if status["ready"] and "deletionTimestamp" not in pod["metadata"]:
                    found.add((pod["metadata"]["uid"], status["containerID"]))
        return found

    def _scale(self, replicas: int) -> None:
        path = place(*DEPLOYMENT, self._argo, argo.CONTROLLER)
        self.wire.patch(path, {"spec": {"replicas": replicas}})

    def _await_controller(self, count: int) -> None:
        self.until(f"{count} controllers are ready", self._pods, lambda now: len(now) == count)

    def close(self) -> None:
        """Delete every namespace, and what is outside of them, without waiting."""
        for path in self.swept:
            self.wire.delete(path, force=True)
        for name in self.spaces:
            self.wire.delete(place("v1", "Namespace", "", name))
