"""The one way to the SQL database: transactions, the clock and the data directory's lock.

Invariant: every transaction that writes has begun as a writer (`BEGIN IMMEDIATE` on SQLite, row
locks on PostgreSQL), so what it read is still true when it commits.
"""

import asyncio
import contextlib
import fcntl
import os
import sqlite3
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVarTuple

from sqlalchemy import Select, event, func, make_url, select, text, update
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from tiphys.service import schema
from tiphys.service.errors import DataDirectoryBusyError, NotMigratedError
from tiphys.service.tables import locks

Transaction = AsyncConnection
Row = TypeVarTuple("Row")
CHANNEL = "tiphys"
"""PostgreSQL's channel on which the replicas hear of each other's moves."""
CONNECT_SECONDS = 10
"""How long a PostgreSQL that says nothing is waited for, unless its URL has a `connect_timeout`."""
AWAY = (OperationalError, InterfaceError, PoolTimeoutError, sqlite3.OperationalError)
"""The database's trouble, such as a server that restarts or a full disk; asking again may help."""
_CREATING = 0x7469706879
"""Key of the advisory lock under which PostgreSQL's tables are made: `tiphy` in ASCII."""


def stamp(at: datetime) -> str:
    """Write a time as the database stores it: RFC 3339, UTC, microseconds, fixed width."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def moment(text: str) -> datetime:
    """Read a stored time."""
    return datetime.fromisoformat(text)  # ten times as fast as by a pattern


class Database:
    """SQLite in WAL mode (`synchronous=FULL`) or PostgreSQL."""

    def __init__(self, url: str) -> None:
        self.engine: AsyncEngine = (
            create_async_engine(url, connect_args={"factory": _Connection})
            if is_sqlite(url)
            else create_async_engine(url, pool_pre_ping=True, connect_args=_patience(url))
        )
        self.sqlite = is_sqlite(url)
        self._reading_options: dict[str, Any] = (
            {"tiphys_reading": True}
            if self.sqlite
            else {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        )
        # SQLite has one writer; queueing here is fair and cheap, its busy handler is neither.
        self._writer = asyncio.Lock()
        if self.sqlite:
            event.listen(self.engine.sync_engine, "connect", _prepare_sqlite)
            event.listen(self.engine.sync_engine, "begin", _begin_immediate)

    @classmethod
    def in_directory(cls, directory: Path) -> "Database":
        """Open the embedded database of a data directory."""
        return cls(f"sqlite+aiosqlite:///{directory / 'tiphys.db'}")

    async def create(self) -> None:
        """Make the tables, or bring them up to date; safe to repeat and from several at once."""
        async with self.migrating():
            pass

    @contextlib.asynccontextmanager
    async def migrating(self) -> AsyncGenerator[Transaction]:
        """Bring the tables up to date, in one transaction with what the caller adds."""
        async with self.transaction() as tx:
            if not self.sqlite:
                await tx.execute(text(f"SELECT pg_advisory_xact_lock({_CREATING})"))
            await tx.run_sync(schema.upgrade)
            yield tx

    async def check_version(self) -> None:
        """Raise `NotMigratedError` where tables are missing or older than we need."""
        async with self.reading() as connection:
            found = await connection.run_sync(schema.version)
        if found is None or found < schema.HEAD:
            raise NotMigratedError("run `tiphys migrate` with the owner's TIPHYS_DATABASE_URL")

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Transaction]:
        """Run one writing transaction: commits at the end, rolls back on an exception."""
        if not self.sqlite:
            async with self.engine.begin() as connection:
                yield connection
            return
        async with self._writer, self.engine.begin() as connection:
            yield connection

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncGenerator[Transaction]:
        """Run queries on one consistent snapshot, beside a writer."""
        async with self.engine.connect() as connection:
            yield await connection.execution_options(**self._reading_options)

    async def lock(self, tx: Transaction, name: str) -> None:
        """Serialise transactions that count: `audit`, `budget`, `causes` or `incidents`."""
        if not self.sqlite:
            await tx.execute(
                update(locks).where(locks.c.name == name).values(counter=locks.c.counter + 1)
            )

    async def announce(self, tx: Transaction, state: str) -> None:
        """Wake the replicas that work on this state, when the transaction commits: `Wakeups`."""
        if not self.sqlite:
            await tx.execute(select(func.pg_notify(CHANNEL, state)))

    def for_update(self, query: "Select[*Row]") -> "Select[*Row]":
        """Lock the selected rows until the transaction ends."""
        return query if self.sqlite else query.with_for_update()

    async def time(self, tx: Transaction, ours: datetime) -> datetime:
        """Give the time that all replicas share: PostgreSQL's; ours, where we are alone."""
        if self.sqlite:
            return ours
        return (await tx.execute(select(func.clock_timestamp()))).scalar_one()

    async def ping(self) -> None:
        """Raise whatever keeps the database from answering."""
        async with self.reading() as connection:
            await connection.execute(select(1))

    async def close(self) -> None:
        """Close every connection."""
        await self.engine.dispose()


def why_away(error: Exception) -> str:
    """Give the database's own words on one line, without the statement and what it was given."""
    lines = str(getattr(error, "orig", None) or error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _patience(url: str) -> dict[str, int]:
    return {} if "connect_timeout" in make_url(url).query else {"connect_timeout": CONNECT_SECONDS}


def is_sqlite(url: str) -> bool:
    """Tell the embedded database from PostgreSQL."""
    return url.startswith("sqlite")


class _Connection(sqlite3.Connection):
    """Lets go of its locks when it is closed, whoever still holds a cursor of it.

    A task that is cancelled amid a query leaves one in its traceback. sqlite3_close_v2 then keeps
    the connection, transaction and write lock included, until the garbage collector comes by.
    """

    def close(self) -> None:
        """Roll back, then close."""
        with contextlib.suppress(sqlite3.Error):
            self.rollback()
        super().close()


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # we begin ourselves, see _begin_immediate
    cursor = connection.cursor()
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "busy_timeout=10000",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_immediate(connection: Any) -> None:
    reading = connection.get_execution_options().get("tiphys_reading")
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


class DirectoryLock:
    """Held by one `serve` on a data directory; the kernel frees it when the process dies."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file = (directory / "lock").open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.seek(0)
            holder = self._file.read().strip() or "another process"
            self._file.close()
            raise DataDirectoryBusyError(f"{directory} is held by {holder}") from None
        self._file.seek(0)
        self._file.truncate()
        self._file.write(f"process {os.getpid()}")
        self._file.flush()

    def release(self) -> None:
        """Let another process have the directory."""
        self._file.close()
