"""A full disk: 503 and nothing acknowledged; when there is room again, nothing is missing."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

MOUNT = ("unshare", "--user", "--map-root-user", "--mount")
SCRIPT = (
    'mount -t tmpfs -o size=16m tmpfs "$TIPHYS_DATA_DIR" && exec "$0" -m tiphys.service.main serve'
)


def may_mount() -> bool:
    """Say whether this machine lets us mount a small disk of our own."""
    if shutil.which("unshare") is None:
        return False
    probe = [*MOUNT, "sh", "-c", "mount -t tmpfs -o size=1m tmpfs /mnt"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


@contextlib.asynccontextmanager
async def serving_on_a_small_disk(
    directory: Path, log: Path
) -> AsyncGenerator[tuple[httpx2.AsyncClient, Path]]:
    """Serve from a disk of 16 MiB; give a client and the disk as seen from here."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    ours = {k: v for k, v in os.environ.items() if not k.startswith("TIPHYS_")}
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            *(*MOUNT, "sh", "-c", SCRIPT, sys.executable),
            env={**ours, "TIPHYS_DATA_DIR": str(directory), "TIPHYS_PORT": str(port)},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        async with httpx2.AsyncClient(base_url=url, timeout=20, trust_env=False) as http:
            async with asyncio.timeout(60):
                while True:
                    with contextlib.suppress(httpx2.HTTPError):
                        if (await http.get("/healthz")).status_code == 200:
                            break
                    assert process.returncode is None, f"serve has ended, see {log}"
                    await asyncio.sleep(0.1)
            yield http, Path(f"/proc/{process.pid}/root") / directory.relative_to("/")
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()


def fill(disk: Path) -> None:
    """Write until there is no byte left."""
    for size in (1 << 20, 4096, 1):
        with contextlib.suppress(OSError), (disk / f"filler-{size}").open("wb", buffering=0) as out:
            while True:
                out.write(b"x" * size)


async def post(http: httpx2.AsyncClient, name: str, text: str = "") -> httpx2.Response:
    """Post one firing alert."""
    alert = {
        "status": "firing",
        "labels": {"alertname": name, "namespace": name.lower()},
        "annotations": {"description": text},
        "startsAt": "2026-11-20T20:38:59Z",
        "endsAt": "0001-01-01T00:00:00Z",
    }
    body = {"version": "4", "receiver": "r", "alerts": [alert]}
    return await http.post("/webhooks/alertmanager", json=body)


@pytest.mark.skipif(not may_mount(), reason="this machine does not let us mount a small disk")
async def test_a_full_disk_refuses_and_room_lets_everything_in(
    until: Callable[..., Any], tmp_path: Path
) -> None:
    log = tmp_path / "serve.log"
    mounted = tmp_path / "disk"
    mounted.mkdir()
    async with serving_on_a_small_disk(mounted, log) as (http, disk):

        async def known() -> set[str]:
            found = (await http.get("/api/incidents")).json()
            views = [(await http.get(f"/api/incidents/{one['id']}")).json() for one in found]
            return {alert["labels"]["alertname"] for view in views for alert in view["alerts"]}

        acknowledged = set[str]()
        assert (await post(http, "Before")).status_code == 200
        acknowledged.add("Before")
        fill(disk)
        # What still fits into the broker's last page is on disk and may be acknowledged.
        for number in range(100):
            answer = await post(http, f"Full{number}")
            if answer.status_code != 200:
                break
            acknowledged.add(f"Full{number}")
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
        assert (await post(http, "Refused", "x" * 4096)).status_code == 503

        for filler in disk.glob("filler-*"):
            filler.unlink()

        async def accepted() -> bool:
            # Again and again, as Alertmanager does with what was refused.
            return (await post(http, "After")).status_code == 200

        await until(accepted, 60)
        acknowledged.add("After")

        async def all_known() -> bool:
            return acknowledged <= await known()

        await until(all_known, 60)
        assert (await http.get("/api/dead-letters")).json() == []
    assert "Traceback" not in log.read_text()
