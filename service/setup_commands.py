"""The commands that prepare an installation: `tiphys migrate` and `tiphys keygen`."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from tiphys.service.errors import BadInputError, TiphysError
from tiphys.service.roles import Role
from tiphys.service.settings import Settings
from tiphys.workflow_templates.signature import create_key, public_hex

User = Annotated[Optional[str], typer.Option(help="Its database user; it must exist.")]


def migrate(
    gateway_user: User = None, agents_user: User = None, launcher_user: User = None
) -> None:
    """Make the tables, or bring them up to date; on PostgreSQL also each role's rights.

    Needs the owner's TIPHYS_DATABASE_URL; without one it is the embedded database of the data
    directory. Safe to repeat, and from several at once.
    """
    from sqlalchemy.exc import SQLAlchemyError  # slow to import, and every command would wait

    given = {
        Role.GATEWAY: gateway_user,
        Role.AGENTS: agents_user,
        Role.LAUNCHER: launcher_user,
    }
    settings = Settings()
    named = {role: user for role, user in given.items() if user}
    if settings.names_db_users:
        named = {**settings.db_users, **named}
    try:
        told = asyncio.run(_migrate(settings, named))
    except (SQLAlchemyError, OSError) as error:
        raise TiphysError(f"the database refused: {str(error).splitlines()[0]}") from error
    sys.stdout.write("".join(f"{line}\n" for line in told))


async def _migrate(settings: Settings, named: dict[Role, str]) -> list[str]:
    """Do it; gives what to tell. Users that were named must exist."""
    from tiphys.service.database import Database, DirectoryLock
    from tiphys.service.grants import grant

    if not settings.external_database:
        lock = DirectoryLock(settings.data_dir)
        database = Database.in_directory(settings.data_dir)
        try:
            await database.create()
        finally:
            await database.close()
            lock.release()
        return [f"the embedded database in {settings.data_dir} is up to date"]
    database = Database(settings.database_url or "")
    users = {**settings.db_users, **named}
    try:
        async with database.migrating() as tx:
            missing = await tx.run_sync(grant, users)
            if unknown := [users[role] for role in missing if role in named]:
                raise BadInputError(
                    f"there is no database user {', '.join(unknown)}; make it first"
                )
    finally:
        await database.close()
    return ["the tables are up to date"] + [
        f"{role}: there is no user {user}; nothing was granted"
        if role in missing
        else f"{role}: {user} has its rights"
        for role, user in users.items()
    ]


def keygen(
    file: Annotated[Path, typer.Argument(help="Where to write it; never over another file.")],
) -> None:
    """Make the Ed25519 key that signs launches, and print its public half for the templates."""
    try:
        key = create_key(file)
    except FileExistsError:
        raise BadInputError(f"{file} exists; a key is never written over") from None
    except OSError as error:
        raise BadInputError(f"{file}: {error.strerror}") from error
    sys.stdout.write(f"{public_hex(key)}\n")
