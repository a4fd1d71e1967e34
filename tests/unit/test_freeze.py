"""Freeze windows: never shorter than they read, in every time zone, on the days clocks change."""

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiphys.policies.freeze import Day, Event, FreezeWindows, ReadCalendar, Window, WithCalendars
from tiphys.policies.model import (
    Change,
    Check,
    DecidedBy,
    Facts,
    Proposal,
    Risk,
    Target,
)
from tiphys.policies.parse import PolicyUnreadableError, parse
from tiphys.policies.rule import Request
from tiphys.policies.verdict import Allowed, Denied, NeedsApproval, Verdict

HEAD = "format: tiphys/policy/v1\nname: ours\nversion: 7\nrules:\n  freeze-windows: "
BERLIN = ZoneInfo("Europe/Berlin")
EMPTY = Facts(alert=None, target=None, history=None, stop=None, evidence=())
GUIDE = Path(__file__).resolve().parents[2] / "docs" / "built-in-rules.md"


def rule(**given: Any) -> FreezeWindows:
    """Read a rule as a policy file gives it."""
    return parse(HEAD + json.dumps(given), "p.yaml").rule(FreezeWindows)


def window(**given: Any) -> FreezeWindows:
    return rule(windows=[{"name": "w", "time_zone": "Europe/Berlin", **given}])


def proposed(
    action: str = "restart-pod", namespace: str = "shop", risk: Risk = Risk.LOW
) -> Proposal:
    target = Target(
        cluster="c", api_version="v1", kind="Pod", namespace=namespace, name="a", uid="u"
    )
    return Proposal(
        action=action, version=1, target=target, risk=risk, reversible=True, blast_radius="",
        changes=(Change(path="", present=None, intended=None),), undo="", reason="", check=Check(),
        evidence=(), decided_by=DecidedBy(reasoner="playbooks"),
    )  # fmt: skip


def verdict(of: FreezeWindows, now: datetime, proposal: Proposal | None = None) -> Verdict:
    return of.judge(Request(proposal=proposal or proposed(), facts=EMPTY, now=now))


def frozen(of: FreezeWindows, local: str, zone: ZoneInfo = BERLIN, fold: int = 0) -> bool:
    now = datetime.fromisoformat(local).replace(tzinfo=zone, fold=fold).astimezone(UTC)
    return not isinstance(verdict(of, now), Allowed)


def weekly(days: list[str], **times: str) -> FreezeWindows:
    return window(weekly=[{"days": days, **times}])


# --- the week -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("local", "held"),
    [
        ("2026-03-06T08:59:59", False),
        ("2026-03-06T09:00:00", True),
        ("2026-03-06T16:59:59", True),
        ("2026-03-06T17:00:00", False),
        ("2026-03-07T12:00:00", False),
    ],
)
def test_a_window_holds_from_its_begin_until_just_before_its_end(local: str, held: bool) -> None:
    assert frozen(weekly(["fri"], **{"from": "09:00", "to": "17:00"}), local) == held


@pytest.mark.parametrize(
    ("local", "held"),
    [
        ("2026-03-08T21:59", False),
        ("2026-03-08T22:00", True),
        ("2026-03-09T05:59", True),  # Monday: the week's end is behind it
        ("2026-03-09T06:00", False),
        ("2026-03-09T22:30", False),
    ],
)
def test_a_window_crosses_midnight_and_the_end_of_the_week(local: str, held: bool) -> None:
    assert frozen(weekly(["sun"], **{"from": "22:00", "to": "06:00"}), local) == held


def test_days_without_times_are_whole_days() -> None:
    whole = weekly(["sat"])
    assert frozen(whole, "2026-03-07T00:00")
    assert frozen(whole, "2026-03-07T23:59:59")
    assert not frozen(whole, "2026-03-06T23:59:59")
    assert not frozen(whole, "2026-03-08T00:00")


def test_several_times_of_a_week_make_one_long_weekend() -> None:
    weekend = window(
        weekly=[
            {"days": ["fri"], "from": "18:00"},
            {"days": ["sat", "sun"]},
            {"days": ["mon"], "to": "06:00"},
        ]
    )
    begin = datetime(2026, 3, 6, 18, tzinfo=BERLIN)
    for hours in range(60):
        assert isinstance(verdict(weekend, begin + timedelta(hours=hours)), Denied), hours
    assert not frozen(weekend, "2026-03-06T17:59")
    assert not frozen(weekend, "2026-03-09T06:00")


# --- when clocks change -------------------------------------------------------------------------

FORWARD, BACK = "2026-03-29", "2026-10-25"
"""In Berlin 02:00 becomes 03:00 on the first, 03:00 becomes 02:00 on the second."""


def utc_minutes(of: FreezeWindows, day: str, until: int = 300) -> set[int]:
    """Give the minutes after that day's midnight UTC, by a stopwatch, that are frozen."""
    midnight = datetime.fromisoformat(day).replace(tzinfo=UTC)
    every = range(-120, until)
    return {m for m in every if isinstance(verdict(of, midnight + timedelta(minutes=m)), Denied)}


def test_a_window_over_the_gap_is_the_hour_shorter_that_the_night_is() -> None:
    night = weekly(["sun"], **{"from": "01:00", "to": "04:00"})
    assert utc_minutes(night, FORWARD) == {*range(120)}


def test_a_window_over_the_overlap_is_the_hour_longer_that_the_night_is() -> None:
    night = weekly(["sun"], **{"from": "01:00", "to": "04:00"})
    assert utc_minutes(night, BACK) == {*range(-60, 180)}


def test_a_window_that_begins_and_ends_in_the_gap_still_freezes() -> None:
    held = utc_minutes(weekly(["sun"], **{"from": "02:15", "to": "02:45"}), FORWARD)
    assert {*range(30, 90)} <= held, "around 01:00 UTC, where the clocks jump"


def test_a_window_in_the_overlap_holds_through_both_of_its_readings() -> None:
    held = utc_minutes(weekly(["sun"], **{"from": "02:00", "to": "02:30"}), BACK)
    assert held == {*range(90)}, "from the first 02:00 to the second 02:30, without a hole"


@given(
    at=st.datetimes(datetime.fromisoformat("2024-01-01"), datetime.fromisoformat("2028-01-01")),
    begin=st.integers(0, 1439),
    length=st.integers(1, 1439),
    day=st.sampled_from([*Day]),
    zone=st.sampled_from(
        ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]
    ),
)
def test_no_window_is_shorter_than_the_clock_on_the_wall_reads(
    at: datetime, begin: int, length: int, day: Day, zone: str
) -> None:
    end = (begin + length) % 1440
    times = {"from": f"{begin // 60:02}:{begin % 60:02}", "to": f"{end // 60:02}:{end % 60:02}"}
    made = rule(windows=[{"name": "w", "time_zone": zone, "weekly": [{"days": [day], **times}]}])
    now = at.replace(tzinfo=UTC)
    wall = now.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    starts = (
        datetime.combine(wall.date() - timedelta(days=back), datetime.min.time())
        + timedelta(minutes=begin)
        for back in (0, 1)
    )
    reads = any(
        [*Day][start.weekday()] is day and start <= wall < start + timedelta(minutes=length)
        for start in starts
    )
    held = isinstance(verdict(made, now), Denied)
    assert held or not reads
    sober = all(
        ZoneInfo(zone).utcoffset(wall + timedelta(days=d))
        == now.astimezone(ZoneInfo(zone)).utcoffset()
        for d in (-3, 3)
    )
    assert held == reads or not sober, "and no longer, where no clock is changed nearby"


# --- dates --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("local", "held"),
    [
        ("2026-12-19T23:59", False),
        ("2026-12-20T00:00", True),
        ("2026-12-27T23:59", True),
        ("2026-12-28T00:00", False),
        ("2026-11-27T17:59", False),
        ("2026-11-27T18:00", True),
        ("2026-11-30T06:00", False),
    ],
)
def test_dates_hold_and_a_whole_day_as_end_is_included(local: str, held: bool) -> None:
    made = window(
        dates=[
            {"from": "2026-12-20", "to": "2026-12-27"},
            {"from": "2026-11-27T18:00", "to": "2026-11-30T06:00"},
        ]
    )
    assert frozen(made, local) == held


def test_the_zone_is_the_windows_own() -> None:
    made = rule(
        windows=[
            {
                "name": "w",
                "time_zone": "Asia/Tokyo",
                "dates": [{"from": "2026-01-02", "to": "2026-01-02"}],
            }
        ]
    )
    assert frozen(made, "2026-01-01T15:00", ZoneInfo("UTC"))
    assert not frozen(made, "2026-01-02T15:00", ZoneInfo("UTC"))


# --- whom ---------------------------------------------------------------------------------------

ALWAYS = {"weekly": [{"days": [*Day]}]}
NOON = datetime(2026, 3, 6, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("given", "held"),
    [
        ({}, True),
        ({"namespaces": ["sh*"]}, True),
        ({"namespaces": ["team-*", "-"]}, False),
        ({"actions": ["restart-pod"]}, True),
        ({"actions": ["rollout-undo"]}, False),
        ({"risks": ["low"]}, True),
        ({"risks": ["medium", "high"]}, False),
        ({"exceptions": [{"risks": ["low"]}]}, False),
        ({"exceptions": [{"risks": ["low"], "namespaces": ["other"]}]}, True),
        ({"exceptions": [{"actions": ["restart-pod"], "namespaces": ["shop"]}]}, False),
    ],
)
def test_a_window_reaches_whom_it_names_and_leaves_its_exceptions_alone(
    given: dict[str, Any], held: bool
) -> None:
    assert isinstance(verdict(window(**ALWAYS, **given), NOON), Denied) == held


def test_targets_outside_namespaces_are_meant_by_a_dash() -> None:
    node = proposed(namespace="")
    assert isinstance(verdict(window(**ALWAYS), NOON, node), Denied)
    assert isinstance(verdict(window(**ALWAYS, namespaces=["*"]), NOON, node), Allowed)


def test_asking_windows_ask_and_a_denying_one_wins() -> None:
    asks = {"name": "a", "time_zone": "UTC", "effect": "ask", **ALWAYS}
    denies = {"name": "b", "time_zone": "UTC", **ALWAYS}
    asked = verdict(rule(windows=[asks]), NOON)
    assert asked == NeedsApproval(reason="frozen by a until 2026-03-07 00:00 UTC")
    denied = verdict(rule(windows=[asks, denies]), NOON)
    assert denied == Denied(reason="frozen by b until 2026-03-07 00:00 UTC")


# --- calendars, once they are read --------------------------------------------------------------

HOLIDAYS = {"name": "holidays", "file": "holidays.ics", "time_zone": "Europe/Berlin"}


def with_known(*events: Event, **given: Any) -> FreezeWindows:
    plain = rule(calendars=[HOLIDAYS])
    reach = {"since": NOON - timedelta(days=2), "until": NOON + timedelta(days=9), **given}
    return WithCalendars(
        calendars=plain.calendars, known={"holidays": ReadCalendar(events, **reach)}
    )


def test_an_event_of_a_calendar_freezes_and_is_named() -> None:
    party = Event("summer party", NOON, NOON + timedelta(hours=2))
    said = verdict(with_known(party), NOON)
    assert said == Denied(
        reason="frozen by holidays: summer party until 2026-03-06 15:00 Europe/Berlin"
    )
    assert isinstance(verdict(with_known(party), NOON + timedelta(hours=2)), Allowed)


def test_a_calendar_that_nobody_read_denies() -> None:
    said = verdict(rule(calendars=[HOLIDAYS]), NOON)
    assert isinstance(said, Denied)
    assert said.reason == "calendar holidays (holidays.ics) cannot be told: nobody has read it"


def test_a_calendar_that_could_not_be_read_denies_even_where_it_only_asks() -> None:
    plain = rule(calendars=[{**HOLIDAYS, "effect": "ask"}])
    read = ReadCalendar((), NOON, NOON, "No such file or directory")
    said = verdict(WithCalendars(calendars=plain.calendars, known={"holidays": read}), NOON)
    assert isinstance(said, Denied)
    assert said.reason.endswith("(holidays.ics) cannot be told: No such file or directory")


def test_a_calendar_denies_where_it_was_not_read_as_far() -> None:
    for now in (NOON + timedelta(days=9), NOON - timedelta(days=3)):
        said = verdict(with_known(), now)
        assert isinstance(said, Denied)
        assert "what was read of it reaches from" in said.reason


def test_an_unread_calendar_denies_only_whom_it_concerns() -> None:
    made = rule(calendars=[{**HOLIDAYS, "risks": ["high"]}])
    assert isinstance(verdict(made, NOON), Allowed)
    assert isinstance(verdict(made, NOON, proposed(risk=Risk.HIGH)), Denied)


# --- faults -------------------------------------------------------------------------------------

FAULTS = {
    "a zone with a typing error": (
        {"time_zone": "Europe/Berln"},
        "windows[0].time_zone: there is no time zone 'Europe/Berln'; did you mean Europe/Berlin?",
    ),
    "a zone that is a path": ({"time_zone": "../etc/passwd"}, "there is no time zone"),
    "a zone that is a folder": ({"time_zone": "Europe"}, "there is no time zone 'Europe'"),
    "no time at all": ({"weekly": []}, "windows[0]: say when: weekly, dates or both"),
    "no day": ({"weekly": [{"days": []}]}, "weekly[0]: expected at least one day"),
    "a day in full": (
        {"weekly": [{"days": ["monday"]}]},
        "days[0]: expected 'mon', 'tue', 'wed', 'thu', 'fri', 'sat' or 'sun', not \"monday\"",
    ),
    "an hour without its zero": (
        {"weekly": [{"days": ["mon"], "from": "9:00"}]},
        "weekly[0].from: expected text that matches",
    ),
    "a begin that is the end": (
        {"weekly": [{"days": ["mon"], "from": "09:00", "to": "09:00"}]},
        "weekly[0]: from and to are the same; leave both out for whole days",
    ),
    "a date that does not exist": (
        {"dates": [{"from": "2026-02-30", "to": "2026-03-01"}]},
        "dates[0].from: expected a day such as 2026-12-24 or a local time such as",
    ),
    "dates turned round": (
        {"dates": [{"from": "2026-12-30", "to": "2026-12-27"}]},
        "dates[0]: it ends, 2026-12-27, before it begins, 2026-12-30",
    ),
    "an exception from everything": (
        {"exceptions": [{}]},
        "exceptions[0]: an exception without namespaces, actions or risks leaves nothing",
    ),
    "an action with a typing error": (
        {"actions": ["restart-pot"]},
        "windows[0].actions[0]: there is no action restart-pot; did you mean restart-pod?",
    ),
    "an exception's action with a typing error": (
        {"exceptions": [{"actions": ["restart-pot"]}]},
        "windows[0].exceptions[0].actions[0]: there is no action restart-pot",
    ),
    "an unknown key": ({"timezone": "UTC"}, "windows[0].timezone: there is no such key"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_a_sentence_that_says_where(fault: str) -> None:
    given, expected = FAULTS[fault]
    made = {"windows": [{"name": "w", "time_zone": "UTC", **ALWAYS, **given}]}
    with pytest.raises(PolicyUnreadableError) as caught:
        parse(HEAD + json.dumps(made), "p.yaml", actions=["restart-pod"])
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith("p.yaml:5: rules.freeze-windows.")
    assert expected in caught.value.problems[0]


@pytest.mark.parametrize("file", ["../x.ics", "/etc/x.ics", "a/b.ics", "holidays.txt", ".ics"])
def test_a_calendar_is_a_file_beside_the_policy(file: str) -> None:
    with pytest.raises(PolicyUnreadableError, match=r"calendars\[0\]\.file: expected text that"):
        rule(calendars=[{**HOLIDAYS, "file": file}])


def test_two_freezes_have_two_names() -> None:
    with pytest.raises(PolicyUnreadableError, match="there are two freezes named holidays"):
        rule(calendars=[HOLIDAYS], windows=[{"name": "holidays", "time_zone": "UTC", **ALWAYS}])


# --- what the page for newcomers shows ----------------------------------------------------------


def examples() -> Iterator[str]:
    """Give every YAML block of the page."""
    inside, block = False, list[str]()
    for line in GUIDE.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            if inside and block:
                yield "\n".join(block)
            inside, block = line == "```yaml", []
        elif inside:
            block.append(line)


def test_the_pages_freeze_window_is_one_and_does_what_the_page_says() -> None:
    [text] = [block for block in examples() if "office-hours" in block]
    made = parse(text, "policy.yaml").rule(FreezeWindows)
    risky = proposed(risk=Risk.MEDIUM)
    tuesday = datetime(2026, 6, 16, 10, tzinfo=BERLIN)
    assert isinstance(verdict(made, tuesday, risky), NeedsApproval)
    assert isinstance(verdict(made, tuesday), Allowed), "low risk goes on"
    assert isinstance(verdict(made, tuesday.replace(hour=20), risky), Allowed)
    christmas = datetime(2026, 12, 24, 10, tzinfo=BERLIN)
    assert isinstance(verdict(made, christmas, risky), Denied)
    assert isinstance(verdict(made, christmas), Denied), "not even low risk"
    assert [type(one) for one in made.windows] == [Window, Window]
    assert date(2027, 1, 3) == datetime.fromisoformat(made.windows[1].dates[0].end).date()
