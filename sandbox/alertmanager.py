"""A simulated Alertmanager: groups, silences and posts alerts to a webhook and to a human.

Invariants: an alert that was posted firing is posted resolved, once; 5xx and transport errors are
tried again within the group interval, a 4xx is not; what is silenced or inhibited is not posted.
"""

import asyncio
import logging
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import httpx2
from starlette.applications import Starlette

from tiphys.sandbox.alertmanager_alerts import (
    HeldAlert,
    InvalidError,
    LabelMatch,
    Silence,
    alert_from,
)
from tiphys.sandbox.alertmanager_api import alertmanager_app
from tiphys.sandbox.alertmanager_groups import (
    Group,
    Posted,
    group_key,
    group_labels,
    needs_update,
    webhook_body,
)

OWN_ALERTS = "Tiphys"
"""Alerts whose name begins so are for the human receiver only."""

Send = Callable[[dict[str, Any]], Awaitable[int]]
"""Posts one body and gives the HTTP status; 0: no answer."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Timing:
    """How long groups wait, in seconds; Alertmanager's names."""

    group_wait: float = 0.5
    group_interval: float = 2.0
    repeat_interval: float = 14400.0
    human_wait: float = 300.0
    """The human receiver's group_wait: the deadline Tiphys has before the page goes out."""
    resolve_timeout: float = 300.0
    """How long an alert without an end is taken to fire."""


@dataclass(frozen=True)
class Attempt:
    """One POST to the webhook."""

    at: float
    body: dict[str, Any]
    status: int


def _client() -> httpx2.AsyncClient:
    # The webhook is plain HTTP on loopback; loading certificates would stop the loop for 0.2 s.
    nothing_trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return httpx2.AsyncClient(timeout=10.0, trust_env=False, verify=nothing_trusted)


class Alertmanager:
    """One simulated server with two receivers, `tiphys` (the webhook) and `human`."""

    def __init__(
        self,
        webhook_url: str,
        bearer: str = "",
        timing: Timing | None = None,
        external_url: str = "http://127.0.0.1:9093",
    ) -> None:
        self.webhook_url = webhook_url
        self.bearer = bearer
        self.timing = timing or Timing()
        self.external_url = external_url
        self.max_alerts = 0
        self.down = False
        """True: answers 503, takes nothing, posts nothing."""
        self.alerts: dict[str, HeldAlert] = {}
        """By fingerprint."""
        self.silences: dict[str, Silence] = {}
        self.inhibitions: list[Mapping[str, str]] = []
        """A hook for tests: alerts that bear all labels of one entry count as inhibited."""
        self.attempts: deque[Attempt] = deque(maxlen=1000)
        """What was posted to the webhook, every try of it."""
        self.posted: list[dict[str, Any]] = []
        """What the human receiver was sent."""
        self._groups: dict[tuple[str, str], Group] = {}
        self._waiting: deque[Group] = deque()
        self._arrived = asyncio.Event()
        self._lost: list[tuple[Mapping[str, str], float]] = []

    def app(self) -> Starlette:
        """The HTTP face, an ASGI application."""
        return alertmanager_app(self)

    # --- what comes in --------------------------------------------------------------------------

    def receive(self, bodies: Sequence[Any]) -> None:
        """Take alerts in the shape of `POST /api/v2/alerts`; raises InvalidError, taking none."""
        if self.down:
            return
        now = time.time()
        alerts = [alert_from(body, now, self.timing.resolve_timeout) for body in bodies]
        self._lost = [(labels, until) for labels, until in self._lost if until > now]
        for pushed in alerts:
            if any(labels.items() <= pushed.labels.items() for labels, _ in self._lost):
                continue
            known = self.alerts.get(pushed.fingerprint)
            alert = pushed.after(known, now) if known else pushed
            if alert.resolved(now) and (known is None or known.resolved(now)):
                continue  # Prometheus repeats a resolved alert for a quarter of an hour.
            self.alerts[alert.fingerprint] = alert
            self._dispatch(alert)

    def lose(self, labels: Mapping[str, str], seconds: float) -> None:
        """End the alerts with these labels and ignore their pushes for a while.

        As after a partition: firing, resolved, and firing again with the same startsAt, once
        Prometheus pushes it again (it does so each `resend_seconds`).
        """
        now = time.time()
        self._lost.append((dict(labels), now + seconds))
        for key, alert in self.alerts.items():
            if labels.items() <= alert.labels.items() and not alert.resolved(now):
                self.alerts[key] = replace(alert, ends_at=now, updated_at=now)

    def silence(self, labels: Mapping[str, str], seconds: float, comment: str = "") -> str:
        """Silence the alerts with these labels from now on; gives the silence's id."""
        now = time.time()
        matchers = [LabelMatch(name, value) for name, value in labels.items()]
        return self.add_silence(Silence(matchers, now, now + seconds, "sandbox", comment, now))

    def add_silence(self, silence: Silence) -> str:
        """Keep a silence; gives its id."""
        self.silences[silence.id] = silence
        return silence.id

    def expire(self, silence_id: str) -> bool:
        """End a silence now; False when there is none of this id."""
        silence = self.silences.get(silence_id)
        if silence is not None:
            now = time.time()
            silence.ends_at, silence.updated_at = min(silence.ends_at, now), now
        return silence is not None

    # --- what is known --------------------------------------------------------------------------

    def silenced_by(self, alert: HeldAlert) -> list[str]:
        """The ids of the active silences that hold for this alert."""
        now = time.time()
        return [s.id for s in self.silences.values() if s.mutes(alert.labels, now)]

    def inhibited_by(self, alert: HeldAlert) -> list[str]:
        """Fingerprints of what inhibits this alert."""
        return [
            f"{i + 1:016x}"
            for i, labels in enumerate(self.inhibitions)
            if labels.items() <= alert.labels.items()
        ]

    def receivers_of(self, alert: HeldAlert) -> list[str]:
        """The receivers that the routes lead this alert to."""
        own = alert.labels.get("alertname", "").startswith(OWN_ALERTS)
        return ["human"] if own else ["tiphys", "human"]

    # --- what goes out --------------------------------------------------------------------------

    async def run(self) -> None:
        """Flush groups as they fall due, until cancelled."""
        async with (
            _client() as client,
            asyncio.TaskGroup() as tasks,
        ):
            while True:
                self._arrived.clear()
                while self._waiting:
                    tasks.create_task(self._serve(self._waiting.popleft(), client))
                await self._arrived.wait()

    async def deliver(self, bodies: Sequence[Any]) -> int:
        """Post alerts to the webhook at once, past groups and silences; gives the HTTP status.

        As a peer does that has not heard of a silence or of an earlier post. Nothing is kept.
        """
        now = time.time()
        alerts = [alert_from(body, now, self.timing.resolve_timeout) for body in bodies]
        labels = group_labels(alerts[0].labels)
        group = Group("tiphys", group_key("{}", labels), labels, 0.0)
        body = webhook_body(group, alerts, now, self.external_url, self.max_alerts)
        async with _client() as client:
            status = await self._post(body, client)
        self.attempts.append(Attempt(now, body, status))
        return status

    async def _post(self, body: dict[str, Any], client: httpx2.AsyncClient) -> int:
        headers = {"Authorization": f"Bearer {self.bearer}"} if self.bearer else {}
        try:
            answer = await client.post(self.webhook_url, json=body, headers=headers)
        except httpx2.HTTPError:
            return 0
        return answer.status_code

    def _dispatch(self, alert: HeldAlert) -> None:
        labels = group_labels(alert.labels)
        own = alert.labels.get("alertname", "").startswith(OWN_ALERTS)
        for receiver in self.receivers_of(alert):
            key = group_key("{}" if receiver == "tiphys" else "{}/{}", labels)
            group = self._groups.get((receiver, key))
            if group is None:
                page = receiver == "human" and not own
                wait = self.timing.human_wait if page else self.timing.group_wait
                group = self._groups[receiver, key] = Group(receiver, key, labels, wait)
                self._waiting.append(group)
                self._arrived.set()
            group.members.add(alert.fingerprint)

    async def _serve(self, group: Group, client: httpx2.AsyncClient) -> None:
        async def post(body: dict[str, Any]) -> int:
            return await self._post(body, client)

        async def keep(body: dict[str, Any]) -> int:
            self.posted.append(body)
            return 200

        send = keep if group.receiver == "human" else post
        pause = group.wait_seconds
        while group.members:
            await asyncio.sleep(pause)
            if not self.down:
                await self._flush(group, send)
            pause = self.timing.group_interval
        del self._groups[group.receiver, group.key]

    async def _flush(self, group: Group, send: Send) -> None:
        now = time.time()
        held = [self.alerts[key] for key in sorted(group.members)]
        alerts = [a for a in held if not self.silenced_by(a) and not self.inhibited_by(a)]
        resolved = frozenset(a.fingerprint for a in alerts if a.resolved(now))
        firing = frozenset(a.fingerprint for a in alerts) - resolved
        repeat = self.timing.repeat_interval
        if alerts and needs_update(group.posted, firing, resolved, now, repeat):
            body = webhook_body(group, alerts, now, self.external_url, self.max_alerts)
            if not await self._sent(body, send):
                return
            group.posted = Posted(firing, resolved, now)
        for alert in held:
            if alert.resolved(now) and self.alerts[alert.fingerprint] is alert:
                group.members.discard(alert.fingerprint)
                if not any(alert.fingerprint in g.members for g in self._groups.values()):
                    del self.alerts[alert.fingerprint]

    async def _sent(self, body: dict[str, Any], send: Send) -> bool:
        """Send, again while the receiver does not answer or answers 5xx, for a group interval."""
        deadline = time.monotonic() + self.timing.group_interval
        pause = 0.1
        while True:
            status = await send(body)
            if body["receiver"] != "human":
                self.attempts.append(Attempt(time.time(), body, status))
            if 200 <= status < 300:
                return True
            if 400 <= status < 500 or time.monotonic() + pause > deadline:
                _log.warning("posting %s failed for now: HTTP %s", body["groupKey"], status)
                return False
            await asyncio.sleep(pause)
            pause = min(pause * 2, 5.0)


__all__ = ["Alertmanager", "Attempt", "InvalidError", "Timing"]
