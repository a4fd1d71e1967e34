"""Brings the tables up to date with alembic; `migrations/versions` holds one file for each step.

Invariants: every step and its version are one transaction, begun by `Database.create` under a lock,
so that replicas may do this at once and again; a step is never edited after a release.
"""

from pathlib import Path

from sqlalchemy import Connection, inspect, select
from sqlalchemy.sql import column, table

HEAD = "0008"
"""The newest revision; known here so that an up-to-date database costs no import of alembic."""
_FIRST = "0001"
_FOLDER = Path(__file__).parent / "migrations"
_VERSION = table("alembic_version", column("version_num"))


def version(connection: Connection) -> str | None:
    """Give the revision of a database; None where no step has been made."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(select(_VERSION.c.version_num)).scalar()


def is_known(revision: str) -> bool:
    """Whether this version of Tiphys has that step; a newer one's is left alone."""
    return revision <= HEAD


def upgrade(connection: Connection) -> None:
    """Make the steps that are missing; nothing on a database that is newer than we are."""
    found = version(connection)
    if found is not None and (found == HEAD or not is_known(found)):
        return
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    config.attributes["connection"] = connection
    if found is None and inspect(connection).has_table("audit"):
        command.stamp(config, _FIRST)  # made before there were steps
    command.upgrade(config, "head")
