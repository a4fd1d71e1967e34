"""/healthz, /readyz and /metrics: alive, able to work and which dependency is missing, counted."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from fastapi import FastAPI
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

CHECK_SECONDS = 3.0

Check = Callable[[], Awaitable[None]]
"""Raises what keeps a dependency from working."""


class Health:
    """Asks each dependency."""

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = dict(checks)

    async def missing(self) -> dict[str, str]:
        """Give each dependency that does not work, with the reason."""
        names = list(self._checks)
        answers = await asyncio.gather(*(self._ask(self._checks[name]) for name in names))
        return {name: why for name, why in zip(names, answers, strict=True) if why}

    async def _ask(self, check: Check) -> str:
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await check()
        except TimeoutError:
            return f"no answer within {CHECK_SECONDS:.0f} s"
        except Exception as error:
            return str(error) or type(error).__name__
        return ""


def install_health(app: FastAPI, health: Health, registry: CollectorRegistry) -> None:
    """Mount the three routes; they need no token and tell no secrets."""

    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> PlainTextResponse:  # pyright: ignore[reportUnusedFunction]
        return PlainTextResponse("ok\n")

    @app.get("/readyz", include_in_schema=False)
    async def readyz() -> JSONResponse:  # pyright: ignore[reportUnusedFunction]
        missing = await health.missing()
        body = {"ready": not missing, "missing": missing}
        return JSONResponse(body, 503 if missing else 200)

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:  # pyright: ignore[reportUnusedFunction]
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)
