"""How far intake is behind, asked of a real broker."""

import contextlib
from datetime import timedelta
from typing import Any

import pytest

from tiphys.service.bus import Bus, Lag
from tiphys.service.errors import BrokerUnavailableError
from tiphys.service.ledger import utc_now

NONE = Lag(0, 0, None)


async def test_before_intake_has_ever_asked_nobody_knows(ingest: Any) -> None:
    with pytest.raises(BrokerUnavailableError):
        await ingest.bus.lag()


async def test_what_waits_and_what_is_in_hand_is_counted_until_it_is_committed(
    ingest: Any, alert: Any, post_of: Any
) -> None:
    await ingest.drain()
    assert await ingest.bus.lag() == NONE
    began = utc_now()
    for pod in "abc":
        await ingest.post(post_of(alert(pod=pod)))
    lag = await ingest.bus.lag()
    assert (lag.pending, lag.unacknowledged) == (3, 0)
    assert began - timedelta(seconds=1) <= lag.stored_at <= utc_now() + timedelta(seconds=1)
    received = await ingest.bus.fetch(2, 1)
    lag = await ingest.bus.lag()
    assert (lag.pending, lag.unacknowledged) == (1, 2)
    for message in received:
        await message.later(0.2)  # as intake does while the database is away
    assert (await ingest.bus.lag()).unacknowledged == 2

    async def done() -> bool:
        await ingest.drain()
        return await ingest.bus.lag() == NONE

    await ingest.until(done)


async def test_the_oldest_is_the_first_that_is_not_acknowledged(
    ingest: Any, alert: Any, post_of: Any
) -> None:
    await ingest.drain()
    for pod in "abc":
        await ingest.post(post_of(alert(pod=pod)))
    first, second, third = await ingest.bus.fetch(3, 1)
    for message, left, oldest in ((second, 2, first), (first, 1, third)):
        await message.done()
        lag = await settled(ingest, left)
        stored = oldest._message.metadata.timestamp
        assert abs((lag.stored_at - stored).total_seconds()) < 0.001
    await third.done()
    assert await settled(ingest, 0) == NONE


async def settled(ingest: Any, left: int) -> Lag:
    """Wait for an acknowledgement, which nobody answers, to arrive."""

    async def arrived() -> bool:
        return (await ingest.bus.lag()).unacknowledged == left

    await ingest.until(arrived)
    return await ingest.bus.lag()


async def test_every_replica_is_told_the_same_of_all_of_them(
    ingest: Any, alert: Any, post_of: Any
) -> None:
    await ingest.drain()
    async with contextlib.AsyncExitStack() as stack:
        other = Bus(max_bytes=32 << 20)
        stack.push_async_callback(other.close)
        await other.connect(ingest.broker.url)
        await ingest.post(post_of(alert(pod="a"), alert(pod="b")))
        await ingest.bus.fetch(1, 1)
        assert await other.lag() == await ingest.bus.lag()
        assert (await other.lag()).unacknowledged == 1


async def test_a_broker_that_is_away_tells_no_lag(ingest: Any) -> None:
    await ingest.drain()
    await ingest.broker.stop()
    with pytest.raises(BrokerUnavailableError):
        await ingest.bus.lag()
