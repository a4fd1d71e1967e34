"""The database: transactions that a cancellation cannot wedge, snapshots, the directory's lock."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text, update

from tiphys.service.database import Database, DirectoryLock
from tiphys.service.errors import DataDirectoryBusyError
from tiphys.service.tables import locks


async def count(bench: Any) -> None:
    async with bench.database.transaction() as tx:
        await tx.execute(update(locks).values(counter=locks.c.counter + 1))
        await tx.execute(select(locks))


async def test_a_cancelled_task_leaves_no_lock_behind(bench: Any) -> None:
    """However far it came, and while somebody still looks at its traceback."""
    kept: list[BaseException | None] = []
    for turns in range(40):
        task = asyncio.create_task(count(bench))
        for _ in range(turns):
            await asyncio.sleep(0.0001)
        task.cancel()
        kept += await asyncio.gather(task, return_exceptions=True)
        async with asyncio.timeout(5):
            await count(bench)
    assert any(isinstance(one, asyncio.CancelledError) for one in kept)


async def test_readers_see_one_snapshot_beside_a_writer(bench: Any) -> None:
    query = select(locks.c.counter).where(locks.c.name == "audit")
    async with bench.database.reading() as tx:
        before = (await tx.execute(query)).scalar_one()
        await count(bench)
        assert (await tx.execute(query)).scalar_one() == before
    async with bench.database.reading() as tx:
        assert (await tx.execute(query)).scalar_one() == before + 1


async def test_transactions_that_count_are_serialised(bench: Any) -> None:
    async def read_then_write() -> None:
        async with bench.database.transaction() as tx:
            await bench.database.lock(tx, "budget")
            seen = len((await tx.execute(text("SELECT scope FROM breakers"))).all())
            await asyncio.sleep(0)
            values = {"scope": f"s-{seen}"}
            await tx.execute(text("INSERT INTO breakers VALUES (:scope, '', '')"), values)

    await asyncio.gather(*(read_then_write() for _ in range(8)))
    assert {row["scope"] for row in await bench.rows("breakers")} == {f"s-{i}" for i in range(8)}


async def test_creating_again_and_at_once_changes_nothing(bench: Any) -> None:
    before = await bench.rows("locks")
    await asyncio.gather(*(bench.database.create() for _ in range(3)))
    assert await bench.rows("locks") == before


async def test_what_was_committed_survives_the_process(tmp_path: Path) -> None:
    first = Database.in_directory(tmp_path)
    await first.create()
    async with first.transaction() as tx:
        await tx.execute(text("INSERT INTO breakers VALUES ('s', 'r', '')"))
        synchronous = (await tx.execute(text("PRAGMA synchronous"))).scalar_one()
        journal = (await tx.execute(text("PRAGMA journal_mode"))).scalar_one()
    assert (synchronous, journal) == (2, "wal"), "FULL: a commit is on disk before it is told"
    second = Database.in_directory(tmp_path)
    async with second.reading() as tx:
        assert (await tx.execute(text("SELECT reason FROM breakers"))).scalar_one() == "r"
    await first.close()
    await second.close()


def test_a_data_directory_has_one_holder(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path)
    with pytest.raises(DataDirectoryBusyError, match="process"):
        DirectoryLock(tmp_path)
    lock.release()
    DirectoryLock(tmp_path).release()
