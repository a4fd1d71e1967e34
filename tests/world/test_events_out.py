"""Events out: a real receiver on loopback that verifies as the specification's consumer does."""

import base64
import contextlib
import hashlib
import hmac
import json
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr, ValidationError
from starlette.types import Receive, Scope, Send

from tiphys.sandbox.loopback import serving
from tiphys.service import events_out
from tiphys.service.audit import Audit
from tiphys.service.database import moment
from tiphys.service.errors import BadInputError
from tiphys.service.event_batch import BATCH_BYTES
from tiphys.service.events_out import EventMetrics, EventsOut, open_http, receiver_of
from tiphys.service.records import AuditEvent
from tiphys.service.roles import Role
from tiphys.service.settings import Settings

KEY = bytes(range(32))
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"
TOLERANCE = 300


def verified(headers: dict[str, str], body: bytes, now: float, key: bytes = KEY) -> Any:
    """Verify as Standard Webhooks' section "Verifying signatures" tells a consumer to."""
    identity, timestamp = headers["webhook-id"], headers["webhook-timestamp"]
    assert "." not in identity
    assert timestamp.isdigit()
    assert abs(now - int(timestamp)) < TOLERANCE, "a replay"
    content = f"{identity}.{timestamp}.".encode() + body
    expected = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
    given = [one.split(",", 1) for one in headers["webhook-signature"].split(" ")]
    assert any(v == "v1" and hmac.compare_digest(sig, expected) for v, sig in given)
    return json.loads(body)


@dataclass
class Hook:
    """The receiver; `says` answers the statuses to come, then 204."""

    key: bytes = KEY
    says: list[int] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    """Those that it took."""
    posts: list[dict[str, str]] = field(default_factory=list)
    """The headers of every post."""
    sizes: list[int] = field(default_factory=list)
    """How many events were in every post."""
    paths: list[str] = field(default_factory=list)
    extra: list[tuple[bytes, bytes]] = field(default_factory=list)
    always: int | None = None
    now: Callable[[], float] = time.time
    picky: Callable[[dict[str, Any]], bool] = lambda _event: False

    def now_is(self, at: datetime) -> Callable[[], datetime]:
        """Stand still; gives the sender's clock of the same time."""
        self.now = at.timestamp
        return lambda: at

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        headers = {k.decode(): v.decode() for k, v in scope["headers"]}
        self.posts.append(headers)
        self.paths.append(scope["path"])
        found = verified(headers, body, self.now(), self.key)
        batch = headers["content-type"].startswith("application/cloudevents-batch+json")
        assert isinstance(found, list) == batch
        events = found if batch else [found]
        self.sizes.append(len(events))
        status = self.always or (self.says.pop(0) if self.says else 204)
        status = 400 if any(map(self.picky, events)) else status
        if status < 300:
            self.events += events
        start = {"type": "http.response.start", "status": status, "headers": self.extra}
        await send(start)
        await send({"type": "http.response.body", "body": b""})


@dataclass
class Outbound:
    bench: Any
    hook: Hook
    out: EventsOut
    registry: CollectorRegistry

    async def record(self, event: AuditEvent = AuditEvent.PAUSED, **words: Any) -> None:
        await note(self.bench, event, **words)

    async def tell(self, times: int = 30) -> None:
        for _ in range(times):
            await self.out.once()

    def count(self, name: str) -> float:
        return self.registry.get_sample_value(f"tiphys_events_{name}_total") or 0.0


async def note(bench: Any, event: AuditEvent, *, incident: str | None = None, **body: Any) -> None:
    database = bench.users[Role.GATEWAY]
    async with database.transaction() as tx:
        await Audit(database).append(tx, event, actor="ada", incident_id=incident, body=body)


def settings(**given: Any) -> Settings:
    return Settings(cluster="eu-1 north", events_secret=SecretStr(SECRET), **given)


@contextlib.asynccontextmanager
async def telling(bench: Any, hook: Hook, **given: Any) -> AsyncGenerator[Outbound]:
    """One replica of the gateway that has told all there was before."""
    hook.now = lambda: bench.clock().timestamp()
    async with serving(hook) as url, open_http() as http:
        receiver = receiver_of(settings(events_url=f"{url}/in?x=1", **given))
        assert receiver is not None
        ledger, registry = bench.of(Role.GATEWAY)[0], CollectorRegistry()
        out = EventsOut(ledger, receiver, EventMetrics(registry), http, jitter=lambda: 1.0)
        await out.once()
        yield Outbound(bench, hook, out, registry)


async def test_a_record_is_told_as_a_signed_cloud_event(bench: Any) -> None:
    async with telling(bench, Hook()) as outbound:
        await outbound.record(AuditEvent.RUN_ENDED, incident="inc-1", outcome="verified")
        await outbound.tell(2)
        [event], [post] = outbound.hook.events, outbound.hook.posts
    [record] = await bench.records()
    assert event == {
        "specversion": "1.0",
        "id": record.hash,
        "source": "/tiphys/eu-1%20north",
        "type": "io.tiphys.run_ended",
        "subject": "inc-1",
        "time": record.at,
        "sequence": "0000000000000001",
        "datacontenttype": "application/json",
        "data": {"actor": "ada", "body": {"outcome": "verified"}},
    }
    assert post["content-type"] == "application/cloudevents+json; charset=utf-8"
    assert post["webhook-id"] == event["id"]
    assert outbound.hook.paths == ["/in"]
    assert outbound.count("delivered") == 1


async def test_what_was_recorded_before_it_was_turned_on_is_not_told(bench: Any) -> None:
    await note(bench, AuditEvent.PAUSED)
    async with telling(bench, Hook()) as outbound:
        await outbound.tell(3)
        assert outbound.hook.events == []
        await outbound.record()
        await outbound.tell(3)
        assert len(outbound.hook.events) == 1


async def test_only_chosen_types_are_told_and_none_is_told_twice(bench: Any) -> None:
    async with telling(bench, Hook(), events_types=("paused", "resumed")) as outbound:
        for event in (AuditEvent.JUDGED, AuditEvent.PAUSED, AuditEvent.STOP_ENGAGED,
                      AuditEvent.RESUMED, AuditEvent.RUN_STEP):  # fmt: skip
            await outbound.record(event)
        await outbound.tell()
        told = [event["type"] for event in outbound.hook.events]
        assert told == ["io.tiphys.paused", "io.tiphys.resumed"]
        [row] = await bench.rows("event_positions")
        assert row["seq"] == 5, "what nobody wants is not looked at again"


async def test_what_failed_is_tried_again_later_and_the_order_stays(bench: Any) -> None:
    async with telling(bench, Hook(says=[500, 503])) as outbound:
        for number in range(3):
            await outbound.record(number=number)
        await outbound.tell(5)
        assert len(outbound.hook.posts) == 1, "not at once"
        bench.clock.forward(1.1)
        await later(bench)
        await outbound.tell(5)
        assert len(outbound.hook.posts) == 2
        bench.clock.forward(1.1)
        await outbound.tell(5)
        if bench.database.sqlite:
            assert len(outbound.hook.posts) == 2, "twice as long the second time"
        bench.clock.forward(1)
        await later(bench)
        await outbound.tell(9)
        assert [e["data"]["body"]["number"] for e in outbound.hook.events] == [0, 1, 2]
        first, second, third = outbound.hook.posts[:3]
        assert first["webhook-id"] == second["webhook-id"] == third["webhook-id"]
        assert int(first["webhook-timestamp"]) < int(third["webhook-timestamp"]), "no replay"
        assert outbound.count("failures") == 2


async def later(bench: Any) -> None:
    """On PostgreSQL, whose clock no test pushes, let what waits be due."""
    if not bench.database.sqlite:
        from sqlalchemy import text

        async with bench.database.transaction() as tx:
            await tx.execute(text("UPDATE event_positions SET due_at = ''"))


async def test_what_nobody_takes_for_a_day_is_given_up_and_does_not_block_the_rest(
    bench: Any,
) -> None:
    async with telling(bench, Hook(always=500)) as outbound:
        await outbound.record(number=0)
        await outbound.tell(2)
        bench.clock.forward(events_out.GIVE_UP.total_seconds() - 60)
        await later(bench)
        await outbound.tell(2)
        assert outbound.count("undelivered") == 0
        bench.clock.forward(360)
        await later(bench)
        await outbound.tell(2)
        assert outbound.count("undelivered") == 1
        outbound.hook.always = None
        await outbound.record(number=1)
        await later(bench)
        await outbound.tell(3)
        assert [e["data"]["body"]["number"] for e in outbound.hook.events] == [1]


async def test_an_event_that_the_receiver_refuses_is_given_up_sooner(bench: Any) -> None:
    hook = Hook(picky=lambda event: event["data"]["body"]["number"] == 0)
    async with telling(bench, hook) as outbound:
        for number in range(2):
            await outbound.record(number=number)
        for _ in range(events_out.REFUSALS):
            assert hook.events == []
            await outbound.tell(2)
            bench.clock.forward(20)
            await later(bench)
        await outbound.tell(2)
        assert [e["data"]["body"]["number"] for e in hook.events] == [1]
        assert outbound.count("undelivered") == 1


async def test_the_receiver_says_how_long_to_wait(bench: Any) -> None:
    hook = Hook(says=[429], extra=[(b"retry-after", b"60")])
    async with telling(bench, hook) as outbound:
        await outbound.record()
        await outbound.tell(2)
        if not bench.database.sqlite:
            pytest.skip("PostgreSQL's own clock cannot be pushed")
        bench.clock.forward(55)
        await outbound.tell(2)
        assert len(hook.posts) == 1
        bench.clock.forward(6)
        await outbound.tell(2)
        assert len(hook.events) == 1


async def test_a_redirect_is_not_followed(bench: Any) -> None:
    async with serving(Hook()) as elsewhere:
        moved = [(b"location", f"{elsewhere}/stolen".encode())]
        async with telling(bench, Hook(always=307, extra=moved)) as outbound:
            await outbound.record()
            await outbound.tell(3)
            assert outbound.hook.paths == ["/in"]
            assert outbound.count("failures") == 1


async def test_a_receiver_that_is_away_is_no_error_of_ours(bench: Any) -> None:
    async with telling(bench, Hook()) as outbound:
        await outbound.record()
        await outbound.tell(0)
    # The server is gone now.
    async with open_http() as http:
        ledger = bench.of(Role.GATEWAY)[0]
        receiver = outbound.out._receiver
        out = EventsOut(ledger, receiver, EventMetrics(CollectorRegistry()), http)
        assert await out.once() is False
    [row] = await bench.rows("event_positions")
    assert (row["seq"], row["tries"]) == (0, 1)


async def test_two_replicas_tell_each_event_once(bench: Any) -> None:
    import asyncio

    hook = Hook()
    async with telling(bench, hook) as one:
        async with open_http() as http:
            ledger = bench.replica().of(Role.GATEWAY)[0]
            metrics = EventMetrics(CollectorRegistry())
            two = EventsOut(ledger, one.out._receiver, metrics, http)
            for number in range(20):
                await one.record(number=number)
            for _ in range(40):
                await asyncio.gather(one.out.once(), two.once())
        assert [e["data"]["body"]["number"] for e in hook.events] == list(range(20))


async def test_a_replica_that_died_in_the_middle_is_taken_over_and_writes_nothing_late(
    bench: Any,
) -> None:
    """At least once: the receiver tells them apart by `webhook-id`."""
    if not bench.database.sqlite:
        pytest.skip("PostgreSQL's own clock cannot be pushed")
    async with telling(bench, Hook()) as outbound:
        await outbound.record(number=0)
        dead = bench.replica()
        position = EventsOut(
            dead.of(Role.GATEWAY)[0],
            outbound.out._receiver,
            EventMetrics(CollectorRegistry()),
            outbound.out._http,
        )._position
        turn = await position.take()
        assert turn is not None
        await outbound.tell(2)
        assert outbound.hook.events == [], "it is still the other's turn"
        bench.clock.forward(31)
        await outbound.tell(2)
        assert len(outbound.hook.events) == 1
        await position.give_back(turn.at(99))
        [row] = await bench.rows("event_positions")
        assert row["seq"] == 1


def numbers(hook: Hook) -> list[int]:
    return [event["data"]["body"]["number"] for event in hook.events]


async def test_a_batch_carries_what_waits_in_one_signed_post(bench: Any) -> None:
    async with telling(bench, Hook(), events_batch=3) as outbound:
        for number in range(7):
            await outbound.record(number=number)
            await outbound.record(AuditEvent.JUDGED)  # which nobody wants
        await outbound.tell(9)
        hook = outbound.hook
        assert (numbers(hook), hook.sizes) == ([*range(7)], [3, 3, 1])
        assert outbound.count("delivered") == 7
        assert {post["content-type"] for post in hook.posts} == {
            "application/cloudevents-batch+json; charset=utf-8"
        }
        assert {event["specversion"] for event in hook.events} == {"1.0"}
        names = {post["webhook-id"] for post in hook.posts} | {e["id"] for e in hook.events}
        assert len(names) == 3 + 7, "a batch has a name of its own"


async def test_a_batch_that_failed_is_tried_again_as_a_whole(bench: Any) -> None:
    async with telling(bench, Hook(says=[503, 500]), events_batch=10) as outbound:
        for number in range(3):
            await outbound.record(number=number)
        for _ in range(3):
            await outbound.tell(2)
            bench.clock.forward(10)
            await later(bench)
        hook = outbound.hook
        assert (numbers(hook), hook.sizes) == ([0, 1, 2], [3, 3, 3])
        assert len({post["webhook-id"] for post in hook.posts}) == 1
        assert (outbound.count("failures"), outbound.count("delivered")) == (2, 3)


async def test_one_event_that_is_refused_takes_no_other_of_its_batch_with_it(bench: Any) -> None:
    hook = Hook(picky=lambda event: event["data"]["body"]["number"] == 1)
    async with telling(bench, hook, events_batch=10) as outbound:
        for number in range(4):
            await outbound.record(number=number)
        for _ in range(30):
            await outbound.tell(2)
            bench.clock.forward(20)
            await later(bench)
        assert numbers(hook) == [0, 2, 3]
        assert outbound.count("undelivered") == 1
        assert hook.sizes == [4] * events_out.REFUSALS + [1] + [3] * events_out.REFUSALS + [1, 2]


async def test_a_batch_that_nobody_takes_is_given_up_and_each_of_its_events_is_counted(
    bench: Any,
) -> None:
    async with telling(bench, Hook(always=500), events_batch=10) as outbound:
        for number in range(3):
            await outbound.record(number=number)
        second = moment((await bench.records())[1].at)
        exactly = second + events_out.GIVE_UP
        outbound.out._clock = outbound.hook.now_is(exactly)
        await outbound.tell(1)
        assert outbound.hook.sizes == [3]
        assert outbound.count("undelivered") == 2, "the third is younger"
        outbound.hook.always = None
        await later(bench)
        await outbound.tell(3)
        assert numbers(outbound.hook) == [2]
        assert outbound.count("delivered") == 1


async def test_a_batch_is_bounded_in_bytes_and_one_that_is_larger_goes_alone(bench: Any) -> None:
    large = "x" * (BATCH_BYTES // 2 - 2000)
    async with telling(bench, Hook(), events_batch=10) as outbound:
        for number, words in enumerate((large, large, large, "", large * 3, "")):
            await outbound.record(number=number, words=words)
        await outbound.tell(9)
        assert (numbers(outbound.hook), outbound.hook.sizes) == ([*range(6)], [2, 2, 1, 1])
        lengths = [int(post["content-length"]) for post in outbound.hook.posts]
        assert [length <= BATCH_BYTES for length in lengths] == [True, True, False, True]


@pytest.mark.parametrize("batch", ["0", "101", "many"])
def test_a_batch_is_of_one_to_a_hundred(batch: str) -> None:
    with pytest.raises(ValidationError, match="events_batch"):
        Settings(events_batch=batch)


async def test_two_secrets_sign_while_a_receiver_changes_over(bench: Any) -> None:
    new = bytes(range(100, 132))
    both = f"whsec_{base64.b64encode(new).decode()} {SECRET}"
    for key in (new, KEY):
        async with telling(bench, Hook(key=key)) as outbound:
            receiver = receiver_of(
                Settings(
                    cluster="c",
                    events_url=outbound.out._receiver.url,
                    events_secret=SecretStr(both),
                )
            )
            outbound.out._receiver = receiver
            await outbound.record()
            await outbound.tell(3)
            assert len(outbound.hook.events) == 1


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"events_url": "http://example.org/in"}, "expected https"),
        ({"events_url": "ftp://example.org/in"}, "expected https"),
        ({"events_url": "https://user:pw@example.org/in"}, "without a user"),
        ({"events_url": "https:///in"}, "expected https"),
        ({"events_url": "nonsense"}, "expected https"),
        ({"events_url": "https://e.org", "events_secret": SecretStr("hunter22")}, "24 to 64"),
        ({"events_url": "https://e.org", "events_secret": SecretStr("whsec_YWJj")}, "24 to 64"),
        ({"events_url": "https://e.org", "events_types": ("pausd",)}, "recorded as pausd"),
        ({}, "go together"),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_sentence(given: Any, words: str) -> None:
    with pytest.raises(BadInputError, match=words) as refused:
        receiver_of(Settings(**{"events_secret": SecretStr(SECRET), **given}))
    assert "hunter22" not in str(refused.value)
    assert "pw" not in str(refused.value).replace("TIPHYS", "")


def test_without_an_address_nothing_is_told() -> None:
    assert receiver_of(Settings()) is None


def test_every_default_type_is_recorded_somewhere() -> None:
    assert {AuditEvent(event) for event in events_out.DEFAULT_TYPES} <= set(AuditEvent)
