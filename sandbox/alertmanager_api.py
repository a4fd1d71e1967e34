"""The HTTP face of the simulated Alertmanager, API version 2.

https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml
"""

import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from tiphys.sandbox.alertmanager_alerts import (
    HeldAlert,
    InvalidError,
    Silence,
    match_from,
    silence_from,
)
from tiphys.sandbox.timestamps import rfc3339


class Server(Protocol):
    """What this face shows of a server."""

    down: bool
    alerts: dict[str, HeldAlert]
    silences: dict[str, Silence]

    def receive(self, bodies: Sequence[Any]) -> None:
        """Take pushed alerts."""
        ...

    def add_silence(self, silence: Silence) -> str:
        """Keep a silence."""
        ...

    def expire(self, silence_id: str) -> bool:
        """End a silence."""
        ...

    def silenced_by(self, alert: HeldAlert) -> list[str]:
        """The silences that hold for an alert."""
        ...

    def inhibited_by(self, alert: HeldAlert) -> list[str]:
        """What inhibits an alert."""
        ...

    def receivers_of(self, alert: HeldAlert) -> list[str]:
        """Where an alert is posted."""
        ...


def alertmanager_app(server: Server) -> Starlette:
    """Serve alerts and silences of one simulated server."""
    face = _Face(server)
    routes = [
        Route("/api/v2/alerts", _guarded(server, face.list_alerts), methods=["GET"]),
        Route("/api/v2/alerts", _guarded(server, face.take_alerts), methods=["POST"]),
        Route("/api/v2/silences", _guarded(server, face.list_silences), methods=["GET"]),
        Route("/api/v2/silences", _guarded(server, face.take_silence), methods=["POST"]),
        Route("/api/v2/silence/{id}", _guarded(server, face.show_silence), methods=["GET"]),
        Route("/api/v2/silence/{id}", _guarded(server, face.end_silence), methods=["DELETE"]),
        Route("/api/v2/status", _guarded(server, face.status), methods=["GET"]),
        Route("/-/ready", _guarded(server, face.ready)),
        Route("/-/healthy", _guarded(server, face.ready)),
    ]
    return Starlette(routes=routes)


def _guarded(
    server: Server, answer: Callable[[Request], Awaitable[Response]]
) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        if server.down:
            return PlainTextResponse("Service Unavailable", status_code=503)
        try:
            return await answer(request)
        except InvalidError as error:
            return JSONResponse(str(error), status_code=400)

    return endpoint


async def _body(request: Request) -> Any:
    try:
        return json.loads(await request.body())
    except ValueError as error:
        raise InvalidError(f"parsing body failed: {error}") from error


def _flag(request: Request, name: str) -> bool:
    text = request.query_params.get(name, "true")
    if text not in {"true", "false"}:
        raise InvalidError(f"{name} in query must be of type boolean: {text!r}")
    return text == "true"


class _Face:
    def __init__(self, server: Server) -> None:
        self.server = server
        self.started = time.time()

    async def list_alerts(self, request: Request) -> Response:
        """List what has not ended, filtered by state, matchers and receiver."""
        flags = {name: _flag(request, name) for name in ("active", "silenced", "inhibited")}
        matchers = [match_from(text) for text in request.query_params.getlist("filter")]
        receiver = request.query_params.get("receiver", "")
        now = time.time()
        shown = [
            self._shown(alert)
            for _, alert in sorted(self.server.alerts.items())
            if not alert.resolved(now)
            and all(m.holds(alert.labels) for m in matchers)
            and (not receiver or receiver in self.server.receivers_of(alert))
        ]
        return JSONResponse([alert for alert in shown if _wanted(alert["status"], flags)])

    def _shown(self, alert: HeldAlert) -> dict[str, Any]:
        silenced, inhibited = self.server.silenced_by(alert), self.server.inhibited_by(alert)
        state = "suppressed" if silenced or inhibited else "active"
        return {
            "annotations": dict(alert.annotations),
            "endsAt": rfc3339(alert.ends_at),
            "fingerprint": alert.fingerprint,
            "receivers": [{"name": name} for name in self.server.receivers_of(alert)],
            "startsAt": rfc3339(alert.starts_at),
            "status": {
                "inhibitedBy": inhibited,
                "mutedBy": [],
                "silencedBy": silenced,
                "state": state,
            },
            "updatedAt": rfc3339(alert.updated_at),
            "generatorURL": alert.generator_url,
            "labels": dict(alert.labels),
        }

    async def take_alerts(self, request: Request) -> Response:
        """Take alerts from Prometheus, or from the service under test."""
        body = await _body(request)
        if not isinstance(body, list):
            raise InvalidError("parsing alerts body failed: expected a list")
        self.server.receive(body)
        return Response(status_code=200)

    async def list_silences(self, request: Request) -> Response:
        """List the silences, expired ones too."""
        now = time.time()
        matchers = [match_from(text) for text in request.query_params.getlist("filter")]
        return JSONResponse(
            [
                silence.shown(now)
                for silence in self.server.silences.values()
                if all(
                    any(s.name == m.name and s.value == m.value for s in silence.matchers)
                    for m in matchers
                )
            ]
        )

    async def take_silence(self, request: Request) -> Response:
        """Create a silence, or change the one whose id the body names."""
        body = await _body(request)
        silence = silence_from(body, time.time())
        known: str = body.get("id") or ""
        if known:
            if known not in self.server.silences:
                return JSONResponse(f"silence {known} not found", status_code=404)
            if self.server.silences[known].state(time.time()) != "expired":
                silence.id = known
        return JSONResponse({"silenceID": self.server.add_silence(silence)})

    async def show_silence(self, request: Request) -> Response:
        """Show one silence."""
        silence = self.server.silences.get(request.path_params["id"])
        if silence is None:
            return Response(status_code=404)
        return JSONResponse(silence.shown(time.time()))

    async def end_silence(self, request: Request) -> Response:
        """Expire one silence."""
        found = self.server.expire(request.path_params["id"])
        return Response(status_code=200 if found else 404)

    async def status(self, _request: Request) -> Response:
        """Say which version this claims to be and since when it runs."""
        return JSONResponse(
            {
                "cluster": {"status": "disabled", "peers": []},
                "config": {"original": ""},
                "uptime": rfc3339(self.started),
                "versionInfo": {"version": "0.28.0", "revision": "sandbox"},
            }
        )

    async def ready(self, _request: Request) -> Response:
        """Say that the server is up."""
        return PlainTextResponse("OK")


def _wanted(status: Mapping[str, Any], flags: Mapping[str, bool]) -> bool:
    if status["state"] == "active":
        return flags["active"]
    if status["silencedBy"] and not flags["silenced"]:
        return False
    return not (status["inhibitedBy"] and not flags["inhibited"])
