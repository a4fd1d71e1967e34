"""What ends an investigation before anybody reasons: known, monitoring, healing, maintenance."""
# ruff: noqa: ARG002 - the ports' signatures

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tiphys.agents.graph import Agents
from tiphys.agents.known_issue import ANNOTATION
from tiphys.agents.monitoring import is_about_monitoring
from tiphys.agents.playbooks import Playbooks
from tiphys.agents.ports import AlertRule, Case, Sample
from tiphys.agents.second_look import HEALING_SECONDS, MAINTENANCE_SECONDS, healing
from tiphys.policies.correlation import subject
from tiphys.policies.model import Alert, AlertFacts, Escalate, NoAction

NOW = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
PLAYBOOKS = Playbooks.load()
DOWN = 'up{job=~"kubelet"} == 0'
NOT_READY = 'sum by (namespace, pod) (kube_pod_status_ready{condition="false"}) > 0'


def ago(minutes: float) -> str:
    return (NOW - timedelta(minutes=minutes)).isoformat().replace("+00:00", "Z")


def alert(name: str = "KubePodNotReady", known: str = "", **labels: str) -> Alert:
    return Alert.model_validate(
        {
            "id": name,
            "cluster": "c",
            "fingerprint": name,
            "status": "firing",
            "starts_at": NOW - timedelta(minutes=20),
            "labels": {"alertname": name, "severity": "warning", **labels},
            "annotations": {ANNOTATION: known} if known else {},
            "received_at": NOW,
        }
    )


@dataclass
class World:
    """Objects and series in memory, behind all three ports."""

    objects: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    rule: str = ""
    answers: dict[str, Sequence[Mapping[str, str]]] = field(default_factory=dict)
    """By the beginning of a query: the label sets for which it is true."""

    async def get(self, version: str, kind: str, namespace: str, name: str) -> Any:
        found = (o for o in self.objects if o["kind"] == kind and o["metadata"]["name"] == name)
        return next(found, None)

    async def list(self, version: str, kind: str, *_: str, **__: str) -> Sequence[Any]:
        return [o for o in self.objects if o["kind"] == kind]

    async def logs(self, *_: Any, **__: Any) -> str:
        return ""

    async def instant(self, query: str, at: datetime | None = None) -> Sequence[Sample]:
        known = next((v for k, v in self.answers.items() if query.startswith(k)), ())
        return [Sample(labels, 0.0, 1.0) for labels in known]

    async def range(self, *_: Any) -> Sequence[Any]:
        return []

    async def rules(self) -> Sequence[AlertRule]:
        return [AlertRule("KubePodNotReady", self.rule, 900, {}, 15)] if self.rule else []

    async def facts(self, alerts: Sequence[Alert]) -> AlertFacts:
        names = tuple(a.name for a in alerts)
        return AlertFacts(firing=True, silenced=False, inhibited=False, names=names, read_at=NOW)

    async def asked(self, *alerts: Alert, **more: Any) -> Any:
        about = subject(alerts[0].labels)
        case = replace(Case("inc", 1, "c", True, about, alerts, now=NOW), **more)
        metrics: Any = self if self.rule else None
        agents = Agents(metrics, self, self, PLAYBOOKS, PLAYBOOKS, None, lambda: NOW)
        return (await agents.investigate(case)).decision


def node(name: str = "n1", *, ready: bool, minutes: float = 600, **spec: Any) -> dict[str, Any]:
    status = "True" if ready else "Unknown"
    told = {"type": "Ready", "status": status, "lastTransitionTime": ago(minutes)}
    addresses = [{"type": "InternalIP", "address": "10.0.0.7" if name == "n1" else "10.0.0.8"}]
    status = {"conditions": [told], "addresses": addresses}
    return {"kind": "Node", "metadata": {"name": name}, "spec": spec, "status": status}


def pod(name: str, *, of: str = "", on: str = "n1") -> dict[str, Any]:
    above = [{"kind": of, "name": "x", "uid": "u", "controller": True}] if of else []
    return {
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "ownerReferences": above},
        "spec": {"nodeName": on},
        "status": {"phase": "Running", "conditions": []},
    }


# --- known issues ---------------------------------------------------------------------------------


async def test_a_known_issue_is_left_alone_until_its_day_is_over() -> None:
    found = await World().asked(alert(known="2026-01-05 SHOP-123 leaks until the next release"))
    assert isinstance(found, NoAction)
    assert (
        found.reason
        == "it is a known issue until 2026-01-06: SHOP-123 leaks until the next release"
    )
    assert found.again == timedelta(days=3, hours=12).total_seconds()


@pytest.mark.parametrize(
    "known",
    [
        "2026-01-01 over",
        "2026-06-01 too far",
        "SHOP-123 no date",
        "2026-01-05",
        "2026-02-30 no day",
    ],
    ids=["over", "far", "no_date", "no_reason", "no_day"],
)
async def test_what_is_not_known_until_a_day_to_come_is_looked_at(known: str) -> None:
    found = await World().asked(alert(known=known, namespace="shop", pod="gone"))
    assert isinstance(found, Escalate)


async def test_one_known_alert_does_not_hide_another() -> None:
    found = await World().asked(alert(known="2026-01-05 known"), alert("KubePodCrashLooping"))
    assert isinstance(found, Escalate)


# --- alerts about the monitoring ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Watchdog", "InfoInhibitor"])
async def test_what_always_fires_is_nothing_and_stays_nothing(name: str) -> None:
    found = await World().asked(alert(name, namespace="shop"))
    assert isinstance(found, NoAction)
    assert found.again == 86_400, "it must not be called late after an hour"
    assert subject({"alertname": name, "namespace": "shop"}) == f"{name} shop"


@pytest.mark.parametrize(
    ("name", "job", "is_so"),
    [
        ("PrometheusRuleFailures", "", True),
        ("AlertmanagerFailedReload", "", True),
        ("KubeStateMetricsListErrors", "", True),
        ("TargetDown", "kube-state-metrics", True),
        ("TargetDown", "monitoring/prometheus-k8s", True),
        ("TargetDown", "shop-prometheus-exporter", False),
        ("TargetDown", "checkout", False),
        ("KubePodNotReady", "kube-state-metrics", False),
        ("Prometheus", "", False),
    ],
    ids=["rules", "reload", "list", "ksm", "itself", "exporter", "shop", "pod", "bare"],
)
def test_which_alerts_are_about_the_monitoring(name: str, job: str, is_so: bool) -> None:
    assert is_about_monitoring(alert(name, job=job)) is is_so


async def test_nothing_acts_on_the_monitoring() -> None:
    found = await World().asked(alert("PrometheusRuleFailures", pod="prometheus-k8s-0"))
    assert isinstance(found, Escalate)
    assert "about the monitoring itself" in found.reason


@pytest.mark.parametrize("name", ["KubeStateMetricsWatchErrors", "PrometheusRuleFailures"])
async def test_what_ill_monitoring_tells_is_not_believed(name: str) -> None:
    labels = {"namespace": "shop", "pod": "cart-1"}
    told = {"alertname": name, "alertstate": "firing", "namespace": "monitoring"}
    world = World(rule=NOT_READY, answers={NOT_READY: [labels], "ALERTS{": [told]})
    found = await world.asked(alert(**labels))
    assert isinstance(found, Escalate)
    assert f"{name} fires" in found.reason
    assert found.cause is not None
    assert found.cause.subjects == (subject({"alertname": name, "namespace": "monitoring"}),)


async def test_what_nobody_tells_any_more_is_not_over() -> None:
    labels = {"namespace": "shop", "pod": "cart-1", "job": "kube-state-metrics"}
    down = {"job": "kube-state-metrics", "instance": "10.0.0.7:8080"}
    world = World(rule=NOT_READY, answers={"count(": [{}], "up{": [down]})
    found = await world.asked(alert(**labels))
    assert isinstance(found, Escalate)
    assert "targets of kube-state-metrics are down" in found.reason
    world.answers["up{"] = []
    over = await world.asked(alert(**labels))
    assert isinstance(over, NoAction)
    assert "no longer true" in over.reason


# --- healing by itself ----------------------------------------------------------------------------


def where(*groups: tuple[str, float], **more: Any) -> dict[str, Any]:
    listed = [{"node": "n1", "trouble": t, "count": 1, "minutes": m} for t, m in groups]
    return {"workload": "Deployment shop/cart", "groups": listed, "claim": "", **more}


ROLLS: dict[str, Any] = {"rollout": {"in_progress": True}, "alert": {"name": "KubePodNotReady"}}
GROWS: dict[str, Any] = {"autoscaler": {"name": "cart", "current": 2, "desired": 4}}
OFF: dict[str, Any] = {"node": {"ready": False}}


@pytest.mark.parametrize(
    ("facts", "seen", "word"),
    [
        (ROLLS, where(("starting", 3)), "rollout"),
        (ROLLS, where(("crash", 3)), ""),
        ({**ROLLS, "workload": {"paused": True}}, where(), ""),
        ({**ROLLS, "alert": {"name": "KubeDeploymentRolloutStuck"}}, where(), ""),
        (GROWS, where(("starting", 1)), "autoscaler cart is on its way to 4"),
        (GROWS, where(("unschedulable", 1)), ""),
        ({}, where(("starting", 1)), "1 pods of Deployment shop/cart are starting"),
        ({}, where(("starting", 9)), ""),
        ({}, where(("starting", 1), ("unready", 1)), ""),
        ({}, where(claim="data", resizing=True), "claim data is being made larger"),
        ({}, where(claim="data", resizing=False), ""),
        (OFF, where(node="n1", node_minutes=2.0), "may be starting anew"),
        (OFF, where(node="n1", node_minutes=9.0), ""),
        (OFF, where(node="n1", node_minutes=-1.0), ""),
    ],
    ids=[
        "rollout", "crash", "paused", "stuck", "scales", "no_room", "young", "old", "mixed",
        "resizes", "full", "reboot", "off", "unknown",
    ],
)  # fmt: skip
def test_what_heals_by_itself(facts: dict[str, Any], seen: dict[str, Any], word: str) -> None:
    said = healing(facts, seen)
    assert word in said
    assert bool(said) == bool(word)


async def test_a_node_that_starts_anew_is_waited_for_and_not_for_ever() -> None:
    world = World([node(ready=False, minutes=1)])
    down = alert("KubeNodeNotReady", node="n1", condition="Ready", status="true")
    first = await world.asked(down)
    assert isinstance(first, NoAction)
    assert first.again == 60
    late = await world.asked(down, waited=HEALING_SECONDS)
    assert isinstance(late, Escalate)


# --- maintenance ----------------------------------------------------------------------------------


async def test_a_drained_node_is_somebodys_and_is_left_alone_for_a_day() -> None:
    down = alert("KubeNodeNotReady", node="n1", condition="Ready", status="true")
    world = World([node(ready=False, unschedulable=True), pod("agent", of="DaemonSet")])
    found = await world.asked(down)
    assert isinstance(found, NoAction)
    assert "maintenance" in found.reason
    late = await world.asked(down, waited=MAINTENANCE_SECONDS)
    assert isinstance(late, Escalate)
    world.objects.append(pod("cart-1"))
    used = await world.asked(down)
    assert isinstance(used, Escalate), "something still runs there"


# --- who follows a node ---------------------------------------------------------------------------


async def test_a_target_on_an_ill_node_follows_from_the_node() -> None:
    unreachable = alert("KubeletInstanceUnreachable", job="kubelet", instance="10.0.0.7:10250")
    up = 'up{job="kubelet"} == 0'
    world = World([node(ready=False), node("n2", ready=True)], rule=up)
    target = {"job": "kubelet", "instance": "10.0.0.7:10250"}
    world.answers = {"up{": [target]}
    named = unreachable.model_copy(update={"generator_url": "http://p/graph?g0.expr=" + UP_QUOTED})
    found = await world.asked(named)
    assert isinstance(found, NoAction)
    assert found.cause is not None
    assert found.cause.subjects == ("node n1",)
    world.objects[0] = node(ready=True)
    sound = await world.asked(named)
    assert isinstance(sound, Escalate)
    assert sound.cause is None


UP_QUOTED = "up%7Bjob%3D%22kubelet%22%7D+%3D%3D+0"


async def test_the_nodes_own_incident_follows_nobody() -> None:
    down = alert("KubeNodeNotReady", node="n1", condition="Ready", status="true")
    found = await World([node(ready=False)]).asked(down)
    assert isinstance(found, Escalate)
    assert found.cause is None
