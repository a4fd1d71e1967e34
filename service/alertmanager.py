"""The Alertmanagers of this installation: lists their alerts and gives them ours.

Invariant: an alert counts as missing only when every Alertmanager has answered; one that does not
answer makes the facts unknown, never healthy.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import httpx2
import msgspec

from tiphys.agents.ports import UnansweredError
from tiphys.policies.correlation import TELLERS, alert_id, fingerprint, identity
from tiphys.policies.model import Alert, AlertFacts, AlertSeen, AlertStatus

TIMEOUT_SECONDS = 5.0
MAX_BYTES = 256 << 20
"""Bytes of one listing; a storm of 70,000 alerts has about 70 MB."""
MAX_TOLD = 100
"""Alerts of one incident that the gate is told of one by one."""
_RECEIVER = "reconciliation"


class Presence(StrEnum):
    """What Alertmanager does with an alert that it knows."""

    ACTIVE = "active"
    INHIBITED = "inhibited"
    SILENCED = "silenced"
    UNPROCESSED = "unprocessed"


@dataclass(frozen=True)
class Listed:
    """One alert that an Alertmanager knows, as an alert that it would post."""

    alert: Alert
    presence: Presence


@dataclass(frozen=True)
class Listing:
    """What all Alertmanagers answered to one round of questions."""

    alerts: Mapping[tuple[str, str], Listed]
    """By cluster and fingerprint; where two disagree, the one that would notify counts."""
    failures: tuple[str, ...]
    """Which did not answer, and why."""

    @property
    def complete(self) -> bool:
        """Whether an alert that is not here is gone."""
        return not self.failures


@dataclass(frozen=True)
class OwnAlert:
    """An alert that we send; repeat it before `ends_at`, or it ends."""

    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    starts_at: datetime
    ends_at: datetime


class _Status(msgspec.Struct, rename="camel"):
    state: str
    silenced_by: list[str] = []
    inhibited_by: list[str] = []


class _Gettable(msgspec.Struct, rename="camel"):
    """Source: Alertmanager's api/v2/openapi.yaml, gettableAlert."""

    labels: dict[str, str]
    starts_at: Annotated[datetime, msgspec.Meta(tz=True)]
    status: _Status
    annotations: dict[str, str] = {}
    fingerprint: str = ""
    generator_url: str = msgspec.field(name="generatorURL", default="")


_listings = msgspec.json.Decoder(list[_Gettable])
# Where two Alertmanagers differ, the one that would still notify is believed.
_LOUDEST = (Presence.ACTIVE, Presence.UNPROCESSED, Presence.INHIBITED, Presence.SILENCED)


class Alertmanagers:
    """Every configured Alertmanager; answers for `agents.ports.AlertSource`."""

    def __init__(
        self,
        urls: Iterable[str],
        *,
        cluster: str,
        tellers: frozenset[str] = TELLERS,
        timeout: float = TIMEOUT_SECONDS,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        most_bytes: int = MAX_BYTES,
    ) -> None:
        """`cluster` is the name for alerts that bring none; `timeout` is for one request.

        `tellers` are the labels that say only who told an alert.
        """
        self._tellers = tellers
        self._most = most_bytes
        self._urls = tuple(url.rstrip("/") for url in urls)
        self._cluster = cluster
        self._clock = clock
        self._timeout = timeout
        self._http = httpx2.AsyncClient(timeout=timeout)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def listing(self) -> Listing:
        """Ask every Alertmanager for all it knows; failures are part of the answer."""
        answers = await asyncio.gather(*(self._ask(url) for url in self._urls))
        alerts: dict[tuple[str, str], Listed] = {}
        failures: list[str] = []
        for answer in answers:
            if isinstance(answer, str):
                failures.append(answer)
                continue
            for listed in answer:
                key = listed.alert.cluster, listed.alert.fingerprint
                other = alerts.get(key)
                if other is None or _louder(listed.presence, other.presence):
                    alerts[key] = listed
        return Listing(alerts, tuple(failures))

    async def facts(self, alerts: Sequence[Alert]) -> AlertFacts:
        """Say whether these alerts are active, silenced or inhibited now.

        Silenced or inhibited is said only when none of them would notify: one alert that is still
        loud speaks for the incident. Raises `UnansweredError` unless every Alertmanager answers.
        """
        if not self._urls:
            raise UnansweredError("no Alertmanager is configured (TIPHYS_ALERTMANAGER_URLS)")
        listing = await self.listing()
        if not listing.complete:
            raise UnansweredError("; ".join(listing.failures))
        keys = {(alert.cluster, alert.fingerprint) for alert in alerts}
        present = [listing.alerts[key] for key in keys if key in listing.alerts]
        states = {listed.presence for listed in present}
        quiet = not states & {Presence.ACTIVE, Presence.UNPROCESSED}
        return AlertFacts(
            firing=bool(present),
            silenced=quiet and Presence.SILENCED in states,
            inhibited=quiet and Presence.INHIBITED in states,
            names=tuple(sorted({listed.alert.name for listed in present})),
            alerts=_seen(present),
            read_at=self._clock(),
        )

    async def post(self, alerts: Sequence[OwnAlert]) -> None:
        """Send alerts of our own to every Alertmanager; one that takes them is enough.

        Raises `UnansweredError` when none did: then nobody has been told.
        """
        body = msgspec.json.encode([_postable(alert) for alert in alerts])
        answers = await asyncio.gather(*(self._give(url, body) for url in self._urls))
        failures = [answer for answer in answers if answer]
        if len(failures) == len(self._urls):
            raise UnansweredError("; ".join(failures) or "no Alertmanager is configured")

    async def _ask(self, url: str) -> list[Listed] | str:
        """Give one Alertmanager's alerts, or a sentence on why there are none."""
        wanted = {"active": "true", "silenced": "true", "inhibited": "true", "unprocessed": "true"}
        try:
            async with asyncio.timeout(2 * self._timeout):
                request = self._http.build_request("GET", f"{url}/api/v2/alerts", params=wanted)
                answer = await self._http.send(request, stream=True)
                try:
                    if answer.status_code != 200:
                        return f"{_shown(url)} answered {answer.status_code}"
                    body = await self._read(answer)
                finally:
                    await answer.aclose()
            now = self._clock()
            return [self._listed(item, url, now) for item in _listings.decode(body)]
        except (httpx2.HTTPError, TimeoutError, OSError) as error:
            return f"{_shown(url)} does not answer: {type(error).__name__} {error}".strip()
        except (msgspec.MsgspecError, ValueError, RecursionError, OverflowError) as error:
            return f"{_shown(url)} answered what is no list of alerts: {error}"

    async def _read(self, answer: httpx2.Response) -> bytes:
        """Read a body, part by part; raises ValueError for one that is too large."""
        parts: list[bytes] = []
        size = 0
        async for part in answer.aiter_bytes():
            parts.append(part)
            size += len(part)
            if size > self._most:
                raise ValueError(f"more than {self._most} bytes")
        return b"".join(parts)

    def _listed(self, item: _Gettable, url: str, now: datetime) -> Listed:
        cluster = item.labels.get("cluster") or self._cluster
        mark = item.fingerprint or fingerprint(item.labels)
        known_by, teller = identity(item.labels, mark, self._tellers)
        alert = Alert(
            id=alert_id(cluster, mark, item.starts_at, AlertStatus.FIRING),
            cluster=cluster,
            fingerprint=known_by,
            teller=teller,
            status=AlertStatus.FIRING,
            starts_at=item.starts_at,
            labels=item.labels,
            annotations=item.annotations,
            generator_url=item.generator_url,
            receiver=_RECEIVER,
            source=_shown(url),
            received_at=now,
        )
        return Listed(alert, _presence(item.status))

    async def _give(self, url: str, body: bytes) -> str:
        headers = {"content-type": "application/json"}
        try:
            async with asyncio.timeout(2 * self._timeout):
                answer = await self._http.post(
                    f"{url}/api/v2/alerts", content=body, headers=headers
                )
        except (httpx2.HTTPError, TimeoutError, OSError) as error:
            return f"{_shown(url)} does not answer: {type(error).__name__} {error}".strip()
        return "" if answer.is_success else f"{_shown(url)} answered {answer.status_code}"


def _seen(present: Sequence[Listed]) -> tuple[AlertSeen, ...] | None:
    """Tell each alert, in an order of its own; None where they are too many for the facts."""
    if len(present) > MAX_TOLD:
        return None
    ordered = sorted((listed.alert for listed in present), key=lambda a: (a.name, a.fingerprint))
    return tuple(AlertSeen(name=a.name, severity=a.severity, labels=a.labels) for a in ordered)


def _presence(status: _Status) -> Presence:
    if status.silenced_by:
        return Presence.SILENCED
    if status.inhibited_by:
        return Presence.INHIBITED
    return Presence.ACTIVE if status.state == "active" else Presence.UNPROCESSED


def _louder(one: Presence, other: Presence) -> bool:
    return _LOUDEST.index(one) < _LOUDEST.index(other)


def _postable(alert: OwnAlert) -> dict[str, Any]:
    """Source: Alertmanager's api/v2/openapi.yaml, postableAlert."""
    return {
        "labels": dict(alert.labels),
        "annotations": dict(alert.annotations),
        "startsAt": alert.starts_at.astimezone(UTC),
        "endsAt": alert.ends_at.astimezone(UTC),
    }


def _shown(url: str) -> str:
    """Give a URL without the credentials that it may carry."""
    parsed = httpx2.URL(url)
    return str(parsed.copy_with(username=None, password=None))
