"""What the webhook answers, over real HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import httpx2
import pytest

from tiphys.service.errors import BrokerUnavailableError, StreamFullError
from tiphys.service.flights import Message

GOOD = {"status": "firing", "labels": {"alertname": "A"}, "startsAt": "2026-11-20T20:38:59Z"}


class Shelf:
    """A publisher that keeps what it is given, or fails as it is told."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.messages: list[Message] = []

    async def publish(self, messages: Sequence[Message]) -> None:
        self.messages += messages
        if self.error:
            raise self.error


def body(**fields: Any) -> bytes:
    return json.dumps({"version": "4", "alerts": [GOOD], **fields}).encode()


async def post(url: str, content: Any, **headers: str) -> httpx2.Response:
    async with httpx2.AsyncClient(timeout=10) as http:
        return await http.post(url, content=content, headers=headers)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"hello", "not JSON"),
        (body(version="3"), "webhook version '3' at `$.version`"),
        (body(alerts=7), "Expected `array`, got `int` - at `$.alerts`"),
    ],
)
async def test_what_cannot_be_read_is_400_and_says_why(
    served: Callable[..., Any], content: bytes, sentence: str
) -> None:
    shelf = Shelf()
    async with served(shelf) as (url, metrics):
        answer = await post(url, content)
    assert answer.status_code == 400
    assert sentence in answer.json()["error"]
    assert not shelf.messages
    assert metrics.refused.labels("unreadable")._value.get() == 1


async def test_unknown_fields_and_no_alertname_are_accepted(served: Callable[..., Any]) -> None:
    shelf = Shelf()
    odd = {**GOOD, "labels": {"team": "x"}, "novelty": {"a": [1]}, "endsAt": "0001-01-01T00:00:00Z"}
    async with served(shelf) as (url, metrics):
        answer = await post(url, body(alerts=[odd], truncatedAlerts=3, newField=None))
    assert answer.status_code == 200
    stored = json.loads(shelf.messages[0].body)
    assert stored["ends_at"] is None
    assert stored["labels"] == {"team": "x"}
    assert metrics.truncated._value.get() == 3
    assert metrics.alerts.labels("firing")._value.get() == 1


async def test_too_large_is_413(served: Callable[..., Any]) -> None:
    shelf = Shelf()
    large = b" " * (4 << 20) + body()

    async def in_chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(large), 1 << 16):
            yield large[start : start + (1 << 16)]

    label = {**GOOD, "labels": {"a": "x" * (600 << 10)}}
    async with served(shelf) as (url, _):
        assert (await post(url, large)).status_code == 413
        assert (await post(url, in_chunks())).status_code == 413
        one = await post(url, body(alerts=[GOOD, label]))
        assert (one.status_code, "`$.alerts[1]`" in one.text) == (413, True)
        assert not shelf.messages
        just = body(alerts=[{**GOOD, "annotations": {"long": "x" * (3 << 20)}}])
        assert (await post(url, just)).status_code == 200
    assert len(shelf.messages[0].body) < 64 << 10


async def test_a_configured_token_is_needed_everywhere(served: Callable[..., Any]) -> None:
    async with served(Shelf(), token="let-me-in") as (url, _):
        for wrong in ("", "Bearer", "Bearer let-me-i", "Bearer let-me-in2", "Basic let-me-in"):
            answer = await post(url, body(), authorization=wrong)
            assert answer.status_code == 401, wrong
            assert answer.headers["www-authenticate"] == "Bearer"
        assert (await post(url, body(), authorization="Bearer let-me-in")).status_code == 200


async def test_without_a_token_only_loopback_may_post(served: Callable[..., Any]) -> None:
    async with served(Shelf()) as (url, _):
        assert (await post(url, body())).status_code == 200
        assert (await post(url, body(), origin="http://evil.example")).status_code == 401
    async with served(Shelf(), host="0.0.0.0") as (url, _):  # the bind decides, not only the peer
        assert (await post(url, body())).status_code == 401


async def test_only_post(served: Callable[..., Any]) -> None:
    async with served(Shelf()) as (url, _), httpx2.AsyncClient() as http:
        answer = await http.get(url)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (BrokerUnavailableError("no answer"), "broker"),
        (StreamFullError(), "full"),
        (RuntimeError("our own fault"), "internal"),
    ],
)
async def test_our_own_trouble_is_503(
    served: Callable[..., Any], error: Exception, reason: str
) -> None:
    async with served(Shelf(error)) as (url, metrics):
        answer = await post(url, body())
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert metrics.refused.labels(reason)._value.get() == 1


async def test_only_a_retry_bears_the_same_mark(served: Callable[..., Any]) -> None:
    shelf = Shelf(BrokerUnavailableError())
    async with served(shelf) as (url, _):
        for error in (BrokerUnavailableError(), BrokerUnavailableError(), None, None):
            shelf.error = error
            await post(url, body())
    first, retry, accepted, news = [message.id for message in shelf.messages]
    assert first == retry == accepted
    assert news != first
    assert news.split(".")[0] == first.split(".")[0]


async def test_a_sender_that_leaves_disturbs_nobody(served: Callable[..., Any]) -> None:
    shelf = Shelf()
    async with served(shelf) as (url, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1]))
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        await writer.drain()
        writer.close()
        del reader
        assert (await post(url, body())).status_code == 200
    assert len(shelf.messages) == 1
