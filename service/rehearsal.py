"""A simulated cluster and a real `tiphys serve` in it, for the demo and for tests.

The world lives in this process; the service is a child that can be killed and started again.
"""

import asyncio
import contextlib
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2

from tiphys.policies.parse import load
from tiphys.sandbox.scenario import Scenario
from tiphys.sandbox.world import World
from tiphys.service.child import dying_with_us
from tiphys.service.errors import TiphysError
from tiphys.service.scenario_policy import let_read, policy_text
from tiphys.workflow_templates.render import (
    RenderSettings,
    cluster_role_bindings,
    manifests,
    role_bindings,
)
from tiphys.workflow_templates.signature import load_or_create_key, public_hex

READY_SECONDS = 60.0
PACE = {
    "TIPHYS_RECONCILE_INTERVAL": "0.5",
    "TIPHYS_POLL_INTERVAL": "0.2",
    "TIPHYS_NOT_AFTER_SECONDS": "300",
}
"""The sandbox is fast; a real installation keeps the defaults."""


class ServeFailedError(TiphysError):
    """`tiphys serve` did not start."""


class Rehearsal:
    """Use as an async context manager; everything is in `directory` and nothing else."""

    def __init__(
        self, scenario: Scenario, directory: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        """`environment` holds `TIPHYS_*` variables that `serve` gets instead of the usual ones."""
        self.scenario = scenario
        self.directory = directory
        self.world = World(scenario, directory)
        self.url = ""
        self._given = dict(environment or {})
        self._token = secrets.token_urlsafe(16)
        self._webhook_token = secrets.token_urlsafe(16)
        self._process: asyncio.subprocess.Process | None = None
        self._http = httpx2.AsyncClient(timeout=10.0, trust_env=False)

    async def __aenter__(self) -> Self:
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            await self.world.open()
            self._write_policy()
            key = load_or_create_key(self.directory / "launcher.key")
            async with asyncio.TaskGroup() as together:
                together.create_task(self._fill(public_hex(key)))
                together.create_task(self.start_service())
        except BaseExceptionGroup as group:
            await self._close()
            raise group.exceptions[0] from None
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
        await self.stop_service()
        await self.world.stop()
        await self._http.aclose()

    async def _fill(self, public_key: str) -> None:
        """Let the world grow old, then install the catalogue where it opted in."""
        await self.world.settle()
        settings = RenderSettings(
            image="tiphys-step",
            public_key=public_key,
            prometheus_url=self.world.prometheus_url,
            verify_share=0.03,
        )
        self.world.install(manifests(settings))
        for nodes in (False, True):
            self.world.install(cluster_role_bindings(settings, nodes=nodes))
        for namespace in self.world.opted_in:
            self.world.install(role_bindings(settings, namespace))
        let_read(self.world, load(self.directory / "policy.yaml"))

    def _write_policy(self) -> None:
        (self.directory / "policy.yaml").write_text(policy_text(self.scenario))

    # --- the service ----------------------------------------------------------------------------

    async def start_service(self) -> None:
        """Start `tiphys serve` as a child and connect Alertmanager to it."""
        address = self.directory / "serve.json"
        address.unlink(missing_ok=True)
        with (self.directory / "serve.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *dying_with_us([sys.executable, "-m", "tiphys.service.main", "serve"]),
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the demo, which stops the child itself
            )
        try:
            async with asyncio.timeout(READY_SECONDS):
                await self._wait_until_ready(address)
        except TimeoutError:
            late = f"not within {READY_SECONDS:.0f} s; {self._last_words()}"
            raise ServeFailedError(late) from None
        self.world.connect_webhook(f"{self.url}/webhooks/alertmanager", self._webhook_token)

    async def _wait_until_ready(self, address: Path) -> None:
        while True:
            if self._process is None or self._process.returncode is not None:
                raise ServeFailedError(self._last_words())
            with contextlib.suppress(OSError, ValueError, KeyError, httpx2.HTTPError):
                self.url = _address(address)
                answer = await self._http.get(f"{self.url}/readyz")
                if answer.status_code == 200:
                    return
            await asyncio.sleep(0.05)

    def _last_words(self) -> str:
        lines = (self.directory / "serve.log").read_text(errors="replace").splitlines()
        return lines[-1] if lines else "it said nothing"

    def _environment(self) -> dict[str, str]:
        ours = {k: v for k, v in os.environ.items() if not k.startswith("TIPHYS_")}
        # A free port each time: somebody else may have taken the one of a service that was killed.
        given = self.world.environment("http://127.0.0.1:0", self._webhook_token)
        return {
            **ours,
            **given,
            **PACE,
            "TIPHYS_DATA_DIR": str(self.directory),
            "TIPHYS_POLICY": str(self.directory / "policy.yaml"),
            "TIPHYS_API_TOKEN": self._token,
            **self._given,
        }

    def kill_service(self) -> None:
        """SIGKILL it, as a power cut would."""
        if self._process and self._process.returncode is None:
            self._process.kill()

    async def restart_service(self) -> None:
        """Start it again after a kill, and tell Alertmanager where."""
        if self._process:
            await self._process.wait()
        await self.start_service()

    async def stop_service(self) -> None:
        """End it politely, then by force."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.returncode is None:
            process.terminate()
        try:
            async with asyncio.timeout(15):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    # --- talking to it --------------------------------------------------------------------------

    @property
    def token(self) -> str:
        """The API's bearer token."""
        return self._token

    def command_environment(self) -> dict[str, str]:
        """Give the variables with which the command line reaches this service."""
        return {
            "TIPHYS_URL": self.url,
            "TIPHYS_API_TOKEN": self._token,
            "TIPHYS_WEBHOOK_TOKEN": self._webhook_token,
        }

    async def get(self, path: str, **query: Any) -> Any:
        """Read from the API; raises `httpx2.HTTPError`."""
        headers = {"Authorization": f"Bearer {self._token}"}
        answer = await self._http.get(f"{self.url}{path}", params=query, headers=headers)
        answer.raise_for_status()
        return answer.json()

    async def text(self, path: str) -> str:
        """Read what is not JSON from the API; raises `httpx2.HTTPError`."""
        headers = {"Authorization": f"Bearer {self._token}"}
        answer = await self._http.get(f"{self.url}{path}", headers=headers)
        answer.raise_for_status()
        return answer.text

    async def post(self, path: str, body: Any) -> Any:
        """Write to the API; raises `httpx2.HTTPError`."""
        headers = {"Authorization": f"Bearer {self._token}"}
        answer = await self._http.post(f"{self.url}{path}", json=body, headers=headers)
        answer.raise_for_status()
        return answer.json()

    @property
    def service_pid(self) -> int:
        """The process id of `tiphys serve`; raises `ServeFailedError` when it does not run."""
        if self._process is None:
            raise ServeFailedError("it is stopped")
        return self._process.pid

    async def post_alert(self, labels: dict[str, str]) -> None:
        """Post one firing alert to the webhook as an Alertmanager would."""
        alert = {
            "status": "firing",
            "labels": labels,
            "annotations": {},
            "startsAt": datetime.now(UTC).isoformat(),
            "endsAt": "0001-01-01T00:00:00Z",
        }
        body = {"version": "4", "receiver": "rehearsal", "groupKey": "{}", "alerts": [alert]}
        headers = {"Authorization": f"Bearer {self._webhook_token}"}
        url = f"{self.url}/webhooks/alertmanager"
        (await self._http.post(url, json=body, headers=headers)).raise_for_status()


def _address(file: Path) -> str:
    return str(json.loads(file.read_text())["url"])
