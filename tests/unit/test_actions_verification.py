"""Verify says better only when it is, stays so, and Prometheus could have said otherwise."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from tiphys.policies.model import Check, DecidedBy, Plan, Target
from tiphys.workflow_templates import verification
from tiphys.workflow_templates.action import Report, Result, Run
from tiphys.workflow_templates.cluster import Cluster, Conflict, Gone
from tiphys.workflow_templates.freshness import metric_names
from tiphys.workflow_templates.metrics import Metrics, Sample, UnansweredError
from tiphys.workflow_templates.workloads import Health, healthy, rolling_out

QUERY = 'kube_waiting{namespace="shop"} > 0'
START = datetime(2026, 1, 1, tzinfo=UTC)
LABELS = {"namespace": "shop", "deployment": "cart"}
Samples = Sequence[Sample]


class Silent(Cluster):
    """An API server that has no Event and takes each."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def get(self, api_version: str, kind: str, namespace: str, name: str) -> Any:
        del api_version, kind, namespace
        if name in self.events:
            return {}
        raise Gone("404")

    def create_event(self, event: Any) -> None:
        self.events.append(event["metadata"]["name"])


class Told(Metrics):
    """A Prometheus whose answers are functions of the seconds since verify began."""

    def __init__(self, clock: "Clock", alert: Callable[[float], Samples]) -> None:
        self._clock = clock
        self.alert = alert
        self.newest: Callable[[float], float | None] = lambda t: t
        self.up: Callable[[float], float | None] = lambda t: t
        self.lost: Samples = ()

    def instant(self, query: str) -> Samples:
        seconds = self._clock.seconds
        if query == QUERY:
            return self.alert(seconds)
        if query.startswith("count by (job)"):
            return self.lost
        at = self.up(seconds) if query == "max(timestamp(up))" else self.newest(seconds)
        return [] if at is None else [Sample({}, START.timestamp() + at)]


class Clock:
    """Time that passes by sleeping."""

    seconds = 0.0

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


class Case:
    """One run of verify."""

    def __init__(self, alert: Callable[[float], Samples] = lambda _t: (), **check: Any) -> None:
        self.clock = Clock()
        self.metrics = Told(self.clock, alert)
        self.cluster = Silent()
        self.health: Callable[[float], bool] = lambda _t: True
        wanted = {"query": QUERY, "labels": LABELS, "settle_seconds": 20, "hold_seconds": 30}
        target = Target(
            cluster="c", api_version="v1", kind="Pod", namespace="shop", name="cart-1", uid="u"
        )
        self.plan = Plan(
            incident="i",
            attempt=1,
            action="restart-pod",
            version=1,
            target=target,
            parameters={},
            changes=(),
            check=Check.model_validate({**wanted, **check}),
            policy="p",
            evidence_hash="e",
            decided_by=DecidedBy(reasoner="human"),
        )

    def verify(self, metrics: Metrics | str | None = "told", patience: int = 100) -> Report:
        run = Run(
            plan=self.plan,
            digest="d",
            not_after=START,
            cluster=cast(Cluster, self.cluster),
            metrics=self.metrics if metrics == "told" else cast("Metrics | None", metrics),
            now=self.clock.now,
            sleep=self.clock.sleep,
        )
        look = lambda: Health(self.health(self.clock.seconds), "1 of 1 ready")  # noqa: E731
        return verification.watch(run, look, patience)


def firing(**labels: str) -> Samples:
    return [Sample({**LABELS, **labels}, 1.0)]


def unanswered(_: float) -> Samples:
    raise UnansweredError("Prometheus: ReadTimeoutError")


def test_better_is_verified_after_settling_and_holding() -> None:
    case = Case()
    assert case.verify().result is Result.VERIFIED
    assert case.clock.seconds == 50


def test_without_prometheus_the_workload_alone_must_hold() -> None:
    case = Case(unanswered)
    assert case.verify(None).result is Result.VERIFIED
    assert case.clock.seconds == 30


def test_old_samples_do_not_count_while_they_can_speak() -> None:
    case = Case(lambda t: () if t < 15 else firing())
    assert case.verify().result is Result.NOT_VERIFIED


def test_one_bad_look_starts_the_hold_anew() -> None:
    case = Case()
    case.health = lambda t: t != 45
    assert case.verify().result is Result.VERIFIED
    assert case.clock.seconds == 76


@pytest.mark.parametrize("start", [0, 49])
def test_an_alert_that_goes_on_or_comes_back_is_not_verified(start: int) -> None:
    case = Case(lambda t: firing() if t >= start else ())
    report = case.verify()
    assert report.result is Result.NOT_VERIFIED
    assert case.clock.seconds == 150


def test_an_unhealthy_workload_is_not_verified_whatever_the_alert_says() -> None:
    case = Case(unanswered)
    case.health = lambda _t: False
    assert case.verify().result is Result.NOT_VERIFIED


def test_no_answer_is_unknowable_and_never_verified() -> None:
    assert Case(unanswered).verify().result is Result.UNKNOWABLE
    late = Case(lambda t: () if t < 40 else unanswered(t))
    assert late.verify().result is Result.UNKNOWABLE


def test_a_short_silence_of_prometheus_is_waited_out() -> None:
    case = Case(lambda t: unanswered(t) if 25 < t < 60 else ())
    assert case.verify().result is Result.VERIFIED


def test_no_series_from_a_blind_prometheus_is_unknowable() -> None:
    stale = Case()
    stale.metrics.newest = lambda _t: -5
    assert stale.verify().result is Result.UNKNOWABLE
    empty = Case()
    empty.metrics.newest = empty.metrics.up = lambda _t: None
    assert empty.verify().result is Result.UNKNOWABLE
    stopped = Case()
    stopped.metrics.newest = lambda _t: None
    stopped.metrics.up = lambda _t: -1
    assert stopped.verify().result is Result.UNKNOWABLE
    dead = Case()
    dead.metrics.newest = lambda _t: None
    dead.metrics.lost = [Sample({"job": "kube-state-metrics"}, 9)]
    report = dead.verify()
    assert report.result is Result.UNKNOWABLE
    assert "kube-state-metrics" in report.message


def test_a_metric_that_exists_only_in_trouble_may_be_gone() -> None:
    case = Case()
    case.metrics.newest = lambda _t: None
    assert case.verify().result is Result.VERIFIED


def test_a_verified_run_stays_verified_when_it_is_asked_again() -> None:
    case = Case()
    assert case.verify().result is Result.VERIFIED
    case.health = lambda _t: False
    assert case.verify().result is Result.VERIFIED


def test_an_event_that_cannot_be_left_does_not_matter() -> None:
    case = Case()

    def refuse(event: Any) -> None:
        raise Conflict("409")

    case.cluster.create_event = refuse  # type: ignore[method-assign]
    assert case.verify().result is Result.VERIFIED


@pytest.mark.parametrize(
    ("check", "labels", "mine"),
    [
        ({"labels": {"pod": "a"}}, {"pod": "a", "x": "y"}, True),
        ({"labels": {"pod": "a"}}, {"pod": "b"}, False),
        ({"labels": {"pod": "a-1"}, "pod_prefix": "a-"}, {"pod": "a-2"}, True),
        ({"labels": {"pod": "a-1"}, "pod_prefix": "a-"}, {"pod": "b-2"}, False),
        ({"pod_prefix": "a-"}, {"pod": "a-2", "namespace": "shop"}, True),
        ({"pod_prefix": "a-"}, {"pod": "a-2", "namespace": "other"}, False),
        ({"pod_prefix": "a-"}, {"node": "n"}, False),
        ({}, {"anything": "x"}, True),
    ],
)
def test_which_series_are_the_incidents(check: Any, labels: dict[str, str], mine: bool) -> None:
    found = verification.concerns(Check.model_validate(check), "shop", Sample(labels, 1))
    assert found is mine


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("up == 0", ["up"]),
        ('max_over_time(a_b{x="c{d}"}[5m:1m]) >= 1', ["a_b"]),
        ("sum by (ns, pod) (rate(a:b:rate5m[5m] offset 1h)) / on(ns) group_left(x) b", None),
        ("(a > 0 and b != bool 1) unless on (x) c", ["a", "b", "c"]),
        ("histogram_quantile(0.9, sum(rate(d_bucket[5m])) by (le)) > 1e3", ["d_bucket"]),
        ('{__name__="only", x=~"y.*"} > inf', ["only"]),
        ('absent(up{job="x"}) # and more\n', ["up"]),
        ("time() - t > 5", ["t"]),
        ("vector(1)", []),
    ],
)
def test_the_metrics_of_an_expression(query: str, names: list[str] | None) -> None:
    assert metric_names(query) == (["a:b:rate5m", "b"] if names is None else names)


def workload(kind: str, **status: Any) -> dict[str, Any]:
    full = {"observedGeneration": 3, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2}
    return {
        "kind": kind,
        "metadata": {"name": "w", "generation": 3},
        "spec": {"replicas": 2},
        "status": {**full, "availableReplicas": 2, **status},
    }


def daemons(*, ready: int, updated: int) -> dict[str, Any]:
    counts = {"numberReady": ready, "updatedNumberScheduled": updated}
    return workload("DaemonSet", desiredNumberScheduled=2, **counts)


@pytest.mark.parametrize(
    ("obj", "ok"),
    [
        (workload("Deployment"), True),
        (workload("Deployment", observedGeneration=2), False),
        (workload("Deployment", readyReplicas=1), False),
        (workload("Deployment", availableReplicas=1), False),
        (workload("Deployment", updatedReplicas=1), False),
        (workload("Deployment", replicas=3), False),
        (workload("ReplicaSet"), True),
        (workload("ReplicaSet", readyReplicas=None), False),
        (workload("ReplicaSet", observedGeneration=2), False),
        (workload("StatefulSet"), True),
        (workload("StatefulSet", currentRevision="a", updateRevision="b"), False),
        (daemons(ready=2, updated=2), True),
        (daemons(ready=1, updated=2), False),
        (daemons(ready=2, updated=1), False),
        (workload("Job", active=1, ready=1), True),
        (workload("Job", active=1), False),
        (workload("Job", observedGeneration=None, active=1, ready=1), True),
        (
            workload("Job", conditions=[{"type": "Failed", "status": "False"}], active=1, ready=1),
            True,
        ),
        (workload("Job", conditions=[{"type": "Complete", "status": "False"}], active=1), False),
        (workload("Job", conditions=[{"type": "Complete", "status": "True"}]), True),
        (workload("Job", conditions=[{"type": "Failed", "status": "True"}], ready=1), False),
    ],
)
def test_a_workload_is_healthy_by_its_own_status(obj: dict[str, Any], ok: bool) -> None:
    assert healthy(obj).ok is ok


def test_a_job_that_has_failed_is_not_waited_for() -> None:
    failed = [{"type": "Failed", "status": "True"}]
    seen = healthy(workload("Job", active=1, ready=1, conditions=failed))
    assert (seen.ok, seen.hopeless) == (False, True)


def test_a_deployment_whose_pods_are_only_unready_is_not_rolling_out() -> None:
    assert rolling_out(workload("Deployment", readyReplicas=0, availableReplicas=0)) is None
    assert rolling_out(workload("Deployment", updatedReplicas=1))
    assert rolling_out(workload("Deployment", replicas=3))
