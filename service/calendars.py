"""Reads the iCalendar files (RFC 5545) that a policy names into what its freezes judge by.

Invariants: a calendar of which anything is not understood is a problem in words, never a shorter
calendar; what repeats is followed for a bounded time and a bounded number of times.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from itertools import chain
from pathlib import Path
from typing import Any, Final, cast

from dateutil.rrule import rrulestr
from icalendar import Calendar as ICalendar
from icalendar import Component

from tiphys.policies.freeze import (
    Calendar,
    Event,
    FreezeWindows,
    ReadCalendar,
    WithCalendars,
    earliest,
    latest,
)
from tiphys.policies.policy import Policy
from tiphys.service.errors import BadInputError

MAX_BYTES: Final = 1 << 20
MAX_EVENTS: Final = 20_000
"""Happenings, and also steps of repetition that are followed for one event."""
BEHIND, AHEAD = timedelta(days=2), timedelta(days=800)
"""How far around now a calendar is read out."""
FOLLOWED: Final = timedelta(days=1)
"""After this an unchanged calendar is read out anew: time has gone on."""
_FIRST_YEAR, _LAST_YEAR = 2, 9990
_REPEATS: Final = {"DAILY", "WEEKLY", "MONTHLY", "YEARLY"}


class CalendarUnreadableError(Exception):
    """A calendar cannot be used, and this is why."""


def with_calendars(policy: Policy, folder: Path, now: datetime) -> Policy:
    """Give the policy with every calendar read that it names; one that cannot be read denies."""
    rule = policy.rule(FreezeWindows)
    if not rule.calendars:
        return policy
    known = {calendar.name: read_calendar(calendar, folder, now) for calendar in rule.calendars}
    return _knowing(policy, known)


def read_again(policy: Policy, folder: Path, now: datetime) -> Policy:
    """Give the policy with the calendars as they are now; the same one where none has changed."""
    rule = policy.rule(FreezeWindows)
    known = {
        calendar.name: read_calendar(calendar, folder, now, rule.read.get(calendar.name))
        for calendar in rule.calendars
    }
    same = all(one is rule.read.get(name) for name, one in known.items())
    return policy if same else _knowing(policy, known)


def unread(policy: Policy, why: str, now: datetime) -> Policy:
    """Give the policy with none of its calendars read, and why; the same where that is so."""
    rule = policy.rule(FreezeWindows)
    if all(one.problem == why for one in rule.read.values()):
        return policy
    nothing = ReadCalendar((), now - BEHIND, now + AHEAD, why)
    return _knowing(policy, {calendar.name: nothing for calendar in rule.calendars})


def _knowing(policy: Policy, known: dict[str, ReadCalendar]) -> Policy:
    """Give the policy with those of its calendars that are known, and no other."""
    rule = policy.rule(FreezeWindows)
    calendars = tuple(one for one in rule.calendars if one.name in known)
    read = WithCalendars(windows=rule.windows, calendars=calendars, known=known)
    return replace(policy, settings={**policy.settings, rule.name: read})


def refuse_unreadable(policy: Policy) -> None:
    """Raise `BadInputError` for the calendars of a policy that deny because they cannot be read."""
    rule = policy.rule(FreezeWindows)
    problems = unreadable(rule)
    if problems:
        raise BadInputError("\n".join(problems))


def unreadable(rule: FreezeWindows) -> list[str]:
    """Say of each calendar that cannot be read why."""
    return [
        f"calendar {calendar.name} ({calendar.file}): {rule.read[calendar.name].problem}"
        for calendar in rule.calendars
        if calendar.name in rule.read and rule.read[calendar.name].problem
    ]


def read_calendar(
    calendar: Calendar, folder: Path, now: datetime, before: ReadCalendar | None = None
) -> ReadCalendar:
    """Read one; never raises. What was read `before` is given back while it still holds."""
    since, until = now - BEHIND, now + AHEAD
    sha256 = ""
    try:
        data = _text(folder / calendar.file)
        sha256 = hashlib.sha256(data).hexdigest()
        if before and before.sha256 == sha256 and before.since <= since < before.since + FOLLOWED:
            return before
        found = _Reader(calendar, since, until).events(data)
    except CalendarUnreadableError as error:
        why = str(error)
    except Exception as error:
        why = f"it is not understood: {type(error).__name__}: {str(error)[:200]}"
    else:
        return ReadCalendar(tuple(found), since, until, sha256=sha256)
    if before and (before.problem, before.sha256) == (why, sha256):
        return before
    return ReadCalendar((), since, until, why, sha256)


class CalendarsAt:
    """A policy with its calendars, as these stand around any time: for tests and old decisions."""

    def __init__(self, policy: Policy, folder: Path) -> None:
        self.policy = policy
        self._folder = folder
        self._years: dict[int, Policy] = {}

    def __call__(self, at: datetime) -> Policy:
        """Give the policy for a time; one that is out of any calendar's reach denies."""
        year = min(max(at.astimezone(UTC).year, _FIRST_YEAR), _LAST_YEAR)
        if year not in self._years:
            begin = datetime(year, 1, 1, tzinfo=UTC)
            self._years[year] = with_calendars(self.policy, self._folder, begin)
        return self._years[year]

    def problems(self, at: datetime) -> list[str]:
        """Say of each calendar that cannot be read why."""
        return unreadable(self(at).rule(FreezeWindows))

    def readable(self, at: datetime) -> Policy:
        """Give the same without the calendars that cannot be read."""
        policy = self(at)
        rule = policy.rule(FreezeWindows)
        return _knowing(policy, {n: one for n, one in rule.read.items() if not one.problem})


def _text(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise CalendarUnreadableError(error.strerror or type(error).__name__) from error
    if len(data) > MAX_BYTES:
        raise CalendarUnreadableError(f"it is larger than {MAX_BYTES} bytes")
    return data


class _Reader:
    """Follows the events of one calendar through the time that was asked for."""

    def __init__(self, calendar: Calendar, since: datetime, until: datetime) -> None:
        self._home = calendar.zone
        self._since, self._until = since, until

    def events(self, data: bytes) -> list[Event]:
        """Give every happening, in order of its begin; raises `CalendarUnreadableError`."""
        calendars = cast("Sequence[Component]", ICalendar.from_ical(data, multiple=True))
        if not calendars:
            raise CalendarUnreadableError("it holds no VCALENDAR")
        every = [one for calendar in calendars for one in calendar.walk("VEVENT")]
        moved = {(_uid(one), self._wall(one, "RECURRENCE-ID")) for one in every if _instead(one)}
        found: list[Event] = []
        for one in every:
            _refuse_broken(one)
            if str(one.get("STATUS", "")).upper() == "CANCELLED":
                continue
            for event in self._happenings(one, moved):
                if event.ends > self._since and event.begins < self._until:
                    found.append(event)
                if len(found) > MAX_EVENTS:
                    raise CalendarUnreadableError(f"more than {MAX_EVENTS} events")
        return sorted(found, key=lambda event: (event.begins, event.ends))

    def _happenings(self, one: Component, moved: set[tuple[str, datetime]]) -> Iterator[Event]:
        zone, first, uid = self._zone(one), self._wall(one, "DTSTART"), _uid(one)
        whole_days = not isinstance(_value(one, "DTSTART"), datetime)
        nominal, exact = self._length(one, first, whole_days)
        skipped = {self._as_wall(value, zone) for value in _values(one, "EXDATE")}
        starts = chain([first] if not one.get("RRULE") else [], self._repeated(one, first, zone),
                       (self._as_wall(v, zone) for v in _values(one, "RDATE")))  # fmt: skip
        for wall in dict.fromkeys(starts):
            if wall in skipped or (not _instead(one) and (uid, wall) in moved):
                continue
            begins = earliest(wall, zone)
            yield Event(
                summary=str(one.get("SUMMARY", "an event"))[:100],
                begins=begins,
                ends=max(latest(wall + nominal, zone), begins + exact),
            )

    def _length(
        self, one: Component, first: datetime, whole_days: bool
    ) -> tuple[timedelta, timedelta]:
        """Give how long it lasts by the clock on the wall, and by a stopwatch."""
        if one.get("DURATION") is not None:
            lasts = cast(timedelta, _value(one, "DURATION"))
            return lasts, lasts
        if one.get("DTEND") is None:
            lasts = timedelta(days=1) if whole_days else timedelta()
            return lasts, lasts
        zone = self._zone(one)
        nominal = self._as_wall(_value(one, "DTEND"), zone) - first
        if nominal < timedelta():
            raise CalendarUnreadableError(f"{_called(one)} ends before it begins")
        ends = latest(first + nominal, zone)
        return nominal, timedelta() if whole_days else ends - earliest(first, zone)

    def _repeated(self, one: Component, first: datetime, zone: tzinfo) -> Iterator[datetime]:
        """Follow its rule until the time that was asked for is over."""
        rules = one.get("RRULE")
        for given in rules if isinstance(rules, list) else [rules] if rules else []:
            rule = dict(given)
            repeats = str((rule.get("FREQ") or [""])[0]).upper()
            if repeats not in _REPEATS:
                raise CalendarUnreadableError(
                    f"{_called(one)} repeats {repeats.lower() or 'without FREQ'}; daily, weekly, "
                    "monthly and yearly are understood"
                )
            over = self._until.astimezone(zone).replace(tzinfo=None)
            if "COUNT" not in rule:  # dateutil would look for another until the year 9999
                ends = [self._as_wall(end, zone) for end in rule.pop("UNTIL", [])]
                rule["UNTIL"] = [min([over, *ends])]
            text = type(given)(rule).to_ical().decode()
            for step, wall in enumerate(rrulestr(text, dtstart=first)):
                if wall > over:
                    break
                if step > MAX_EVENTS:
                    raise CalendarUnreadableError(f"{_called(one)} repeats too often to follow")
                yield wall

    def _zone(self, one: Component) -> tzinfo:
        start = _value(one, "DTSTART")
        return (start.tzinfo if isinstance(start, datetime) else None) or self._home

    def _wall(self, one: Component, name: str) -> datetime:
        _refuse_broken(one)
        return self._as_wall(_value(one, name), self._zone(one))

    def _as_wall(self, value: object, zone: tzinfo) -> datetime:
        """Give what a clock on the wall of that zone shows; a day begins at its midnight."""
        if isinstance(value, tuple):  # a period of RDATE: its length is not another one
            raise CalendarUnreadableError("RDATE with a period is not understood")
        if isinstance(value, datetime):
            return value.astimezone(zone).replace(tzinfo=None) if value.tzinfo else value
        if isinstance(value, date):
            return datetime.combine(value, time())
        raise CalendarUnreadableError(f"{value!r:.60} is no time")


def _refuse_broken(one: Component) -> None:
    """Raise for what would make the calendar shorter if it were passed over."""
    if one.errors:
        name, why = one.errors[0]
        raise CalendarUnreadableError(f"{_called(one)}: {name}: {why}"[:300])
    if one.get("DTSTART") is None:
        raise CalendarUnreadableError(f"{_called(one)} has no DTSTART")
    for name in ("DTSTART", "DTEND", "RECURRENCE-ID"):
        zone = _parameter(one, name, "TZID")
        value = _value(one, name) if one.get(name) is not None else None
        if zone and isinstance(value, datetime) and value.tzinfo is None:
            raise CalendarUnreadableError(f"{_called(one)}: there is no time zone {zone:.60}")
    if _parameter(one, "RECURRENCE-ID", "RANGE"):
        raise CalendarUnreadableError(f"{_called(one)}: RANGE=THISANDFUTURE is not understood")


def _instead(one: Component) -> bool:
    """Whether it stands in for one happening of another."""
    return one.get("RECURRENCE-ID") is not None


def _parameter(one: Component, name: str, key: str) -> str:
    return str(getattr(one.get(name), "params", {}).get(key, ""))


def _value(one: Component, name: str) -> Any:
    return getattr(one.get(name), "dt", None) or getattr(one.get(name), "td", None)


def _values(one: Component, name: str) -> Iterator[object]:
    """Give the times of EXDATE or RDATE, which may stand there more than once."""
    given = one.get(name)
    for listed in given if isinstance(given, list) else [given] if given is not None else []:
        yield from (value.dt for value in listed.dts)


def _uid(one: Component) -> str:
    return str(one.get("UID", ""))


def _called(one: Component) -> str:
    return f"event {str(one.get('SUMMARY') or one.get('UID') or '(unnamed)')[:60]!r}"
