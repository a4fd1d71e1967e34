"""The agents against the simulated cluster, over HTTP with the real clients."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

from tiphys.agents.graph import Agents
from tiphys.agents.playbooks import Playbooks
from tiphys.agents.ports import Attempt, Case
from tiphys.policies.model import Alert, Escalate, NoAction, Outcome, Proposal, Source
from tiphys.sandbox.scenario import Reference, find
from tiphys.sandbox.world import CLUSTER, World
from tiphys.service.alertmanager import Alertmanagers
from tiphys.service.kubernetes_api import connect
from tiphys.service.kubernetes_reader import KubernetesReader
from tiphys.service.prometheus import Prometheus


def now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Bench:
    """One scenario's world with agents that look at it."""

    world: World
    agents: Agents
    source: Alertmanagers
    prometheus: Prometheus

    async def alerts(self) -> Sequence[Alert]:
        """Wait until Alertmanager has any."""
        async with asyncio.timeout(15):
            while not (found := (await self.source.listing()).alerts):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        return [listed.alert for listed in found.values()]

    async def case(self, **more: object) -> Case:
        given: dict[str, object] = {"incident": "i-1", "attempt": 1, "subject": "it"} | more
        return Case(cluster=CLUSTER, managed=True, alerts=await self.alerts(), **given)  # type: ignore[arg-type]


@asynccontextmanager
async def bench(name: str, folder: Path) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        world = World(find(name), folder)
        stack.push_async_callback(world.stop)
        await world.start()
        source = Alertmanagers([world.alertmanager_url], cluster=CLUSTER)
        stack.push_async_callback(source.close)
        api = await stack.enter_async_context(connect(world.kubeconfigs["agents"]))
        prometheus = Prometheus(world.prometheus_url)
        stack.callback(prometheus.close)
        playbooks = Playbooks.load()
        path = str(folder / "checkpoints.db")
        saver = await stack.enter_async_context(AsyncSqliteSaver.from_conn_string(path))
        agents = Agents(
            prometheus, KubernetesReader(api), source, playbooks, playbooks, saver, now, 1
        )
        yield Bench(world, agents, source, prometheus)


@pytest.mark.parametrize(
    ("name", "action", "target"),
    [
        ("bad-release", "rollout-undo", "Deployment shop/checkout"),
        ("evicted-pods", "delete-failed-pods", "Deployment shop/cart"),
        ("failed-report", "delete-failed-job", "Job shop/report-29184600"),
        ("overload", "scale-workload", "Deployment shop/search"),
        ("wedged-pod", "restart-pod", "Pod shop/cart-"),
        ("stale-connections", "rollout-restart", "Deployment shop/invoices"),
        ("volume-filling", "expand-volume", "PersistentVolumeClaim shop/data-catalogue-db-0"),
        ("memory-too-small", "raise-memory-limit", "Deployment shop/suggest"),
        ("gpu-app-fault", "restart-pod", "Pod research/embedder-"),
        ("gpu-fault-repeats", "cordon-drain-node", "Node gpu-1"),
        ("gpu-lost", "replace-gpu-node", "Node h100-a"),
        ("gpu-training", "restart-pod", "Pod research/llm-pretrain-0417"),
    ],
)
async def test_proposes_what_helps(name: str, action: str, target: str, tmp_path: Path) -> None:
    async with bench(name, tmp_path) as b:
        await b.world.strike()
        case = await b.case()
        started = time.perf_counter()
        found = await b.agents.investigate(case)
        seconds = time.perf_counter() - started
        decision = found.decision
        assert isinstance(decision, Proposal), decision
        assert decision.action == action
        assert str(decision.target).startswith(target)
        assert decision.changes
        assert decision.check.query
        assert found.alert is not None
        assert found.alert.firing
        assert found.facts is not None
        assert {**found.facts.labels, **found.facts.namespace_labels}["tiphys.io/heal"] == "enabled"
        cited = {e.id: e for e in found.evidence}
        assert all(cited[name].ok for name in decision.evidence)
        assert {Source.KUBERNETES, Source.PROMETHEUS} <= {e.source for e in found.evidence}
        assert seconds < 2, "an investigation must not keep anybody waiting"
        if name.startswith("gpu-"):
            assert found.facts.ends_long_job
            assert found.facts.gpu_hours_at_stake > 0
        if name == "overload":
            assert decision.parameters == {"replicas": 3}
            await _a_second_try_goes_to_a_human(b, decision)
        if name == "volume-filling":
            assert decision.parameters == {"percent": 150, "ceiling_gib": 1000}
            assert decision.always_ask
            assert "StatefulSet catalogue-db" in decision.reason
            assert [owner.name for owner in found.facts.owners] == ["catalogue-db"]
        if name == "memory-too-small":
            assert decision.parameters == {"container": "app", "limit_mib": 384}
        if name == "bad-release":
            await _what_cannot_be_seen_is_never_taken_for_healthy(b, case)
        inspection = await b.agents.inspect(case, decision)
        assert inspection.target is not None
        assert inspection.target.changes == decision.changes
        assert inspection.alert is not None
        assert inspection.alert.firing


async def test_escalates_what_no_action_mends(tmp_path: Path) -> None:
    async with bench("outside-catalogue", tmp_path) as b:
        await b.world.strike()
        decision = (await b.agents.investigate(await b.case())).decision
        assert isinstance(decision, Escalate)
        assert "401 Unauthorized" in decision.reason
        assert decision.decided_by.playbook == "pod-not-ready"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("evicted-again", "over their own limit"),
        ("gpu-lost-no-spare", "MachineDeployment h100 is not whole: 1 of 2 machines are ready"),
        ("report-not-made", "is no later success"),
        ("runaway-log", "Find what writes, in catalogue-db-0"),
    ],
)
async def test_escalates_what_deleting_would_hide(name: str, why: str, tmp_path: Path) -> None:
    async with bench(name, tmp_path) as b:
        await b.world.strike()
        decision = (await b.agents.investigate(await b.case())).decision
        assert isinstance(decision, Escalate)
        assert why in decision.reason


async def test_what_people_write_on_a_cronjob_counts_for_its_runs(tmp_path: Path) -> None:
    async with bench("failed-report", tmp_path) as b:
        await b.world.strike()
        case = await b.case()
        note = {"metadata": {"annotations": {"tiphys.io/hands-off": "audit"}}}
        b.world.edit(Reference(kind="CronJob", namespace="shop", name="report"), note)
        found = await b.agents.investigate(case)
        assert found.facts is not None
        assert found.facts.annotations == {"tiphys.io/hands-off": "audit"}
        assert found.facts.ends_long_job is None


async def test_leaves_alone_what_is_over(tmp_path: Path) -> None:
    async with bench("already-resolved", tmp_path) as b:
        await b.world.strike()
        decision = (await b.agents.investigate(await b.case())).decision
        assert isinstance(decision, NoAction)
        assert "no longer true" in decision.reason


async def test_leaves_alone_what_is_silenced(tmp_path: Path) -> None:
    async with bench("silenced", tmp_path) as b:
        await b.world.strike()
        decision = (await b.agents.investigate(await b.case())).decision
        assert isinstance(decision, NoAction)
        assert "silenced" in decision.reason


async def _a_second_try_goes_to_a_human(b: Bench, first: Proposal) -> None:
    tried = Attempt(1, first.action, first.target, Outcome.ROLLED_BACK, "p95 stayed at 2 s")
    again = await b.case(attempt=2, attempts=[tried])
    second = (await b.agents.investigate(again)).decision
    assert isinstance(second, Escalate)
    assert "scale-workload on Deployment shop/search was rolled back" in second.reason
    assert "p95 stayed at 2 s" in second.reason


async def _what_cannot_be_seen_is_never_taken_for_healthy(b: Bench, case: Case) -> None:
    nowhere = Prometheus("http://127.0.0.1:9", timeout=0.5)
    books = b.agents.playbooks
    blind = Agents(nowhere, b.agents.cluster, b.source, books, books, None, now)
    decision = (await blind.investigate(case)).decision
    nowhere.close()
    assert isinstance(decision, Escalate)
    assert "Prometheus" in decision.reason
    async with connect(b.world.kubeconfigs["agents"]) as api:
        api.configuration.host = "http://127.0.0.1:9"
        blind = Agents(b.prometheus, KubernetesReader(api), b.source, books, books, None, now)
        found = await blind.investigate(case)
    assert isinstance(found.decision, Escalate)
    assert "Kubernetes" in found.decision.reason
    assert any(not e.ok and e.source is Source.KUBERNETES for e in found.evidence)


@pytest.mark.parametrize(
    ("name", "cause"), [("node-dies", "node worker-1"), ("many-causes", None)], ids=["node", "many"]
)
async def test_what_follows_from_a_node_says_so(
    name: str, cause: str | None, tmp_path: Path
) -> None:
    async with bench(name, tmp_path) as b:
        await b.world.strike()
        async with asyncio.timeout(30):
            while not (pods := [a for a in await b.alerts() if "pod" in a.labels]):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        about = Case("i-1", 1, CLUSTER, True, "deployment shop/it", pods[:1])
        decision = (await b.agents.investigate(about)).decision
        assert isinstance(decision, NoAction if cause else Escalate), decision
        if cause is None:
            named = decision.cause.subjects if decision.cause else ()
            assert not [one for one in named if one.startswith("node ")]
            return
        assert decision.cause is not None
        assert decision.cause.subjects == (cause,)
        node = [a for a in await b.alerts() if a.name == "KubeNodeNotReady"]
        own = await b.agents.investigate(replace(about, incident="i-2", subject=cause, alerts=node))
        assert isinstance(own.decision, Escalate)
        assert own.decision.cause is None
