"""A PostgreSQL and a NATS of our own on loopback, as processes that end with the tests."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tiphys.service.child import dying_with_us
from tiphys.service.nats_server import server_binary

BINARIES = Path("/usr/lib/postgresql/15/bin")


class Missing(Exception):
    """PostgreSQL 15 is missing: apt-get install postgresql-15, or set TIPHYS_TEST_POSTGRES."""


def _as_postgres(command: list[str]) -> list[str]:
    """PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return command
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", *command]


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """Give the superuser's URL of a new server; everything is trusted, nothing is synced."""
    if not (BINARIES / "initdb").exists():
        raise Missing(Missing.__doc__)
    # Not under pytest's folders: each pytest that starts closes them to all but its own user.
    directory = Path(tempfile.mkdtemp(prefix="tiphys-postgres-"))
    if os.getuid() == 0:
        shutil.chown(directory, "postgres", "postgres")
    try:
        with _serving(directory) as url:
            yield url
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def _serving(directory: Path) -> Iterator[str]:
    data, log = directory / "data", directory / "log"
    initdb = [str(BINARIES / "initdb"), "-D", str(data), "-A", "trust", "-U", "postgres"]
    subprocess.run(
        _as_postgres([*initdb, "--no-sync"]), check=True, stdout=subprocess.DEVNULL, cwd=directory
    )
    port = _free_port()
    options = {
        "listen_addresses": "127.0.0.1",
        "port": port,
        "unix_socket_directories": directory,
        "fsync": "off",
        "max_connections": 200,
    }
    given = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    command = _as_postgres([str(BINARIES / "postgres"), "-D", str(data), *given])
    with log.open("wb") as out:
        server = subprocess.Popen(_found(command), stdout=out, stderr=out, cwd=directory)
    try:
        _wait_for_postgres(port, server, log)
        yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGINT)  # PostgreSQL's fast shutdown
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _found(command: list[str]) -> list[str]:
    return [shutil.which(command[0]) or command[0], *command[1:]]


def _wait_for_postgres(port: int, server: "subprocess.Popen[bytes]", log: Path) -> None:
    ready = [
        str(BINARIES / "pg_isready"),
        "-q",
        "-U",
        "postgres",
        "-h",
        "127.0.0.1",
        "-p",
        str(port),
    ]
    deadline = time.monotonic() + 60
    while subprocess.run(ready, check=False).returncode != 0:
        if server.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"PostgreSQL did not start: {log.read_text()[-2000:]}")
        time.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Nats:
    """A server that can be stopped, frozen and started again on its port and its store."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        self._directory = directory
        self._port = _free_port()
        self.url = f"nats://127.0.0.1:{self._port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start and wait until it takes connections."""
        config = {
            "host": "127.0.0.1",
            "port": self._port,
            "max_payload": 8 << 20,
            "jetstream": {
                "store_dir": str(self._directory / "store"),
                "sync_interval": "always",
                "max_file_store": 1 << 30,
            },
        }
        path = self._directory / "nats.json"
        path.write_text(json.dumps(config))
        with (self._directory / "log").open("ab") as out:
            command = dying_with_us([str(server_binary()), "-c", str(path)])
            self.process = subprocess.Popen(command, stdout=out, stderr=out)
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port)):
                return
            assert time.monotonic() < deadline, "NATS did not start"
            time.sleep(0.05)

    def kill(self) -> None:
        """End it at once."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None
