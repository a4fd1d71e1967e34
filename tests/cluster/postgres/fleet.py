"""Several `tiphys serve` of each role in one simulated world, each with its own credentials alone.

Stands where a `Rehearsal` does: `Play` plays scenarios on it.
"""

import asyncio
import contextlib
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2
import yaml

from tiphys.policies.parse import built_in_text
from tiphys.sandbox.scenario import Scenario
from tiphys.sandbox.world import World
from tiphys.service.child import dying_with_us
from tiphys.service.rehearsal import PACE
from tiphys.service.roles import Role
from tiphys.workflow_templates.render import RenderSettings, manifests, role_bindings
from tiphys.workflow_templates.signature import load_or_create_key, public_hex

READY_SECONDS = 120.0
_HELD: Mapping[Role, frozenset[str]] = {
    Role.GATEWAY: frozenset({"TIPHYS_GATEWAY_KUBECONFIG", "TIPHYS_WEBHOOK_TOKEN"}),
    Role.AGENTS: frozenset(
        {"TIPHYS_KUBECONFIG", "TIPHYS_PROMETHEUS_URL", "TIPHYS_ALERTMANAGER_URLS"}
    ),
    Role.LAUNCHER: frozenset({"TIPHYS_LAUNCHER_KUBECONFIG"}),
}
"""Which of the world's credentials and addresses each role is given."""
_TOLD = {"TIPHYS_CLUSTER", "TIPHYS_HOST", "TIPHYS_PORT"}


class Replica:
    """One process of one role."""

    def __init__(self, role: Role, directory: Path, environment: Mapping[str, str]) -> None:
        self.role = role
        self.directory = directory
        self._environment = dict(environment)
        self.process: asyncio.subprocess.Process | None = None
        self.url = ""

    async def start(self) -> None:
        """Start it; does not wait until it is ready."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self.directory / "serve.json").unlink(missing_ok=True)
        words = ("-m", "tiphys.service.main", "serve", "--role", self.role.value)
        ours = {k: v for k, v in os.environ.items() if not k.startswith("TIPHYS_")}
        with (self.directory / "serve.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *dying_with_us([sys.executable, *words]),
                env={**ours, **self._environment, "TIPHYS_DATA_DIR": str(self.directory)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self.process is not None and self.process.returncode is None

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self.process is not None
        return self.process.pid

    def kill(self) -> None:
        """SIGKILL."""
        if self.running and self.process:
            self.process.kill()

    async def stop(self) -> int:
        """SIGTERM; gives the exit status."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        try:
            async with asyncio.timeout(30):
                return await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
            raise

    def words(self) -> str:
        """What it has written."""
        return (self.directory / "serve.log").read_text(errors="replace")


class Fleet:
    """Use as an async context manager."""

    def __init__(
        self,
        scenario: Scenario,
        directory: Path,
        *,
        databases: Mapping[Role, str],
        nats_url: str,
        replicas: int = 1,
    ) -> None:
        self.scenario = scenario
        self.directory = directory
        self.world = World(scenario, directory)
        self._databases = databases
        self._nats_url = nats_url
        self._count = replicas
        self._token, self._webhook_token = secrets.token_urlsafe(16), secrets.token_urlsafe(16)
        self.http = httpx2.AsyncClient(timeout=10.0, trust_env=False)
        self.replicas: dict[Role, list[Replica]] = {}

    async def __aenter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            await self.world.open()
            policy: Any = yaml.safe_load(built_in_text("demo"))
            policy["rules"] |= self.scenario.policy.get("rules", {})
            (self.directory / "policy.yaml").write_text(yaml.safe_dump(policy, sort_keys=False))
            key = load_or_create_key(self.directory / "launcher.key")
            await self._fill(public_hex(key))
            for role in Role:
                self.replicas[role] = [self._replica(role, n) for n in range(self._count)]
            everyone = [one for some in self.replicas.values() for one in some]
            for one in everyone:
                await one.start()
            for one in everyone:
                await self.ready(one)
            self.point_webhook_at(self.replicas[Role.GATEWAY][0])
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        running = [one for some in self.replicas.values() for one in some if one.running]
        await asyncio.gather(*(one.stop() for one in running), return_exceptions=True)
        await self.world.stop()
        await self.http.aclose()

    async def _fill(self, public_key: str) -> None:
        await self.world.settle()
        settings = RenderSettings(
            image="tiphys-step",
            public_key=public_key,
            prometheus_url=self.world.prometheus_url,
            verify_share=0.03,
        )
        self.world.install(manifests(settings))
        for namespace in self.world.opted_in:
            self.world.install(role_bindings(settings, namespace))

    def _replica(self, role: Role, number: int) -> Replica:
        world = self.world.environment("http://127.0.0.1:0", self._webhook_token)
        given = {k: v for k, v in world.items() if k in _TOLD | _HELD[role]}
        given |= {
            **PACE,
            "TIPHYS_POLICY": str(self.directory / "policy.yaml"),
            "TIPHYS_DATABASE_URL": self._databases[role],
            "TIPHYS_LOG_JSON": "true",
            "TIPHYS_STREAM_MAX_BYTES": str(64 << 20),
        }
        if role is not Role.LAUNCHER:
            given["TIPHYS_NATS_URL"] = self._nats_url
        else:
            given["TIPHYS_LAUNCHER_KEY"] = str(self.directory / "launcher.key")
        if role is Role.GATEWAY:
            given["TIPHYS_API_TOKEN"] = self._token
        return Replica(role, self.directory / f"{role}-{number}", given)

    async def ready(self, one: Replica) -> None:
        """Wait until a replica says that it can work."""
        deadline = time.monotonic() + READY_SECONDS
        while True:
            assert one.running, f"{one.directory.name} ended: {one.words()[-3000:]}"
            with contextlib.suppress(OSError, ValueError, KeyError, httpx2.HTTPError):
                one.url = json.loads((one.directory / "serve.json").read_text())["url"]
                if (await self.http.get(f"{one.url}/readyz")).status_code == 200:
                    return
            assert time.monotonic() < deadline, f"not ready: {one.words()[-3000:]}"
            await asyncio.sleep(0.1)

    def point_webhook_at(self, one: Replica) -> None:
        """Let Alertmanager post there, as a Service finds a living pod."""
        self.world.connect_webhook(f"{one.url}/webhooks/alertmanager", self._webhook_token)

    def one(self, role: Role) -> Replica:
        """Give a replica that runs."""
        return next(one for one in self.replicas[role] if one.running)

    # --- talking to it, as to a rehearsal -------------------------------------------------------

    async def get(self, path: str, **query: Any) -> Any:
        """Read from the API of a gateway that runs."""
        return (await self._ask("GET", path, params=query)).json()

    async def text(self, path: str) -> str:
        """Read what is not JSON."""
        return (await self._ask("GET", path)).text

    async def post(self, path: str, body: Any) -> Any:
        """Write to the API."""
        return (await self._ask("POST", path, json=body)).json()

    async def _ask(self, method: str, path: str, **given: Any) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {self._token}"}
        url = f"{self.one(Role.GATEWAY).url}{path}"
        answer = await self.http.request(method, url, headers=headers, **given)
        answer.raise_for_status()
        return answer

    async def records(self, *events: str) -> list[dict[str, Any]]:
        """Read the audit, or only some events of it."""
        found = await self.get("/api/audit", limit=10_000)
        return [record for record in found if not events or record["event"] in events]


async def until(true: Callable[[], Awaitable[Any]], what: str, seconds: float = 90.0) -> Any:
    """Wait for something to be so, and give it."""
    deadline = time.monotonic() + seconds
    while not (found := await true()):
        assert time.monotonic() < deadline, f"it did not happen in {seconds:.0f} s: {what}"
        await asyncio.sleep(0.05)
    return found
