"""The simulated Prometheus over HTTP: real clients, faults, rules and the alerts it pushes."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from prometheus_api_client.exceptions import PrometheusApiClientException
from prometheus_api_client.prometheus_connect import PrometheusConnect
from urllib3.util import Retry

from tiphys.sandbox.loopback import serving
from tiphys.sandbox.prometheus import Prometheus, Recording, Rule
from tiphys.sandbox.tsdb import Reading, Tsdb

NOW = 1_800_000_000.0


class Here:
    """One served Prometheus with an hour of history before NOW."""

    def __init__(self) -> None:
        self.url = ""
        self.http: httpx2.AsyncClient
        self.pushed: list[dict[str, Any]] = []
        self.readings: list[Reading] = [("up", {"pod": "a"}, 1.0)]
        self.prometheus = Prometheus(
            Tsdb(),
            [
                Rule("Down", 'up{pod!=""} == 0', 10, {"severity": "page"}, {"s": "{{ $value }}"}),
                Recording("pods:up", 'sum(up{pod!=""})'),
                Rule("Broken", "up / on() up"),
            ],
            sources={"apps": lambda: self.readings},
            push=self.pushed.extend,
            external_labels={"cluster": "west"},
        )
        for pod in "ab":
            tsdb = self.prometheus.tsdb
            tsdb.extend("hits", {"pod": pod}, NOW - 3600, 15, [15.0 * i for i in range(241)])

    def client(self, method: str = "GET") -> PrometheusConnect:
        retry = Retry(total=0, raise_on_status=False, status_forcelist=[])
        return PrometheusConnect(url=self.url, retry=retry, timeout=5, method=method)

    async def asked(self, path: str, **params: Any) -> httpx2.Response:
        return await self.http.get(path, params=params)


@pytest_asyncio.fixture
async def here() -> AsyncIterator[Here]:
    world = Here()
    async with (
        serving(world.prometheus.app()) as world.url,
        httpx2.AsyncClient(base_url=world.url, trust_env=False) as world.http,
    ):
        yield world


async def off_loop(call: Callable[[], Any]) -> Any:
    return await asyncio.to_thread(call)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_the_client_library_reads_it(here: Here, method: str) -> None:
    client = here.client(method)
    assert await off_loop(client.check_prometheus_connection)
    found = await off_loop(
        lambda: client.custom_query("sum by (pod) (rate(hits[5m]))", params={"time": NOW})
    )
    assert found == [
        {"metric": {"pod": "a"}, "value": [NOW, "1"]},
        {"metric": {"pod": "b"}, "value": [NOW, "1"]},
    ]
    start, end = datetime.fromtimestamp(NOW - 60, UTC), datetime.fromtimestamp(NOW, UTC)
    ranged = await off_loop(lambda: client.custom_query_range('hits{pod="a"}', start, end, "30s"))
    assert ranged == [
        {
            "metric": {"__name__": "hits", "pod": "a"},
            "values": [[NOW - 60, "3540"], [NOW - 30, "3570"], [NOW, "3600"]],
        }
    ]
    assert await off_loop(client.all_metrics) == ["hits"]
    raw = await off_loop(lambda: client.get_current_metric_value("hits[1m]", params={"time": NOW}))
    assert [len(series["values"]) for series in raw] == [4, 4]


async def test_labels_and_series(here: Here) -> None:
    assert (await here.asked("/api/v1/labels")).json()["data"] == ["__name__", "pod"]
    assert (await here.asked("/api/v1/label/pod/values")).json()["data"] == ["a", "b"]
    series = await here.asked("/api/v1/series", **{"match[]": 'hits{pod="b"}'})
    assert series.json()["data"] == [{"__name__": "hits", "pod": "b"}]
    late = await here.asked("/api/v1/series", **{"match[]": "hits", "start": NOW + 1})
    assert late.json()["data"] == []


BAD: list[tuple[str, dict[str, Any], int, str, str]] = [
    ("query", {"query": "sum("}, 400, "bad_data", "parse error"),
    ("query", {}, 400, "bad_data", "parse error"),
    ("query", {"query": "up", "time": "soon"}, 400, "bad_data", '"time"'),
    ("query", {"query": "limitk(1, up)"}, 422, "execution", "not supported"),
    ("query", {"query": "hits / on() hits", "time": NOW}, 422, "execution", "many-to-many"),
    ("query_range", {"query": "1", "start": 1, "end": 0, "step": 1}, 400, "bad_data", "end"),
    ("query_range", {"query": "1", "start": 0, "end": 1, "step": 0}, 400, "bad_data", "zero"),
    ("query_range", {"query": "1", "start": 0, "end": 11_001, "step": 1}, 400, "bad_data", "11,00"),
    ("query_range", {"query": "a[5m]", "start": 0, "end": 1, "step": 1}, 400, "bad_data", "type"),
    ("series", {}, 400, "bad_data", "match[]"),
]  # fmt: skip


async def test_errors_are_prometheus_errors(here: Here) -> None:
    for path, params, status, kind, word in BAD:
        answer = await here.asked(f"/api/v1/{path}", **params)
        assert answer.status_code == status, params
        body = answer.json()
        assert (body["status"], body["errorType"]) == ("error", kind)
        assert word in body["error"]


async def test_values_are_written_as_prometheus_writes_them(here: Here) -> None:
    for query, text in [
        ("1/0", "+Inf"), ("-1/0", "-Inf"), ("0/0", "NaN"), ("0.00001", "0.00001"), ("2", "2"),
        ("1/3", "0.3333333333333333"), ("1e21", "1e+21"), ("0.0000001", "1e-07"),
        ("123456789012", "123456789012"),
    ]:  # fmt: skip
        body = (await here.asked("/api/v1/query", query=query, time=NOW)).json()
        assert body["data"] == {"resultType": "scalar", "result": [NOW, text]}
    body = (await here.asked("/api/v1/query", query='"a"', time="2027-01-15T08:00:00Z")).json()
    assert body["data"] == {"resultType": "string", "result": [NOW, "a"]}


async def test_down_and_slow(here: Here) -> None:
    here.prometheus.down = True
    client = here.client()
    with pytest.raises(PrometheusApiClientException, match="503"):
        await off_loop(lambda: client.custom_query("hits"))
    assert (await here.asked("/-/ready")).status_code == 503
    here.prometheus.down = False
    here.prometheus.slow = 0.2
    started = time.monotonic()
    assert (await here.asked("/-/ready")).status_code == 200
    assert time.monotonic() - started >= 0.2


async def test_rules_fire_and_are_pushed_and_resolved(here: Here) -> None:
    server = here.prometheus
    await server.tick(NOW)
    assert here.pushed == []
    here.readings = [("up", {"pod": "a"}, 0.0), ("up", {"pod": "b"}, 0.0)]
    await server.tick(NOW + 1)
    await server.tick(NOW + 10)
    assert here.pushed == []
    (pending, _) = (await here.asked("/api/v1/alerts")).json()["data"]["alerts"]
    assert pending == {
        "labels": {"alertname": "Down", "pod": "a", "severity": "page"},
        "annotations": {"s": "0"},
        "state": "pending",
        "activeAt": "2027-01-15T08:00:01Z",
        "value": "0e+00",
    }
    await server.tick(NOW + 11.5)
    assert [alert["labels"]["pod"] for alert in here.pushed] == ["a", "b"]
    assert here.pushed[0]["labels"]["cluster"] == "west"
    assert here.pushed[0]["startsAt"] == "2027-01-15T08:00:11.5Z"
    assert here.pushed[0]["endsAt"] == "2027-01-15T08:04:11.5Z"
    assert here.pushed[0]["generatorURL"].startswith("http://127.0.0.1:9090/graph?g0.expr=up")
    await server.tick(NOW + 12)
    assert len(here.pushed) == 2
    here.readings = [("up", {"pod": "b"}, 0.0)]
    await server.tick(NOW + 13)
    assert here.pushed[2]["labels"]["pod"] == "a"
    assert here.pushed[2]["endsAt"] == "2027-01-15T08:00:13Z"
    await server.tick(NOW + 14)
    assert len(here.pushed) == 3
    await server.tick(NOW + 72)
    assert [alert["labels"]["pod"] for alert in here.pushed[3:]] == ["b"]
    firing = await here.asked("/api/v1/query", query='ALERTS{alertstate="firing"}', time=NOW + 72)
    assert [r["metric"]["pod"] for r in firing.json()["data"]["result"]] == ["b"]


async def test_the_rules_api(here: Here) -> None:
    await here.prometheus.tick(NOW)
    await here.prometheus.tick(NOW + 1)
    (group,) = (await here.asked("/api/v1/rules")).json()["data"]["groups"]
    down, recording, broken = group["rules"]
    assert (down["name"], down["state"], down["health"]) == ("Down", "inactive", "ok")
    assert (down["query"], down["duration"]) == ('up{pod!=""} == 0', 10)
    assert (down["type"], recording["type"]) == ("alerting", "recording")
    assert broken["health"] == "err"
    assert "many-to-many" in broken["lastError"]
    only = (await here.asked("/api/v1/rules", type="alert")).json()["data"]["groups"][0]["rules"]
    assert [rule["name"] for rule in only] == ["Down", "Broken"]
    recorded = await here.asked("/api/v1/query", query="pods:up", time=NOW + 1)
    assert recorded.json()["data"]["result"][0]["value"][1] == "1"


async def test_it_runs_in_real_time_and_stands_still_while_down(here: Here) -> None:
    ticked = asyncio.Event()

    def read() -> list[Reading]:
        ticked.set()
        return [("beat", {}, time.time())]

    here.prometheus.sources["heart"] = read
    here.prometheus.sources["failing"] = lambda: [("x", {}, 1 / 0)]
    task = asyncio.create_task(here.prometheus.run(0.02))
    try:
        async with asyncio.timeout(5):
            await ticked.wait()
        answer = await here.asked("/api/v1/query", query="up")
        values = {r["metric"]["job"]: r["value"][1] for r in answer.json()["data"]["result"]
                  if "job" in r["metric"]}  # fmt: skip
        assert values == {"apps": "1", "heart": "1", "failing": "0"}
        here.prometheus.down = True
        ticked.clear()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.15):
                await ticked.wait()
    finally:
        task.cancel()


async def test_a_heavy_query_leaves_the_event_loop_free(here: Here) -> None:
    tsdb = here.prometheus.tsdb
    for pod in range(60):
        tsdb.extend("heavy", {"pod": str(pod)}, NOW - 3600, 1, [float(i) for i in range(3600)])
    params = {"query": "deriv(heavy[5m])", "start": NOW - 600, "end": NOW, "step": 15}
    longest, at = 0.0, time.monotonic()
    started = at
    request = asyncio.create_task(here.asked("/api/v1/query_range", **params))
    while not request.done():
        await asyncio.sleep(0.005)
        longest, at = max(longest, time.monotonic() - at), time.monotonic()
    assert len((await request).json()["data"]["result"]) == 60
    assert longest < 0.6 * (at - started)
