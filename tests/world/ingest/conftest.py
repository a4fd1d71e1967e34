"""The way in, whole: webhook over real HTTP, a real broker, SQLite, and a small Alertmanager."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
import uvicorn
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from sqlalchemy import Row, select

from tiphys.policies.model import Incident
from tiphys.service.audit import Audit
from tiphys.service.bus import STREAM, Bus
from tiphys.service.database import Database
from tiphys.service.intake import Intake, IntakeMetrics
from tiphys.service.leases import Leases
from tiphys.service.ledger import Ledger, utc_now
from tiphys.service.nats_server import NatsServer
from tiphys.service.records import Record
from tiphys.service.roles import Role
from tiphys.service.settings import Settings
from tiphys.service.tables import inbox
from tiphys.service.webhook import Publisher, Webhook, WebhookMetrics

POSTS = Path(__file__).parents[2] / "data" / "alertmanager" / "webhook_posts.jsonl"
START = "2026-11-20T20:38:59.396312Z"
END = "2026-11-20T20:48:59Z"


def alert(name: str = "Broken", status: str = "firing", **labels: str) -> dict[str, Any]:
    """One alert of a post, without a fingerprint: the webhook computes it."""
    return {
        "status": status,
        "labels": {"alertname": name, "namespace": "shop", "pod": "lonely", **labels},
        "annotations": {"summary": "it is broken"},
        "startsAt": START,
        "endsAt": END if status == "resolved" else "0001-01-01T00:00:00Z",
    }


def post_of(*alerts: Mapping[str, Any], **fields: Any) -> bytes:
    """A body as Alertmanager posts it."""
    return json.dumps({"version": "4", "receiver": "r", "alerts": alerts, **fields}).encode()


@contextlib.asynccontextmanager
async def serve(app: Any, port: int = 0) -> AsyncGenerator[str]:
    """Serve an ASGI application on loopback and give its URL."""
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=port, lifespan="off", log_level="warning")
    )
    task = asyncio.create_task(server.serve())
    while not server.started:
        assert not task.done()
        await asyncio.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


async def until(true: Callable[[], Awaitable[bool]], seconds: float = 5.0) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not await true():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.01)


@dataclass
class Ingest:
    """What a test holds in its hands."""

    directory: Path
    broker: NatsServer
    bus: Bus
    ledger: Ledger
    intake: Intake
    url: str
    http: httpx2.AsyncClient
    owner: Database
    changes: list[None] = field(default_factory=list)
    until = staticmethod(until)

    async def post(self, body: bytes) -> httpx2.Response:
        return await self.http.post(self.url, content=body)

    async def stored(self) -> int:
        info = await self.bus._stream.stream_info(STREAM)
        return info.state.messages

    async def drain(self) -> int:
        """Take in everything that is in the stream; returns how many messages there were."""
        count = 0
        while received := await self.bus.fetch(200, 0.1):
            await self.intake.take(received)
            count += len(received)
        return count

    async def episodes(self) -> Sequence[Row[Any]]:
        async with self.ledger.database.reading() as tx:
            return (await tx.execute(select(inbox).order_by(inbox.c.id))).all()

    async def incidents(self) -> list[Incident]:
        async with self.ledger.database.reading() as tx:
            return await self.ledger.incidents.find(tx, limit=5000)

    async def records(self, incident_id: str | None = None) -> list[Record]:
        return [r async for r in Audit(self.ledger.database).read(incident_id=incident_id)]


def make_ledger(database: Database) -> Ledger:
    return Ledger(database, Leases(database, 15), utc_now)


def make_intake(bus: Bus, ledger: Ledger, changes: list[None]) -> Intake:
    metrics = IntakeMetrics(CollectorRegistry())
    return Intake(bus, ledger, metrics, on_change=lambda: changes.append(None))


@pytest.fixture
def ledger(bench: Any) -> Ledger:
    """The agents' hand on the database."""
    return make_ledger(bench.users[Role.AGENTS])


@pytest_asyncio.fixture
async def ingest(tmp_path: Path, ledger: Ledger, bench: Any) -> AsyncGenerator[Ingest]:
    broker = NatsServer(tmp_path / "nats", max_bytes=64 << 20)
    await broker.start()
    bus = Bus(max_bytes=32 << 20, ack_seconds=0.5)
    await bus.connect(broker.url)
    changes: list[None] = []
    intake = make_intake(bus, ledger, changes)
    settings = Settings(data_dir=tmp_path, cluster="prod")
    webhook = Webhook(settings, bus, WebhookMetrics(CollectorRegistry()))
    async with serve(webhook) as url, httpx2.AsyncClient(timeout=10) as http:
        yield Ingest(tmp_path, broker, bus, ledger, intake, url, http, bench.database, changes)
    await bus.close()
    await broker.stop()


@pytest.fixture
def served() -> Callable[..., Any]:
    """Give a webhook before any publisher, over real HTTP."""

    @contextlib.asynccontextmanager
    async def start(
        publisher: Publisher, *, token: str = "", host: str = "127.0.0.1"
    ) -> AsyncGenerator[tuple[str, WebhookMetrics]]:
        settings = Settings(host=host, webhook_token=SecretStr(token) if token else None)
        metrics = WebhookMetrics(CollectorRegistry())
        async with serve(Webhook(settings, publisher, metrics)) as url:
            yield url, metrics

    return start


@pytest.fixture(name="alert")
def _alert() -> Callable[..., dict[str, Any]]:
    return alert


@pytest.fixture(name="post_of")
def _post_of() -> Callable[..., bytes]:
    return post_of


@pytest.fixture(name="serve")
def _serve() -> Callable[..., Any]:
    return serve


@dataclass
class FakeAlertmanager:
    """Lists what a test puts there, as Alertmanager's API v2 does."""

    alerts: list[dict[str, Any]] = field(default_factory=list)
    status: int = 200
    posted: list[dict[str, Any]] = field(default_factory=list)
    delay: float = 0.0

    def put(
        self, labels: dict[str, str], *, silenced: bool = False, inhibited: bool = False
    ) -> None:
        state = "suppressed" if silenced or inhibited else "active"
        self.alerts.append(
            {
                "labels": labels,
                "annotations": {},
                "startsAt": START,
                "endsAt": datetime.now(UTC).isoformat(),
                "updatedAt": START,
                "receivers": [{"name": "hook"}],
                "status": {
                    "state": state,
                    "silencedBy": ["a-silence"] if silenced else [],
                    "inhibitedBy": ["cafe"] if inhibited else [],
                },
            }
        )

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            event = await receive()
            body, more = body + event.get("body", b""), event.get("more_body", False)
        if scope["method"] == "POST":
            self.posted += json.loads(body)
        await asyncio.sleep(self.delay)
        answer = json.dumps(self.alerts if scope["method"] == "GET" else {}).encode()
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": answer})


@pytest.fixture
def fake_alertmanager() -> type[FakeAlertmanager]:
    return FakeAlertmanager
