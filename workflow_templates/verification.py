"""Whether it helped: the workload is healthy by its own status, the alert's expression is false on
samples taken after the change, and both stay so.

Invariant: VERIFIED needs an unbroken hold of good looks; a look that could not be made is not good.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from tiphys.policies.model import Check
from tiphys.workflow_templates import mark
from tiphys.workflow_templates.action import Report, Result, Run
from tiphys.workflow_templates.cluster import ClusterError
from tiphys.workflow_templates.freshness import blind_spot
from tiphys.workflow_templates.metrics import Sample, UnansweredError
from tiphys.workflow_templates.workloads import Health

POLL_SECONDS = 1.0
LONGEST_WATCH = 1800
"""Seconds of settle and hold time that a template's deadline allows for."""


@dataclass(frozen=True)
class _Alert:
    """One look at the alert's expression."""

    over: bool
    known: bool
    sentence: str


def watch(run: Run, look: Callable[[], Health], patience: int) -> Report:
    """Look until it holds or time is up.

    `patience`: the action's verify deadline in seconds, of which `run.verify_share` may be used
    beside the plan's settle and hold times.
    """
    check = run.plan.check
    if mark.found(run, run.digest, mark.Trace.KEPT):
        return Report(Result.VERIFIED, "this run was verified before", {})
    began = run.now()
    settled = began + timedelta(seconds=check.settle_seconds if run.metrics and check.query else 0)
    hold = timedelta(seconds=check.hold_seconds)
    until = settled + hold + timedelta(seconds=patience * run.verify_share)
    good_since: datetime | None = None
    while True:
        health = _look(look)
        alert = _alert(run, began.timestamp())
        now = run.now()
        observed = {"workload": health.sentence, "alert": alert.sentence, "looked_at": str(now)}
        if not health.ok or not alert.over or now < settled:
            good_since = None
        else:
            good_since = good_since or now
            if now - good_since >= hold:
                mark.keep(run)
                said = f"{health.sentence}; {alert.sentence}"
                return Report(Result.VERIFIED, said, observed)
        if health.hopeless:
            return Report(Result.NOT_VERIFIED, health.sentence, observed)
        if now >= until:
            return _too_late(health, alert, observed)
        run.sleep(POLL_SECONDS)


def _too_late(health: Health, alert: _Alert, observed: dict[str, str]) -> Report:
    if not health.ok:
        return Report(Result.NOT_VERIFIED, f"not better in time: {health.sentence}", observed)
    if not alert.known:
        return Report(Result.UNKNOWABLE, f"cannot be told: {alert.sentence}", observed)
    why = "it did not stay better for the hold time" if alert.over else alert.sentence
    return Report(Result.NOT_VERIFIED, f"not better in time: {why}", observed)


def _look(look: Callable[[], Health]) -> Health:
    try:
        return look()
    except ClusterError as error:
        return Health(False, str(error))


def _alert(run: Run, since: float) -> _Alert:
    check = run.plan.check
    if run.metrics is None or not check.query:
        return _Alert(True, True, "the alert's expression is not asked")
    try:
        samples = run.metrics.instant(check.query)
        mine = [s for s in samples if concerns(check, run.plan.target.namespace, s)]
        if mine:
            return _Alert(False, True, f"the alert still holds for {dict(mine[0].labels)}")
        blind = blind_spot(run.metrics, check.query, since)
    except UnansweredError as error:
        return _Alert(False, False, str(error))
    if blind:
        return _Alert(False, False, blind)
    return _Alert(True, True, "the alert's expression is false")


def concerns(check: Check, namespace: str, sample: Sample) -> bool:
    """Say whether a series of the answer is the incident's; every one, when the plan names none."""
    labels = sample.labels
    if not check.labels and not check.pod_prefix:
        return True
    if check.labels and all(labels.get(key) == value for key, value in check.labels.items()):
        return True
    if not check.pod_prefix or labels.get("namespace", namespace) != namespace:
        return False
    return labels.get("pod", "").startswith(check.pod_prefix)
