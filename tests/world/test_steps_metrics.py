"""Verify's questions, asked of a Prometheus over HTTP: answered, or an error, never just empty."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from tiphys.sandbox.loopback import serving
from tiphys.sandbox.prometheus import Prometheus
from tiphys.sandbox.tsdb import Tsdb
from tiphys.workflow_templates.freshness import blind_spot
from tiphys.workflow_templates.metrics import Metrics, UnansweredError

RARE = 'kube_waiting{reason="CrashLoopBackOff"} > 0'


@pytest.fixture
async def world() -> AsyncIterator[tuple[Tsdb, Metrics]]:
    tsdb = Tsdb()
    async with serving(Prometheus(tsdb, []).app()) as url:
        yield tsdb, Metrics(url, timeout=2)


async def test_samples_come_with_labels_and_empty_means_empty(
    world: tuple[Tsdb, Metrics],
) -> None:
    tsdb, metrics = world
    tsdb.append("up", {"job": "node", "instance": "a"}, time.time(), 1.0)
    (sample,) = await asyncio.to_thread(metrics.instant, "up == 1")
    assert (sample.labels["job"], sample.value) == ("node", 1.0)
    assert await asyncio.to_thread(metrics.instant, "up == 0") == []
    for wrong in ("up ==", "no_such_function(up)", "1 + 1"):
        with pytest.raises(UnansweredError):
            await asyncio.to_thread(metrics.instant, wrong)


async def test_a_blind_prometheus_is_told_from_a_quiet_one(world: tuple[Tsdb, Metrics]) -> None:
    tsdb, metrics = world
    now = time.time()

    async def blind(since: float) -> str | None:
        return await asyncio.to_thread(blind_spot, metrics, RARE, since)

    assert "scraped nothing" in (await blind(now - 5) or "")
    source = {"job": "ksm", "instance": "a"}
    tsdb.append("up", source, now - 60, 1.0)
    tsdb.append("kube_waiting", {**source, "reason": "CrashLoopBackOff"}, now - 60, 1.0)
    assert "no sample of kube_waiting since" in (await blind(now - 5) or "")
    tsdb.mark_stale("kube_waiting", {**source, "reason": "CrashLoopBackOff"}, now - 30)
    assert "scraped nothing since" in (await blind(now - 5) or "")
    tsdb.append("up", source, now - 1, 1.0)
    assert await blind(now - 5) is None
    tsdb.append("up", source, now, 0.0)
    assert "nothing of job ksm is up" in (await blind(now - 5) or "")


@pytest.mark.parametrize(
    "answer",
    [
        PlainTextResponse("upstream", 502),
        PlainTextResponse("", 200),
        JSONResponse({"status": "error", "error": "query timed out"}, 503),
        JSONResponse({"status": "success", "data": {"resultType": "matrix", "result": []}}),
        JSONResponse({"status": "success"}),
        JSONResponse([]),
        JSONResponse(
            {
                "status": "success",
                "warnings": ["remote read failed"],
                "data": {"resultType": "vector", "result": []},
            }
        ),
        RedirectResponse("/elsewhere"),
    ],
)
async def test_whatever_is_no_answer_is_an_error(answer: Response) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await Request(scope, receive).body()
        await answer(scope, receive, send)

    async with serving(app) as url:
        with pytest.raises(UnansweredError):
            await asyncio.to_thread(Metrics(url, timeout=2).instant, "up")


async def test_nobody_listening_and_silence_are_errors() -> None:
    async def silent(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(1)

    async with serving(silent) as url:
        with pytest.raises(UnansweredError, match="Timeout"):
            await asyncio.to_thread(Metrics(url, timeout=0.2).instant, "up")
    with pytest.raises(UnansweredError):
        await asyncio.to_thread(Metrics(url, timeout=0.2).instant, "up")
