"""Groups of alerts, when they are due to be posted, and the body that is posted.

The body is webhook version 4: https://prometheus.io/docs/alerting/latest/configuration/#webhook_config
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from tiphys.sandbox.alertmanager_alerts import HeldAlert
from tiphys.sandbox.timestamps import NEVER, rfc3339

GROUP_BY = ("alertname", "cluster", "namespace")


class Reason(StrEnum):
    """Why a group is posted."""

    NEW_FIRING = "new firing alerts"
    NEW_RESOLVED = "new resolved alerts"
    ALL_RESOLVED = "all alerts resolved"
    REPEAT = "repeat interval elapsed"


@dataclass(frozen=True)
class Posted:
    """What the receiver was last told about a group, by fingerprint."""

    firing: frozenset[str]
    resolved: frozenset[str]
    at: float


@dataclass
class Group:
    """The alerts of one receiver that share the labels grouped by."""

    receiver: str
    key: str
    labels: Mapping[str, str]
    wait_seconds: float
    """Before the first flush."""
    members: set[str] = field(default_factory=set[str])
    """Fingerprints."""
    posted: Posted | None = None


def group_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """The labels of the group that an alert belongs to."""
    return {name: labels[name] for name in GROUP_BY if name in labels}


def group_key(route: str, labels: Mapping[str, str]) -> str:
    """As Alertmanager writes it: the route's matchers, a colon, the group's labels."""
    written = ", ".join(f'{name}="{value}"' for name, value in sorted(labels.items()))
    return f"{route}:{{{written}}}"


def needs_update(
    last: Posted | None,
    firing: frozenset[str],
    resolved: frozenset[str],
    now: float,
    repeat_seconds: float,
) -> Reason | None:
    """Alertmanager's DedupStage.needsUpdate: why to post this group now, or None."""
    if last is None:
        return Reason.NEW_FIRING if firing else None
    if not firing <= last.firing:
        return Reason.NEW_FIRING
    if not firing:
        # What fired and ended since the last post was never told, and need not be.
        return Reason.ALL_RESOLVED if last.firing else None
    if not resolved <= last.resolved:
        return Reason.NEW_RESOLVED
    return Reason.REPEAT if now - last.at >= repeat_seconds else None


def webhook_body(
    group: Group, alerts: Sequence[HeldAlert], now: float, external_url: str, most: int
) -> dict[str, Any]:
    """The version 4 body; at most `most` alerts (0: all), the rest counted as truncated."""
    kept = alerts[:most] if most else alerts
    firing = any(not alert.resolved(now) for alert in alerts)
    return {
        "receiver": group.receiver,
        "status": "firing" if firing else "resolved",
        "alerts": [_shown(alert, now) for alert in kept],
        "groupLabels": dict(group.labels),
        "commonLabels": _common(alert.labels for alert in kept),
        "commonAnnotations": _common(alert.annotations for alert in kept),
        "externalURL": external_url,
        "version": "4",
        "groupKey": group.key,
        "truncatedAlerts": len(alerts) - len(kept),
    }


def _shown(alert: HeldAlert, now: float) -> dict[str, Any]:
    resolved = alert.resolved(now)
    return {
        "status": "resolved" if resolved else "firing",
        "labels": dict(sorted(alert.labels.items())),
        "annotations": dict(sorted(alert.annotations.items())),
        "startsAt": rfc3339(alert.starts_at),
        "endsAt": rfc3339(alert.ends_at) if resolved else NEVER,
        "generatorURL": alert.generator_url,
        "fingerprint": alert.fingerprint,
    }


def _common(sets: Iterable[Mapping[str, str]]) -> dict[str, str]:
    first, *others = sets
    return {
        name: value
        for name, value in sorted(first.items())
        if all(other.get(name) == value for other in others)
    }
