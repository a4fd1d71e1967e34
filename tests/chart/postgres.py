"""A PostgreSQL of our own for one test run, with the users that docs/postgres.sql makes."""

import contextlib
import secrets
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tools.cluster.monitoring import Database, postgresql

ROLES = ("owner", "gateway", "agents", "launcher")
ANYWHERE = "0.0.0.0/0"
"""Who may connect, with a password: another cluster's pods have addresses of their own."""
USERS = Path(__file__).parents[2] / "docs" / "postgres.sql"


@dataclass(frozen=True)
class Postgres:
    """A running server."""

    urls: Mapping[str, str]
    """A URL for the owner and for each role."""


@contextlib.contextmanager
def postgres(address: str) -> Iterator[Postgres]:
    """Start a server that listens on `address`, and stop it at the end."""
    with (
        tempfile.TemporaryDirectory() as folder,
        postgresql(address, Path(folder), allowed=ANYWHERE) as server,
    ):
        passwords = {role: secrets.token_hex(16) for role in ROLES}
        make_users(server, passwords)
        yield Postgres(
            {
                role: f"postgresql://tiphys_{role}:{password}@{server.address}/tiphys"
                for role, password in passwords.items()
            }
        )


def make_users(server: Database, passwords: Mapping[str, str]) -> None:
    """Make the four users and the database, as the documentation says."""
    variables = [word for role in ROLES for word in ("-v", f"{role}={passwords[role]}")]
    subprocess.run(
        ["psql", "-q", "-X", server.uri(), *variables, "-f", str(USERS)],
        check=True,
        capture_output=True,
        timeout=60,
    )
