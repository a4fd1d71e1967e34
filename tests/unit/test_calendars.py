"""Calendar files: every event is found, in its own time zone; what is not understood denies."""

import json
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from typer.testing import CliRunner

from tiphys.policies.freeze import Calendar, FreezeWindows, ReadCalendar
from tiphys.policies.policy import Policy
from tiphys.policies.rule import FactsMissingError
from tiphys.service import calendars
from tiphys.service.calendars import CalendarsAt, read_calendar, with_calendars
from tiphys.service.errors import BadInputError
from tiphys.service.main import app
from tiphys.service.policy_commands import check_policy
from tiphys.service.policy_file import read_policy, read_untested

NOW = datetime(2026, 3, 6, 12, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")
CALENDAR = Calendar(name="holidays", file="holidays.ics", time_zone="Europe/Berlin")


def ics(*events: str) -> str:
    inner = "".join(
        f"BEGIN:VEVENT\nUID:u{i}\n{e.strip()}\nEND:VEVENT\n" for i, e in enumerate(events)
    )
    return f"BEGIN:VCALENDAR\nVERSION:2.0\nPRODID:-//t//EN\n{inner}END:VCALENDAR\n".replace(
        "\n", "\r\n"
    )


def read(folder: Path, text: str | bytes, now: datetime = NOW) -> ReadCalendar:
    data = text if isinstance(text, bytes) else text.encode()
    (folder / "holidays.ics").write_bytes(data)
    return read_calendar(CALENDAR, folder, now)


def local(found: ReadCalendar) -> list[tuple[str, str, str]]:
    assert found.problem == ""
    return [
        (
            e.summary,
            f"{e.begins.astimezone(BERLIN):%m-%d %H:%M}",
            f"{e.ends.astimezone(BERLIN):%m-%d %H:%M}",
        )
        for e in found.events
    ]


def test_a_day_begins_and_ends_at_midnight_of_the_calendars_zone(tmp_path: Path) -> None:
    one = "SUMMARY:Easter\nDTSTART;VALUE=DATE:20260405\nDTEND;VALUE=DATE:20260407"
    bare = "SUMMARY:May Day\nDTSTART;VALUE=DATE:20260501"
    assert local(read(tmp_path, ics(bare, one))) == [
        ("Easter", "04-05 00:00", "04-07 00:00"),
        ("May Day", "05-01 00:00", "05-02 00:00"),
    ]


def test_times_count_in_their_own_zone_and_floating_ones_in_the_calendars(tmp_path: Path) -> None:
    tokyo = (
        "SUMMARY:a\nDTSTART;TZID=Asia/Tokyo:20260310T090000\nDTEND;TZID=Asia/Tokyo:20260310T100000"
    )
    floating = "SUMMARY:b\nDTSTART:20260310T090000\nDURATION:PT90M"
    utc = "SUMMARY:c\nDTSTART:20260310T090000Z\nDTEND:20260310T093000Z"
    assert local(read(tmp_path, ics(tokyo, floating, utc))) == [
        ("a", "03-10 01:00", "03-10 02:00"),
        ("b", "03-10 09:00", "03-10 10:30"),
        ("c", "03-10 10:00", "03-10 10:30"),
    ]


def test_what_repeats_keeps_its_time_of_day_over_a_change_of_clocks(tmp_path: Path) -> None:
    weekly = (
        "SUMMARY:r\nDTSTART;TZID=Europe/Berlin:20260301T100000\nDTEND;TZID=Europe/Berlin:20260301T110000\n"
        "RRULE:FREQ=WEEKLY;UNTIL=20260405T080000Z\nEXDATE;TZID=Europe/Berlin:20260315T100000\n"
        "RDATE;TZID=Europe/Berlin:20260401T150000"
    )
    assert [begin for _, begin, _ in local(read(tmp_path, ics(weekly)))] == [
        "03-08 10:00", "03-22 10:00", "03-29 10:00", "04-01 15:00", "04-05 10:00",
    ]  # fmt: skip


def test_a_yearly_day_of_long_ago_is_found_and_ends_nowhere(tmp_path: Path) -> None:
    found = read(tmp_path, ics("SUMMARY:d\nDTSTART;VALUE=DATE:16040505\nRRULE:FREQ=YEARLY"))
    assert [e.begins.astimezone(BERLIN).year for e in found.events] == [2026, 2027, 2028]


def test_counted_repeats_end(tmp_path: Path) -> None:
    found = read(tmp_path, ics("DTSTART;VALUE=DATE:20260310\nRRULE:FREQ=DAILY;COUNT=3"))
    assert [begin for _, begin, _ in local(found)] == ["03-10 00:00", "03-11 00:00", "03-12 00:00"]


def test_one_that_was_moved_counts_where_it_now_is_and_a_cancelled_one_not(tmp_path: Path) -> None:
    text = (
        "BEGIN:VCALENDAR\nVERSION:2.0\nPRODID:x\n"
        "BEGIN:VEVENT\nUID:s\nDTSTART;TZID=Europe/Berlin:20260309T100000\nDURATION:PT1H\n"
        "RRULE:FREQ=DAILY;COUNT=3\nEND:VEVENT\n"
        "BEGIN:VEVENT\nUID:s\nRECURRENCE-ID;TZID=Europe/Berlin:20260310T100000\n"
        "DTSTART;TZID=Europe/Berlin:20260310T180000\nDURATION:PT1H\nEND:VEVENT\n"
        "BEGIN:VEVENT\nUID:s\nRECURRENCE-ID:20260311T090000Z\nSTATUS:CANCELLED\n"
        "DTSTART;TZID=Europe/Berlin:20260311T100000\nDURATION:PT1H\nEND:VEVENT\n"
        "END:VCALENDAR\n"
    )
    assert [b for _, b, _ in local(read(tmp_path, text))] == ["03-09 10:00", "03-10 18:00"]


def test_an_event_marked_free_freezes_too(tmp_path: Path) -> None:
    found = read(tmp_path, ics("DTSTART;VALUE=DATE:20260310\nTRANSP:TRANSPARENT"))
    assert len(found.events) == 1


DAY = "DTSTART;VALUE=DATE:20260310"
PROBLEMS = {
    "no calendar": (b"", "holds no VCALENDAR"),
    "no text": (b"\xff\xfe\x00\x01", "is not understood"),
    "another file": (b"<html><body>log in</body></html>", "is not understood"),
    "no begin": (ics("SUMMARY:x"), "event 'x' has no DTSTART"),
    "a broken begin": (ics("SUMMARY:x\nDTSTART:tomorrow"), "event 'x': DTSTART"),
    "a broken rule": (ics(f"SUMMARY:x\n{DAY}\nRRULE:FREQ=SOMETIMES"), "event 'x': RRULE"),
    "a zone that nobody knows": (
        ics("SUMMARY:x\nDTSTART;TZID=Mars/Olympus:20260310T100000"),
        "event 'x': there is no time zone Mars/Olympus",
    ),
    "every second": (ics(f"{DAY}\nRRULE:FREQ=SECONDLY"), "repeats secondly; daily, weekly"),
    "every hour": (ics(f"{DAY}\nRRULE:FREQ=HOURLY"), "repeats hourly; daily, weekly"),
    "every second of every day": (
        ics("DTSTART:20200310T100000\nRRULE:FREQ=DAILY;BYHOUR=" + ",".join(map(str, range(24)))
            + ";BYMINUTE=" + ",".join(map(str, range(60)))),
        "repeats too often to follow",
    ),
    "an end before the begin": (
        ics(f"SUMMARY:x\n{DAY}\nDTEND;VALUE=DATE:20260301"), "event 'x' ends before it begins"
    ),
    "this and future": (
        ics(f"SUMMARY:x\n{DAY}\nRECURRENCE-ID;RANGE=THISANDFUTURE;VALUE=DATE:20260310"),
        "RANGE=THISANDFUTURE is not understood",
    ),
    "too large": (b"X" * (calendars.MAX_BYTES + 1), "larger than 1048576 bytes"),
}  # fmt: skip


@pytest.mark.parametrize("fault", PROBLEMS)
def test_what_is_not_understood_is_a_problem_and_no_shorter_calendar(
    tmp_path: Path, fault: str
) -> None:
    text, expected = PROBLEMS[fault]
    good = DAY
    if isinstance(text, str):
        text = text.replace(
            "END:VCALENDAR", f"BEGIN:VEVENT\r\nUID:g\r\n{good}\r\nEND:VEVENT\r\nEND:VCALENDAR"
        )
    found = read(tmp_path, text)
    assert expected in found.problem
    assert found.events == ()


def test_a_missing_file_is_a_problem(tmp_path: Path) -> None:
    assert read_calendar(CALENDAR, tmp_path, NOW).problem == "No such file or directory"


POLICY = """\
format: tiphys/policy/v1
name: ours
version: 1
rules:
  freeze-windows:
    calendars:
      - {name: holidays, file: holidays.ics, time_zone: Europe/Berlin}
"""


def test_a_policy_is_read_with_the_calendars_beside_it(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "holidays.ics").write_bytes(
        ics("SUMMARY:always\nDTSTART;VALUE=DATE:20200101\nRRULE:FREQ=DAILY").encode()
    )
    rule = read_policy(tmp_path / "policy.yaml").rule(FreezeWindows)
    event = rule.read["holidays"].lasting(datetime.now(UTC))
    assert event is not None
    assert event.summary == "always"


def test_a_policy_whose_calendar_is_missing_is_read_and_denies(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY)
    rule = read_policy(tmp_path / "policy.yaml").rule(FreezeWindows)
    assert rule.read["holidays"].problem == "No such file or directory"


def test_a_check_of_the_policy_names_the_calendar_that_cannot_be_read(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY)
    with pytest.raises(BadInputError, match=r"holidays \(holidays\.ics\): No such file"):
        check_policy(file)
    (tmp_path / "holidays.ics").write_bytes(ics("DTSTART;VALUE=DATE:20200101").encode())
    check_policy(file)


def test_a_policy_without_calendars_stays_as_it_is(tmp_path: Path) -> None:
    policy = Policy()
    assert with_calendars(policy, tmp_path, NOW) is policy


TESTED = (
    POLICY.replace("rules:\n", "rules:\n  autonomy: {default: auto}\n")
    + """\
tests:
  - {name: on-the-day, at: 2031-05-01T12:00:00Z, expect: denied, rules: {freeze-windows: denied}}
  - {name: on-another, at: 2031-05-02T12:00:00Z, expect: allowed}
  - {name: without-a-time, expect: allowed}
"""
)
MAY_DAY = "SUMMARY:d\nDTSTART;VALUE=DATE:20200501\nRRULE:FREQ=YEARLY"
UNREADABLE = "calendar holidays (holidays.ics): No such file or directory; the tests were run as if"


def with_tests(folder: Path, *events: str) -> Path:
    (folder / "policy.yaml").write_text(TESTED)
    if events:
        (folder / "holidays.ics").write_bytes(ics(*events).encode())
    return folder / "policy.yaml"


def test_a_test_that_says_its_time_is_judged_with_the_calendars_of_that_time(
    tmp_path: Path,
) -> None:
    noon = "SUMMARY:n\nDTSTART;VALUE=DATE:20260304"  # the time of a test that says none
    file = with_tests(tmp_path, MAY_DAY, noon)
    read_policy(file)
    answer = CliRunner().invoke(app, ["policy", "test", str(file)])
    assert answer.exit_code == 0, answer.output
    with_tests(tmp_path, MAY_DAY.replace("0501", "0502"))
    with pytest.raises(BadInputError) as caught:
        read_policy(file)
    assert "the test on-the-day fails: expected denied, got allowed" in str(caught.value)
    assert "got denied: freeze-windows: frozen by holidays: d until 2031-05-03" in str(caught.value)


def test_a_test_without_its_calendar_says_so(tmp_path: Path) -> None:
    file = with_tests(tmp_path)
    with pytest.raises(BadInputError, match="the test on-the-day fails") as caught:
        read_policy(file)
    assert UNREADABLE in str(caught.value)
    answer = CliRunner().invoke(app, ["policy", "test", str(file), "--json"])
    assert answer.exit_code == 1
    assert UNREADABLE in answer.stderr
    assert [one["passed"] for one in json.loads(answer.stdout)] == [False, True, True]


@pytest.mark.parametrize("year", [1, 9999])
def test_a_time_out_of_any_calendars_reach_denies(tmp_path: Path, year: int) -> None:
    policy = read_untested(with_tests(tmp_path, MAY_DAY)).policy
    at = datetime(year, 6, 1, tzinfo=UTC)
    read = CalendarsAt(policy, tmp_path)(at).rule(FreezeWindows).read["holidays"]
    with pytest.raises(FactsMissingError, match="what was read of it reaches from"):
        read.lasting(at)
