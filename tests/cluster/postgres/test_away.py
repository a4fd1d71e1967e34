"""The API over a PostgreSQL that breaks off amid a question, and then is stopped."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from datetime import timedelta

import httpx2
import psycopg
import pytest
from fastapi import FastAPI
from servers import Missing, postgres

from tiphys.sandbox.loopback import serving
from tiphys.service import api
from tiphys.service.approvals import Approvals
from tiphys.service.cases import Cases
from tiphys.service.database import Database
from tiphys.service.holds import Holds
from tiphys.service.leases import Leases
from tiphys.service.ledger import Ledger, utc_now
from tiphys.service.run_stops import RunStops
from tiphys.service.runs import Runs
from tiphys.service.undos import Undos
from tiphys.service.views import Views
from tiphys.service.wishes import Wishes

WAITING = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"


@contextlib.asynccontextmanager
async def serving_api(database: Database) -> AsyncGenerator[httpx2.AsyncClient]:
    ledger, runs = Ledger(database, Leases(database, 15), utc_now), Runs(database)
    cases = Cases(database, ledger.incidents, runs, "test")
    app = FastAPI()
    desk = api.Office(
        views=Views(database, ledger.audit, ledger.incidents, cases, runs),
        ledger=ledger,
        approvals=Approvals(ledger, runs, timedelta(minutes=5)),
        audit=ledger.audit,
        holds=Holds(database, ledger.audit),
        run_stops=RunStops(ledger, runs),
        undos=Undos(ledger, runs),
        wishes=Wishes(ledger, "test"),
        wake=lambda: None,
        stop=None,
        token=None,
    )
    api.install(app, desk)
    async with serving(app) as url, httpx2.AsyncClient(base_url=url, timeout=30) as http:
        yield http
    await database.close()


def away(answer: httpx2.Response) -> str:
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["retry-after"]) >= 1
    return answer.json()["detail"]


async def broken_off(http: httpx2.AsyncClient, url: str) -> httpx2.Response:
    """Ask while the table is locked, and end the server's process that waits for it."""
    with psycopg.connect(url) as locker, psycopg.connect(url, autocommit=True) as killer:
        locker.execute("LOCK TABLE incidents IN ACCESS EXCLUSIVE MODE")
        asked = asyncio.create_task(http.get("/api/incidents"))
        async with asyncio.timeout(20):
            while True:
                if waiting := killer.execute(WAITING).fetchall():
                    break
                await asyncio.sleep(0.02)
        killer.execute("SELECT pg_terminate_backend(%s)", waiting[0])
        return await asked


async def test_a_server_that_ends_our_connection_or_is_stopped_is_503() -> None:
    with contextlib.ExitStack() as stack:
        try:
            url = stack.enter_context(postgres())
        except Missing as missing:
            pytest.fail(str(missing), pytrace=False)
        database = Database(url.replace("postgresql:", "postgresql+psycopg:"))
        await database.create()
        async with serving_api(database) as http:
            assert (await http.get("/api/incidents")).json() == []
            assert "terminating connection" in away(await broken_off(http, url))
            assert (await http.get("/api/incidents")).json() == [], "the next is well"
            stack.close()  # PostgreSQL's fast shutdown
            for path in ("/api/incidents", "/api/holds", "/api/audit/export"):
                away(await http.get(path))
            assert "whether this was done" in away(
                await http.post("/api/incidents/inc-1/acknowledge", json={"by": "ann"})
            )
