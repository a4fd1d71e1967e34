"""What the roles of one process share: the database, the broker, their tasks, their health.

Invariants: what is opened is closed in the reverse order, whatever fails in between; a task that
ends by itself is a fault, said loudly and seen by the liveness probe.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any, TypeVar

import structlog
from sqlalchemy.exc import InterfaceError, OperationalError

from tiphys.policies.policy import Policy
from tiphys.service.bus import Bus
from tiphys.service.cases import Cases
from tiphys.service.database import Database
from tiphys.service.errors import BrokerUnavailableError, NotMigratedError
from tiphys.service.health import Check, Health
from tiphys.service.leases import Leases
from tiphys.service.ledger import Ledger, utc_now
from tiphys.service.nats_server import NatsServer
from tiphys.service.records import AuditEvent
from tiphys.service.roles import Role
from tiphys.service.runs import Runs
from tiphys.service.settings import Settings

T = TypeVar("T")
PATIENCE_SECONDS = 90.0
"""How long a database or broker that is not there yet is waited for at the start."""
WATCH = timedelta(hours=1)
"""How long an alert may go on after we decided to do nothing, or healed it."""
_NOT_YET = (OperationalError, InterfaceError, NotMigratedError, BrokerUnavailableError)

log = structlog.get_logger()


class Process:
    """One `tiphys serve`, whatever its roles."""

    def __init__(self, settings: Settings, policy: Policy) -> None:
        self.settings = settings
        self.policy = policy
        self.health = Health(crashed=self._crashed)
        self.woken = asyncio.Event()
        """Set when there may be work for the pipeline."""
        self._closing = contextlib.AsyncExitStack()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._bus: Bus | None = None

    async def open(self) -> None:
        """Open what every role needs: the database, with its tables as this version wants them."""
        settings = self.settings
        if settings.database_url:
            database = Database(settings.database_url)
        else:
            database = Database.in_directory(settings.data_dir)
        self._closing.push_async_callback(database.close)
        self.ledger = Ledger(database, Leases(database, settings.lease_seconds), utc_now)
        self.runs = Runs(database)
        self.cases = Cases(database, self.ledger.incidents, self.runs, settings.cluster)
        if database.sqlite:
            await database.create()
            # We hold the data directory's lock: whoever held these leases is dead.
            await self.ledger.leases.expire_all()
        else:
            await self._patiently("the database", database.check_version)
        await self._note(AuditEvent.SERVICE_STARTED)
        self._closing.push_async_callback(self._note, AuditEvent.SERVICE_STOPPED)

    async def close(self) -> None:
        """Stop working, then close."""
        await self._closing.aclose()

    async def enter(self, context: AbstractAsyncContextManager[T]) -> T:
        """Keep something open until `close`."""
        return await self._closing.enter_async_context(context)

    def on_close(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do this at `close`."""
        self._closing.push_async_callback(work)

    def wake(self) -> None:
        """Let the pipeline, where there is one, look now instead of at its next poll."""
        self.woken.set()

    def run(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run until `close`."""
        task = asyncio.create_task(work, name=name)

        def ended(finished: asyncio.Task[None]) -> None:
            if not finished.cancelled():
                log.error("a task ended", task=name, error=repr(finished.exception()))

        async def cancel() -> None:
            while not task.done():  # a library's own wait may swallow a cancellation
                task.cancel()
                await asyncio.wait([task], timeout=1)

        task.add_done_callback(ended)
        self._tasks[name] = task
        self._closing.push_async_callback(cancel)

    def work_needs(self, name: str, check: Check) -> None:
        """Note what working needs. Where posts come in, only what loses them makes us unready."""
        if Role.GATEWAY in self.settings.roles:
            self.health.show(name, check)
        else:
            self.health.need(name, check)

    async def bus(self) -> Bus:
        """Give the connection to the broker, which this process' roles share."""
        if self._bus is None:
            self._bus = await self._open_bus()
            self.health.need("broker", self._bus.check)
        return self._bus

    # --- opening --------------------------------------------------------------------------------

    async def _open_bus(self) -> Bus:
        settings = self.settings
        limit = settings.stream_max_bytes
        if settings.nats_url is None:
            server = NatsServer(settings.data_dir / "nats", max_bytes=limit)
            await server.start()
            self._closing.push_async_callback(server.stop)
            bus = Bus(max_bytes=limit, on_silence=server.replace)
            await bus.connect(server.url)
        else:
            bus = await self._patiently("the broker", self._connect)
        self._closing.push_async_callback(bus.close)
        return bus

    async def _connect(self) -> Bus:
        settings = self.settings
        bus = Bus(max_bytes=settings.stream_max_bytes, replicas=settings.stream_replicas)
        await bus.connect(settings.nats_url or "")
        return bus

    async def _patiently(self, what: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """Try again until it is there: in a cluster everything starts at once."""
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return await attempt()
            except _NOT_YET as error:
                if time.monotonic() >= until:
                    raise
                log.warning("not there yet", what=what, error=str(error).splitlines()[0])
            await asyncio.sleep(1)

    async def _note(self, event: AuditEvent) -> None:
        holder, roles = self.ledger.leases.holder, [*self.settings.roles]
        body: dict[str, Any] = {"policy": self.policy.identity, "holder": holder, "roles": roles}
        body["process"] = os.getpid()
        async with self.ledger.database.transaction() as tx:
            await self.ledger.audit.append(tx, event, actor="tiphys", body=body)

    def _crashed(self) -> str:
        """Name the tasks that have ended by themselves; empty while all is well."""
        return ", ".join(name for name, task in self._tasks.items() if task.done())
