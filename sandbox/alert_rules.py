"""Alerting and recording rules, with the pending and firing state that Prometheus keeps.

https://prometheus.io/docs/prometheus/latest/configuration/alerting_rules/
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import promql_parser

from tiphys.sandbox.alert_templates import expand
from tiphys.sandbox.promql import instant_vector
from tiphys.sandbox.promql_vectors import QueryError, key_of, without_name
from tiphys.sandbox.tsdb import Labels, Reading, Tsdb

RESOLVED_KEPT_SECONDS = 900.0
"""How long a resolved alert is remembered and sent again, as in Prometheus."""

_STRING_OR_WINDOW = re.compile(
    r"""(?:"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|\[((?:\d+(?:ms|[smhdwy]))+)(:[^\]]*)?\]"""
)


@dataclass(frozen=True)
class Rule:
    """An alerting rule: firing when `expr` has held for `for_seconds`."""

    alert: str
    expr: str
    for_seconds: float = 0.0
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    annotations: Mapping[str, str] = field(default_factory=dict[str, str])

    def hurried(self, for_seconds: float, window_seconds: float) -> "Rule":
        """The same rule for an impatient world: `for` and every range cut down to these."""

        def cut(found: re.Match[str]) -> str:
            if found[1] is None or _seconds(found[1]) <= window_seconds:
                return found[0]
            return f"[{window_seconds:g}s{found[2] or ''}]"

        expr = _STRING_OR_WINDOW.sub(cut, self.expr)
        return replace(self, expr=expr, for_seconds=min(self.for_seconds, for_seconds))


@dataclass(frozen=True)
class Recording:
    """A recording rule: the result of `expr` becomes the series `record`."""

    record: str
    expr: str
    labels: Mapping[str, str] = field(default_factory=dict[str, str])


def load_rules(document: Mapping[str, Any]) -> list[Rule | Recording]:
    """Read a rule file or a PrometheusRule object; raises ValueError, naming the rule."""
    groups: Iterable[Mapping[str, Any]] = document.get("spec", document).get("groups", [])
    return [_load(entry) for group in groups for entry in group["rules"]]


def _load(entry: Mapping[str, Any]) -> Rule | Recording:
    name = entry.get("alert") or entry.get("record")
    unknown = set(entry) - {"alert", "record", "expr", "for", "labels", "annotations"}
    if not name or "expr" not in entry or unknown:
        raise ValueError(f"rule {name!r}: needs alert or record, and expr; unknown: {unknown}")
    labels = {key: str(value) for key, value in (entry.get("labels") or {}).items()}
    if "record" in entry:
        return Recording(entry["record"], str(entry["expr"]), labels)
    annotations = {key: str(value) for key, value in (entry.get("annotations") or {}).items()}
    held = _seconds(str(entry.get("for", "0s")))
    return Rule(entry["alert"], str(entry["expr"]), held, labels, annotations)


def _seconds(duration: str) -> float:
    if duration.strip("0") in {"s", "m", "h", ""}:  # The parser refuses a zero.
        return 0.0
    return promql_parser.parse_duration(duration).total_seconds()


class AlertState(StrEnum):
    """As the rules API names it."""

    INACTIVE = "inactive"
    PENDING = "pending"
    FIRING = "firing"


@dataclass(slots=True)
class ActiveAlert:
    """One alert of a rule; times are unix seconds, 0 for not yet."""

    labels: dict[str, str]
    annotations: dict[str, str]
    value: float
    active_at: float
    state: AlertState = AlertState.PENDING
    fired_at: float = 0.0
    resolved_at: float = 0.0
    sent_at: float = 0.0

    def needs_sending(self, at: float, resend_seconds: float) -> bool:
        """Say whether Alertmanager must hear of it again."""
        if self.state is AlertState.PENDING:
            return False
        if self.resolved_at > self.sent_at:
            return True
        return self.sent_at + resend_seconds <= at


class AlertingState:
    """What Prometheus remembers of one alerting rule between evaluations."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.active: dict[tuple[tuple[str, str], ...], ActiveAlert] = {}
        self.evaluated_at = 0.0
        self.took_seconds = 0.0
        self.error = ""

    @property
    def state(self) -> AlertState:
        """Firing if any alert is, else pending if any is."""
        states = {alert.state for alert in self.active.values()}
        for state in (AlertState.FIRING, AlertState.PENDING):
            if state in states:
                return state
        return AlertState.INACTIVE

    def evaluate(self, tsdb: Tsdb, at: float) -> None:
        """Move the alerts on; a query that fails leaves them as they are and sets `error`."""
        try:
            found = self._found(instant_vector(tsdb, self.rule.expr, at), at)
        except QueryError as error:
            self.error, self.evaluated_at = str(error), at
            return
        self.error, self.evaluated_at = "", at
        for key, alert in found.items():
            known = self.active.get(key)
            if known is None or known.state is AlertState.INACTIVE:
                self.active[key] = alert
            else:
                known.value, known.annotations = alert.value, alert.annotations
        for key, alert in list(self.active.items()):
            if key not in found:
                self._end(key, alert, at)
            elif alert.state is AlertState.PENDING and (
                at - alert.active_at >= self.rule.for_seconds
            ):
                alert.state, alert.fired_at = AlertState.FIRING, at

    def readings(self) -> list[Reading]:
        """The ALERTS series of this rule."""
        return [
            ("ALERTS", {**alert.labels, "alertstate": alert.state.value}, 1.0)
            for alert in self.active.values()
            if alert.state is not AlertState.INACTIVE
        ]

    def _found(
        self, samples: list[tuple[Labels, float]], at: float
    ) -> dict[tuple[tuple[str, str], ...], ActiveAlert]:
        found: dict[tuple[tuple[str, str], ...], ActiveAlert] = {}
        for given, value in samples:
            labels = {
                **without_name(given),
                **{k: expand(v, given, value) for k, v in self.rule.labels.items()},
                "alertname": self.rule.alert,
            }
            annotations = {k: expand(v, given, value) for k, v in self.rule.annotations.items()}
            key = key_of(labels)
            if key in found:
                raise QueryError(
                    "vector contains metrics with the same labelset after applying alert labels"
                )
            found[key] = ActiveAlert(labels, annotations, value, active_at=at)
        return found

    def _end(self, key: tuple[tuple[str, str], ...], alert: ActiveAlert, at: float) -> None:
        if alert.state is AlertState.PENDING:
            del self.active[key]
        elif alert.state is AlertState.FIRING:
            alert.state, alert.resolved_at = AlertState.INACTIVE, at
        elif at - alert.resolved_at > RESOLVED_KEPT_SECONDS:
            del self.active[key]


def recorded(rule: Recording, tsdb: Tsdb, at: float) -> list[Reading]:
    """The samples that a recording rule gives now; raises QueryError."""
    return [
        (rule.record, {**without_name(labels), **rule.labels}, value)
        for labels, value in instant_vector(tsdb, rule.expr, at)
    ]
