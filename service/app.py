"""The composition root: real parts are wired to ports here, and nowhere else."""

import asyncio
import contextlib
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI
from kubernetes.aio import client as kubernetes_client
from prometheus_client import REGISTRY
from starlette.types import Receive, Scope, Send

from tiphys.agents.graph import Agents
from tiphys.policies.lifecycle import State
from tiphys.policies.model import Severity
from tiphys.service import api
from tiphys.service.alertmanager import Alertmanagers
from tiphys.service.approvals import Approvals
from tiphys.service.argo import Argo
from tiphys.service.bus import Bus
from tiphys.service.cases import Cases
from tiphys.service.database import Database
from tiphys.service.decide import Decide, Rulebook
from tiphys.service.errors import (
    ArgoUnavailableError,
    BadInputError,
    BrokerUnavailableError,
    TiphysError,
)
from tiphys.service.health import Health, install_health
from tiphys.service.holds import Holds
from tiphys.service.intake import Intake, IntakeMetrics
from tiphys.service.investigate import Investigate
from tiphys.service.kubernetes_api import connect
from tiphys.service.launch import Launch
from tiphys.service.leases import Leases
from tiphys.service.ledger import Ledger, utc_now
from tiphys.service.nats_server import NatsServer
from tiphys.service.paging import AlertPager
from tiphys.service.pipeline import Pace, Pipeline
from tiphys.service.policy_file import read_policy
from tiphys.service.reasoning import open_agents
from tiphys.service.recheck import Recheck
from tiphys.service.reconcile import GONE_AFTER, ReconcileMetrics, Reconciler
from tiphys.service.records import AuditEvent
from tiphys.service.runs import Runs
from tiphys.service.settings import Settings
from tiphys.service.settle import Settle, Waits
from tiphys.service.stop_switch import StopSwitch
from tiphys.service.views import Views
from tiphys.service.watch import Watch, WatchTimes
from tiphys.service.webhook import Webhook, WebhookMetrics
from tiphys.workflow_templates.signature import KeyUnusableError, load_or_create_key

T = TypeVar("T")
log = structlog.get_logger()

WEBHOOK_PATH = "/webhooks/alertmanager"
WATCH = timedelta(hours=1)
"""How long an alert may go on after we decided to do nothing, or healed it."""


@dataclass(frozen=True)
class Parts:
    """Everything that is opened once and shared."""

    ledger: Ledger
    runs: Runs
    cases: Cases
    approvals: Approvals
    bus: Bus
    alertmanagers: Alertmanagers | None
    agents: Agents
    argo: Argo
    switch: StopSwitch
    """Read with the launcher's credentials."""
    gateway: kubernetes_client.ApiClient


class Service:
    """Every role in one process; `start`, serve `asgi`, `stop`."""

    def __init__(self, settings: Settings) -> None:
        """Read the configuration; raises `UsageError` for what the user can mend."""
        self._settings = settings
        self._policy = read_policy(settings.policy)
        self._closing = contextlib.AsyncExitStack()
        self._app = FastAPI(
            title="Tiphys",
            version="0.1.0",
            docs_url=None,
            redoc_url=None,
            openapi_url="/api/openapi.json",
        )
        self._webhook: Webhook | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def asgi(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Route the webhook past the framework: it is the one path that must be fast."""
        if self._webhook and scope["type"] == "http" and scope["path"] == WEBHOOK_PATH:
            await self._webhook(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def start(self) -> None:
        """Open everything and begin to work; on failure nothing stays open."""
        try:
            await self._start()
        except BaseException:
            await self._closing.aclose()
            raise

    async def stop(self) -> None:
        """Stop working, then close, in the reverse order of opening."""
        await self._closing.aclose()

    async def _start(self) -> None:
        parts = await self._open()
        pipeline = self._pipeline(parts)
        intake = Intake(parts.bus, parts.ledger, IntakeMetrics(), on_change=pipeline.wake)
        self._webhook = Webhook(self._settings, parts.bus, WebhookMetrics())
        self._run("intake", intake.run())
        self._run("pipeline", pipeline.run())
        if parts.alertmanagers:
            interval, counted = self._settings.reconcile_interval, ReconcileMetrics()
            rounds = Reconciler(
                parts.alertmanagers, intake, parts.ledger, counted, interval=interval
            )
            self._run("reconciliation", rounds.run())
        api.install(self._app, self._office(parts, pipeline))
        install_health(self._app, self._health(parts), REGISTRY)

    def _pipeline(self, parts: Parts) -> Pipeline:
        """The loop: which stage works on an incident in which state."""
        ledger, cases, runs, agents = parts.ledger, parts.cases, parts.runs, parts.agents
        investigate = self._investigate(ledger, cases, agents)
        settle = Settle(ledger, cases, agents, AlertPager(parts.alertmanagers), self._waits())
        return Pipeline(
            ledger,
            {
                State.OPEN: investigate,
                State.INVESTIGATING: investigate,
                State.PROPOSED: Recheck(ledger, cases, agents),
                State.INSPECTED: Decide(
                    ledger, cases, runs, parts.approvals, parts.switch, self._rulebook()
                ),
                State.LAUNCHING: Launch(ledger, runs, parts.argo, self._key()),
                State.RUNNING: Watch(ledger, runs, parts.argo, self._watch_times()),
                State.AWAITING_APPROVAL: settle,
                State.MONITORING: settle,
                State.SUSPENDED: settle,
                State.ESCALATED: settle,
                State.ACKNOWLEDGED: settle,
            },
            self._pace(),
        )

    def _office(self, parts: Parts, pipeline: Pipeline) -> api.Office:
        ledger = parts.ledger
        return api.Office(
            views=Views(ledger.database, ledger.audit, ledger.incidents, parts.cases, parts.runs),
            ledger=ledger,
            approvals=parts.approvals,
            audit=ledger.audit,
            holds=Holds(ledger.database, ledger.audit),
            pipeline=pipeline,
            stop=StopSwitch(parts.gateway, self._settings.stop_namespace),
            token=self._settings.api_token,
        )

    # --- opening --------------------------------------------------------------------------------

    async def _open(self) -> Parts:
        settings = self._settings
        ledger = await self._open_ledger()
        runs = Runs(ledger.database)
        validity = timedelta(seconds=self._policy.approval.expiry_seconds)
        bus = await self._open_bus()
        alertmanagers = self._open_alertmanagers()
        reader = await self._enter(connect(settings.kubeconfig))
        launcher = await self._enter(connect(settings.launcher_kubeconfig))
        return Parts(
            ledger=ledger,
            runs=runs,
            cases=Cases(ledger.database, ledger.incidents, runs, settings.cluster),
            approvals=Approvals(ledger, runs, validity),
            bus=bus,
            alertmanagers=alertmanagers,
            agents=await self._enter(open_agents(settings, alertmanagers, reader)),
            argo=Argo(launcher, settings.actions_namespace),
            switch=StopSwitch(launcher, settings.stop_namespace),
            gateway=await self._enter(connect(settings.gateway_kubeconfig)),
        )

    async def _enter(self, context: AbstractAsyncContextManager[T]) -> T:
        return await self._closing.enter_async_context(context)

    async def _open_ledger(self) -> Ledger:
        settings = self._settings
        if settings.database_url:
            database = Database(settings.database_url)
        else:
            database = Database.in_directory(settings.data_dir)
        self._closing.push_async_callback(database.close)
        await database.create()
        ledger = Ledger(database, Leases(database, settings.lease_seconds), utc_now)
        if database.sqlite:
            # We hold the data directory's lock: whoever held these leases is dead.
            await ledger.leases.expire_all()
        await self._note(ledger, AuditEvent.SERVICE_STARTED)
        self._closing.push_async_callback(self._note, ledger, AuditEvent.SERVICE_STOPPED)
        return ledger

    async def _note(self, ledger: Ledger, event: AuditEvent) -> None:
        async with ledger.database.transaction() as tx:
            body = {"policy": self._policy.identity, "holder": ledger.leases.holder}
            await ledger.audit.append(tx, event, actor="tiphys", body=body)

    async def _open_bus(self) -> Bus:
        settings = self._settings
        limit, replicas = settings.stream_max_bytes, settings.stream_replicas
        if settings.nats_url is None:
            server = NatsServer(settings.data_dir / "nats", max_bytes=limit)
            await server.start()
            self._closing.push_async_callback(server.stop)
            url, bus = server.url, Bus(max_bytes=limit, on_silence=server.replace)
        else:
            url, bus = settings.nats_url, Bus(max_bytes=limit, replicas=replicas)
        await bus.connect(url)
        self._closing.push_async_callback(bus.close)
        return bus

    def _open_alertmanagers(self) -> Alertmanagers | None:
        settings = self._settings
        if not settings.alertmanager_urls:
            return None
        alertmanagers = Alertmanagers(settings.alertmanager_urls, cluster=settings.cluster)
        self._closing.push_async_callback(alertmanagers.close)
        return alertmanagers

    def _run(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run until `stop`; one that ends by itself is a fault of ours and is said loudly."""
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

    # --- settings that belong together ----------------------------------------------------------

    def _investigate(self, ledger: Ledger, cases: Cases, agents: Agents) -> Investigate:
        seconds = self._settings.investigation_seconds
        return Investigate(ledger, cases, agents, seconds=seconds, watch=WATCH)

    def _key(self) -> Ed25519PrivateKey:
        try:
            return load_or_create_key(self._settings.data_dir / "launcher.key")
        except KeyUnusableError as error:
            raise BadInputError(str(error)) from error

    def _rulebook(self) -> Rulebook:
        not_after = timedelta(seconds=self._settings.not_after_seconds)
        return Rulebook(policy=self._policy, not_after=not_after, watch=WATCH)

    def _watch_times(self) -> WatchTimes:
        return WatchTimes(resolve=WATCH, max_attempts=self._policy.attempts.per_incident)

    def _waits(self) -> Waits:
        return Waits(
            acknowledge={grade: self._policy.deadlines.of(grade) for grade in Severity},
            max_attempts=self._policy.attempts.per_incident,
            listings=GONE_AFTER if self._settings.alertmanager_urls else 0,
        )

    def _pace(self) -> Pace:
        settings = self._settings
        return Pace(
            poll=timedelta(seconds=settings.poll_interval),
            lease=timedelta(seconds=settings.lease_seconds),
        )

    def _health(self, parts: Parts) -> Health:
        async def broker() -> None:
            if not parts.bus.ready:
                raise BrokerUnavailableError("not connected")

        async def work() -> None:
            for name, task in self._tasks.items():
                if task.done():
                    raise TiphysError(f"{name} has ended")

        async def kubernetes() -> None:
            if await parts.switch.read() is None:
                raise ArgoUnavailableError("the stop switch cannot be read")

        return Health(
            {
                "broker": broker,
                "database": parts.ledger.database.ping,
                "kubernetes": kubernetes,
                "work": work,
            }
        )
