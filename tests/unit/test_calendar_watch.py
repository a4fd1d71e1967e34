"""Calendars of a running service: what a file says now counts, and what cannot be read denies."""

import asyncio
import contextlib
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tiphys.policies.freeze import Event, FreezeWindows
from tiphys.policies.policy import Policy
from tiphys.policies.rule import FactsMissingError
from tiphys.service.calendar_watch import CalendarWatch
from tiphys.service.policy_file import read_policy

POLICY = """\
format: tiphys/policy/v1
name: ours
version: 1
rules:
  freeze-windows:
    calendars:
      - {name: holidays, file: holidays.ics, time_zone: UTC}
"""


def ics(summary: str, day: str = "DTSTART;VALUE=DATE:20200101\r\nRRULE:FREQ=DAILY") -> bytes:
    event = f"BEGIN:VEVENT\r\nUID:u\r\nSUMMARY:{summary}\r\n{day}\r\nEND:VEVENT\r\n"
    text = f"BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:x\r\n{event}END:VCALENDAR\r\n"
    return text.encode()


class Time:
    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "policy.yaml").write_text(POLICY)
    file = tmp_path / "holidays.ics"
    file.write_bytes(ics("first"))
    return file


@pytest.fixture
def watch(file: Path, time: Time) -> CalendarWatch:
    return CalendarWatch(read_policy(file.parent / "policy.yaml"), file.parent, time, 0.01)


def lasting(policy: Policy, now: datetime) -> Event | None:
    return policy.rule(FreezeWindows).read["holidays"].lasting(now)


def summary(policy: Policy, now: datetime) -> str:
    event = lasting(policy, now)
    return event.summary if event else ""


def write(file: Path, data: bytes) -> None:
    file.write_bytes(data)


def remove(file: Path) -> None:
    file.unlink()


def make_pipe(file: Path) -> None:
    os.mkfifo(file)


async def test_a_change_counts_without_a_restart(
    watch: CalendarWatch, file: Path, time: Time
) -> None:
    before = watch.policy
    looking = asyncio.create_task(watch.run())
    write(file, ics("second"))
    for _ in range(3000):
        await asyncio.sleep(0.01)
        if watch.policy is not before:
            break
    looking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await looking
    assert summary(watch.policy, time()) == "second"
    assert summary(before, time()) == "first", "what is being judged by does not change under it"
    assert watch.policy.identity == before.identity, "plans and approvals stay good"
    sha256 = hashlib.sha256(ics("second")).hexdigest()
    assert watch.policy.rule(FreezeWindows).hashes == {"holidays": sha256}


@pytest.mark.parametrize("fault", ["gone", "half written", "no calendar"])
async def test_one_that_cannot_be_read_any_more_denies_until_it_can(
    watch: CalendarWatch, file: Path, time: Time, fault: str
) -> None:
    if fault == "gone":
        remove(file)
    else:
        write(file, ics("first")[:-20] if fault == "half written" else b"<html>log in</html>")
    await watch.look()
    with pytest.raises(FactsMissingError):
        lasting(watch.policy, time())
    broken = watch.policy
    await watch.look()
    assert watch.policy is broken, "said once"
    write(file, ics("back"))
    await watch.look()
    assert summary(watch.policy, time()) == "back"


async def test_what_has_not_changed_is_not_read_out_again_for_a_day(
    watch: CalendarWatch, time: Time
) -> None:
    before = watch.policy
    time.now += timedelta(hours=20)
    await watch.look()
    assert watch.policy is before
    time.now += timedelta(days=900)
    with pytest.raises(FactsMissingError, match="what was read of it reaches from"):
        lasting(watch.policy, time())
    await watch.look()
    assert summary(watch.policy, time()) == "first"
    time.now -= timedelta(days=900)
    await watch.look()
    assert summary(watch.policy, time()) == "first", "a clock that was put back"


async def test_a_slow_disk_does_not_hold_up_the_service(
    watch: CalendarWatch, file: Path, time: Time
) -> None:
    remove(file)
    make_pipe(file)  # whoever opens it waits until somebody writes
    looking = asyncio.create_task(watch.look())
    for _ in range(5):
        await asyncio.sleep(0.01)
    assert not looking.done()
    write(file, ics("slow"))
    async with asyncio.timeout(30):
        await looking
    assert summary(watch.policy, time()) == "slow"


async def test_one_that_cannot_be_read_to_its_end_denies_until_it_can(
    file: Path, time: Time
) -> None:
    policy = read_policy(file.parent / "policy.yaml")
    watch = CalendarWatch(policy, file.parent, time, 0.01, patience=0.05)
    remove(file)
    make_pipe(file)
    await watch.look()
    with pytest.raises(FactsMissingError, match=r"reading takes longer than 0\.05 s"):
        lasting(watch.policy, time())
    broken = watch.policy
    await watch.look()
    assert watch.policy is broken, "said once"
    write(file, ics("slow"))  # one reader only: a second one would wait for another writer
    async with asyncio.timeout(30):
        while watch.policy is broken:
            await watch.look()
    assert summary(watch.policy, time()) == "slow"


async def test_where_no_thread_reads_any_more_it_denies_and_goes_on_looking(
    watch: CalendarWatch,
) -> None:
    await watch.look()
    gone = ThreadPoolExecutor()
    gone.shutdown()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(gone)
    await watch.look()
    [read] = watch.policy.rule(FreezeWindows).read.values()
    assert read.problem == "it cannot be read: RuntimeError"
    loop.set_default_executor(ThreadPoolExecutor())
    await watch.look()
    [read] = watch.policy.rule(FreezeWindows).read.values()
    assert not read.problem
