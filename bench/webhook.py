"""Posts a second into the webhook, all durable, as a ratio to the same server with no broker.

    python bench/webhook.py

The server, the broker and the sender are three processes on loopback. The baseline is the same
application whose publisher does nothing, measured in turns. Aims: 0.25 with one
alert a post, 0.5 with fifty.
"""

import argparse
import asyncio
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import uvicorn
from prometheus_client import CollectorRegistry

from tiphys.service.bus import Bus
from tiphys.service.flights import Message
from tiphys.service.nats_server import NatsServer
from tiphys.service.settings import Settings
from tiphys.service.webhook import Publisher, Webhook, WebhookMetrics

CONNECTIONS = 32
SECONDS = 1.0
ROUNDS = 3
AIMS = {1: 0.25, 50: 0.5}


class Nowhere:
    """The baseline's publisher."""

    async def publish(self, messages: Sequence[Message]) -> None:
        """Forget them."""


def body_of(alerts: int) -> bytes:
    """Give a post of about 700 bytes an alert, like the kubernetes-mixin's."""
    return json.dumps(
        {
            "version": "4",
            "receiver": "tiphys",
            "status": "firing",
            "externalURL": "http://alertmanager:9093",
            "groupKey": '{}:{alertname="KubePodCrashLooping"}',
            "truncatedAlerts": 0,
            "alerts": [
                {
                    "status": "firing",
                    "labels": {
                        "alertname": "KubePodCrashLooping",
                        "cluster": "prod",
                        "container": "cart",
                        "job": "kube-state-metrics",
                        "namespace": "shop",
                        "pod": f"cart-7cc77d965f-{number:05d}",
                        "severity": "warning",
                    },
                    "annotations": {
                        "description": "Pod is in waiting state (CrashLoopBackOff)." + " " * 120,
                        "summary": "Pod is crash looping.",
                    },
                    "startsAt": "2026-11-20T20:38:59.396312Z",
                    "endsAt": "0001-01-01T00:00:00Z",
                    "generatorURL": "http://prometheus:9090/graph?g0.expr=up",
                    "fingerprint": f"{number:016x}",
                }
                for number in range(alerts)
            ],
        }
    ).encode()


# --- the sender, a process of its own -----------------------------------------------------------


async def send_for(port: int, alerts: int, seconds: float) -> None:
    """Post over kept connections, each waiting for its answer; prints posts a second and p99."""
    body = body_of(alerts)
    request = (
        b"POST / HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n" % len(body)
    ) + body
    ends = time.perf_counter() + seconds
    waits: list[float] = []

    async def sender() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (began := time.perf_counter()) < ends:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"refused: {head[:60]!r}")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            waits.append(time.perf_counter() - began)
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(sender() for _ in range(CONNECTIONS)))
    took = time.perf_counter() - began
    p99 = sorted(waits)[int(len(waits) * 0.99)]
    print(json.dumps({"rate": len(waits) / took, "p99": p99}))


# --- the server ---------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def serve(publisher: Publisher) -> AsyncGenerator[int]:
    """Serve the webhook before this publisher; gives the port."""
    app = Webhook(Settings(), publisher, WebhookMetrics(CollectorRegistry()))
    server = uvicorn.Server(
        uvicorn.Config(
            app, host="127.0.0.1", port=0, lifespan="off", log_level="warning", access_log=False
        )
    )
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn offers no event
        await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task


async def measure(port: int, alerts: int) -> tuple[float, float]:
    """Run the sender for a while; gives posts a second and p99 in seconds."""
    sender = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__, "--port", str(port), "--alerts", str(alerts)),
        stdout=subprocess.PIPE,
    )
    out, _ = await sender.communicate()
    if sender.returncode:
        raise SystemExit("the sender was refused; see above")
    found = json.loads(out)
    return found["rate"], found["p99"]


def cpu_seconds(pid: int) -> float:
    """Give a process' CPU time where the system tells it, else 0."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def compare(alerts: int, bus: Bus, broker: NatsServer) -> None:
    """Measure both in turns and print the ratio and what limits."""
    durable: list[tuple[float, float]] = []
    baseline: list[tuple[float, float]] = []
    ours = theirs = 0.0
    for _ in range(ROUNDS):
        async with serve(Nowhere()) as port:
            baseline.append(await measure(port, alerts))
        async with serve(bus) as port:
            before = resource.getrusage(resource.RUSAGE_SELF)
            broker_before = cpu_seconds(broker.pid or 0)
            durable.append(await measure(port, alerts))
            after = resource.getrusage(resource.RUSAGE_SELF)
            ours += after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            theirs += cpu_seconds(broker.pid or 0) - broker_before
    rate = statistics.median(r for r, _ in durable)
    most = statistics.median(r for r, _ in baseline)
    ratio, aim = rate / most, AIMS[alerts]
    time_spent = ROUNDS * SECONDS
    print(
        f"{alerts:>3} alert(s) a post: {rate:7.0f} posts/s durable ({rate * alerts:.0f} alerts/s), "
        f"{most:7.0f} without a broker; ratio {ratio:.2f} (aim {aim}) "
        f"{'reached' if ratio >= aim else 'MISSED'}"
    )
    print(
        f"      p99 {statistics.median(p for _, p in durable) * 1000:.1f} ms, without "
        f"{statistics.median(p for _, p in baseline) * 1000:.1f} ms; CPU of the webhook "
        f"{ours / time_spent:.0%} of a core, of the broker {theirs / time_spent:.0%}"
    )


def sync_seconds(directory: Path) -> float:
    """Give the median time of one fsync: a flight of n messages waits for n of them, or some 12."""
    waits: list[float] = []
    with (directory / "sync").open("wb", buffering=0) as file:
        for _ in range(100):
            file.write(b"x" * 1000)
            began = time.perf_counter()
            os.fsync(file.fileno())
            waits.append(time.perf_counter() - began)
    return statistics.median(waits)


async def main() -> None:
    """Run every comparison with one broker."""
    with tempfile.TemporaryDirectory() as directory:
        before = sync_seconds(Path(directory))
        broker = NatsServer(Path(directory) / "nats", max_bytes=4 << 30)
        await broker.start()
        bus = Bus(max_bytes=4 << 30)
        await bus.connect(broker.url)
        try:
            for alerts in AIMS:
                await compare(alerts, bus, broker)
        finally:
            await bus.close()
            await broker.stop()
        after = sync_seconds(Path(directory))
    print(
        f"limits: one fsync took {before * 1000:.2f} ms before and {after * 1000:.2f} ms after (a "
        f"busy disk makes every acknowledgement wait); {os.cpu_count()} cores for webhook, broker "
        f"and sender; {CONNECTIONS} connections"
    )


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--port", type=int)
    arguments.add_argument("--alerts", type=int, default=1)
    chosen = arguments.parse_args()
    if chosen.port:
        asyncio.run(send_for(chosen.port, chosen.alerts, SECONDS))
    else:
        import uvloop

        uvloop.run(main())
