"""One cause, one incident: the real agents on a small cluster, the service's stages on a database.

A node dies and takes forty alerts with it; a storm of forty unrelated ones does not.
"""
# ruff: noqa: ARG002 - the ports' signatures

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from tiphys.agents.graph import Agents
from tiphys.agents.playbooks import Playbooks
from tiphys.agents.ports import UnansweredError
from tiphys.policies.correlation import alert_id, fingerprint
from tiphys.policies.lifecycle import State
from tiphys.policies.model import Alert, AlertFacts, AlertStatus, Incident, Severity
from tiphys.service import following
from tiphys.service.episodes import Arrival
from tiphys.service.intake import Intake, IntakeMetrics
from tiphys.service.investigate import Investigate
from tiphys.service.ledger import Job
from tiphys.service.settle import Settle, Waits

CLUSTER = "sandbox"
DEAD = "worker-3"
PLAYBOOKS = Playbooks.load()
WAITS = Waits(dict.fromkeys(Severity, timedelta(minutes=5)), 3, 0, timedelta(minutes=1))
KINDS = {"Deployment": ("deployment", 14), "StatefulSet": ("statefulset", 3),
         "DaemonSet": ("daemonset", 2)}  # fmt: skip


def _condition(kind: str, *, true: bool, reason: str = "") -> dict[str, Any]:
    return {"type": kind, "status": "True" if true else "False", "reason": reason}


def _owner(kind: str, name: str) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "name": name,
        "uid": f"uid-{name}",
        "controller": True,
    }


@dataclass
class Town:
    """A cluster in memory: what runs there, and whether it answers."""

    objects: dict[tuple[str, str, str], dict[str, Any]] = field(default_factory=dict)
    silent: bool = False
    alerts: list[Alert] = field(default_factory=list)

    def put(self, kind: str, namespace: str, name: str, **rest: Any) -> dict[str, Any]:
        meta = {"name": name, "namespace": namespace, "uid": f"uid-{name}", "labels": {"app": name}}
        thing = {"metadata": meta | rest.pop("metadata", {}), **rest}
        self.objects[kind, namespace, name] = thing
        return thing

    def node(self, name: str, *, ready: bool) -> None:
        status = {"conditions": [_condition("Ready", true=ready, reason="NodeStatusUnknown")]}
        self.put("Node", "", name, spec={}, status=status)

    def workload(self, kind: str, name: str, node: str, *, born: str) -> str:
        """One workload with one pod; gives the pod's name."""
        template = {"spec": {"containers": [{"name": "app", "image": "x:1"}]}}
        selector = {"matchLabels": {"app": name}}
        spec = {"replicas": 1, "selector": selector, "template": template}
        whole = {"type": "Progressing", "reason": "NewReplicaSetAvailable"}
        status = {"replicas": 1, "updatedReplicas": 1, "desiredNumberScheduled": 1,
                  "updatedNumberScheduled": 1, "conditions": [whole]}  # fmt: skip
        self.put(kind, "shop", name, spec=spec, status=status)
        above, pod = (kind, name), f"{name}-0"
        if kind == "Deployment":
            above, pod = ("ReplicaSet", f"{name}-7cc77d965f"), f"{name}-7cc77d965f-x2x4z"
            self.put("ReplicaSet", "shop", above[1], spec={"template": template},
                     metadata={"ownerReferences": [_owner(kind, name)]})  # fmt: skip
        self.put(
            "Pod",
            "shop",
            pod,
            metadata={"labels": {"app": name}, "ownerReferences": [_owner(*above)],
                      "creationTimestamp": born},
            spec={"nodeName": node, "containers": [{"name": "app"}]},
            status={"phase": "Running", "conditions": [_condition("Ready", true=False)],
                    "containerStatuses": [{"name": "app", "restartCount": 0,
                                           "state": {"running": {}}}]},
        )  # fmt: skip
        return pod

    # --- the ports ------------------------------------------------------------------------------

    async def get(self, version: str, kind: str, namespace: str, name: str) -> Any:
        self._answer()
        return self.objects.get((kind, namespace, name))

    async def list(self, version: str, kind: str, namespace: str, label_selector: str = "",
                   field_selector: str = "") -> Sequence[Any]:  # fmt: skip
        self._answer()
        wanted = dict(part.split("=") for part in label_selector.split(",") if part)
        return [
            thing
            for (of, place, _), thing in self.objects.items()
            if of == kind
            and namespace in {"", place}
            and wanted.items() <= thing["metadata"]["labels"].items()
        ]

    async def logs(self, *_: Any, **__: Any) -> str:
        self._answer()
        return "it hangs"

    async def facts(self, alerts: Sequence[Alert]) -> AlertFacts:
        """Alertmanager's word: what was raised fires."""
        names = tuple(a.name for a in alerts)
        now = alerts[0].received_at
        return AlertFacts(firing=True, silenced=False, inhibited=False, names=names, read_at=now)

    def _answer(self) -> None:
        if self.silent:
            raise UnansweredError("Kubernetes does not answer")


@dataclass
class Storm:
    """The town, its agents, and the service's stages on them."""

    bench: Any
    town: Town

    def raised(self, name: str, severity: str = "warning", **labels: str) -> Alert:
        now = self.bench.clock()
        given = {"alertname": name, "severity": severity, "job": "kube-state-metrics", **labels}
        mark = fingerprint(given)
        return Alert(
            id=alert_id(CLUSTER, mark, now, AlertStatus.FIRING),
            cluster=CLUSTER,
            fingerprint=mark,
            status=AlertStatus.FIRING,
            starts_at=now,
            labels=given,
            received_at=now,
        )

    async def arrive(self, alerts: Sequence[Alert]) -> None:
        intake = Intake(None, self.bench.ledger, IntakeMetrics(CollectorRegistry()))  # type: ignore[arg-type]
        async with self.bench.database.transaction() as tx:
            await intake.admit(tx, [Arrival(alert) for alert in alerts])

    async def end(self, alerts: Sequence[Alert]) -> None:
        over = [a.model_copy(update={"status": AlertStatus.RESOLVED}) for a in alerts]
        await self.arrive(over)

    async def run(self, rounds: int = 8) -> None:
        """Work on what is due until nothing is, without letting time pass."""
        bench = self.bench
        agents = Agents(
            None, self.town, self.town, PLAYBOOKS, PLAYBOOKS, None, bench.clock  # type: ignore[arg-type]
        )  # fmt: skip
        investigate = Investigate(
            bench.ledger, bench.cases, agents, seconds=600, watch=timedelta(hours=1)
        )
        settle = Settle(bench.ledger, bench.cases, agents, bench.bell, WAITS)
        stages: dict[str, Any] = {State.OPEN: investigate, State.MONITORING: settle,
                                  State.ESCALATED: settle}  # fmt: skip
        for _ in range(rounds):
            now = bench.clock()
            due = await bench.leases.claim_due(
                [*stages], now, 500, again=now + timedelta(seconds=1)
            )
            for incident, lease in due:
                await stages[incident.state].run(Job(incident, lease))
                await bench.leases.release(lease, bench.clock())
            if not due:
                return

    async def incidents(self) -> list[Incident]:
        async with self.bench.database.reading() as tx:
            found = await self.bench.incidents.find(tx, limit=500)
        return [one for one in found if one.state != State.CLOSED]

    @property
    def paged(self) -> set[str]:
        return {incident for incident, _ in self.bench.bell.rung}


@pytest.fixture
def storm(bench: Any) -> Storm:
    town = Town()
    town.put("Namespace", "", "shop")
    for name in ("worker-1", "worker-2", DEAD):
        town.node(name, ready=True)
    return Storm(bench, town)


def _born(storm: Storm) -> str:
    at: datetime = storm.bench.clock() - timedelta(hours=9)
    return at.isoformat().replace("+00:00", "Z")


def _node_dies(storm: Storm) -> list[Alert]:
    """The node, and everything that ran there: forty alerts."""
    town, found = storm.town, list[Alert]()
    town.node(DEAD, ready=False)
    mismatch = {"Deployment": "KubeDeploymentReplicasMismatch",
                "StatefulSet": "KubeStatefulSetReplicasMismatch",
                "DaemonSet": "KubeDaemonSetRolloutStuck"}  # fmt: skip
    for kind, (label, count) in KINDS.items():
        for number in range(count):
            name = f"{label}-{number + 1}x"
            pod = town.workload(kind, name, DEAD, born=_born(storm))
            found.append(storm.raised("KubePodNotReady", namespace="shop", pod=pod))
            found.append(storm.raised(mismatch[kind], namespace="shop", **{label: name}))
    found.append(storm.raised("KubeletPlegDurationHigh", node=DEAD, instance="10.0.0.3:10250"))
    return [*found, storm.raised("KubeNodeNotReady", node=DEAD, condition="Ready", status="true")]


async def test_a_node_that_takes_forty_alerts_with_it_is_one_page(storm: Storm) -> None:
    alerts = _node_dies(storm)
    assert len(alerts) == 40
    await storm.arrive(alerts)
    await storm.run()
    found = await storm.incidents()
    [node] = [one for one in found if one.subject == f"node {DEAD}"]
    rest = [one for one in found if one.id != node.id]
    assert storm.paged == {node.id}
    assert len(rest) >= 19
    assert {one.state for one in rest} == {State.MONITORING}
    assert {one.cause for one in rest} == {f"node {DEAD}"}
    said = f"follows {node.id} (node {DEAD} is not ready (NodeStatusUnknown))"
    assert {one.reason for one in rest} == {said}
    [*_, (_, page)] = storm.bench.bell.rung
    assert f"{len(rest)} incidents follow from it: " in page
    async with storm.bench.database.reading() as tx:
        assert len(await following.followers(tx, node)) == len(rest)


async def test_when_the_node_comes_back_all_of_it_ends_and_nobody_else_was_paged(
    storm: Storm,
) -> None:
    alerts = _node_dies(storm)
    await storm.arrive(alerts)
    await storm.run()
    [node] = storm.paged
    storm.bench.clock.forward(300)
    await storm.end(alerts)
    await storm.run()
    assert await storm.incidents() == []
    assert storm.paged == {node}


async def test_forty_unrelated_alerts_are_forty_incidents(storm: Storm) -> None:
    alerts: list[Alert] = []
    for number in range(40):
        node = f"worker-{number % 3 + 1}"
        pod = storm.town.workload("Deployment", f"app-{number}x", node, born=_born(storm))
        alerts.append(storm.raised("KubePodNotReady", namespace="shop", pod=pod))
    await storm.arrive(alerts)
    await storm.run()
    found = await storm.incidents()
    assert len(found) == 40
    assert {one.cause for one in found} == {None}
    assert not [one for one in found if one.state == State.MONITORING]


async def test_what_has_a_cause_of_its_own_is_looked_at_when_the_first_one_is_closed(
    storm: Storm,
) -> None:
    alerts = _node_dies(storm)
    await storm.arrive(alerts)
    await storm.run()
    [node] = storm.paged
    own = next(a for a in alerts if a.labels.get("deployment") == "deployment-7x")
    ended = [a for a in alerts if "deployment-7x" not in str(a.labels)]
    storm.town.node(DEAD, ready=True)
    storm.bench.clock.forward(60)
    await storm.end(ended)
    await storm.run()
    [left] = await storm.incidents()
    assert left.subject == f"deployment shop/{own.labels['deployment']}"
    assert left.cause is None
    assert left.standby is None
    assert left.state != State.MONITORING, "it was decided on by itself"
    events = [r.body.get("reason", "") for r in await storm.bench.records(left)]
    assert f"{node} is closed, and this still fires" in events


async def test_a_pod_that_fails_on_a_sound_node_too_is_nobodys_follower(storm: Storm) -> None:
    _node_dies(storm)
    storm.town.workload("Deployment", "deployment-1x", DEAD, born=_born(storm))
    other = storm.town.objects["Pod", "shop", "deployment-1x-7cc77d965f-x2x4z"]
    again = {**other, "metadata": {**other["metadata"], "name": "second", "uid": "uid-second"},
             "spec": {**other["spec"], "nodeName": "worker-1"}}  # fmt: skip
    storm.town.objects["Pod", "shop", "second"] = again
    await storm.arrive(
        [
            storm.raised(
                "KubeDeploymentReplicasMismatch", namespace="shop", deployment="deployment-1x"
            )
        ]
    )
    await storm.run()
    [found] = await storm.incidents()
    assert (found.state, found.cause) == (State.ESCALATED, None)


async def test_without_an_alert_of_the_node_one_incident_tells_of_it_in_time(storm: Storm) -> None:
    alerts = [a for a in _node_dies(storm) if "node" not in a.labels]
    await storm.arrive(alerts)
    await storm.run()
    waiting = await storm.incidents()
    assert not storm.paged
    assert {one.state for one in waiting} == {State.MONITORING}
    for _ in range(11):
        storm.bench.clock.forward(61)
        await storm.run()
    [first] = storm.paged
    found = {one.id: one for one in await storm.incidents()}
    assert "No alert speaks of the cause itself" in found[first].reason
    assert {one.standby.follows for one in found.values() if one.standby} == {first}
    assert len([one for one in found.values() if one.standby]) == len(found) - 1


async def test_what_waits_follows_as_soon_as_the_node_speaks(storm: Storm) -> None:
    *alerts, node = [a for a in _node_dies(storm) if a.name != "KubeletPlegDurationHigh"]
    await storm.arrive(alerts)
    await storm.run()
    storm.bench.clock.forward(20)
    await storm.arrive([node])
    await storm.run()
    [first] = storm.paged
    found = await storm.incidents()
    assert {one.standby.follows for one in found if one.standby} == {first}
    assert len([one for one in found if one.standby]) == len(found) - 1


async def test_a_cluster_that_does_not_answer_is_one_page(storm: Storm) -> None:
    alerts = _node_dies(storm)
    storm.town.silent = True
    await storm.arrive(alerts)
    await storm.run()
    [first] = storm.paged
    found = await storm.incidents()
    assert {one.standby.follows for one in found if one.standby} == {first}
    storm.town.silent = False
    storm.bench.clock.forward(301)
    await storm.run()
    looked = [one for one in await storm.incidents() if one.id != first]
    assert not [one for one in looked if one.cause == "source kubernetes"], "it answers again"


async def test_a_critical_follower_makes_the_page_critical(storm: Storm) -> None:
    alerts = _node_dies(storm)
    more = storm.raised(
        "KubeDeploymentReplicasMismatch",
        "critical",
        namespace="shop",
        deployment="deployment-2x",
        tier="1",
    )
    await storm.arrive([*alerts, more])
    await storm.run()
    [first] = storm.paged
    async with storm.bench.database.reading() as tx:
        node = await storm.bench.incidents.get(tx, first)
        told = following.with_followers(node, await following.followers(tx, node))
    assert node.severity is Severity.WARNING
    assert told.severity is Severity.CRITICAL
    assert " and " in told.reason.rpartition(", ")[2] or "more" in told.reason


async def test_a_follower_is_looked_at_again_less_and_less_often(storm: Storm) -> None:
    await storm.arrive(_node_dies(storm))
    await storm.run()
    waits: list[timedelta] = []
    for _ in range(6):
        one = next(i for i in await storm.incidents() if i.standby)
        assert one.standby is not None
        waits.append(one.standby.again_at - one.standby.since)
        storm.bench.clock.forward(waits[-1].total_seconds() + 1)
        await storm.run()
    minutes = [round(wait.total_seconds() / 60) for wait in waits]
    assert minutes == [5, 10, 20, 40, 60, 60]


async def test_one_alert_that_flaps_does_not_make_the_others_flap(storm: Storm) -> None:
    steady = storm.raised("KubeDeploymentReplicasMismatch", namespace="shop", deployment="it")
    swings = storm.raised("KubeDeploymentRolloutStuck", namespace="shop", deployment="it")
    await storm.arrive([swings])
    for _ in range(3):
        await storm.end([swings])
        await storm.arrive([swings])
    [incident] = await storm.incidents()
    alone = await storm.bench.cases.case(incident, storm.bench.clock())
    assert alone.episodes_last_hour == 4
    await storm.arrive([steady])
    both = await storm.bench.cases.case(incident, storm.bench.clock())
    assert both.episodes_last_hour == 1


async def test_none_follows_what_follows_it(storm: Storm) -> None:
    await storm.arrive([storm.raised("A", node="a"), storm.raised("B", node="b")])
    first, second = sorted(await storm.incidents(), key=lambda one: one.subject)
    told = first.model_copy(update={"cause": second.subject})
    async with storm.bench.database.transaction() as tx:
        await storm.bench.incidents.paged(tx, told, storm.bench.clock())
        assert await following.ahead_of(tx, second, [first.subject]) is None
        ahead = await following.ahead_of(tx, told, [second.subject])
    assert ahead is not None
    assert ahead.id == second.id
