"""The agents' two adapters against servers that misbehave, on loopback."""

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

import pytest
from kubernetes.aio import client

from tiphys.agents.ports import UnansweredError
from tiphys.sandbox.loopback import serving
from tiphys.service.kubernetes_reader import LOG_BYTES, KubernetesReader
from tiphys.service.prometheus import Prometheus

NOW = datetime(2026, 1, 2, tzinfo=UTC)
Answer = Callable[[str, dict[str, str]], tuple[int, Any]]


@asynccontextmanager
async def server(answer: Answer, delay: float = 0) -> AsyncIterator[str]:
    """Serve whatever `answer(path, query)` gives."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        await asyncio.sleep(delay)
        query = {k: v[0] for k, v in parse_qs(scope["query_string"].decode()).items()}
        status, body = answer(scope["path"], query)
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": raw})

    async with serving(app) as url:
        yield url


# --- Prometheus ---------------------------------------------------------------------------------


@asynccontextmanager
async def prometheus(answer: Answer, delay: float = 0) -> AsyncIterator[Prometheus]:
    async with server(answer, delay) as url:
        adapter = Prometheus(url, timeout=0.4)
        try:
            yield adapter
        finally:
            adapter.close()


@pytest.mark.parametrize(
    ("warnings", "lacking"),
    [
        pytest.param(["partial response: store 10.0.0.7 is unavailable"], True, id="partial"),
        pytest.param(['PromQL warning: bucket label "le" is missing'], False, id="remark"),
        pytest.param([], False, id="none"),
    ],
)
async def test_an_answer_that_says_it_is_not_whole_is_none(warnings: Any, lacking: bool) -> None:
    series = {"metric": {"a": '"warnings"'}, "value": [0, "1"], "values": [[0, "1"]]}

    def answer(path: str, query: dict[str, str]) -> tuple[int, Any]:
        return 200, {"status": "success", "data": {"result": [series]}, "warnings": warnings}

    async with prometheus(answer) as adapter:
        for call in (adapter.instant("up"), adapter.range("up", NOW, NOW + timedelta(hours=1), 60)):
            if lacking:
                with pytest.raises(
                    UnansweredError, match="not the whole one: partial response: store"
                ):
                    await call
            else:
                assert len(await call) == 1


async def test_prometheus_answers_become_samples_series_and_rules() -> None:
    asked: list[dict[str, str]] = []

    def answer(path: str, query: dict[str, str]) -> tuple[int, Any]:
        asked.append(query)
        vector = [{"metric": {"pod": "p"}, "value": [1.5, "NaN"]}]
        matrix = [{"metric": {"pod": "p"}, "values": [[1, "2"], [2, "+Inf"]]}]
        rule = {"type": "alerting", "name": "A", "query": "r == 0", "duration": 60, "labels": {}}
        odd = {"type": "alerting", "name": "B", "query": "words of tomorrow (("}
        recording = {"type": "recording", "name": "r", "query": "rate(up[5m])"}
        groups = [{"interval": 15, "rules": [rule, recording, odd]}]
        results = {
            "/api/v1/query": {"result": vector},
            "/api/v1/query_range": {"result": matrix},
            "/api/v1/rules": {"groups": groups},
        }
        return 200, {"status": "success", "data": results[path]}

    async with prometheus(answer) as adapter:
        (sample,) = await adapter.instant("up", NOW)
        assert sample.labels == {"pod": "p"}
        assert math.isnan(sample.value)
        (series,) = await adapter.range("up", NOW - timedelta(hours=100), NOW, 15)
        assert series.points == [(1.0, 2.0), (2.0, math.inf)]
        rule, odd = await adapter.rules()
        assert (rule.name, rule.expression, rule.interval_seconds) == ("A", "r == 0", 15)
        assert (rule.looks_back_seconds, odd.looks_back_seconds) == (300, None)
    assert float(asked[0]["time"]) == NOW.timestamp()
    assert float(asked[1]["step"]) >= 900, "a long range must not ask for more points than are kept"


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, {"status": "error", "error": "x"}),
        (200, {"status": "success", "data": {"result": [{"value": []}]}}),
        (200, b"<html>"),
        (422, {"status": "error", "error": "cannot"}),
        (503, b""),
    ],
)
async def test_whatever_prometheus_says_wrong_is_unanswered(status: int, body: Any) -> None:
    async with prometheus(lambda *_: (status, body)) as adapter:
        with pytest.raises(UnansweredError, match="Prometheus"):
            await adapter.instant("up")


async def test_a_slow_prometheus_is_not_waited_for_and_does_not_block_the_loop() -> None:
    async with prometheus(lambda *_: (200, {}), delay=30) as adapter:
        started = time.perf_counter()
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.02)
                ticks += 1

        ticking = asyncio.create_task(tick())
        with pytest.raises(UnansweredError):
            await adapter.instant("up")
        ticking.cancel()
        assert time.perf_counter() - started < 3
        assert ticks >= 5, "the event loop stood still"


# --- Kubernetes ---------------------------------------------------------------------------------


@asynccontextmanager
async def kubernetes(answer: Answer, unknown_seconds: float = 9) -> AsyncIterator[KubernetesReader]:
    async with server(answer) as url:
        configuration = client.Configuration(host=url)
        api = client.ApiClient(configuration=configuration)
        try:
            yield KubernetesReader(api, unknown_seconds)
        finally:
            await api.close()


async def test_lists_are_read_page_by_page_and_say_what_they_hold() -> None:
    def answer(path: str, query: dict[str, str]) -> tuple[int, Any]:
        assert path == "/apis/apps/v1/namespaces/n/replicasets"
        assert query["labelSelector"] == "a=b"
        page = int(query.get("continue", "0"))
        meta = {"continue": str(page + 1)} if page < 2 else {}
        return 200, {"metadata": meta, "items": [{"metadata": {"name": f"r{page}"}}]}

    async with kubernetes(answer) as reader:
        found = await reader.list("apps/v1", "ReplicaSet", "n", "a=b")
    assert [o["metadata"] for o in found] == [{"name": f"r{i}"} for i in range(3)]
    assert all(o["kind"] == "ReplicaSet" for o in found)


async def test_a_kind_that_is_not_served_has_no_objects_and_is_looked_up_once() -> None:
    asked: list[str] = []

    def answer(path: str, query: dict[str, str]) -> tuple[int, Any]:
        del query
        asked.append(path)
        if path == "/apis/x.io/v1":
            named = {"name": "things", "kind": "Thing", "namespaced": True}
            return 200, {"resources": [{"name": "things/status", "kind": "Thing"}, named]}
        if path == "/apis/x.io/v1/namespaces/n/things/a":
            return 200, thing
        return 404, {"message": "not found"}

    thing = {"kind": "Thing", "metadata": {"name": "a", "uid": "u"}}

    async with kubernetes(answer) as reader:
        assert await reader.get("x.io/v1", "Thing", "n", "a") == thing
        assert await reader.get("x.io/v1", "Thing", "n", "b") is None
        assert await reader.list("y.io/v1", "Other", "n") == []
        assert await reader.list("y.io/v1", "Other", "n") == []
    assert asked.count("/apis/x.io/v1") == asked.count("/apis/y.io/v1") == 1


@pytest.mark.parametrize(
    ("status", "body"), [(403, {"message": "forbidden"}), (500, b""), (200, b"[1]"), (200, b"{")]
)
async def test_a_refusal_or_nonsense_is_unanswered_not_absent(status: int, body: Any) -> None:
    async with kubernetes(lambda *_: (status, body)) as reader:
        with pytest.raises(UnansweredError, match="Kubernetes"):
            await reader.get("v1", "Pod", "n", "p")


async def test_a_token_that_is_not_known_for_a_moment_is_no_answer_yet() -> None:
    """A pod that is being deleted must not conclude anything from its token's end."""
    asked: list[str] = []

    def answer(path: str, query: dict[str, str]) -> tuple[int, Any]:
        del query
        asked.append(path)
        return (200, pod) if len(asked) == 3 else (401, {"message": "Unauthorized"})

    pod = {"kind": "Pod", "metadata": {"name": "p", "uid": "u"}}

    async with kubernetes(answer) as reader:
        assert await reader.get("v1", "Pod", "n", "p") == pod
    assert len(asked) == 3


async def test_a_token_that_stays_unknown_is_unanswered() -> None:
    async with kubernetes(lambda *_: (401, {"message": "Unauthorized"}), 0.1) as reader:
        with pytest.raises(UnansweredError, match="401"):
            await reader.get("v1", "Pod", "n", "p")


async def test_secrets_are_never_asked_for() -> None:
    asked: list[str] = []

    def answer(path: str, query: dict[str, str]) -> tuple[int, Any]:
        del query
        asked.append(path)
        return 200, {}

    async with kubernetes(answer) as reader:
        with pytest.raises(UnansweredError):
            await reader.get("v1", "Secret", "n", "s")
        with pytest.raises(UnansweredError):
            await reader.list("v1", "Secret", "n")
    assert asked == []


async def test_names_stay_in_their_place_in_the_path() -> None:
    asked: list[str] = []

    def answer(path: str, query: dict[str, str]) -> tuple[int, Any]:
        asked.append(path + "?" * bool(query))
        return 404, {}

    async with kubernetes(answer) as reader:
        await reader.get("v1", "Pod", "n", "../../secrets/s?x=1#")
    # ASGI gives the path decoded; what counts is that the query and the fragment stayed inside.
    assert asked == ["/api/v1/namespaces/n/pods/../../secrets/s?x=1#"]


async def test_logs_are_bounded_and_missing_ones_are_empty() -> None:
    def answer(path: str, query: dict[str, str]) -> tuple[int, Any]:
        assert query["tailLines"] == "5"
        if query.get("previous"):
            return 400, {"message": "previous terminated container not found"}
        return 200, b"x" * (LOG_BYTES * 20)

    async with kubernetes(answer) as reader:
        log = await reader.logs("n", "p", "app", previous=False, tail_lines=5)
        assert len(log) == LOG_BYTES
        assert await reader.logs("n", "p", "app", previous=True, tail_lines=5) == ""
