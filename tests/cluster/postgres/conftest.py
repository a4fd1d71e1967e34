"""A migrated PostgreSQL with one user for each role, and a NATS; no Kubernetes is needed."""

import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

sys.path.append(str(Path(__file__).parent))

from fleet import Fleet
from places import Place
from servers import Missing, Nats, postgres

from tiphys.sandbox.scenario import find
from tiphys.service.roles import Role


@pytest.fixture(scope="session")
def superuser() -> Iterator[str]:
    """The URL of a server's superuser: one that was named, or a server of our own."""
    named = os.environ.get("TIPHYS_TEST_POSTGRES", "").replace("+psycopg", "")
    if named:
        yield named
        return
    try:
        with postgres() as url:
            yield url
    except Missing as missing:
        pytest.fail(str(missing), pytrace=False)


def run_tiphys(*words: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run the command line as a process."""
    ours = {k: v for k, v in os.environ.items() if not k.startswith("TIPHYS_")}
    return subprocess.run(
        [sys.executable, "-m", "tiphys.service.main", *words],
        env={**ours, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def tiphys() -> Callable[..., "subprocess.CompletedProcess[str]"]:
    return run_tiphys


@pytest.fixture
def empty_place(superuser: str) -> Iterator[Place]:
    """A new database with an owner and a user for each role, and nothing in it."""
    mark = secrets.token_hex(4)
    database, owner = f"tiphys_{mark}", f"owner_{mark}"
    names = {role: f"{role}_{mark}" for role in Role}
    at = psycopg.conninfo.conninfo_to_dict(superuser)
    host = f"{at['host']}:{at.get('port', 5432)}"
    with psycopg.connect(superuser, autocommit=True) as server:
        for user in (owner, *names.values()):
            server.execute(f"CREATE ROLE {user} LOGIN PASSWORD 'secret'".encode())
        server.execute(f"CREATE DATABASE {database} OWNER {owner}".encode())

    def url(user: str) -> str:
        return f"postgresql://{user}:secret@{host}/{database}"

    here = psycopg.conninfo.make_conninfo(superuser, dbname=database)
    yield Place(here, url(owner), {role: url(name) for role, name in names.items()}, names)
    with psycopg.connect(superuser, autocommit=True) as server:
        server.execute(f"DROP DATABASE {database} WITH (FORCE)".encode())
        for user in (owner, *names.values()):
            server.execute(f"DROP ROLE {user}".encode())


@pytest.fixture
def place(empty_place: Place) -> Place:
    """The same, migrated by the command."""
    names = ",".join(f"{role}={name}" for role, name in empty_place.names.items())
    done = run_tiphys("migrate", TIPHYS_DATABASE_URL=empty_place.owner, TIPHYS_DB_USERS=names)
    assert done.returncode == 0, done.stderr
    return empty_place


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[Nats]:
    server = Nats(tmp_path / "nats")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def fleet_of(place: Place, nats: Nats, tmp_path: Path) -> Callable[..., Fleet]:
    """`async with fleet_of(scenario, replicas=2, **changes of the scenario) as fleet`."""

    def make(name: str, *, replicas: int = 1, **changes: Any) -> Fleet:
        scenario = find(name).model_copy(update=changes)
        return Fleet(
            scenario, tmp_path / name, databases=place.users, nats_url=nats.url, replicas=replicas
        )

    return make
