"""A cluster to ask: the simulated one and a real one behind the same few handles."""

import asyncio
import contextlib
import secrets
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from kubernetes.aio import client

from tiphys.service.conform.wire import UnexpectedAnswerError, Wire, place
from tiphys.service.errors import WorldRefusedError
from tiphys.service.kubernetes_api import connect

Json = dict[str, Any]
T = TypeVar("T")
OPTED_IN = {"tiphys.io/heal": "enabled"}


class InVainError(WorldRefusedError):
    """Waited in vain."""


@dataclass
class World(ABC):
    """One cluster with Argo in it, and an administrator's rights."""

    folder: Path
    """For kubeconfigs."""
    wire: Wire
    actions: str
    """The namespace whose Workflows Argo runs."""
    plain_image: str
    """An image with a shell and Python."""
    step_image: str
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    """The launcher's, as far as the templates that tests publish are concerned."""
    poll: float = 0.1
    """Seconds between two looks."""
    patience: float = 60.0
    """Seconds that anything may take before a test gives up; far more than it does take."""
    still: float = 2.0
    """Seconds without a change, after which nothing is expected to move any more."""
    step_seconds: float = 120.0
    """Seconds that a step may take which is run without Argo."""
    hold: int = 4
    """Seconds that a run must stay well, where it is to be disturbed meanwhile."""
    host: str = "127.0.0.1"
    """Where pods reach a program of this machine."""
    real: bool = False
    spaces: list[str] = field(default_factory=list[str])
    swept: list[str] = field(default_factory=list[str])
    """Paths of what was made outside the tests' own namespaces; gone with the world."""
    driver: threading.Thread | None = None
    """Who plays the storage's driver, see `storage`."""
    played: bool = False
    """Whether a thread plays the kubelets of the nodes that stages have made."""
    published: set[str] = field(default_factory=set[str])
    """Which variants of the catalogue's templates are there."""
    let_out: set[str] = field(default_factory=set[str])
    """Which actions have got their rights outside namespaces."""
    open: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    """What is closed when the world is."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    # --- what differs ---------------------------------------------------------------------------

    @abstractmethod
    def token(self, namespace: str, account: str) -> str:
        """Give a new token of a ServiceAccount, which exists."""

    @abstractmethod
    def kill_controller(self) -> None:
        """Kill Argo's controller; another starts at once."""

    @abstractmethod
    def kill_container(self, pod: Json, container: str) -> None:
        """Kill every process of a pod's container."""

    @abstractmethod
    def controller_down(self) -> contextlib.AbstractContextManager[None]:
        """Have no controller of Argo's while inside."""

    @abstractmethod
    def close(self) -> None:
        """Leave nothing behind."""

    # --- what does not --------------------------------------------------------------------------

    def namespace(self, prefix: str = "conformance") -> str:
        """Make a namespace of the test's own, opted in; it goes with the world."""
        name = f"{prefix}-{secrets.token_hex(4)}"
        self.wire.create(
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": name, "labels": OPTED_IN},
            }
        )
        self.spaces.append(name)
        return name

    def install(self, *objects: Json) -> None:
        """Create each object, or leave the one that is there."""
        for obj in objects:
            path = place(obj["apiVersion"], obj["kind"], obj["metadata"].get("namespace", ""))
            answer = self.wire.ask("POST", path, obj)
            if answer.status not in {201, 409}:
                words = f"{obj['kind']}: {answer.status} {answer.message}"
                raise UnexpectedAnswerError(words)

    def identity(self, namespace: str, account: str, *rules: Json) -> Wire:
        """Give the wire of a ServiceAccount that may do exactly this in its namespace."""
        named = {"name": account, "namespace": namespace}
        version, subject = "rbac.authorization.k8s.io/v1", {"kind": "ServiceAccount", **named}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": account}
        self.install(
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": named},
            {"apiVersion": version, "kind": "Role", "metadata": named, "rules": [*rules]},
            {
                "apiVersion": version,
                "kind": "RoleBinding",
                "metadata": named,
                "roleRef": role,
                "subjects": [subject],
            },
        )
        return self.bearer(self.token(namespace, account))

    def bearer(self, token: str) -> Wire:
        """Give the wire of whoever bears this token."""
        return self.wire.as_bearer(token, self.folder / f"{secrets.token_hex(6)}.kubeconfig")

    def ask(
        self, question: Callable[[client.ApiClient], Awaitable[T]], wire: Wire | None = None
    ) -> T:
        """Ask with the service's own client, as whose wire it is."""

        async def work() -> T:
            async with (
                asyncio.timeout(self.patience),
                connect((wire or self.wire).kubeconfig) as api,
            ):
                return await question(api)

        return asyncio.run(work())

    def until(
        self,
        what: str,
        look: Callable[[], T],
        good: Callable[[T], Any] = bool,
    ) -> T:
        """Look until it is good; else fail and say what was seen last."""
        end = time.monotonic() + self.patience
        while True:
            seen = look()
            if good(seen):
                return seen
            if time.monotonic() > end:
                raise InVainError(f"until {what}; last seen: {seen!s:.2000}")
            time.sleep(self.poll)


def rule(group: str, resource: str, *verbs: str) -> Json:
    """Write one rule of a Role."""
    return {"apiGroups": [group], "resources": [resource], "verbs": [*verbs]}


@contextlib.contextmanager
def closing(world: World) -> Generator[World]:
    """Close the world in the end."""
    try:
        yield world
    finally:
        world.open.close()
        world.close()
