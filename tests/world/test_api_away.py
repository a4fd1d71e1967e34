"""The API while its database is away: 503 with a sentence, never a 500; and what it still does."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.pool import QueuePool

from tiphys.sandbox.loopback import serving
from tiphys.service import api
from tiphys.service import database as databases
from tiphys.service.database import Database
from tiphys.service.roles import Role
from tiphys.service.stop_switch import StopSwitch
from tiphys.service.undos import Undos
from tiphys.service.views import Views
from tiphys.service.wishes import Wishes

SECRET = "s3cret-of-the-gateway"
BODY = {"by": "ann", "reason": "I looked", "scope": "target:uid"}
WITHOUT_DATABASE = {("GET", "/api/catalogue"), ("GET", "/api/stop"), ("POST", "/api/stop")}
STARTING_UP = b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0"
"""An ErrorResponse's fields: PostgreSQL's protocol, "Message Formats"."""


@contextlib.asynccontextmanager
async def serving_api(bench: Any, stop: Any = None) -> AsyncGenerator[httpx2.AsyncClient]:
    app = FastAPI(openapi_url="/api/openapi.json")
    ledger, runs, cases = bench.of(Role.GATEWAY)
    desk = api.Office(
        views=Views(ledger.database, ledger.audit, ledger.incidents, cases, runs),
        ledger=ledger,
        approvals=bench.approvals,
        audit=ledger.audit,
        holds=bench.holds,
        run_stops=bench.run_stops,
        undos=Undos(ledger, runs),
        wishes=Wishes(ledger, "sandbox"),
        wake=lambda: None,
        stop=stop,
        token=None,
    )
    api.install(app, desk)
    async with (
        serving(app) as url,
        httpx2.AsyncClient(base_url=url, trust_env=False, timeout=30) as http,
    ):
        yield http


@contextlib.asynccontextmanager
async def on(bench: Any, port: int) -> AsyncGenerator[httpx2.AsyncClient]:
    """Serve the API from what is on this port, which it takes for PostgreSQL."""
    url = f"postgresql+psycopg://gateway:{SECRET}@127.0.0.1:{port}/tiphys"
    database = Database(url)
    try:
        async with serving_api(type(bench)(database, bench.clock)) as http:
            yield http
    finally:
        await database.close()


@contextlib.contextmanager
def nobody() -> Any:
    """Give a port on which nobody listens, and nobody else will."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def told(answer: httpx2.Response, cause: str) -> str:
    assert answer.status_code == 503, answer.text
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    detail = answer.json()["detail"]
    assert detail.startswith("The database does not answer: ")
    assert cause in detail
    assert SECRET not in answer.text
    assert "SELECT" not in answer.text, "whoever asked needs the cause, not the statement"
    assert "\n" not in detail
    return detail


async def test_with_a_closed_port_every_route_that_needs_it_is_503(bench: Any) -> None:
    with nobody() as port:
        async with on(bench, port) as http:
            described = (await http.get("/api/openapi.json")).json()["paths"]
            asked = 0
            for path, methods in described.items():
                for method in methods:
                    if (method.upper(), path) in WITHOUT_DATABASE:
                        continue
                    where = path.replace("{incident_id}", "inc-7kq2x9dm")
                    body = {"by": "ann", "reason": "x"}
                    if path == "/api/holds/release":
                        body = BODY
                    answer = await http.request(method, where, json=body)
                    detail = told(answer, "Connection refused")
                    assert ("whether this was done" in detail) == (method == "post"), where
                    asked += 1
            assert asked >= 12
            assert (await http.get("/api/catalogue")).status_code == 200


async def test_a_server_that_starts_up_is_waited_for(bench: Any) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = int.from_bytes(await reader.readexactly(4), "big")
        code = int.from_bytes((await reader.readexactly(size - 4))[:4], "big")
        if code == 80877103:  # SSLRequest: no
            writer.write(b"N")
            size = int.from_bytes(await reader.readexactly(4), "big")
            await reader.readexactly(size - 4)
        writer.write(b"E" + (len(STARTING_UP) + 4).to_bytes(4, "big") + STARTING_UP)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, on(bench, server.sockets[0].getsockname()[1]) as http:
        told(await http.get("/api/incidents"), "the database system is starting up")


async def test_a_server_that_says_nothing_is_not_waited_for_for_ever(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(databases, "CONNECT_SECONDS", 2)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        async with on(bench, listener.getsockname()[1]) as http:
            told(await http.get("/api/incidents"), "timeout")


async def test_a_pool_that_is_used_up_is_503(bench: Any) -> None:
    database: Database = bench.of(Role.GATEWAY)[0].database
    pool = database.engine.sync_engine.pool
    assert isinstance(pool, QueuePool)
    pool._timeout = 0.1
    async with serving_api(bench) as http, contextlib.AsyncExitStack() as stack:
        for _ in range(pool.size() + pool._max_overflow):
            connection = await stack.enter_async_context(database.engine.connect())
            await connection.execution_options(tiphys_reading=True)
            await connection.execute(text("SELECT 1"))
        told(await http.get("/api/incidents"), "QueuePool")
        await stack.aclose()
        assert (await http.get("/api/incidents")).status_code == 200, "and it is well again"


async def test_our_own_faults_are_not_blamed_on_the_database(bench: Any) -> None:
    async def broken() -> None:
        raise ZeroDivisionError

    bench.holds.all = broken
    async with serving_api(bench) as http:
        answer = await http.get("/api/holds")
    assert answer.status_code == 500


async def test_a_stop_that_cannot_be_recorded_is_engaged_and_says_so(bench: Any, kube: Any) -> None:
    switch = StopSwitch(kube.gateway, "tiphys-stop")
    with nobody() as port:
        database = Database(f"postgresql+psycopg://gateway:{SECRET}@127.0.0.1:{port}/tiphys")
        async with serving_api(type(bench)(database, bench.clock), switch) as http:
            answer = await http.post("/api/stop", json={"by": "ann", "reason": "big sale"})
            detail = told(answer, "everything new is stopped")
            assert "ask again" in detail
            assert (await http.get("/api/stop")).json() == {"engaged": True, "reason": "big sale"}
        await database.close()


async def test_what_is_refused_for_a_while_says_when_to_ask_again(bench: Any, kube: Any) -> None:
    kube.door.mode = "away"
    async with serving_api(bench, StopSwitch(kube.gateway, "tiphys-stop")) as http:
        answer = await http.post("/api/stop", json={"by": "ann", "reason": "big sale"})
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
