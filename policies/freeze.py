"""When nothing may change: weekly windows, dates and calendars, each in its own time zone.

Invariants: a window is never shorter than it reads: where clocks are put forward or back, the
earlier reading of its start and the later one of its end count; a calendar that could not be read,
or does not reach as far as now, denies.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Annotated, ClassVar, Final, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, model_validator
from pydantic.dataclasses import dataclass

from tiphys.policies.model import Proposal, Risk
from tiphys.policies.rule import ALLOWED, SETTINGS, FactsMissingError, Request, Rule, RuleName
from tiphys.policies.verdict import Denied, NeedsApproval, Verdict
from tiphys.policies.zones import ZoneName

_DAY: Final = timedelta(days=1)
_CLOCK: Final = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"
_WHOLE_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_LOCAL: Final = re.compile(rf"{_WHOLE_DAY.pattern}(T[0-9]{{2}}:[0-9]{{2}})?")

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]


class Day(StrEnum):
    """A day of the week, Monday first as `date.weekday` counts."""

    MON = "mon"
    TUE = "tue"
    WED = "wed"
    THU = "thu"
    FRI = "fri"
    SAT = "sat"
    SUN = "sun"


class FreezeEffect(StrEnum):
    """What a window does to a proposal."""

    DENY = "deny"
    ASK = "ask"


def _local(text: str) -> str:
    """Refuse what is neither a day nor a local time of one."""
    try:
        if not _LOCAL.fullmatch(text):
            raise ValueError
        datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"expected a day such as 2026-12-24 or a local time such as 2026-12-24T18:00, "
            f"not {text!r}"
        ) from None
    return text


Local = Annotated[str, AfterValidator(_local)]
"""A whole day, or a time of day on one, as the clocks of the window's time zone show it."""


@dataclass(frozen=True, config=SETTINGS)
class Weekly:
    """A time of the week that comes back; it ends a day later where `to` is not after `from`."""

    days: tuple[Day, ...]
    """The days on which it begins."""
    start: Annotated[str, Field(alias="from", pattern=_CLOCK)] = "00:00"
    end: Annotated[str, Field(alias="to", pattern=rf"{_CLOCK}|^24:00$")] = "24:00"

    @model_validator(mode="after")
    def _lasts(self) -> Self:
        if not self.days:
            raise ValueError("expected at least one day")
        if self.start == self.end:
            raise ValueError("from and to are the same; leave both out for whole days")
        return self

    def spans(self, zone: ZoneInfo, around: date) -> Iterator[tuple[datetime, datetime]]:
        """Give begin and end, UTC, of those that may cover some moment of a local day."""
        for days in (-2, -1, 0, 1):
            day = around + days * _DAY
            if [*Day][day.weekday()] not in self.days:
                continue
            last = day if self.start < self.end else day + _DAY
            if self.end == "24:00":
                end = datetime.combine(day + _DAY, time())
            else:
                end = datetime.combine(last, time.fromisoformat(self.end))
            begin = datetime.combine(day, time.fromisoformat(self.start))
            yield earliest(begin, zone), latest(end, zone)


@dataclass(frozen=True, config=SETTINGS)
class Dates:
    """From one local time to another; a whole day as `to` is included."""

    start: Annotated[Local, Field(alias="from")]
    end: Annotated[Local, Field(alias="to")]

    @model_validator(mode="after")
    def _lasts(self) -> Self:
        if self._begin() >= self._end():
            raise ValueError(f"it ends, {self.end}, before it begins, {self.start}")
        return self

    def span(self, zone: ZoneInfo) -> tuple[datetime, datetime]:
        """Give begin and end, UTC."""
        return earliest(self._begin(), zone), latest(self._end(), zone)

    def _begin(self) -> datetime:
        return datetime.fromisoformat(self.start)

    def _end(self) -> datetime:
        end = datetime.fromisoformat(self.end)
        return end + _DAY if _WHOLE_DAY.fullmatch(self.end) else end


def earliest(wall: datetime, zone: tzinfo) -> datetime:
    """Give the first moment, UTC, that a local time can mean."""
    return min(_readings(wall, zone))


def latest(wall: datetime, zone: tzinfo) -> datetime:
    """Give the last moment, UTC, that a local time can mean."""
    return max(_readings(wall, zone))


def _readings(wall: datetime, zone: tzinfo) -> list[datetime]:
    """Read it with both offsets, which differ where clocks are changed (PEP 495)."""
    return [wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)]


@dataclass(frozen=True, config=SETTINGS)
class Reach:
    """Some of all proposals: those that fit every one of the three lists."""

    namespaces: tuple[str, ...] = ("*", "-")
    """Names, `*` standing for anything; `-` for targets outside any namespace, such as nodes."""
    actions: tuple[str, ...] = ("*",)
    """Names from the catalogue, or `*`."""
    risks: tuple[Risk, ...] = (Risk.LOW, Risk.MEDIUM, Risk.HIGH)

    def covers(self, proposal: Proposal) -> bool:
        """Tell whether the proposal is one of them."""
        namespace = proposal.target.namespace
        if proposal.action not in self.actions and "*" not in self.actions:
            return False
        if proposal.risk not in self.risks:
            return False
        if not namespace:
            return "-" in self.namespaces
        return any(fnmatchcase(namespace, pattern) for pattern in self.namespaces)


@dataclass(frozen=True, config=SETTINGS)
class Excepted(Reach):
    """What a window leaves alone."""

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if Reach(self.namespaces, self.actions, self.risks) == Reach():
            raise ValueError("an exception without namespaces, actions or risks leaves nothing")
        return self


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class _Freeze(Reach):
    name: Name
    time_zone: ZoneName
    """An IANA name, such as Europe/Berlin; UTC is one too."""
    effect: FreezeEffect = FreezeEffect.DENY
    exceptions: tuple[Excepted, ...] = ()

    def concerns(self, proposal: Proposal) -> bool:
        """Tell whether it speaks of the proposal at all."""
        return self.covers(proposal) and not any(e.covers(proposal) for e in self.exceptions)

    @property
    def zone(self) -> ZoneInfo:
        """The time zone itself."""
        return ZoneInfo(self.time_zone)


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Window(_Freeze):
    """A named freeze: times of the week that come back, dates, or both."""

    weekly: tuple[Weekly, ...] = ()
    dates: tuple[Dates, ...] = ()

    @model_validator(mode="after")
    def _has_times(self) -> Self:
        if not self.weekly and not self.dates:
            raise ValueError("say when: weekly, dates or both")
        return self

    def until(self, now: datetime) -> datetime | None:
        """Give when the freeze that holds now ends, or None when none does."""
        spans = _spans(self.weekly, self.dates, self.time_zone, now.astimezone(self.zone).date())
        return max((end for begin, end in spans if begin <= now < end), default=None)


@lru_cache(maxsize=4096)
def _spans(
    weekly: tuple[Weekly, ...], dates: tuple[Dates, ...], zone_name: str, around: date
) -> tuple[tuple[datetime, datetime], ...]:
    """Give begin and end, UTC, of all times of a window that may cover some moment of a day.

    They are the same all day long, and reading clocks costs more than all other rules together.
    """
    zone = ZoneInfo(zone_name)
    weeks = (span for one in weekly for span in one.spans(zone, around))
    return (*weeks, *(one.span(zone) for one in dates))


@dataclass(frozen=True, kw_only=True, config=SETTINGS)
class Calendar(_Freeze):
    """An iCalendar file beside the policy: while one of its events lasts, the freeze holds."""

    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,100}\.ics$")]
    """Its name, in the policy's own folder."""


@dataclass(frozen=True)
class Event:
    """One happening of an event of a calendar."""

    summary: str
    begins: datetime
    ends: datetime


@dataclass(frozen=True)
class ReadCalendar:
    """A calendar as it was read: everything that it says of the time from `since` to `until`."""

    events: tuple[Event, ...]
    since: datetime
    until: datetime
    problem: str = ""
    """Why it could not be read; then nothing else counts."""
    sha256: str = ""
    """Of the file's bytes; empty where there were none to be had."""

    def lasting(self, now: datetime) -> Event | None:
        """Give the event that lasts longest of those that last now; may raise."""
        if self.problem:
            raise FactsMissingError(self.problem)
        if not self.since <= now < self.until:
            raise FactsMissingError(
                f"what was read of it reaches from {self.since:%Y-%m-%d} to {self.until:%Y-%m-%d}"
            )
        lasting = (event for event in self.events if event.begins <= now < event.ends)
        return max(lasting, key=lambda event: event.ends, default=None)


@dataclass(frozen=True, config=SETTINGS)
class FreezeWindows(Rule):
    """Times in which nothing changes, or only what a person agrees to."""

    name: ClassVar[RuleName] = RuleName.FREEZE_WINDOWS

    windows: Annotated[tuple[Window, ...], Field(max_length=100)] = ()
    calendars: Annotated[tuple[Calendar, ...], Field(max_length=20)] = ()

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [freeze.name for freeze in (*self.windows, *self.calendars)]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"there are two freezes named {name}")
        return self

    @property
    def read(self) -> Mapping[str, ReadCalendar]:
        """What the calendars say, by name; `WithCalendars` knows."""
        return {}

    @property
    def hashes(self) -> dict[str, str]:
        """What was read of which calendar, by name: the SHA-256 of the file, or `unreadable`."""
        return {name: one.sha256 or "unreadable" for name, one in self.read.items()}

    def actions_named(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """Give every action that is named, with its place in the settings."""
        lists = {"windows": self.windows, "calendars": self.calendars}
        for key, freezes in lists.items():
            for at, freeze in enumerate(freezes):
                yield from (((key, at, "actions", i), a) for i, a in enumerate(freeze.actions))
                for number, excepted in enumerate(freeze.exceptions):
                    place = (key, at, "exceptions", number, "actions")
                    yield from (((*place, i), a) for i, a in enumerate(excepted.actions))

    def judge(self, request: Request) -> Verdict:
        """Deny or ask while a freeze holds; the strictest counts, and all are named."""
        proposal, now = request.proposal, request.now
        held = [
            (window.effect, _words(window, window.name, end))
            for window in self.windows
            if window.concerns(proposal) and (end := window.until(now))
        ]
        for calendar in self.calendars:
            if calendar.concerns(proposal):
                held += self._by(calendar, now)
        denials = [words for effect, words in held if effect is FreezeEffect.DENY]
        if denials:
            return Denied(reason="; ".join(denials))
        return NeedsApproval(reason="; ".join(words for _, words in held)) if held else ALLOWED

    def _by(self, calendar: Calendar, now: datetime) -> Iterator[tuple[FreezeEffect, str]]:
        read = self.read.get(calendar.name)
        try:
            if read is None:
                raise FactsMissingError("nobody has read it")
            event = read.lasting(now)
        except FactsMissingError as missing:
            why = f"calendar {calendar.name} ({calendar.file}) cannot be told: {missing}"
            yield FreezeEffect.DENY, why
            return
        if event:
            what = f"{calendar.name}: {event.summary}"
            yield calendar.effect, _words(calendar, what, event.ends)


@dataclass(frozen=True)
class WithCalendars(FreezeWindows):
    """The same rule once the calendars have been read, which policies do not do themselves."""

    known: Mapping[str, ReadCalendar] = Field(default_factory=dict[str, ReadCalendar])

    @property
    def read(self) -> Mapping[str, ReadCalendar]:
        """What was read."""
        return self.known


def _words(freeze: _Freeze, what: str, end: datetime) -> str:
    until = f"{end.astimezone(freeze.zone):%Y-%m-%d %H:%M} {freeze.time_zone}"
    return f"frozen by {what} until {until}"
