"""/healthz, /readyz and /metrics: alive, able to work and which dependency is missing, counted."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

CHECK_SECONDS = 3.0

Check = Callable[[], Awaitable[None]]
"""Raises what keeps a dependency from working."""


class Health:
    """Asks each dependency."""

    def __init__(
        self,
        needs: Mapping[str, Check] | None = None,
        crashed: Callable[[], str] = lambda: "",
    ) -> None:
        """`crashed` names what can only be mended by starting anew; empty while all is well."""
        self._needs = dict(needs or {})
        self._shows: dict[str, Check] = {}
        self.crashed = crashed

    def need(self, name: str, check: Check) -> None:
        """Count a dependency without which nothing may be sent here."""
        self._needs[name] = check

    def show(self, name: str, check: Check) -> None:
        """Count a dependency whose trouble is only told."""
        self._shows[name] = check

    async def missing(self) -> dict[str, str]:
        """Give each needed dependency that does not work, with the reason."""
        return await self._ask_all(self._needs)

    async def degraded(self) -> dict[str, str]:
        """Give each other dependency that does not work, with the reason."""
        others = {name: check for name, check in self._shows.items() if name not in self._needs}
        return await self._ask_all(others)

    async def _ask_all(self, checks: Mapping[str, Check]) -> dict[str, str]:
        answers = await asyncio.gather(*(self._ask(check) for check in checks.values()))
        return {name: why for name, why in zip(checks, answers, strict=True) if why}

    async def _ask(self, check: Check) -> str:
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await check()
        except TimeoutError:
            return f"no answer within {CHECK_SECONDS:.0f} s"
        except Exception as error:
            return str(error) or type(error).__name__
        return ""


def install_health(app: Starlette, health: Health, registry: CollectorRegistry) -> None:
    """Mount the three routes; they need no token and tell no secrets."""

    async def healthz(_request: Request) -> PlainTextResponse:
        ended = health.crashed()
        return PlainTextResponse(f"ended: {ended}\n", 503) if ended else PlainTextResponse("ok\n")

    async def readyz(_request: Request) -> JSONResponse:
        missing, degraded = await asyncio.gather(health.missing(), health.degraded())
        body = {"ready": not missing, "missing": missing, "degraded": degraded}
        return JSONResponse(body, 503 if missing else 200)

    async def metrics(_request: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    for route in (healthz, readyz, metrics):
        app.add_route(f"/{route.__name__}", route, include_in_schema=False)
