"""Prometheus, Alertmanager, kube-state-metrics and PostgreSQL for one test run.

Each is a process of this machine that listens where pods reach it, started with a configuration
that the caller wrote, and gone when its `with` block ends. Invariant: nothing of the distribution's
own services is used or changed; a run that was killed leaves only what `down` removes.
"""

import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import urllib.request
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tools.cluster.down import postgres_prefix
from tools.cluster.paths import Cache
from tools.cluster.processes import Daemon, Home, run, start, wait_for
from tools.cluster.report import Trouble
from tools.cluster.target import Target

_OWNER = "postgres"


@dataclass(frozen=True)
class Served:
    """A started program and its address."""

    daemon: Daemon
    host: str
    port: int

    @property
    def address(self) -> str:
        """host:port."""
        return f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """Its HTTP root."""
        return f"http://{self.address}"


@dataclass(frozen=True)
class Database(Served):
    """A PostgreSQL server of its own, with a superuser."""

    password: str
    user: str = _OWNER

    def uri(self, database: str = "postgres") -> str:
        """Return a connection URI as libpq reads it."""
        return f"postgresql://{self.user}:{self.password}@{self.address}/{database}"


def free_port(host: str) -> int:
    """Return a port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def _home(folder: Path, cache: Cache | None) -> Home:
    """Logs beside the run's other files; the cluster's mark, so that `down` finds a leftover."""
    return Home((cache or Cache.default()).run, folder / "logs")


def _answers(url: str) -> bool:
    """Tell whether there is an answer of 200 with something in it."""
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return reply.status == 200 and bool(reply.read(1))
    except OSError:
        return False


@contextmanager
def _serving(
    home: Home, name: str, argv: Sequence[str | Path], where: tuple[str, int], ready: str
) -> Generator[Served]:
    """Start, wait until `ready` answers 200, and end it afterwards."""
    daemon = start(home, name, argv)
    served = Served(daemon, *where)
    try:
        wait_for(f"{name} on {served.address}", lambda: _answers(served.url + ready), daemon, 60)
        yield served
    finally:
        daemon.stop()


@contextmanager
def kube_state_metrics(
    target: Target, folder: Path, *options: str, cache: Cache | None = None
) -> Generator[Served]:
    """Serve the cluster's objects as metrics; `options` are its own, such as `--namespaces=a`."""
    host = target.node_ip
    port, own = free_port(host), free_port(host)
    argv = [
        *(target.bin["kube-state-metrics"], f"--kubeconfig={target.kubeconfig}"),
        *(f"--host={host}", f"--port={port}"),
        *(f"--telemetry-host={host}", f"--telemetry-port={own}", *options),
    ]
    with _serving(
        _home(folder, cache), "kube-state-metrics", argv, (host, port), "/metrics"
    ) as served:
        yield served


@contextmanager
def prometheus(
    host: str, folder: Path, *options: str, port: int = 0, cache: Cache | None = None
) -> Generator[Served]:
    """Debian's Prometheus with `folder/prometheus.yml`; its data goes to `folder/data`.

    `POST /-/reload` reads the file again.
    """
    port = port or free_port(host)
    argv = [
        *("prometheus", f"--config.file={folder / 'prometheus.yml'}"),
        *(f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address={host}:{port}"),
        *("--web.enable-lifecycle", *options),
    ]
    with _serving(_home(folder, cache), "prometheus", argv, (host, port), "/-/ready") as served:
        yield served


@contextmanager
def alertmanager(
    host: str, folder: Path, *options: str, port: int = 0, cache: Cache | None = None
) -> Generator[Served]:
    """Debian's Alertmanager with `folder/alertmanager.yml`, alone, without a cluster of its own."""
    port = port or free_port(host)
    argv = [
        *("prometheus-alertmanager", f"--config.file={folder / 'alertmanager.yml'}"),
        *(f"--storage.path={folder / 'data'}", f"--web.listen-address={host}:{port}"),
        *("--cluster.listen-address=", *options),
    ]
    with _serving(_home(folder, cache), "alertmanager", argv, (host, port), "/-/ready") as served:
        yield served


def _postgres_bin() -> Path:
    """Return the newest PostgreSQL's folder, which Debian keeps off the PATH."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: float(p.parts[-3])
    )
    if not found:
        raise Trouble("PostgreSQL is missing; apt-get install postgresql")
    return found[-1].parent


@contextmanager
def postgresql(
    host: str, folder: Path, *, allowed: str = "10.88.0.0/16", cache: Cache | None = None
) -> Generator[Database]:
    """A new PostgreSQL cluster, owned by the user postgres, reachable from `allowed` by password.

    Its data lies in the system's temporary folder, which that user can reach, and goes afterwards.
    """
    programs, password = _postgres_bin(), secrets.token_urlsafe(18)
    data = Path(tempfile.mkdtemp(prefix=postgres_prefix((cache or Cache.default()).run)))
    try:
        shutil.chown(data, _OWNER, _OWNER)
        secret = data / "password"
        secret.write_text(password)
        shutil.chown(secret, _OWNER, _OWNER)
        cluster = data / "cluster"
        _as_owner(
            [
                *(programs / "initdb", "--pgdata", cluster, "--username", _OWNER),
                *("--auth=scram-sha-256", "--encoding=UTF8", "--no-sync", "--pwfile", secret),
            ]
        )
        secret.unlink()
        with (cluster / "pg_hba.conf").open("a") as rules:
            rules.write(f"host all all {allowed} scram-sha-256\n")
        port = free_port(host)
        settings = {
            "listen_addresses": host,
            "port": str(port),
            "unix_socket_directories": "",
            "max_connections": "200",
        }
        options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
        daemon = start(
            _home(folder, cache),
            "postgresql",
            [programs / "postgres", "-D", cluster, *options],
            user=_OWNER,
        )
        try:
            wait_for("PostgreSQL", _accepts(programs, host, port), daemon, 60)
            yield Database(daemon, host, port, password)
        finally:
            daemon.stop(signal.SIGINT)
    finally:
        shutil.rmtree(data, ignore_errors=True)


def _as_owner(argv: Sequence[str | Path]) -> None:
    run(["setpriv", "--reuid", _OWNER, "--regid", _OWNER, "--clear-groups", *argv])


def _accepts(programs: Path, host: str, port: int) -> Callable[[], bool]:
    """Return a question that pg_isready answers: are connections accepted?"""
    command = [str(programs / "pg_isready"), "-q", "-h", host, "-p", str(port)]

    def ask() -> bool:
        return subprocess.run(command, check=False, timeout=10).returncode == 0

    return ask
