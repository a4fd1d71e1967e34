"""Calendars where decisions are made and judged again: they count, are on record, void nothing."""

import hashlib
import json
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tiphys.policies.lifecycle import State
from tiphys.policies.model import Risk
from tiphys.policies.parse import built_in_text
from tiphys.service.calendar_watch import CalendarWatch
from tiphys.service.main import app
from tiphys.service.policy_file import read_for_any_time, read_policy
from tiphys.service.replay import compare
from tiphys.service.views import Views

TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}.*(Z|[+-]\d{2}:\d{2})")
POLICY = built_in_text("demo").replace(
    "\nrules:\n",
    "\nrules:\n  freeze-windows:\n    calendars:\n"
    "      - {name: releases, file: releases.ics, time_zone: UTC}\n",
)


def ics(*days: str) -> bytes:
    events = "".join(
        f"BEGIN:VEVENT\r\nUID:{day}\r\nSUMMARY:release\r\nDTSTART;VALUE=DATE:{day}\r\n"
        "RRULE:FREQ=YEARLY\r\nEND:VEVENT\r\n"
        for day in days
    )
    text = f"BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:x\r\n{events}END:VCALENDAR\r\n"
    return text.encode()


def around(bench: Any) -> list[str]:
    """Today, and the days beside it: a test may run at midnight."""
    return [f"{bench.clock() + timedelta(days=days):%Y%m%d}" for days in (-1, 0, 1)]


@pytest.fixture
def file(bench: Any, tmp_path: Path) -> Path:
    """A calendar whose only event is half a year away; the bench judges by it."""
    assert "calendars" in POLICY
    (tmp_path / "policy.yaml").write_text(POLICY)
    file = tmp_path / "releases.ics"
    file.write_bytes(ics(f"{bench.clock() + timedelta(days=180):%Y%m%d}"))
    bench.policy = read_policy(tmp_path / "policy.yaml")
    bench.calendars = CalendarWatch(bench.policy, tmp_path, bench.clock)
    return file


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


async def export(bench: Any) -> list[str]:
    views = Views(bench.database, bench.audit, bench.incidents, bench.cases, bench.runs)
    return [line async for line in views.decisions()]


def write(file: Path, data: bytes) -> None:
    file.write_bytes(data)


def remove(file: Path) -> None:
    file.unlink()


async def test_a_calendar_that_changes_while_a_question_waits_voids_no_approval(
    bench: Any, file: Path
) -> None:
    asked = await bench.launching(risk=Risk.HIGH)
    assert asked.state == State.AWAITING_APPROVAL
    await bench.approvals.approve(asked.id, by="ann", reason="go")
    write(file, ics(f"{bench.clock() + timedelta(days=90):%Y%m%d}"))
    await bench.calendars.look()
    launched = await bench.run(bench.decide, asked)
    assert launched.state == State.LAUNCHING
    [line] = await export(bench)
    assert json.loads(line)["judgement"]["calendars"] == {"releases": sha256(file)}


@pytest.mark.parametrize("kind", ["freezes", "gone"])
async def test_what_it_says_when_the_launch_is_judged_counts(
    bench: Any, file: Path, kind: str
) -> None:
    asked = await bench.launching(risk=Risk.HIGH)
    await bench.approvals.approve(asked.id, by="ann", reason="go")
    if kind == "gone":
        remove(file)
    else:
        write(file, ics(*around(bench)))
    await bench.calendars.look()
    refused = await bench.run(bench.decide, asked)
    assert refused.state == State.ESCALATED
    expected = "cannot be told: No such file" if kind == "gone" else "frozen by releases: release"
    assert expected in refused.reason
    [line] = await export(bench)
    known = "unreadable" if kind == "gone" else sha256(file)
    assert json.loads(line)["judgement"]["calendars"] == {"releases": known}


def earlier(value: Any, by: timedelta) -> Any:
    """Give a record as it would be had all of it happened so much earlier."""
    if isinstance(value, dict):
        return {key: earlier(item, by) for key, item in value.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, list):
        return [earlier(item, by) for item in value]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, str) and TIME.fullmatch(value):
        return (datetime.fromisoformat(value) - by).isoformat()
    return value


async def test_an_old_decision_is_judged_by_the_events_of_its_own_time(
    bench: Any, file: Path, tmp_path: Path
) -> None:
    await bench.launching()
    [line] = await export(bench)
    decision = earlier(json.loads(line), timedelta(days=915))
    at = datetime.fromisoformat(decision["judgement"]["at"])
    day, year = timedelta(days=1), timedelta(days=365)
    (tmp_path / "plain.yaml").write_text(built_in_text("demo"))
    (tmp_path / "saved").write_text(json.dumps(decision))
    command = ["policy", "diff", "plain.yaml", "policy.yaml", "--from", "saved", "--json"]
    command[2:4] = [str(tmp_path / name) for name in command[2:4]]
    command[5] = str(tmp_path / "saved")
    write(file, ics(*(f"{at + days:%Y%m%d}" for days in (-30 * day, 60 * day, -year + 9 * day))))
    answer = CliRunner().invoke(app, command)
    assert json.loads(answer.stdout)["differences"] == [], answer.output
    write(file, ics(f"{at - 2 * year - day:%Y%m%d}", f"{at:%Y%m%d}"))
    [difference] = json.loads(CliRunner().invoke(app, command).stdout)["differences"]
    [change] = difference["rules"]
    assert change["rule"] == "freeze-windows"
    assert change["after"]["reason"].startswith("frozen by releases: release until ")


async def test_one_that_was_judged_by_another_calendar_is_named(
    bench: Any, file: Path, tmp_path: Path
) -> None:
    launched = await bench.launching()
    lines = await export(bench)
    policy = read_for_any_time(tmp_path / "policy.yaml")
    assert compare(lines, policy, policy).problems == []
    then = sha256(file)
    write(file, ics(*around(bench)))
    later = read_for_any_time(tmp_path / "policy.yaml")
    [problem] = compare(lines, later, later).problems
    assert problem == (
        f"{launched.id}, attempt 1 was judged by the calendar releases as it was then, sha256 "
        f"{then}; here it is judged by the file as it is now, sha256 {sha256(file)}"
    )
