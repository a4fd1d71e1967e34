"""One database as the tests are given it."""

from dataclasses import dataclass
from typing import Any

import psycopg

from tiphys.service.roles import Role


@dataclass(frozen=True)
class Place:
    """One database: who owns it and who works in it."""

    superuser_here: str
    """The server's superuser, in this database."""
    owner: str
    users: dict[Role, str]
    """URLs."""
    names: dict[Role, str]

    def ask(self, url: str, query: str, *given: Any) -> list[tuple[Any, ...]]:
        """Run one statement in a transaction of its own; gives its rows, if it has any."""
        with psycopg.connect(url) as connection:
            cursor = connection.execute(query.encode(), given)
            return cursor.fetchall() if cursor.description else []
