"""The append-only, hash-chained record of every arrow of the loop.

Invariants: a record is written in the transaction of the change it speaks of, so neither exists
without the other; a record's hash covers its predecessor's, so an edit, a deletion, an insertion or
a reordering breaks the chain at the first bad record.
"""

import json
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import insert, select

from tiphys.policies.model import Json
from tiphys.policies.plan import canonical
from tiphys.service.database import Database, Transaction, stamp
from tiphys.service.records import GENESIS, AuditEvent, Record, record_hash
from tiphys.service.tables import audit


class Audit:
    """Appends to and reads the record."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def append(
        self,
        tx: Transaction,
        event: AuditEvent,
        *,
        actor: str,
        incident_id: str | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> int:
        """Append one record in the caller's transaction; returns its number, from 1."""
        await self._database.lock(tx, "audit")
        last = (
            await tx.execute(
                select(audit.c.seq, audit.c.hash).order_by(audit.c.seq.desc()).limit(1)
            )
        ).first()
        fields: dict[str, Json] = {
            "seq": last.seq + 1 if last else 1,
            "at": stamp(datetime.now(UTC)),
            "event": event.value,
            "incident_id": incident_id,
            "actor": actor,
            "body": dict(body) if body is not None else None,
            "previous": last.hash if last else GENESIS,
        }
        row = {**fields, "body": canonical(fields["body"]).decode(), "hash": record_hash(fields)}
        await tx.execute(insert(audit).values(row))
        return int(fields["seq"])  # type: ignore[arg-type]

    async def read(
        self, *, incident_id: str | None = None, after: int = 0, limit: int | None = None
    ) -> AsyncIterator[Record]:
        """Yield records in order of their number."""
        query = select(audit).where(audit.c.seq > after).order_by(audit.c.seq)
        if incident_id is not None:
            query = query.where(audit.c.incident_id == incident_id)
        if limit is not None:
            query = query.limit(limit)
        async with self._database.reading() as connection:
            result = await connection.stream(query)
            async for row in result.mappings():
                yield _record(dict(row))


def _record(row: dict[str, object]) -> Record:
    return Record.model_validate({**row, "body": json.loads(str(row["body"]))})
