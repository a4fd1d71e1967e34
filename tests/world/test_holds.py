"""Only a person, with a reason, resets a breaker or unfreezes a target; and it is recorded."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import insert

from tiphys.service.audit import Audit
from tiphys.service.database import Database, stamp
from tiphys.service.errors import NoSuchHoldError
from tiphys.service.holds import Holds
from tiphys.service.records import AuditEvent
from tiphys.service.tables import breakers, freezes

NOW = stamp(datetime(2026, 11, 21, tzinfo=UTC))


async def held(directory: Path) -> tuple[Database, Holds]:
    database = Database.in_directory(directory)
    await database.create()
    frozen = {"target_uid": "u1", "incident_id": "inc-1", "target": "Deployment shop/cart"}
    async with database.transaction() as tx:
        await tx.execute(insert(breakers).values(scope="namespace:c/shop", reason="six", at=NOW))
        await tx.execute(insert(freezes).values(**frozen, reason="not ours", at=NOW))
    return database, Holds(database, Audit(database))


async def test_a_release_lets_go_of_exactly_one_and_is_recorded(tmp_path: Path) -> None:
    database, holds = await held(tmp_path)
    try:
        assert {hold.scope for hold in await holds.all()} == {"namespace:c/shop", "target:u1"}
        await holds.release("target:u1", by="dana", reason="repaired by hand")
        assert [hold.scope for hold in await holds.all()] == ["namespace:c/shop"]
        await holds.release("namespace:c/shop", by="dana", reason="the storm is over")
        assert await holds.all() == []
        told = [(r.event, r.actor, r.incident_id) async for r in Audit(database).read()]
        assert told == [
            (AuditEvent.TARGET_UNFROZEN, "dana", "inc-1"),
            (AuditEvent.BREAKER_RESET, "dana", None),
        ]
    finally:
        await database.close()


async def test_an_unknown_scope_is_refused_and_nothing_is_recorded(tmp_path: Path) -> None:
    database, holds = await held(tmp_path)
    try:
        with pytest.raises(NoSuchHoldError, match="target:u2"):
            await holds.release("target:u2", by="dana", reason="a guess")
        assert len(await holds.all()) == 2
        assert [record async for record in Audit(database).read()] == []
    finally:
        await database.close()
