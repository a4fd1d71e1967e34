"""What is acknowledged is in the stream, whatever happens to the broker."""

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from nats.js.api import StreamConfig

from tiphys.service.bus import STREAM, Bus
from tiphys.service.errors import BrokerUnavailableError, StreamFullError
from tiphys.service.flights import Message
from tiphys.service.nats_server import NatsServer


async def ids_in_stream(ingest) -> list[str]:
    received, found = True, []
    while received:
        received = await ingest.bus.fetch(1000, 0.1)
        found += [json.loads(item.body)["id"] for item in received]
        for item in received:
            await item.done()
    return found


async def test_200_means_stored_and_a_repeat_after_it_is_news(ingest, alert, post_of) -> None:
    body = post_of(alert(), alert(pod="b"))
    assert (await ingest.post(body)).status_code == 200
    assert await ingest.stored() == 2
    assert (await ingest.post(body)).status_code == 200
    assert await ingest.stored() == 4


async def test_the_same_alert_twice_in_a_post_is_stored_once(ingest, alert, post_of) -> None:
    alerts = [alert(pod=f"p{i}") for i in range(20)]
    assert (await ingest.post(post_of(*alerts, *alerts))).status_code == 200
    assert await ingest.stored() == 20


async def test_a_thousand_alerts_in_one_post(ingest, alert, post_of) -> None:
    answer = await ingest.post(post_of(*(alert(pod=f"p{i}") for i in range(1000))))
    assert answer.json() == {"message": "1000 alerts accepted"}
    assert len(set(await ids_in_stream(ingest))) == 1000


async def test_more_than_a_batch_holds(ingest, alert, post_of) -> None:
    assert (
        await ingest.post(post_of(*(alert(pod=f"p{i}") for i in range(2500))))
    ).status_code == 200
    assert await ingest.stored() == 2500


async def test_a_batch_with_one_known_message_stores_the_others(ingest) -> None:
    """The server refuses the batch as a whole (10201); each message then gets its own answer."""
    messages = [Message(f"m{i}", "tiphys.alerts.firing", b"{}") for i in range(30)]
    await ingest.bus.publish(messages[5:6])
    await ingest.bus.publish(messages)
    assert await ingest.stored() == 30


async def test_posts_that_share_a_flight_do_not_share_a_fate(ingest) -> None:
    small = [[Message(f"s{i}", "tiphys.alerts.firing", b"x" * 100)] for i in range(40)]
    huge = [Message("h", "tiphys.alerts.firing", b"x" * (9 << 20))]  # more than the server takes
    answers = await asyncio.gather(
        *(ingest.bus.publish(parcel) for parcel in [*small, huge]), return_exceptions=True
    )
    assert answers[:-1] == [None] * 40
    assert answers[-1] is not None
    assert await ingest.stored() == 40


async def test_a_slow_broker_is_503_in_time_and_the_retry_is_no_second_message(
    ingest, alert, post_of
) -> None:
    first, second = post_of(alert("A")), post_of(alert("B"))

    async def timed_post(after: float, content: bytes) -> float:
        await asyncio.sleep(after)
        began = time.monotonic()
        answer = await ingest.post(content)
        assert answer.status_code == 503
        assert int(answer.headers["retry-after"]) > 0
        return time.monotonic() - began

    os.kill(ingest.broker.pid, signal.SIGSTOP)
    try:
        # The second waits for the first one's flight, and still for no more than 2 s.
        waited = await asyncio.gather(timed_post(0, first), timed_post(0.5, second))
    finally:
        os.kill(ingest.broker.pid, signal.SIGCONT)
    assert all(1.4 < seconds < 3 for seconds in waited)

    async def landed() -> bool:
        return await ingest.stored() == 2  # the broker had both all the while

    await ingest.until(landed)
    assert (await ingest.post(first)).status_code == 200
    assert (await ingest.post(second)).status_code == 200
    assert await ingest.stored() == 2


async def test_a_killed_broker_is_503_and_loses_nothing_acknowledged(
    ingest, alert, post_of
) -> None:
    acknowledged: list[str] = []

    async def send(sender: int) -> int:
        for number in itertools.count():
            pod = f"p-{sender}-{number}"
            answer = await ingest.post(post_of(alert(pod=pod)))
            if answer.status_code != 200:
                return answer.status_code
            acknowledged.append(pod)
        return 0

    senders = asyncio.gather(*(send(i) for i in range(8)))

    async def busy() -> bool:
        return len(acknowledged) > 50

    await ingest.until(busy)
    ingest.broker._keeper.cancel()  # it would be back before every sender has noticed
    os.kill(ingest.broker.pid, signal.SIGKILL)
    assert await senders == [503] * 8
    await ingest.broker._launch()

    async def back() -> bool:
        return (await ingest.post(post_of(alert(pod="after")))).status_code == 200

    await ingest.until(back)
    pods: set[str] = set()
    while received := await ingest.bus.fetch(1000, 0.2):
        pods |= {json.loads(item.body)["labels"]["pod"] for item in received}
        for item in received:
            await item.done()
    assert pods >= {*acknowledged, "after"}


async def test_a_dead_broker_is_started_again(ingest, alert, post_of) -> None:
    old = ingest.broker.pid
    os.kill(old, signal.SIGKILL)

    async def back() -> bool:
        return ingest.broker.pid not in {None, old} and (
            (await ingest.post(post_of(alert()))).status_code == 200
        )

    await ingest.until(back)


async def test_a_full_stream_is_503_and_keeps_the_old(ingest, alert, post_of) -> None:
    await ingest.post(post_of(alert(pod="old")))
    info = await ingest.bus._stream.stream_info(STREAM)
    config = StreamConfig(**{**info.config.__dict__, "max_bytes": info.state.bytes + 200})
    await ingest.bus._stream.update_stream(config)
    answer = await ingest.post(post_of(alert(pod="new")))
    assert (answer.status_code, "full" in answer.json()["error"]) == (503, True)
    many = await ingest.post(post_of(*(alert(pod=f"p{i}") for i in range(50))))
    assert many.status_code == 503
    assert await ingest.stored() == 1
    with pytest.raises(StreamFullError):
        await ingest.bus.publish([Message("x", "tiphys.alerts.firing", b"x" * 400)])


async def test_a_deleted_stream_is_made_again(ingest, alert, post_of) -> None:
    await ingest.bus._stream.delete_stream(STREAM)
    assert (await ingest.post(post_of(alert()))).status_code == 503
    assert (await ingest.post(post_of(alert()))).status_code == 200
    assert await ingest.stored() == 1


async def test_unconnected_is_503_at_once(tmp_path: Path, served: Callable, post_of, alert) -> None:
    async with served(Bus(max_bytes=1 << 20)) as (url, _), httpx2.AsyncClient() as http:
        assert (await http.post(url, content=post_of(alert()))).status_code == 503


_SERVE = """
import asyncio, sys
from pathlib import Path
from tiphys.service.nats_server import NatsServer

async def main():
    server = NatsServer(Path(sys.argv[1]), max_bytes=1 << 20)
    await server.start()
    print(server.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux'")
def test_the_broker_does_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", _SERVE, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout
    pid = int(parent.stdout.readline())
    assert alive(pid)
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 5
    while alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def test_a_left_behind_broker_is_replaced_and_a_stranger_is_not_touched(
    tmp_path: Path,
) -> None:
    first = NatsServer(tmp_path, max_bytes=1 << 20)
    await first.start()
    first._keeper.cancel()  # as if its parent had died without the kernel's help
    old = first.pid
    second = NatsServer(tmp_path, max_bytes=1 << 20)
    await second.start()
    assert not alive(old)
    await second.stop()
    (tmp_path / "server.pid").write_text(str(os.getpid()))
    third = NatsServer(tmp_path, max_bytes=1 << 20)
    await third.start()
    assert third.pid
    config = json.loads((tmp_path / "server.json").read_text())
    assert config["jetstream"]["sync_interval"] == "always"
    assert oct((tmp_path / "server.json").stat().st_mode)[-3:] == "600"
    await third.stop()
    assert third.pid is None


async def _stopped(pid: int) -> bool:
    """Whether each of its threads has come to a halt: the signal reaches them one by one."""
    return await asyncio.to_thread(_halted, pid)


def _halted(pid: int) -> bool:
    states = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(state.rpartition(")")[2].split()[0] == "T" for state in states)


async def test_readiness_tells_a_broker_that_is_frozen_from_one_that_is_well(
    ingest, alert, post_of
) -> None:
    await ingest.bus.check()
    os.kill(ingest.broker.pid, signal.SIGSTOP)
    try:
        await ingest.until(lambda: _stopped(ingest.broker.pid), 10)
        with pytest.raises(BrokerUnavailableError, match=r"silent|acknowledges nothing"):
            async with asyncio.timeout(15):
                await ingest.bus.check()
        assert ingest.bus.ready, "the connection is open all the same"
        assert (await ingest.post(post_of(alert()))).status_code == 503

        async def noticed() -> bool:
            try:
                await ingest.bus.check()
            except BrokerUnavailableError as error:
                return "acknowledges nothing" in str(error)
            return False

        await ingest.until(noticed, 30)
    finally:
        os.kill(ingest.broker.pid, signal.SIGCONT)

    async def taken() -> bool:
        return (await ingest.post(post_of(alert()))).status_code == 200

    await ingest.until(taken, 30)
    await ingest.bus.check()


async def test_silence_is_forgotten_or_nobody_would_ask_again(ingest, alert, post_of) -> None:
    ingest.bus._unanswered_at = time.monotonic()
    with pytest.raises(BrokerUnavailableError):
        await ingest.bus.check()
    ingest.bus._unanswered_at -= 11
    await ingest.bus.check()


async def test_replicas_share_one_consumer_and_each_message_goes_to_one(
    ingest, alert, post_of
) -> None:
    other = Bus(max_bytes=32 << 20, ack_seconds=0.5)
    await other.connect(ingest.broker.url)
    try:
        for number in range(6):
            await ingest.post(post_of(alert(pod=f"p{number}")))
        taken: list[list[int]] = []
        for bus in (ingest.bus, other, ingest.bus, other):
            received = await bus.fetch(2, 0.2)
            taken.append([item.sequence for item in received])
            if bus is ingest.bus:
                for item in received:
                    await item.done()
        assert taken == [[1, 2], [3, 4], [5, 6], []]
        await other.close()  # and what it held comes to the one that lives
        again: list[int] = []
        async with asyncio.timeout(10):
            while len(again) < 2:
                again += [item.sequence for item in await ingest.bus.fetch(2, 0.2)]
        assert sorted(again) == [3, 4]
    finally:
        await other.close()
