"""The graph over small in-memory ports: verdicts, planning, resuming, hostile text."""
# ruff: noqa: ARG002 - the ports' signatures

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from tiphys.agents.graph import Agents
from tiphys.agents.playbooks import Playbooks
from tiphys.agents.ports import (
    AlertRule,
    Answer,
    Attempt,
    Case,
    Choice,
    Findings,
    Reasoner,
    ReasonerFailedError,
    Sample,
    Series,
    UnansweredError,
)
from tiphys.agents.read_allowance import Allowance
from tiphys.policies.model import (
    Alert,
    AlertFacts,
    DecidedBy,
    Escalate,
    NoAction,
    Object,
    Outcome,
    Proposal,
    Risk,
)

NOW = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
PLAYBOOKS = Playbooks.load()
NAMED = Playbooks([p for p in PLAYBOOKS.all.values() if not p.book.asked])
"""Without those for alerts that no other playbook is for."""
EXPRESSION = 'sum by (namespace, pod) (kube_pod_status_ready{condition="false"}) > 0'


def ago(minutes: float) -> str:
    return (NOW - timedelta(minutes=minutes)).isoformat().replace("+00:00", "Z")


def owned(kind: str, name: str, uid: str, api: str = "apps/v1") -> dict[str, Any]:
    return {"apiVersion": api, "kind": kind, "name": name, "uid": uid, "controller": True}


def pod(name: str, *, ready: bool, owner: dict[str, Any], **spec: Any) -> dict[str, Any]:
    status = "True" if ready else "False"
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "shop",
            "uid": f"uid-{name}",
            "labels": {"app": "cart"},
            "creationTimestamp": ago(600),
            "ownerReferences": [owner],
        },
        "spec": {"nodeName": "n1", "containers": [{"name": "app", "image": "x:1"}], **spec},
        "status": {
            "phase": "Running",
            "startTime": ago(600),
            "conditions": [{"type": "Ready", "status": status}],
            "containerStatuses": [
                {"name": "app", "ready": ready, "restartCount": 0, "state": {"running": {}}}
            ],
        },
    }


def shop() -> list[dict[str, Any]]:
    """A Deployment with two pods, one of which is wedged."""
    template = {"spec": {"containers": [{"name": "app", "image": "x:1"}]}}
    replicaset = owned("ReplicaSet", "cart-abc12", "uid-rs")
    return [
        {"kind": "Namespace",
         "metadata": {"name": "shop", "labels": {"tiphys.io/heal": "enabled"}}},
        {
            "kind": "Node",
            "metadata": {"name": "n1", "uid": "uid-n1"},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "cart", "namespace": "shop", "uid": "uid-d", "generation": 1},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "cart"}},
                     "template": template},
            "status": {"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2,
                       "readyReplicas": 1, "availableReplicas": 1,
                       "conditions": [{"type": "Progressing", "status": "True",
                                       "reason": "NewReplicaSetAvailable"}]},
        },
        {
            "kind": "ReplicaSet",
            "metadata": {
                "name": "cart-abc12", "namespace": "shop", "uid": "uid-rs",
                "creationTimestamp": ago(600),
                "annotations": {"deployment.kubernetes.io/revision": "1"},
                "ownerReferences": [owned("Deployment", "cart", "uid-d")],
            },
            "spec": {"replicas": 2, "template": template},
            "status": {"replicas": 2},
        },
        pod("cart-abc12-aaaaa", ready=True, owner=replicaset),
        pod("cart-abc12-bbbbb", ready=False, owner=replicaset),
    ]  # fmt: skip


@dataclass
class Cluster:
    """Objects in memory; counts what was asked."""

    objects: list[dict[str, Any]] = field(default_factory=shop)
    silent: bool = False
    log: str = "waiting for the lock"
    asked: list[str] = field(default_factory=list[str])
    hang: asyncio.Event | None = None

    def find(self, kind: str, name: str) -> dict[str, Any]:
        return next(o for o in self.objects if o["kind"] == kind and o["metadata"]["name"] == name)

    async def get(self, api_version: str, kind: str, namespace: str, name: str) -> Object | None:
        await self._ask(f"get {kind} {name}")
        return next(
            (o for o in self.objects if o["kind"] == kind and o["metadata"]["name"] == name), None
        )

    async def list(
        self,
        api_version: str,
        kind: str,
        namespace: str,
        label_selector: str = "",
        field_selector: str = "",
    ) -> Sequence[Object]:
        await self._ask(f"list {kind}")
        return [o for o in self.objects if o["kind"] == kind]

    async def logs(
        self, namespace: str, pod: str, container: str, *, previous: bool, tail_lines: int
    ) -> str:
        await self._ask(f"logs {pod}")
        return self.log

    async def _ask(self, what: str) -> None:
        self.asked.append(what)
        if self.hang is not None and what.startswith("get "):
            await self.hang.wait()
        if self.silent:
            raise UnansweredError("Kubernetes does not answer")


@dataclass
class Metrics:
    """One rule; `true` are the label sets for which its expression holds."""

    rule: str = "KubePodNotReady"
    true: Sequence[Mapping[str, str]] = ({"namespace": "shop", "pod": "cart-abc12-bbbbb"},)
    has_data: bool = True
    silent: bool = False
    looks_back: float | None = None
    asked: list[str] = field(default_factory=list[str])

    async def instant(self, query: str, at: datetime | None = None) -> Sequence[Sample]:
        self._ask(query)
        if query == EXPRESSION:
            return [Sample(labels, 0.0, 1.0) for labels in self.true]
        return [Sample({}, 0.0, 1.0)] if self.has_data and query.startswith("count(") else []

    async def range(
        self, query: str, start: datetime, end: datetime, step_seconds: float
    ) -> Sequence[Series]:
        self._ask(query)
        return []

    async def rules(self) -> Sequence[AlertRule]:
        self._ask("rules")
        labels = {"severity": "warning"}
        return [AlertRule(self.rule, EXPRESSION, 900, labels, 15, self.looks_back)]

    def _ask(self, query: str) -> None:
        self.asked.append(query)
        if self.silent:
            raise UnansweredError("Prometheus cannot be reached")


@dataclass
class Source:
    """Alertmanager's word on the alerts."""

    firing: bool = True
    silenced: bool = False
    inhibited: bool = False

    async def facts(self, alerts: Sequence[Alert]) -> AlertFacts:
        return AlertFacts(
            firing=self.firing,
            silenced=self.silenced,
            inhibited=self.inhibited,
            names=tuple(a.name for a in alerts),
            read_at=NOW,
        )


@dataclass
class Scripted:
    """A reasoner that says what it was told to say."""

    choice: Choice | None
    seen: list[Findings] = field(default_factory=list[Findings])

    async def decide(self, findings: Findings) -> Choice:
        self.seen.append(findings)
        if self.choice is None:
            raise ReasonerFailedError("out of budget")
        return self.choice


def act(action: str, target: str, **parameters: Any) -> Scripted:
    by = DecidedBy(reasoner="model", model="m")
    return Scripted(Choice(Answer.ACT, "because", [], by, action, target, parameters))


@dataclass
class Ports:
    cluster: Cluster = field(default_factory=Cluster)
    metrics: Metrics | None = field(default_factory=Metrics)
    source: Source = field(default_factory=Source)
    reasoner: Reasoner = PLAYBOOKS
    saver: InMemorySaver = field(default_factory=InMemorySaver)

    def agents(self) -> Agents:
        return Agents(
            self.metrics, self.cluster, self.source, self.reasoner, PLAYBOOKS, self.saver,
            lambda: NOW,
        )  # fmt: skip


def alert(name: str = "KubePodNotReady", **labels: str) -> Alert:
    given = {"namespace": "shop", "pod": "cart-abc12-bbbbb", "severity": "warning"} | labels
    return Alert.model_validate(
        {
            "id": "a",
            "cluster": "c",
            "fingerprint": "f",
            "status": "firing",
            "starts_at": NOW - timedelta(minutes=20),
            "labels": {"alertname": name, **{k: v for k, v in given.items() if v}},
            "received_at": NOW,
        }
    )


CASE = Case("inc", 1, "c", True, "pod shop/cart", [alert()])


async def test_one_wedged_pod_is_restarted_with_everything_an_approver_needs() -> None:
    found = await Ports().agents().investigate(CASE)
    decision = found.decision
    assert isinstance(decision, Proposal)
    assert (decision.action, str(decision.target)) == ("restart-pod", "Pod shop/cart-abc12-bbbbb")
    assert decision.target.uid == "uid-cart-abc12-bbbbb"
    assert decision.risk is Risk.LOW
    assert decision.check.query == EXPRESSION
    assert decision.check.labels == {"namespace": "shop", "pod": "cart-abc12-bbbbb"}
    assert decision.check.pod_prefix == "cart-"
    assert decision.check.settle_seconds == 30
    assert found.facts is not None
    assert [o.kind for o in found.facts.owners] == ["ReplicaSet", "Deployment"]
    assert {e.id for e in found.evidence} >= set(decision.evidence)
    assert any(note.startswith("kubectl: ") for note in found.notes)


@pytest.mark.parametrize(("looks_back", "settle"), [(None, 30), (600, 630), (86_400, 1200)])
async def test_verify_waits_for_what_the_rule_looks_back_on(
    looks_back: float | None, settle: int
) -> None:
    metrics = Metrics()
    metrics.looks_back = looks_back
    decision = (await Ports(metrics=metrics).agents().investigate(CASE)).decision
    assert isinstance(decision, Proposal)
    assert decision.check.settle_seconds == settle


@pytest.mark.parametrize(
    ("case", "told"),
    [
        (replace(CASE, managed=False), "not managed"),
        (replace(CASE, alerts=[alert("TiphysEscalation")]), "about Tiphys itself"),
    ],
)
async def test_what_is_not_ours_goes_to_a_human_without_a_question(case: Case, told: str) -> None:
    ports = Ports()
    decision = (await ports.agents().investigate(case)).decision
    assert isinstance(decision, Escalate)
    assert told in decision.reason
    assert ports.cluster.asked == []
    assert ports.metrics is not None
    assert ports.metrics.asked == []


@pytest.mark.parametrize(
    ("case", "source", "told"),
    [
        (replace(CASE, handled_by="inc-7"), Source(), "inc-7 already handles"),
        (replace(CASE, episodes_last_hour=3), Source(), "flapping"),
        (CASE, Source(silenced=True), "silenced"),
        (CASE, Source(inhibited=True), "inhibited"),
    ],
)
async def test_what_is_left_alone(case: Case, source: Source, told: str) -> None:
    ports = Ports(source=source)
    decision = (await ports.agents().investigate(case)).decision
    assert isinstance(decision, NoAction)
    assert told in decision.reason
    assert ports.cluster.asked == []


async def test_an_expression_that_is_false_is_over_only_while_its_metrics_have_data() -> None:
    over = (await Ports(metrics=Metrics(true=())).agents().investigate(CASE)).decision
    assert isinstance(over, NoAction)
    assert "no longer true" in over.reason
    unknown = (
        await Ports(metrics=Metrics(true=(), has_data=False)).agents().investigate(CASE)
    ).decision
    assert isinstance(unknown, Escalate)
    assert "no data at all" in unknown.reason


async def test_another_series_of_the_same_rule_does_not_make_the_alert_true() -> None:
    elsewhere = Metrics(true=({"namespace": "shop", "pod": "other"},))
    assert isinstance(
        (await Ports(metrics=elsewhere).agents().investigate(CASE)).decision, NoAction
    )


async def test_a_silent_source_is_named_and_never_taken_for_healthy() -> None:
    deaf = (await Ports(metrics=Metrics(silent=True)).agents().investigate(CASE)).decision
    assert isinstance(deaf, Escalate)
    assert "Prometheus cannot be reached" in deaf.reason
    found = await Ports(cluster=Cluster(silent=True)).agents().investigate(CASE)
    assert isinstance(found.decision, Escalate)
    assert "Kubernetes does not answer" in found.decision.reason
    assert any(not e.ok for e in found.evidence)


@pytest.mark.parametrize(
    ("reasoner", "told"),
    [
        (act("reboot-world", "pod"), "no action 'reboot-world'"),
        (act("restart-pod", "everything"), "no single everything could be resolved"),
        (act("scale-workload", "workload", replicas=10_000), "parameters do not fit"),
        (act("scale-workload", "pod", replicas=3), "does not work on a Pod"),
        (act("rollout-undo", "workload"), "no earlier revision"),
        (Scripted(None), "out of budget"),
    ],
)
async def test_a_choice_that_does_not_fit_becomes_an_escalation(
    reasoner: Scripted, told: str
) -> None:
    decision = (await Ports(reasoner=reasoner).agents().investigate(CASE)).decision
    assert isinstance(decision, Escalate)
    assert told in decision.reason


@pytest.mark.parametrize("reasoner", [PLAYBOOKS, act("restart-pod", "pod")],
                         ids=["playbooks", "model"])  # fmt: skip
async def test_what_would_do_harm_goes_to_a_human_whoever_chose(reasoner: Reasoner) -> None:
    ports = Ports(reasoner=reasoner)
    ports.cluster.find("Node", "n1")["spec"] = {"unschedulable": True}
    decision = (await ports.agents().investigate(CASE)).decision
    assert isinstance(decision, Escalate)
    assert "restart-pod would do harm: somebody has cordoned node n1" in decision.reason


async def test_an_investigation_that_would_read_too_much_goes_to_a_human() -> None:
    ports = Ports()
    agents = replace(ports.agents(), allowance=Allowance(calls=4))
    found = await agents.investigate(CASE)
    assert isinstance(found.decision, Escalate)
    assert "has asked Kubernetes 4 questions" in found.decision.reason
    assert len(ports.cluster.asked) == 4
    assert isinstance((await Ports().agents().investigate(CASE)).decision, Proposal)


async def test_an_alert_about_an_autoscaler_leads_to_what_it_scales() -> None:
    ports = Ports(metrics=None)
    scaler = {"name": "cart", "namespace": "shop", "uid": "uid-hpa"}
    ports.cluster.objects.append(
        {
            "kind": "HorizontalPodAutoscaler",
            "metadata": scaler,
            "spec": {"maxReplicas": 2, "scaleTargetRef": {"kind": "Deployment", "name": "cart"}},
            "status": {"currentReplicas": 2, "desiredReplicas": 2,
                       "conditions": [{"type": "ScalingActive", "status": "True"}]},
        }
    )  # fmt: skip
    labels = {"pod": "exporter-0", "horizontalpodautoscaler": "cart"}
    case = replace(CASE, alerts=[alert("KubeHpaMaxedOut", **labels)])
    found = await ports.agents().investigate(case)
    assert isinstance(found.decision, Escalate)
    assert "1 are not ready (cart-abc12-bbbbb)" in found.decision.reason
    assert not any("exporter-0" in one for one in ports.cluster.asked)


@pytest.mark.parametrize("others", [False, True], ids=["of one workload", "of several"])
async def test_an_alert_about_a_budget_leads_to_the_workload_that_it_covers(others: bool) -> None:
    ports = Ports(metrics=None, reasoner=Scripted(None))
    scripted = ports.reasoner
    budget = {
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "cart", "namespace": "shop", "uid": "uid-pdb"},
        "spec": {"selector": {"matchLabels": {"app": "cart"}}},
        "status": {"desiredHealthy": 2, "currentHealthy": 1, "expectedPods": 2},
    }
    ports.cluster.objects.append(budget)
    if others:
        ports.cluster.objects.append(pod("alone", ready=True, owner=owned("Other", "o", "uid-o")))
    labels = {"pod": "exporter-0", "poddisruptionbudget": "cart"}
    case = replace(CASE, alerts=[alert("KubePdbNotEnoughHealthyPods", **labels)])
    await ports.agents().investigate(case)
    assert isinstance(scripted, Scripted)
    (seen,) = scripted.seen
    told = seen.facts["budget"]
    assert isinstance(told, dict)
    assert (told["wanted"], told["healthy"], told["expected"]) == (2, 1, 2)
    assert [*seen.targets] == ([] if others else ["workload", "pod", "node"])


async def test_what_was_tried_is_not_proposed_again_whoever_asks() -> None:
    reasoner = act("restart-pod", "pod")
    first = (await Ports(reasoner=reasoner).agents().investigate(CASE)).decision
    assert isinstance(first, Proposal)
    tried = Attempt(1, "restart-pod", first.target, Outcome.INEFFECTIVE, "still wedged")
    again = replace(CASE, attempt=2, attempts=[tried])
    second = (await Ports(reasoner=reasoner).agents().investigate(again)).decision
    assert isinstance(second, Escalate)
    assert "still wedged" in second.reason


async def test_alerts_of_two_workloads_have_no_target() -> None:
    cluster = Cluster()
    other = {**cluster.find("Deployment", "cart")}
    other["metadata"] = {**other["metadata"], "name": "till", "uid": "uid-t"}
    cluster.objects.append(other)
    alerts = [alert(), alert("KubePodNotReady", deployment="till", pod="")]
    metrics = Metrics(true=({"namespace": "shop", "pod": "cart-abc12-bbbbb"},))
    ports = Ports(cluster=cluster, metrics=metrics, reasoner=act("restart-pod", "pod"))
    decision = (await ports.agents().investigate(replace(CASE, alerts=alerts))).decision
    assert isinstance(decision, Escalate)
    assert "several objects" in decision.reason


async def test_an_aborted_investigation_goes_on_without_asking_again() -> None:
    ports = Ports()
    ports.cluster.hang = asyncio.Event()
    agents = ports.agents()
    running = asyncio.create_task(agents.investigate(CASE))
    async with asyncio.timeout(5):
        # The analysis has ended by the time the cluster's first read waits.
        while not ports.cluster.asked or not await _finished(agents, "analysis"):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert ports.metrics is not None
    before = len(ports.metrics.asked)
    assert before > 1
    ports.cluster.hang = None
    found = await ports.agents().investigate(CASE)
    assert isinstance(found.decision, Proposal)
    assert len(ports.metrics.asked) == before, "on-call and analysis were asked again"
    ports.cluster.asked.clear()
    assert (await ports.agents().investigate(CASE)).decision == found.decision
    assert ports.cluster.asked == [], "a finished investigation was asked again"


async def _finished(agents: Agents, node: str) -> bool:
    saver = agents.checkpointer
    assert saver is not None
    saved = await saver.aget_tuple({"configurable": {"thread_id": "inc/1"}})
    if saved is None or saved.pending_writes is None:
        return False
    return any(
        channel == "notes" and isinstance(value, dict) and node in value
        for _, channel, value in saved.pending_writes
    )


async def test_a_forgotten_incident_is_investigated_anew() -> None:
    ports = Ports()
    agents = ports.agents()
    await agents.investigate(CASE)
    await agents.forget("inc")
    ports.cluster.asked.clear()
    await agents.investigate(CASE)
    assert ports.cluster.asked


async def test_a_failing_agent_tells_a_human() -> None:
    cluster = Cluster()
    cluster.find("Deployment", "cart")["status"]["conditions"] = None
    cluster.find("Deployment", "cart")["spec"]["replicas"] = "two"
    ports = Ports(cluster=cluster)
    decision = (await ports.agents().investigate(CASE)).decision
    assert isinstance(decision, Escalate | NoAction | Proposal)

    class Mad(Cluster):
        async def get(self, *args: Any) -> Object | None:
            raise RuntimeError("boom")

    broken = (await Ports(cluster=Mad()).agents().investigate(CASE)).decision
    assert isinstance(broken, Escalate)
    assert "RuntimeError: boom" in broken.reason


async def test_hostile_text_stays_data() -> None:
    evil = 'x"} or vector(1) or up{a="'
    case = replace(CASE, alerts=[alert(pod=evil, namespace="shop")])
    metrics = Metrics(true=({"namespace": "shop", "pod": evil},))
    cluster = Cluster(log="password=hunter2hunter2\n" + "A" * 100_000)
    ports = Ports(cluster=cluster, metrics=metrics)
    found = await ports.agents().investigate(case)
    assert isinstance(found.decision, Escalate)
    for query in metrics.asked:
        assert 'vector(1) or up{a="' not in query.replace('\\"', "")
    whole = "".join(
        e.model_dump_json()
        for e in (
            await Ports(cluster=cluster).agents().investigate(replace(CASE, incident="other"))
        ).evidence
    )
    assert "hunter2" not in whole
    assert len(whole) < 60_000


async def test_inspection_sees_what_moved_since() -> None:
    ports = Ports()
    agents = ports.agents()
    proposal = (await agents.investigate(CASE)).decision
    assert isinstance(proposal, Proposal)
    same = await agents.inspect(CASE, proposal)
    assert same.target is not None
    assert same.target.changes == proposal.changes
    assert same.alert is not None
    assert same.alert.firing
    assert all(e.ok for e in same.evidence)
    assert ports.metrics is not None
    ports.metrics.true = ({"namespace": "shop", "pod": "cart-abc12-ccccc"},)
    assert (await agents.inspect(CASE, proposal)).alert == same.alert, (
        "a successor is the incident's"
    )
    ports.metrics.true = ()
    over = await agents.inspect(CASE, proposal)
    assert over.alert is not None
    assert not over.alert.firing
    ports.cluster.find("Pod", "cart-abc12-bbbbb")["metadata"]["uid"] = "another"
    gone = await agents.inspect(CASE, proposal)
    assert gone.target is None
    assert any(not e.ok for e in gone.evidence)
    ports.cluster.silent = True
    ports.metrics.silent = True
    blind = await agents.inspect(CASE, proposal)
    assert (blind.alert, blind.target) == (None, None)
