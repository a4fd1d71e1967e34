"""A PostgreSQL of our own for one test run: four users, of whom one owns the tables.

Needs Debian's package postgresql; runs as the user postgres where we are root, since PostgreSQL
refuses to run as root.
"""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROLES = ("owner", "gateway", "agents", "launcher")
READY_SECONDS = 60


@dataclass(frozen=True)
class Postgres:
    """A running server."""

    urls: Mapping[str, str]
    """A URL for the owner and for each role."""


def programs() -> Path:
    """Find the server's programs; raises `FileNotFoundError`."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        raise FileNotFoundError("PostgreSQL is not installed: apt-get install postgresql")
    return found[-1].parent


@contextlib.contextmanager
def postgres(address: str, folder: Path | None = None) -> Iterator[Postgres]:
    """Start a server that listens on `address`, and stop it at the end."""
    place = folder or Path(tempfile.mkdtemp(prefix="tiphys-postgres-"))
    passwords = {role: secrets.token_hex(16) for role in ROLES}
    try:
        port = _free_port(address)
        _initialise(place, passwords["owner"])
        server = _start(place, address, port)
        try:
            _make_users(place, port, passwords)
            yield Postgres(
                {
                    role: f"postgresql://tiphys_{role}:{password}@{address}:{port}/tiphys"
                    for role, password in passwords.items()
                }
            )
        finally:
            server.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(20)
            server.kill()
            server.wait()
    finally:
        if folder is None:
            shutil.rmtree(place, ignore_errors=True)


def _someone() -> dict[str, Any]:
    """Say who runs PostgreSQL's programs, and where."""
    root = os.geteuid() == 0
    return {"cwd": "/", **({"user": "postgres", "group": "postgres"} if root else {})}


def _free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def _initialise(place: Path, password: str) -> None:
    place.mkdir(exist_ok=True)
    if os.geteuid() == 0:
        shutil.chown(place, "postgres")
    place.chmod(0o700)
    secret = place / "password"
    secret.write_text(password)
    if os.geteuid() == 0:
        shutil.chown(secret, "postgres")
    initdb = str(programs() / "initdb")
    subprocess.run(
        [
            initdb, "-D", str(place / "data"), "-U", "tiphys_superuser", "-A", "scram-sha-256",
            f"--pwfile={secret}", "-E", "UTF8", "--locale=C", "--no-sync",
        ],
        check=True, capture_output=True, timeout=READY_SECONDS, **_someone(),
    )  # fmt: skip
    hba = place / "data" / "pg_hba.conf"
    # People on this machine by its socket; everybody else by a password.
    hba.write_text("local all all trust\nhost all all all scram-sha-256\n")


def _start(place: Path, address: str, port: int) -> subprocess.Popen[bytes]:
    settings = {
        "listen_addresses": address,
        "port": str(port),
        "unix_socket_directories": str(place),
        "fsync": "off",
        "max_connections": "100",
    }
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    server = str(programs() / "postgres")
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(
            [server, "-D", str(place / "data"), *options], stdout=log, stderr=log, **_someone()
        )
    until = time.monotonic() + READY_SECONDS
    while subprocess.run(
        [str(programs() / "pg_isready"), "-q", "-h", str(place), "-p", str(port)], check=False
    ).returncode:
        if process.poll() is not None or time.monotonic() > until:
            process.kill()
            raise TimeoutError(f"PostgreSQL did not start: {(place / 'log').read_text()[-2000:]}")
        time.sleep(0.1)
    return process


def _make_users(place: Path, port: int, passwords: Mapping[str, str]) -> None:
    statements = [
        f"CREATE USER tiphys_{role} PASSWORD '{password}'" for role, password in passwords.items()
    ]
    statements += [
        "CREATE DATABASE tiphys OWNER tiphys_owner",
        "REVOKE ALL ON DATABASE tiphys FROM PUBLIC",
        *(f"GRANT CONNECT ON DATABASE tiphys TO tiphys_{role}" for role in ROLES),
    ]
    argv = [str(programs() / "psql"), "-q", "-h", str(place), "-p", str(port)]
    argv += ["-U", "tiphys_superuser", "-d", "postgres", "-v", "ON_ERROR_STOP=1"]
    for statement in statements:
        subprocess.run(
            [*argv, "-c", statement], check=True, capture_output=True, timeout=READY_SECONDS
        )
