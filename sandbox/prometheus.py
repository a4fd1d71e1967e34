"""A simulated Prometheus: scrapes the simulated world, evaluates rules, pushes alerts.

Its HTTP face is in `prometheus_api`. It runs in real time; one tick is one scrape of every source
followed by one evaluation of every rule.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from starlette.applications import Starlette

from tiphys.sandbox.alert_rules import AlertingState, AlertState, Recording, Rule, recorded
from tiphys.sandbox.prometheus_api import prometheus_app
from tiphys.sandbox.promql_vectors import QueryError
from tiphys.sandbox.timestamps import rfc3339
from tiphys.sandbox.tsdb import Reading, Tsdb

__all__ = ["Prometheus", "Recording", "Rule", "Tsdb"]

Source = Callable[[], Iterable[Reading]]
"""What one scrape job reads now."""

Push = Callable[[Sequence[dict[str, Any]]], object]
"""Takes alerts in the shape of `POST /api/v2/alerts`, as `Alertmanager.receive` does."""

_log = logging.getLogger(__name__)


class Prometheus:
    """One simulated server. `down` and `slow` are the faults that a scenario can switch."""

    def __init__(
        self,
        tsdb: Tsdb,
        rules: Iterable[Rule | Recording] = (),
        *,
        sources: Mapping[str, Source] | None = None,
        push: Push | None = None,
        external_labels: Mapping[str, str] | None = None,
    ) -> None:
        self.tsdb = tsdb
        self.rules: list[AlertingState | Recording] = [
            AlertingState(rule) if isinstance(rule, Rule) else rule for rule in rules
        ]
        self.sources = dict(sources or {})
        """By job name; each also gives an `up` series."""
        self.push = push
        self.external_labels = dict(external_labels or {})
        """Added to every alert that is pushed (`cluster`, say), not to queries."""
        self.external_url = "http://127.0.0.1:9090"
        self.resend_seconds = 60.0
        """A firing alert is pushed again after this; it is valid for four times as long."""
        self.interval = 1.0
        self.down = False
        """True: answers 503, scrapes nothing, evaluates nothing."""
        self.slow = 0.0
        """Seconds that every answer waits."""

    def app(self) -> Starlette:
        """The HTTP face, an ASGI application."""
        return prometheus_app(self)

    async def run(self, interval: float = 1.0) -> None:
        """Tick each `interval` seconds until cancelled."""
        self.interval = interval
        due = time.monotonic()
        while True:
            if not self.down:
                await self.tick(time.time())
            due = max(due + interval, time.monotonic())
            await asyncio.sleep(due - time.monotonic())

    async def tick(self, at: float) -> None:
        """Scrape, evaluate and push once, yielding to the event loop between rules."""
        self._scrape(at)
        for i, rule in enumerate(self.rules):
            await asyncio.sleep(0)
            if isinstance(rule, AlertingState):
                started = time.perf_counter()
                rule.evaluate(self.tsdb, at)
                rule.took_seconds = time.perf_counter() - started
                self.tsdb.ingest(f"rule {i}", rule.readings(), at)
            else:
                self._record(f"rule {i}", rule, at)
        self._push(at)

    def alerts(self) -> list[AlertingState]:
        """The alerting rules with their state."""
        return [rule for rule in self.rules if isinstance(rule, AlertingState)]

    def _scrape(self, at: float) -> None:
        for job, source in self.sources.items():
            try:
                readings = list(source())
            except Exception:
                # As for a real target: whatever is wrong with it, the scrape has failed.
                _log.exception("scrape of %s failed", job)
                readings = []
            self.tsdb.ingest(f"job {job}", readings, at)
            self.tsdb.append("up", {"job": job, "instance": job}, at, float(bool(readings)))

    def _record(self, source: str, rule: Recording, at: float) -> None:
        try:
            readings = recorded(rule, self.tsdb, at)
        except QueryError:
            _log.exception("recording rule %s failed", rule.record)
            readings = []
        self.tsdb.ingest(source, readings, at)

    def _push(self, at: float) -> None:
        if self.push is None:
            return
        resend = self.resend_seconds
        alerts: list[dict[str, Any]] = []
        for rule in self.alerts():
            link = f"{self.external_url}/graph?g0.expr={quote(rule.rule.expr.strip())}&g0.tab=1"
            for alert in rule.active.values():
                if not alert.needs_sending(at, resend):
                    continue
                alert.sent_at = at
                firing = alert.state is AlertState.FIRING
                ends = at + 4 * max(self.interval, resend) if firing else alert.resolved_at
                alerts.append(
                    {
                        "labels": {**self.external_labels, **alert.labels},
                        "annotations": alert.annotations,
                        "startsAt": rfc3339(alert.fired_at),
                        "endsAt": rfc3339(ends),
                        "generatorURL": link,
                    }
                )
        if alerts:
            self.push(alerts)
