"""Prometheus, the Kubernetes API and Alertmanager when what they send is endless, partial or wrong.

Each over real HTTP on loopback. What is proven: an answer is whole and bounded, or it is none.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

import pytest
from kubernetes.aio import client

from tiphys.agents.ports import UnansweredError
from tiphys.policies.model import Alert
from tiphys.sandbox.loopback import serving
from tiphys.service.alertmanager import Alertmanagers
from tiphys.service.kubernetes_reader import (
    LOG_BYTES,
    LOG_READ_BYTES,
    MAX_OBJECTS,
    KubernetesReader,
)
from tiphys.service.prometheus import MAX_SAMPLES, MAX_SERIES, Prometheus
from tiphys.service.prometheus_session import MAX_BYTES

NOW = datetime(2026, 1, 2, tzinfo=UTC)
MEGABYTE = 1 << 20


@dataclass
class Server:
    """Sends `parts` again and again, up to `total` bytes, with a pause before each."""

    part: bytes = b"{}"
    total: int = 0
    """0: the part once."""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    pause: float = 0.0
    last: bytes = b""
    """Sent after all the others."""
    sent: int = 0
    asked: list[tuple[str, dict[str, str]]] = field(
        default_factory=list[tuple[str, dict[str, str]]]
    )

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        query = {k: v[0] for k, v in parse_qs(scope["query_string"].decode()).items()}
        self.asked.append((scope["path"], query))
        sending = asyncio.create_task(self._send(send))
        hung_up = asyncio.create_task(_hung_up(receive))
        await asyncio.wait({sending, hung_up}, return_when=asyncio.FIRST_COMPLETED)
        sending.cancel()
        hung_up.cancel()

    async def _send(self, send: Any) -> None:
        headers = [(k.encode(), v.encode()) for k, v in self.headers.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        self.sent = 0
        while self.sent < (self.total or 1):
            await asyncio.sleep(self.pause)
            await send({"type": "http.response.body", "body": self.part, "more_body": True})
            self.sent += len(self.part) or 1
        await send({"type": "http.response.body", "body": self.last})


async def _hung_up(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


# --- Prometheus ---------------------------------------------------------------------------------


@asynccontextmanager
async def prometheus(app: Any, timeout: float = 2.0) -> AsyncIterator[Prometheus]:
    async with serving(app) as url:
        adapter = Prometheus(url, timeout=timeout)
        try:
            yield adapter
        finally:
            adapter.close()


def vector(count: int, **beside: Any) -> bytes:
    found = [{"metric": {"pod": f"p{at}"}, "value": [1.5, "1"]} for at in range(count)]
    return json.dumps({"status": "success", "data": {"result": found}, **beside}).encode()


@pytest.mark.parametrize(
    ("beside", "says"),
    [
        pytest.param({"status": "error", "error": "query timed out"}, "timed out", id="error-200"),
        pytest.param(
            {"warnings": ["No StoreAPIs matched for this query"]}, "No StoreAPIs", id="thanos"
        ),
        pytest.param({"warnings": ["results truncated due to limit"]}, "truncated", id="limit"),
        pytest.param({"isPartial": True}, "not the whole", id="victoriametrics"),
    ],
)
async def test_a_partial_answer_is_none(beside: dict[str, Any], says: str) -> None:
    """Nothing in it would read as "the alert is over"."""
    async with prometheus(Server(vector(0, **beside))) as adapter:
        with pytest.raises(UnansweredError, match=says):
            await adapter.instant("up")
        with pytest.raises(UnansweredError, match=says):
            await adapter.range("up", NOW - timedelta(hours=1), NOW, 15)
        with pytest.raises(UnansweredError, match=says):
            await adapter.rules()


async def test_notes_that_are_no_warnings_do_not_spoil_an_answer() -> None:
    told = vector(1, warnings=[], infos=["PromQL info: metric might not be a counter"])
    async with prometheus(Server(told)) as adapter:
        assert len(await adapter.instant("up")) == 1


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(vector(3)[:-20], id="cut-off"),
        pytest.param(b"<html>sign in</html>", id="html"),
        pytest.param(b"[" * 200_000, id="nested"),
        pytest.param(b"", id="empty"),
        pytest.param(b'{"status": "success", "data": null}', id="no-data"),
        pytest.param(b'{"status": "success", "data": {"result": {"a": 1}}}', id="no-list"),
        pytest.param(vector(1).replace(b'"1"', b'"one"'), id="no-number"),
    ],
)
async def test_what_is_no_answer_of_prometheus_is_unanswered(body: bytes) -> None:
    html = {"content-type": "text/html"}
    async with prometheus(Server(body, headers=html)) as adapter:
        with pytest.raises(UnansweredError, match="Prometheus did not answer"):
            await adapter.instant("up")


async def test_a_redirect_is_not_followed() -> None:
    elsewhere = Server(vector(1))
    async with serving(elsewhere) as other:
        away = Server(b"", status=307, headers={"location": f"{other}/api/v1/query"})
        async with prometheus(away) as adapter:
            for ask in (adapter.instant("up"), adapter.rules()):
                with pytest.raises(UnansweredError):
                    await ask
    assert elsewhere.asked == []


async def test_an_endless_answer_is_hung_up_on() -> None:
    endless = Server(b'{"status":"success","x":"' + b"x" * MEGABYTE, total=100 * MEGABYTE)
    async with prometheus(endless, timeout=9) as adapter:
        with pytest.raises(UnansweredError, match="more than"):
            await adapter.instant("up")
    assert endless.sent < 2 * MAX_BYTES


async def test_an_answer_in_drops_holds_no_thread() -> None:
    """Each drop comes within the socket's time-out: only the whole's deadline ends it."""
    drops = Server(b" ", total=1000, pause=0.2)
    async with prometheus(drops, timeout=3) as adapter:
        began = time.monotonic()
        with pytest.raises(UnansweredError):
            await adapter.instant("up")
        before = -1
        while drops.sent != before:
            assert time.monotonic() - began < 40, "the connection is kept"
            before = drops.sent
            await asyncio.sleep(2)


async def test_ten_thousand_series_are_read_and_more_than_fit_are_none() -> None:
    async with prometheus(Server(vector(10_000)), timeout=20) as adapter:
        assert len(await adapter.instant("up")) == 10_000
    async with prometheus(Server(vector(MAX_SAMPLES + 1)), timeout=20) as adapter:
        with pytest.raises(UnansweredError, match="more than 20000 series"):
            await adapter.instant("up")
    one = {"metric": {}, "values": [[1, "1"]]}
    many = {"status": "success", "data": {"result": [one] * (MAX_SERIES + 1)}}
    async with prometheus(Server(json.dumps(many).encode()), timeout=20) as adapter:
        with pytest.raises(UnansweredError, match="more than 2000 series"):
            await adapter.range("up", NOW - timedelta(hours=1), NOW, 15)


# --- Kubernetes ---------------------------------------------------------------------------------


@asynccontextmanager
async def kubernetes(app: Any) -> AsyncIterator[KubernetesReader]:
    async with serving(app) as url:
        api = client.ApiClient(configuration=client.Configuration(host=url))
        try:
            yield KubernetesReader(api, unknown_seconds=0.1)
        finally:
            await api.close()


async def read_log(server: Server) -> str:
    async with kubernetes(server) as reader:
        return await reader.logs("n", "p", "app", previous=False, tail_lines=40)


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"x" * MEGABYTE, id="one-endless-line"),
        pytest.param(b"spam\n" * 200_000, id="many-lines"),
    ],
)
async def test_a_log_of_100_megabytes_is_cut_off_and_said_to_be_unread(line: bytes) -> None:
    """What was read is not its end, so nothing of it passes for the last words."""
    server = Server(line, total=100 * MEGABYTE, last=b"\nthe real error\n")
    with pytest.raises(UnansweredError, match="the end of the log was not reached"):
        await read_log(server)
    assert server.sent < 30 * MEGABYTE
    assert server.asked[0][1]["limitBytes"] == str(LOG_READ_BYTES)
    assert server.asked[0][1]["tailLines"] == "40"


async def test_long_lines_do_not_push_the_last_one_out() -> None:
    """`limitBytes` alone would leave out the end, which is where the error is."""
    server = Server(b"x" * 16_000 + b"\n", total=40 * 16_000, last=b"the real error")
    log = await read_log(server)
    assert log.endswith("the real error")
    assert len(log) <= LOG_BYTES


async def test_a_log_that_never_ends_is_given_up() -> None:
    server = Server(b"tick\n", total=MEGABYTE, pause=0.1)
    began = time.monotonic()
    with pytest.raises(UnansweredError):
        await read_log(server)
    assert time.monotonic() - began < 30, "the file would have taken hours"


@dataclass
class Pages:
    """A list of so many objects, in pages; each answer may be replaced by `instead[number]`."""

    objects: int
    instead: Mapping[int, tuple[int, Any]] = field(default_factory=dict[int, tuple[int, Any]])
    page: int = 500
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    asked: int = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        del receive
        query = {k: v[0] for k, v in parse_qs(scope["query_string"].decode()).items()}
        start = int(query.get("continue", "0"))
        end = min(start + self.page, self.objects)
        meta = {"continue": str(end)} if end < self.objects else {}
        items = [{"metadata": {"name": f"p{at}", "uid": f"u{at}"}} for at in range(start, end)]
        status, body = self.instead.get(self.asked, (200, {"metadata": meta, "items": items}))
        self.asked += 1
        headers = [(k.encode(), v.encode()) for k, v in self.headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(body).encode()})


async def pods(server: Pages) -> int:
    async with kubernetes(server) as reader:
        return len(await reader.list("v1", "Pod", ""))


async def test_fifty_thousand_pods_are_refused_after_the_first_ten_thousand() -> None:
    server = Pages(50_000)
    with pytest.raises(UnansweredError, match="more than 10000 Pod objects"):
        await pods(server)
    assert server.asked == MAX_OBJECTS // 500
    assert await pods(Pages(3_000)) == 3_000


async def test_pages_without_end_and_without_objects_are_given_up() -> None:
    class Endless(Pages):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            empty = (200, {"metadata": {"continue": "again"}, "items": []})
            self.instead = {self.asked: empty}
            await super().__call__({**scope, "query_string": b""}, receive, send)

    server = Endless(1)
    with pytest.raises(UnansweredError):
        async with asyncio.timeout(60):
            await pods(server)
    assert server.asked == MAX_OBJECTS // 500


@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param(410, {"message": "The provided continue parameter is too old"}, id="410"),
        pytest.param(404, {"message": "not found"}, id="404"),
        pytest.param(500, {"message": "etcd"}, id="500"),
        pytest.param(503, "", id="503"),
        pytest.param(200, {"items": {"a": 1}}, id="no-list"),
        pytest.param(200, {"items": ["pod"]}, id="no-objects"),
    ],
)
async def test_half_a_list_is_no_list(status: int, body: Any) -> None:
    with pytest.raises(UnansweredError, match="Kubernetes"):
        await pods(Pages(1_500, {1: (status, body)}))


async def test_a_busy_server_is_asked_again_when_it_says_so() -> None:
    busy = (429, {"message": "too many requests"})
    server = Pages(10, {0: busy, 1: busy}, headers={"retry-after": "1"})
    began = time.monotonic()
    assert await pods(server) == 10
    assert time.monotonic() - began >= 2
    for wait in ("3600", "soon"):
        always = Pages(10, dict.fromkeys(range(99), busy), headers={"retry-after": wait})
        began = time.monotonic()
        with pytest.raises(UnansweredError, match="429"):
            await pods(always)
        assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({}, id="empty"),
        pytest.param({"kind": "Status", "status": "Success"}, id="status"),
        pytest.param({"metadata": {"name": "other", "uid": "u"}}, id="another-object"),
        pytest.param({"metadata": {"name": "p"}}, id="no-uid"),
        pytest.param({"metadata": {"name": "p", "uid": ""}}, id="empty-uid"),
        pytest.param({"metadata": {"name": "p", "uid": 7}}, id="uid-of-another-type"),
        pytest.param({"metadata": ["p"]}, id="metadata-of-another-type"),
    ],
)
async def test_an_object_without_the_asked_identity_is_unanswered(body: Any) -> None:
    async with kubernetes(Server(json.dumps(body).encode())) as reader:
        with pytest.raises(UnansweredError, match="is not Pod p"):
            await reader.get("v1", "Pod", "n", "p")


async def test_nesting_without_end_is_unanswered() -> None:
    async with kubernetes(Server(b'{"a":' * 100_000)) as reader:
        with pytest.raises(UnansweredError, match="cannot be read"):
            await reader.get("v1", "Pod", "n", "p")


# --- Alertmanager -------------------------------------------------------------------------------

ALERT = Alert.model_validate(
    {"id": "a", "cluster": "c", "fingerprint": "f", "status": "firing", "starts_at": NOW,
     "labels": {"alertname": "A"}, "received_at": NOW}
)  # fmt: skip


@pytest.mark.parametrize(
    ("server", "says"),
    [
        pytest.param(Server(b"x" * MEGABYTE, total=100 * MEGABYTE), "more than", id="endless"),
        pytest.param(Server(b"[]"[:1]), "no list of alerts", id="cut-off"),
        pytest.param(Server(b"<html>"), "no list of alerts", id="html"),
        pytest.param(Server(b"[" * 100_000), "no list of alerts", id="nested"),
        pytest.param(Server(b"", status=302, headers={"location": "/"}), "302", id="redirect"),
        pytest.param(Server(b"[]", status=500), "500", id="500"),
        pytest.param(Server(b" ", total=1_000, pause=0.2), "does not answer", id="drops"),
    ],
)
async def test_an_alertmanager_that_sends_no_list_is_unanswered(server: Server, says: str) -> None:
    """Never "it no longer has the alert", which would close the incident."""
    async with serving(server) as url:
        source = Alertmanagers([url], cluster="c", timeout=1, most_bytes=8 * MEGABYTE)
        try:
            with pytest.raises(UnansweredError, match=says):
                await source.facts([ALERT])
        finally:
            await source.close()
    assert server.sent < 30 * MEGABYTE
