"""The composition root: one process, its roles, and the HTTP that each needs.

Each role is wired in a file of its own, `role_gateway`, `role_agents` and `role_launcher`, which is
imported only where it runs.
"""

from datetime import timedelta

from prometheus_client import REGISTRY
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from tiphys.policies.lifecycle import State
from tiphys.service.errors import TiphysError
from tiphys.service.health import install_health
from tiphys.service.pipeline import Pace, Pipeline, Stage
from tiphys.service.policy_file import read_policy
from tiphys.service.process import Process
from tiphys.service.roles import Role
from tiphys.service.settings import Settings
from tiphys.service.wakeups import Wakeups
from tiphys.service.webhook import Webhook

WEBHOOK_PATH = "/webhooks/alertmanager"


class Service:
    """`start`, serve `asgi`, `stop`."""

    def __init__(self, settings: Settings) -> None:
        """Read the configuration; raises `UsageError` for what the user can mend."""
        self._roles = settings.roles
        self._process = Process(settings, read_policy(settings.policy))
        self._app = Starlette()
        self._webhook: Webhook | None = None

    async def asgi(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Route the webhook past the framework: it is the one path that must be fast."""
        if self._webhook and scope["type"] == "http" and scope["path"] == WEBHOOK_PATH:
            await self._webhook(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def start(self) -> None:
        """Open everything and begin to work; on failure nothing stays open."""
        try:
            await self._process.open()
            await self._start()
        except BaseException:
            await self._process.close()
            raise

    async def stop(self) -> None:
        """Stop working, then close, in the reverse order of opening."""
        await self._process.close()

    async def _start(self) -> None:
        process = self._process
        stages: dict[State, Stage] = {}
        if Role.AGENTS in self._roles:
            from tiphys.service.role_agents import open_agents_role

            stages |= await open_agents_role(process)
        if Role.LAUNCHER in self._roles:
            from tiphys.service.role_launcher import open_launcher

            stages |= await open_launcher(process)
        if Role.GATEWAY in self._roles:
            from tiphys.service.role_gateway import open_gateway

            self._app, self._webhook = await open_gateway(process)
        if stages:
            self._work(stages)
        install_health(self._app, process.health, REGISTRY)

    def _work(self, stages: dict[State, Stage]) -> None:
        """Claim incidents in these states, and in no others."""
        process, settings = self._process, self._process.settings
        poll, lease = (
            timedelta(seconds=s) for s in (settings.poll_interval, settings.lease_seconds)
        )
        pipeline = Pipeline(process.ledger, stages, Pace(poll=poll, lease=lease), process.woken)
        process.run("pipeline", pipeline.run())

        async def claiming() -> None:
            if pipeline.trouble:
                raise TiphysError(pipeline.trouble)

        process.work_needs("work", claiming)
        process.health.show("incidents", process.ledger.check_parked)
        database = process.ledger.database
        if not database.sqlite:
            process.run("wake-ups", Wakeups(database, stages.keys(), process.wake).run())
