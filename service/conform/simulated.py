"""The simulated cluster, alive in a thread of its own: tests reach it through its port alone."""

import asyncio
import contextlib
import sys
import threading
from collections.abc import Coroutine, Generator
from pathlib import Path
from typing import Any

from tiphys.sandbox import installation
from tiphys.sandbox.argo import NAMESPACE, STEP_MODULE, Argo
from tiphys.sandbox.behaviour import Behaviour, Behaviours, Match, PodState
from tiphys.sandbox.controllers import Controllers
from tiphys.sandbox.kube_api import kube_app
from tiphys.sandbox.logs import Logs
from tiphys.sandbox.loopback import serving
from tiphys.sandbox.pods import Pace
from tiphys.sandbox.rbac import Tokens
from tiphys.sandbox.store import Store
from tiphys.service.conform.wire import Json, Wire
from tiphys.service.conform.workloads import (
    CRASH,
    EXIT_CODE,
    LAST_WORDS,
    LINES,
    NO_IMAGE,
    NOT_READY,
    READY,
    SUCCEEDS,
)
from tiphys.service.conform.worlds import InVainError, World

_BACKOFF = Pace(backoff=0.5)
BEHAVIOURS = [
    Behaviour(
        match=Match(env={"FARE": CRASH}),
        state=PodState.CRASH,
        exit_code=EXIT_CODE,
        message=LAST_WORDS,
        logs=LINES,
    ),
    Behaviour(match=Match(env={"FARE": NOT_READY}), state=PodState.NOT_READY, logs=LINES),
    Behaviour(match=Match(env={"FARE": SUCCEEDS}), state=PodState.SUCCEEDED, logs=LINES),
    Behaviour(match=Match(env={"FARE": NO_IMAGE}), state=PodState.IMAGE_PULL),
    Behaviour(match=Match(env={"FARE": READY}), logs=LINES),
]
"""What the simulated kubelet is told."""


class _Cluster:
    """What runs in the thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store, self.tokens = Store(), Tokens()
        self.ready = threading.Event()
        self.loop = asyncio.new_event_loop()
        self.argo: Argo | None = None
        self._control: asyncio.Task[None] | None = None
        self._over = asyncio.Event()
        self.thread = threading.Thread(target=self._run, name="sandbox", daemon=True)
        self.thread.start()
        if not self.ready.wait(30):
            raise InVainError("for the sandbox to start")

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_until_complete(self._live())
        finally:
            self.loop.close()

    async def _live(self) -> None:
        logs, behaviours = Logs(), Behaviours()
        for one in BEHAVIOURS:
            behaviours.add(one, first=False)
        for obj in [*installation.manifests(), *installation.nodes(1)]:
            self.store.create(obj)
        async with serving(kube_app(self.store, self.tokens, logs)) as url:
            command = (sys.executable, "-m", STEP_MODULE)
            self.argo = Argo(self.store, self.tokens, url, command, directory=self.folder)
            self.argo.pods.logs = logs
            controllers = Controllers(self.store, behaviours, logs, _BACKOFF)
            pods = asyncio.create_task(controllers.run())
            self.start_argo()
            paths = installation.write_kubeconfigs(self.folder, url, self.tokens)
            self.kubeconfig = paths[installation.ADMIN]
            self.ready.set()
            await self._over.wait()
            self.kill_argo()
            await self.argo.close()
            pods.cancel()
            await asyncio.gather(pods, return_exceptions=True)

    def start_argo(self) -> None:
        assert self.argo is not None
        self._control = asyncio.get_running_loop().create_task(self.argo.run())

    def kill_argo(self) -> None:
        assert self._control is not None
        self._control.cancel()

    def call(self, work: Any) -> Any:
        """Do something in the thread, and give what came of it."""

        async def inside() -> Any:
            found = work()
            return await found if isinstance(found, Coroutine) else found

        return asyncio.run_coroutine_threadsafe(inside(), self.loop).result(30)

    def stop(self) -> None:
        self.call(self._over.set)
        self.thread.join(30)
        if self.thread.is_alive():
            raise InVainError("for the sandbox to end")


class SandboxWorld(World):
    """The simulated cluster as the tests see it."""

    def __init__(self, folder: Path) -> None:
        self._cluster = _Cluster(folder)
        super().__init__(
            folder=folder,
            wire=Wire(self._cluster.kubeconfig),
            actions=NAMESPACE,
            plain_image="test-base",
            step_image="tiphys-step",
            poll=0.1,
            still=0.6,
        )

    def token(self, namespace: str, account: str) -> str:
        """Give a new token of a ServiceAccount."""
        return self._cluster.call(lambda: self._cluster.tokens.service_account(namespace, account))

    def kill_container(self, pod: Json, container: str) -> None:
        """Kill the step's process group."""

        def kill() -> None:
            assert self._cluster.argo is not None
            self._cluster.argo.pods.kill(pod["metadata"]["uid"], container)

        self._cluster.call(kill)

    def kill_controller(self) -> None:
        """Cancel the controller's task, and start another."""
        with self.controller_down():
            pass

    @contextlib.contextmanager
    def controller_down(self) -> Generator[None]:
        """Cancel the controller's task; the pods' processes go on."""
        self._cluster.call(self._cluster.kill_argo)
        try:
            yield
        finally:
            self._cluster.call(self._cluster.start_argo)

    def close(self) -> None:
        """End the thread and every process in it."""
        self._cluster.stop()
