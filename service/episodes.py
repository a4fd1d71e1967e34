"""Episodes of alerts in the database: each from its first firing until it is gone.

Invariants: an alert (cluster, fingerprint) has at most one open episode; what the stream delivers
again, late or out of order changes nothing (`position`); a firing after the end is a new episode,
whatever its startsAt, because a real Alertmanager repeats the old one.
"""

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import TypeVar

from sqlalchemy import func, insert, select, update

from tiphys.policies.model import Alert, AlertStatus
from tiphys.service.database import Transaction, stamp
from tiphys.service.incidents import dump
from tiphys.service.tables import inbox

Key = tuple[str, str]
"""Cluster and fingerprint."""
T = TypeVar("T")
CHUNK = 500
"""Values in one IN (...): well below every database's limit."""


class Course(StrEnum):
    """What an arriving alert means, given what is known of it."""

    ANEW = "anew"
    """It fires since later than the open episode: that one ended unseen."""
    BEGIN = "begin"
    END = "end"
    REPEAT = "repeat"
    OTHER_END = "other_end"
    """One of several Prometheus says that it is over; another one has told last that it fires."""
    STALE = "stale"
    """Something newer about it has been read from the stream before."""
    UNKNOWN_END = "unknown_end"
    """It resolves what was not open."""


@dataclass(frozen=True)
class Arrival:
    """An alert and where in the stream it was; empty when it did not come through the stream."""

    alert: Alert
    position: str = ""

    @property
    def key(self) -> Key:
        """Which alert it is, whatever its status."""
        return self.alert.cluster, self.alert.fingerprint


@dataclass(frozen=True)
class Episode:
    """The newest row about an alert."""

    id: int
    incident_id: str | None
    open: bool
    starts_at: str
    seen_at: str
    position: str
    teller: str = ""
    """Who told last that it fires."""


def judge(last: Episode | None, arrival: Arrival) -> Course:
    """Say what an arrival means; pure."""
    if last and _is_stale(last.position, arrival.position):
        return Course.STALE
    is_open = last is not None and last.open
    other = last is not None and last.teller not in {"", arrival.alert.teller}
    if arrival.alert.status is AlertStatus.RESOLVED:
        if is_open and other:
            return Course.OTHER_END
        return Course.END if is_open else Course.UNKNOWN_END
    if last is None or not is_open:
        return Course.BEGIN
    # Two that watch the same see it begin some seconds apart.
    later = not other and stamp(arrival.alert.starts_at) > last.starts_at
    return Course.ANEW if later else Course.REPEAT


def _is_stale(known: str, arriving: str) -> bool:
    """Compare only within one stream: one that was made anew counts from the beginning."""
    same_stream = known.partition("/")[0] == arriving.partition("/")[0]
    return bool(arriving) and same_stream and arriving <= known


async def latest(tx: Transaction, keys: Collection[Key]) -> dict[Key, Episode]:
    """Read the newest episode of each alert that has one."""
    found: dict[Key, Episode] = {}
    for part in chunks({fingerprint for _, fingerprint in keys}):
        newest = (
            select(func.max(inbox.c.id))
            .where(inbox.c.fingerprint.in_(part))
            .group_by(inbox.c.cluster, inbox.c.fingerprint)
        )
        for row in await tx.execute(select(inbox).where(inbox.c.id.in_(newest))):
            found[row.cluster, row.fingerprint] = Episode(
                id=row.id,
                incident_id=row.incident_id,
                open=row.open,
                starts_at=row.starts_at,
                seen_at=row.seen_at,
                position=row.position,
                teller=_teller(row.alert),
            )
    return found


def _teller(alert: str) -> str:
    return str(json.loads(alert).get("teller", "")) if '"teller":' in alert else ""


async def begin(
    tx: Transaction, arrival: Arrival, incident_id: str | None, now: datetime
) -> Episode:
    """Write a new episode; of a resolved alert, one that is over already."""
    alert, at = arrival.alert, stamp(now)
    is_open = alert.status is AlertStatus.FIRING
    written = await tx.execute(
        insert(inbox).values(
            cluster=alert.cluster,
            fingerprint=alert.fingerprint,
            starts_at=stamp(alert.starts_at),
            status=alert.status.value,
            incident_id=incident_id,
            open=is_open,
            began_at=at,
            ended_at=None if is_open else at,
            seen_at=at,
            position=arrival.position,
            alert=dump(alert),
        )
    )
    key = written.inserted_primary_key
    if key is None:
        raise RuntimeError("the database gave no id for an episode")
    start = stamp(alert.starts_at)
    return Episode(key[0], incident_id, is_open, start, at, arrival.position, alert.teller)


async def repeat(tx: Transaction, episode: Episode, arrival: Arrival, now: datetime) -> Episode:
    """Note that an alert came again while its episode is open."""
    position = arrival.position or episode.position
    await tx.execute(
        update(inbox)
        .where(inbox.c.id == episode.id)
        .values(
            repeats=inbox.c.repeats + 1,
            seen_at=stamp(now),
            missing_listings=0,
            position=position,
            alert=dump(arrival.alert),
        )
    )
    teller = arrival.alert.teller
    return replace(episode, seen_at=stamp(now), position=position, teller=teller)


async def end(
    tx: Transaction, episode: Episode, now: datetime, arrival: Arrival | None = None
) -> Episode:
    """Close an episode (again, when it is closed), on an arrival's word or because it is gone."""
    position = (arrival.position if arrival else "") or episode.position
    values: dict[str, object] = {"open": False, "seen_at": stamp(now), "position": position}
    if episode.open:
        values |= {"ended_at": stamp(now), "status": AlertStatus.RESOLVED.value}
        if arrival:
            values |= {"alert": dump(arrival.alert), "missing_listings": 0}
    await tx.execute(update(inbox).where(inbox.c.id == episode.id).values(**values))
    return replace(episode, open=False, seen_at=stamp(now), position=position)


async def still_open(tx: Transaction, incident_ids: Collection[str]) -> set[str]:
    """Give those of the incidents that have an open episode."""
    found: set[str] = set()
    for part in chunks(incident_ids):
        query = select(inbox.c.incident_id).where(inbox.c.incident_id.in_(part), inbox.c.open)
        found |= set((await tx.execute(query.distinct())).scalars())
    return found


async def gone(tx: Transaction, incident_id: str, *, listings: int) -> bool:
    """Whether every alert of an incident has ended, and is missing from that many listings.

    `listings` is `reconcile.GONE_AFTER` where Alertmanagers are configured, otherwise 0.
    """
    query = select(func.count()).where(
        inbox.c.incident_id == incident_id,
        inbox.c.open | (inbox.c.missing_listings < listings),
    )
    return (await tx.execute(query)).scalar_one() == 0


async def began_after(tx: Transaction, incident_id: str, at: datetime) -> bool:
    """Whether an alert of the incident began to fire since then, and still does."""
    query = select(inbox.c.id).where(
        inbox.c.incident_id == incident_id, inbox.c.open, inbox.c.began_at > stamp(at)
    )
    return (await tx.execute(query.limit(1))).first() is not None


def chunks(values: Iterable[T]) -> Iterable[Sequence[T]]:
    """Cut values into parts that one statement can take."""
    everything = list(values)
    return (everything[i : i + CHUNK] for i in range(0, len(everything), CHUNK))
