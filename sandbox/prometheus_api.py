"""The HTTP face of the simulated Prometheus, in the shapes of the real one.

https://prometheus.io/docs/prometheus/latest/querying/api/
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol
from urllib.parse import parse_qs

import promql_parser
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from tiphys.sandbox.alert_rules import AlertingState, Recording
from tiphys.sandbox.prometheus_json import (
    active_alerts,
    alerting_rule,
    instant_result,
    range_result,
    recording_rule,
)
from tiphys.sandbox.promql import evaluate, matchers_of
from tiphys.sandbox.promql_vectors import QueryError, QuerySyntaxError
from tiphys.sandbox.timestamps import from_rfc3339
from tiphys.sandbox.tsdb import Labels, Tsdb

MOST_POINTS = 11_000
"""Points of a range query per series, as in Prometheus."""


class Server(Protocol):
    """What this face shows of a server."""

    tsdb: Tsdb
    rules: list[AlertingState | Recording]
    interval: float
    down: bool
    slow: float


Params = dict[str, list[str]]
Answer = Callable[[Params, Request], Awaitable[Any]]


def prometheus_app(prometheus: Server) -> Starlette:
    """Serve queries, rules and alerts of one simulated server."""
    face = _Face(prometheus)
    both = ["GET", "POST"]
    routes = [
        Route("/api/v1/query", face.answering(face.query), methods=both),
        Route("/api/v1/query_range", face.answering(face.query_range), methods=both),
        Route("/api/v1/series", face.answering(face.series), methods=both),
        Route("/api/v1/labels", face.answering(face.labels), methods=both),
        Route("/api/v1/label/{name}/values", face.answering(face.label_values)),
        Route("/api/v1/rules", face.answering(face.rules)),
        Route("/api/v1/alerts", face.answering(face.alerts)),
        Route("/api/v1/status/buildinfo", face.answering(face.build)),
        Route("/", face.ready),
        Route("/-/healthy", face.ready),
        Route("/-/ready", face.ready),
    ]
    return Starlette(routes=routes)


class _Face:
    def __init__(self, prometheus: Server) -> None:
        self.prometheus = prometheus

    def answering(self, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
        """Wrap an answer in Prometheus' envelope, its errors in Prometheus' error shape."""

        async def endpoint(request: Request) -> Response:
            if (refused := await self._unwell()) is not None:
                return refused
            params = parse_qs(request.url.query, keep_blank_values=True)
            if request.method == "POST":
                for name, values in parse_qs((await request.body()).decode()).items():
                    params.setdefault(name, []).extend(values)
            try:
                data = await answer(params, request)
            except QuerySyntaxError as error:
                return _failed(400, "bad_data", str(error))
            except QueryError as error:
                return _failed(422, "execution", str(error))
            return JSONResponse({"status": "success", "data": data})

        return endpoint

    async def ready(self, _request: Request) -> Response:
        """Say that the server is up."""
        return await self._unwell() or PlainTextResponse("Prometheus Server is Ready.\n")

    async def _unwell(self) -> Response | None:
        if self.prometheus.down:
            return PlainTextResponse("Service Unavailable", status_code=503)
        await asyncio.sleep(self.prometheus.slow)
        return None

    async def query(self, params: Params, _request: Request) -> Any:
        """Evaluate at one time."""
        at = _instant(params, "time", time.time())
        query = _one(params, "query")
        value = await asyncio.to_thread(evaluate, self.prometheus.tsdb, query, [at])
        return instant_result(value, at)

    async def query_range(self, params: Params, _request: Request) -> Any:
        """Evaluate at each step of a range."""
        start, end = _instant(params, "start"), _instant(params, "end")
        step = _duration(params, "step")
        if end < start:
            raise QuerySyntaxError(_wrong("end", "end timestamp must not be before start time"))
        if step <= 0:
            raise QuerySyntaxError(
                _wrong("step", "zero or negative query resolution step widths are not accepted."
                       " Try a positive integer")
            )  # fmt: skip
        if (end - start) / step > MOST_POINTS:
            raise QuerySyntaxError(
                "exceeded maximum resolution of 11,000 points per timeseries."
                " Try decreasing the query resolution (?step=XX)"
            )
        count = math.floor((end - start) / step + 1e-9) + 1
        times = [round(start + i * step, 3) for i in range(count)]
        query = _one(params, "query")
        value = await asyncio.to_thread(evaluate, self.prometheus.tsdb, query, times)
        return range_result(value, times)

    async def series(self, params: Params, _request: Request) -> Any:
        """List the label sets of the series that match."""
        if not params.get("match[]"):
            raise QuerySyntaxError("no match[] parameter provided")
        return self._matching(params)

    async def labels(self, params: Params, _request: Request) -> Any:
        """List the names of labels."""
        return sorted({name for labels in self._matching(params) for name in labels})

    async def label_values(self, params: Params, request: Request) -> Any:
        """List the values of a label."""
        name = request.path_params["name"]
        return sorted({labels[name] for labels in self._matching(params) if name in labels})

    def _matching(self, params: Params) -> list[Labels]:
        start, end = _instant(params, "start", -math.inf), _instant(params, "end", math.inf)
        selectors = [matchers_of(text) for text in params.get("match[]", [])] or [[]]
        found = {id(s): s for matchers in selectors for s in self.prometheus.tsdb.select(matchers)}
        return [
            series.labels
            for series in found.values()
            if (times := series.columns[0]) and times[-1] >= start and times[0] <= end
        ]

    async def rules(self, params: Params, _request: Request) -> Any:
        """List the rules, in one group."""
        kind = params.get("type", [""])[0]
        if kind not in {"", "alert", "record"}:
            raise QuerySyntaxError(_wrong("type", f"not supported value {kind!r}"))
        rules = [
            alerting_rule(rule)
            if isinstance(rule, AlertingState)
            else recording_rule(rule)
            for rule in self.prometheus.rules
            if kind != ("record" if isinstance(rule, AlertingState) else "alert")
        ]  # fmt: skip
        group = {
            "name": "sandbox",
            "file": "sandbox.yaml",
            "interval": self.prometheus.interval,
            "limit": 0,
            "rules": rules,
        }
        return {"groups": [group] if rules else []}

    async def alerts(self, _params: Params, _request: Request) -> Any:
        """List the pending and firing alerts."""
        return {
            "alerts": [
                a
                for rule in self.prometheus.rules
                if isinstance(rule, AlertingState)
                for a in active_alerts(rule)
            ]
        }

    async def build(self, _params: Params, _request: Request) -> Any:
        """Say which version this claims to be."""
        return {"version": "3.0.0", "revision": "sandbox", "branch": "", "goVersion": ""}


def _failed(status: int, kind: str, message: str) -> JSONResponse:
    body = {"status": "error", "errorType": kind, "error": message}
    return JSONResponse(body, status_code=status)


def _wrong(parameter: str, why: str) -> str:
    return f'invalid parameter "{parameter}": {why}'


def _one(params: Params, name: str) -> str:
    return params.get(name, [""])[0]


def _instant(params: Params, name: str, default: float | None = None) -> float:
    text = _one(params, name)
    if not text and default is not None:
        return default
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return from_rfc3339(text)
    except ValueError as error:
        why = f'cannot parse "{text}" to a valid timestamp'
        raise QuerySyntaxError(_wrong(name, why)) from error


def _duration(params: Params, name: str) -> float:
    text = _one(params, name)
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return promql_parser.parse_duration(text).total_seconds()
    except ValueError as error:
        why = f'cannot parse "{text}" to a valid duration'
        raise QuerySyntaxError(_wrong(name, why)) from error
