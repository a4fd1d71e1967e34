"""The simulated Alertmanager: what it posts, when, and what its API says."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
import urllib3
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from tiphys.sandbox.alertmanager import Alertmanager, Timing
from tiphys.sandbox.alertmanager_alerts import fingerprint
from tiphys.sandbox.alertmanager_groups import Posted, Reason, group_key, needs_update
from tiphys.sandbox.loopback import serving
from tiphys.sandbox.timestamps import from_rfc3339, rfc3339

POSTS = Path(__file__).parents[1] / "data" / "alertmanager" / "webhook_posts.jsonl"
REAL = [json.loads(line) for line in POSTS.read_text().splitlines()]
TIMING = Timing(group_wait=0.02, group_interval=0.06, human_wait=30.0)
"""Seconds; the group interval bounds the retries too."""


class Here:
    """A served Alertmanager and the webhook that it posts to."""

    def __init__(self) -> None:
        self.url = ""
        self.http: httpx2.AsyncClient
        self.alertmanager = Alertmanager("", "s3cret", TIMING, "http://am")
        self.statuses: list[int] = []
        """What the webhook answers next; 200 when empty."""
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[Any] = []

    async def hook(self, request: Request) -> Response:
        self.bodies.append(await request.json())
        self.headers.append(request.headers)
        return Response(status_code=self.statuses.pop(0) if self.statuses else 200)

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not holds():  # noqa: ASYNC110 - what is awaited has no event of its own
                await asyncio.sleep(0.005)

    async def quiet(self) -> None:
        """Wait for four group intervals and see no new post."""
        count = len(self.bodies)
        await asyncio.sleep(4 * TIMING.group_interval)
        assert len(self.bodies) == count

    def push(self, *alerts: dict[str, Any]) -> None:
        self.alertmanager.receive(alerts)

    async def listed(self, **params: Any) -> list[str]:
        """The pods of the listed alerts."""
        answer = await self.http.get("/api/v2/alerts", params=params)
        assert answer.status_code == 200
        return [alert["labels"].get("pod", "") for alert in answer.json()]


@pytest_asyncio.fixture
async def here() -> AsyncIterator[Here]:
    world = Here()
    hook = Route("/hook", world.hook, methods=["POST"])
    both = Starlette(routes=[hook, Mount("/", world.alertmanager.app())])
    async with (
        serving(both) as world.url,
        httpx2.AsyncClient(base_url=world.url, trust_env=False) as world.http,
    ):
        world.alertmanager.webhook_url = f"{world.url}/hook"
        task = asyncio.create_task(world.alertmanager.run())
        yield world
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


START = time.time() - 60


def alert(pod: str = "a", *, ends: float = 240.0, name: str = "Crash", **labels: str) -> Any:
    """One alert as Prometheus pushes it; `ends` in seconds from now, negative: resolved."""
    return {
        "labels": {"alertname": name, "namespace": "shop", "pod": pod, **labels},
        "annotations": {"summary": "it crashed"},
        "startsAt": rfc3339(START),
        "endsAt": rfc3339(time.time() + ends),
        "generatorURL": "http://prometheus/graph",
    }


def shape(value: Any) -> Any:
    """Keys and types; label sets are any mapping of strings."""
    if isinstance(value, dict):
        if (
            value
            and all(isinstance(item, str) for item in value.values())
            and ("status" not in value)
        ):
            return "strings"
        return {key: shape(item) for key, item in value.items()} or "strings"
    if isinstance(value, list):
        return [shape(value[0])]
    return type(value).__name__


# --- what is posted -----------------------------------------------------------------------------


def test_fingerprints_are_those_of_the_real_program() -> None:
    alerts = [alert for post in REAL for alert in post["alerts"]]
    assert len(alerts) == 53
    assert [fingerprint(a["labels"]) for a in alerts] == [a["fingerprint"] for a in alerts]
    assert fingerprint({"a": "é", "b": ""}) == fingerprint({"b": "", "a": "é"})


async def test_a_post_has_the_shape_of_the_real_programs(here: Here) -> None:
    here.push(alert("a"), alert("b"))
    await here.until(lambda: bool(here.bodies))
    (body,) = here.bodies
    assert here.headers[0]["authorization"] == "Bearer s3cret"
    assert list(body) == list(REAL[0])
    assert list(body["alerts"][0]) == list(REAL[0]["alerts"][0])
    assert shape(body) == shape(REAL[0])
    assert body["status"] == "firing"
    assert [a["labels"]["pod"] for a in body["alerts"]] == ["a", "b"]
    assert body["groupLabels"] == {"alertname": "Crash", "namespace": "shop"}
    assert body["commonLabels"] == {"alertname": "Crash", "namespace": "shop"}
    assert body["commonAnnotations"] == {"summary": "it crashed"}
    assert body["groupKey"] == '{}:{alertname="Crash", namespace="shop"}'
    assert (body["version"], body["externalURL"], body["truncatedAlerts"]) == ("4", "http://am", 0)
    first = body["alerts"][0]
    assert (first["endsAt"], first["startsAt"]) == ("0001-01-01T00:00:00Z", rfc3339(START))
    assert len(first["fingerprint"]) == 16


def test_group_keys_are_those_of_the_real_program() -> None:
    for post in REAL:
        assert group_key("{}", post["groupLabels"]) == post["groupKey"]


async def test_groups_are_by_alertname_namespace_and_cluster(here: Here) -> None:
    here.push(alert(cluster="west"), alert(cluster="east"), alert(name="Other"))
    await here.until(lambda: len(here.bodies) == 3)
    assert sorted(body["groupKey"] for body in here.bodies) == [
        '{}:{alertname="Crash", cluster="east", namespace="shop"}',
        '{}:{alertname="Crash", cluster="west", namespace="shop"}',
        '{}:{alertname="Other", namespace="shop"}',
    ]


async def test_a_resolved_alert_is_posted_once_beside_what_still_fires(here: Here) -> None:
    here.push(alert("a"), alert("b"))
    await here.until(lambda: len(here.bodies) == 1)
    here.push(alert("a", ends=-0.001))
    await here.until(lambda: len(here.bodies) == 2)
    assert here.bodies[1]["status"] == "firing"
    assert [(a["labels"]["pod"], a["status"]) for a in here.bodies[1]["alerts"]] == [
        ("a", "resolved"), ("b", "firing"),
    ]  # fmt: skip
    ended = here.bodies[1]["alerts"][0]
    assert from_rfc3339(ended["endsAt"]) > from_rfc3339(ended["startsAt"]) == pytest.approx(START)
    here.push(alert("a", ends=-0.001), alert("b"))
    await here.quiet()
    here.push(alert("a", ends=-0.001), alert("b", ends=-0.001))
    await here.until(lambda: len(here.bodies) == 3)
    assert here.bodies[2]["status"] == "resolved"
    assert [a["labels"]["pod"] for a in here.bodies[2]["alerts"]] == ["b"]
    await here.quiet()
    assert await here.listed() == []


async def test_an_alert_that_is_no_longer_pushed_resolves_by_itself(here: Here) -> None:
    here.push(alert("a", ends=0.1))
    await here.until(lambda: len(here.bodies) == 2)
    assert [body["status"] for body in here.bodies] == ["firing", "resolved"]


async def test_firing_resolved_firing_with_the_same_start_after_a_gap(here: Here) -> None:
    here.push(alert("a"))
    await here.until(lambda: len(here.bodies) == 1)
    here.alertmanager.lose({"pod": "a"}, seconds=0.3)
    here.push(alert("a"))
    await here.until(lambda: len(here.bodies) == 2)
    await here.until(lambda: here.push(alert("a")) is None and len(here.bodies) == 3)
    assert [body["status"] for body in here.bodies] == ["firing", "resolved", "firing"]
    assert len({body["alerts"][0]["startsAt"] for body in here.bodies}) == 1


async def test_5xx_is_tried_again_with_the_same_body(here: Here) -> None:
    here.alertmanager.timing = Timing(group_wait=0.02, group_interval=5.0)
    here.statuses = [503, 500]
    here.push(alert())
    await here.until(lambda: len(here.bodies) == 3)
    assert here.bodies[0] == here.bodies[1] == here.bodies[2]
    await here.until(lambda: len(here.alertmanager.attempts) == 3)
    assert [a.status for a in here.alertmanager.attempts] == [503, 500, 200]


async def test_4xx_is_not_tried_again_before_the_next_flush(here: Here) -> None:
    here.alertmanager.timing = Timing(group_wait=0.02, group_interval=0.5)
    here.statuses = [429]
    here.push(alert())
    await here.until(lambda: len(here.alertmanager.attempts) == 2)
    first, second = here.alertmanager.attempts
    assert (first.status, second.status) == (429, 200)
    assert second.at - first.at > 0.45


async def test_no_listener_is_like_5xx(here: Here) -> None:
    here.alertmanager.timing = Timing(group_wait=0.02, group_interval=5.0)
    url, here.alertmanager.webhook_url = here.alertmanager.webhook_url, "http://127.0.0.1:1/hook"
    here.push(alert())
    await here.until(lambda: len(here.alertmanager.attempts) == 1)
    here.alertmanager.webhook_url = url
    await here.until(lambda: len(here.bodies) == 1)
    assert here.alertmanager.attempts[0].status == 0


async def test_max_alerts_truncates(here: Here) -> None:
    here.alertmanager.max_alerts = 2
    here.push(*(alert(pod) for pod in "abcde"))
    await here.until(lambda: bool(here.bodies))
    assert len(here.bodies[0]["alerts"]) == 2
    assert here.bodies[0]["truncatedAlerts"] == 3


async def test_pages_of_tiphys_go_to_the_human_only(here: Here) -> None:
    here.push(alert("a"), alert(name="TiphysEscalation"))
    await here.until(lambda: bool(here.bodies and here.alertmanager.posted))
    await here.quiet()
    assert [body["groupLabels"]["alertname"] for body in here.bodies] == ["Crash"]
    assert [b["groupLabels"]["alertname"] for b in here.alertmanager.posted] == ["TiphysEscalation"]
    assert here.alertmanager.posted[0]["receiver"] == "human"


async def test_the_human_is_paged_when_the_deadline_passes(here: Here) -> None:
    here.alertmanager.timing = Timing(group_wait=0.02, group_interval=0.06, human_wait=0.8)
    here.push(alert("slow"), alert("quick", name="Quick"))
    await here.until(lambda: len(here.bodies) == 2)
    here.push(alert("quick", name="Quick", ends=-0.001))
    await here.until(lambda: len(here.bodies) == 3)
    assert here.alertmanager.posted == []
    await here.until(lambda: bool(here.alertmanager.posted))
    await here.quiet()
    assert [b["groupLabels"]["alertname"] for b in here.alertmanager.posted] == ["Crash"]


async def test_deliver_goes_past_a_silence(here: Here) -> None:
    here.alertmanager.silence({"pod": "a"}, 60)
    assert await here.alertmanager.deliver([alert("a")]) == 200
    assert here.bodies[0]["alerts"][0]["labels"]["pod"] == "a"
    assert list(here.bodies[0]) == list(REAL[0])


@pytest.mark.parametrize(
    ("last", "firing", "resolved", "reason"),
    [
        (None, "", "", None),
        (None, "", "a", None),
        (None, "a", "", Reason.NEW_FIRING),
        (("a", ""), "a", "", None),
        (("a", ""), "ab", "", Reason.NEW_FIRING),
        (("ab", ""), "a", "b", Reason.NEW_RESOLVED),
        (("ab", "c"), "a", "c", None),
        (("a", ""), "", "a", Reason.ALL_RESOLVED),
        (("", "a"), "", "a", None),
        (("", "a"), "a", "", Reason.NEW_FIRING),
    ],
)
def test_when_a_group_is_posted(
    last: tuple[str, str] | None, firing: str, resolved: str, reason: Reason | None
) -> None:
    told = last and Posted(frozenset(last[0]), frozenset(last[1]), at=100.0)
    given = (frozenset(firing), frozenset(resolved))
    assert needs_update(told or None, *given, 150.0, 60.0) is reason
    if told and reason is None and firing:
        assert needs_update(told, *given, 160.0, 60.0) is Reason.REPEAT


# --- what the API says --------------------------------------------------------------------------


async def test_alerts_come_and_are_listed_over_http(here: Here) -> None:
    answer = await here.http.post("/api/v2/alerts", json=[alert("a"), alert("b", tier="x")])
    assert answer.status_code == 200
    (first, _) = sorted((await here.http.get("/api/v2/alerts")).json(), key=str)
    assert set(first) == {
        "annotations", "endsAt", "fingerprint", "generatorURL", "labels", "receivers", "startsAt",
        "status", "updatedAt",
    }  # fmt: skip
    assert first["status"] == {
        "state": "active", "silencedBy": [], "inhibitedBy": [], "mutedBy": [],
    }  # fmt: skip
    assert first["startsAt"] == rfc3339(START)
    assert first["receivers"] == [{"name": "tiphys"}, {"name": "human"}]
    assert await here.listed(filter='pod="a"') == ["a"]
    assert await here.listed(filter=["alertname=~Cr.*", "tier!=x"]) == ["a"]
    assert await here.listed(receiver="nobody") == []
    await here.until(lambda: bool(here.bodies))


async def test_urllib3_reads_it_too(here: Here) -> None:
    here.push(alert("a"))

    def read() -> Any:
        with urllib3.PoolManager(retries=False) as pool:
            query = {"active": "true", "silenced": "false", "inhibited": "false"}
            return pool.request("GET", f"{here.url}/api/v2/alerts", fields=query).json()

    (found,) = await asyncio.to_thread(read)
    assert found["fingerprint"] == fingerprint(alert("a")["labels"])


async def test_a_silence_holds_back_shows_and_ends(here: Here) -> None:
    now = time.time()
    silence = {
        "matchers": [{"name": "pod", "value": "a|b", "isRegex": True, "isEqual": True}],
        "startsAt": rfc3339(now - 5), "endsAt": rfc3339(now + 60),
        "createdBy": "ann", "comment": "maintenance",
    }  # fmt: skip
    made = await here.http.post("/api/v2/silences", json=silence)
    name = made.json()["silenceID"]
    here.push(alert("a"), alert("c"))
    await here.until(lambda: bool(here.bodies))
    assert [a["labels"]["pod"] for a in here.bodies[0]["alerts"]] == ["c"]
    assert await here.listed(silenced="false") == ["c"]
    assert await here.listed(active="false") == ["a"]
    (shown,) = (await here.http.get("/api/v2/alerts", params={"filter": "pod=a"})).json()
    assert shown["status"]["state"] == "suppressed"
    assert shown["status"]["silencedBy"] == [name]
    (listed,) = (await here.http.get("/api/v2/silences")).json()
    assert (listed["id"], listed["status"]) == (name, {"state": "active"})
    assert listed["matchers"] == silence["matchers"]
    await here.quiet()
    assert (await here.http.delete(f"/api/v2/silence/{name}")).status_code == 200
    gone = (await here.http.get(f"/api/v2/silence/{name}")).json()
    assert gone["status"] == {"state": "expired"}
    await here.until(lambda: len(here.bodies) == 2)
    assert [a["labels"]["pod"] for a in here.bodies[1]["alerts"]] in (["a", "c"], ["c", "a"])
    assert (await here.http.delete("/api/v2/silence/none")).status_code == 404


async def test_inhibited_alerts_are_held_back(here: Here) -> None:
    here.alertmanager.inhibitions.append({"pod": "a"})
    here.push(alert("a"))
    await here.quiet()
    assert here.bodies == []
    (shown,) = (await here.http.get("/api/v2/alerts")).json()
    assert shown["status"]["state"] == "suppressed"
    assert len(shown["status"]["inhibitedBy"]) == 1
    assert await here.listed(inhibited="false") == []
    here.alertmanager.inhibitions.clear()
    await here.until(lambda: bool(here.bodies))


def a_silence(value: str, ends: str) -> str:
    matcher = {"name": "a", "value": value, "isRegex": False}
    who = {"comment": "", "createdBy": ""}
    return json.dumps(
        {"matchers": [matcher], "startsAt": "2026-01-01T00:00:00Z", "endsAt": ends, **who}
    )


async def test_bad_requests_are_refused_whole(here: Here) -> None:
    for path, content in (
        ("alerts", "nonsense"),
        ("alerts", "{}"),
        ("alerts", '[{"labels": {}}]'),
        ("alerts", '[{"labels": {"a": "b"}, "startsAt": "soon"}]'),
        ("alerts", '[{"labels": {"a": "b"}}, {"labels": 5}]'),
        ("silences", '{"matchers": []}'),
        ("silences", a_silence("", "2999-01-01T00:00:00Z")),
        ("silences", a_silence("b", "2026-01-02T00:00:00Z")),
    ):
        answer = await here.http.post(f"/api/v2/{path}", content=content)
        assert answer.status_code == 400, content
        assert isinstance(answer.json(), str)
    assert here.alertmanager.alerts == {}
    assert here.alertmanager.silences == {}


async def test_status_ready_and_down(here: Here) -> None:
    assert (await here.http.get("/api/v2/status")).json()["versionInfo"]["version"]
    assert (await here.http.get("/-/ready")).status_code == 200
    assert (await here.http.get("/api/v2/alerts?active=maybe")).status_code == 400
    here.alertmanager.down = True
    here.push(alert("a"))
    assert (await here.http.get("/-/ready")).status_code == 503
    assert (await here.http.post("/api/v2/alerts", json=[alert("b")])).status_code == 503
    here.alertmanager.down = False
    assert await here.listed() == []
