"""How long a decision takes by playbooks without waits for a network, and what it costs.

From a case to its Decision through the whole graph, with the checkpoints of production (a SQLite
file, written before each next node). What Kubernetes, Prometheus and Alertmanager answer is
recorded once from a scenario of the sandbox and given again from memory. The baseline of the same
run is the same framework with nodes that do nothing: what LangGraph and the disk take.
"""

import asyncio
import copy
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, cast

from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph

from tiphys.agents.graph import Agents
from tiphys.agents.playbooks import Playbooks
from tiphys.agents.ports import Case, Choice, Findings
from tiphys.agents.state import State
from tiphys.policies.model import Decision, Proposal
from tiphys.sandbox.scenario import find
from tiphys.sandbox.world import CLUSTER, World
from tiphys.service.alertmanager import Alertmanagers
from tiphys.service.kubernetes_api import connect
from tiphys.service.kubernetes_reader import KubernetesReader
from tiphys.service.prometheus import Prometheus

SCENARIOS = ("bad-release", "wedged-pod", "gpu-lost")
ROUNDS = 100
SERIES = 3
"""Times the rounds are run; the best counts beside all, since others use the machine, too."""
PODS = 10_000
AIM = 50.0
"""Milliseconds, p99."""


@dataclass
class Recorded:
    """Every port at once: asks the real one the first time, and answers from memory after that."""

    real: dict[str, Any]
    answers: dict[str, Any] = field(default_factory=dict[str, Any])

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def ask(*asked: Any, **named: Any) -> Any:
            key = f"{name} {asked} {named}"
            if key not in self.answers:
                self.answers[key] = await getattr(self.real[name], name)(*asked, **named)
            return self.answers[key]

        return ask


@dataclass
class Asked:
    """The playbooks, and how often they were asked: a model would be as often."""

    playbooks: Playbooks
    count: int = 0

    async def decide(self, findings: Findings) -> Choice:
        """Count and ask."""
        self.count += 1
        return await self.playbooks.decide(findings)


class Measured(NamedTuple):
    """Milliseconds of one series of rounds: as a clock shows them, and of the processor."""

    p50: float
    p99: float
    cpu_p50: float
    cpu_p99: float


async def recorded(name: str, folder: Path) -> tuple[Recorded, Case, datetime, Decision]:
    """Break the scenario's world, look at it once, and keep all answers."""
    (folder / name).mkdir(parents=True)
    world = World(find(name), folder / name)
    await world.start()
    source = Alertmanagers([world.alertmanager_url], cluster=CLUSTER)
    prometheus = Prometheus(world.prometheus_url, timeout=30)
    try:
        async with connect(world.kubeconfigs["agents"]) as api:
            await world.strike()
            while not (found := (await source.listing()).alerts):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            reader = KubernetesReader(api)
            real = dict.fromkeys(("get", "list", "logs"), reader)
            real |= dict.fromkeys(("instant", "range", "rules"), cast("Any", prometheus))
            tape = Recorded({**real, "facts": source})
            alerts = [listed.alert for listed in found.values()]
            case = Case("recording", 1, CLUSTER, True, "it", alerts)
            now = datetime.now(UTC)
            decision = (await agents(tape, now).investigate(case)).decision
            return tape, case, now, decision
    finally:
        prometheus.close()
        await source.close()
        await world.stop()


def agents(
    tape: Recorded, now: datetime, saver: AsyncSqliteSaver | None = None, asked: Asked | None = None
) -> Agents:
    """Give agents that read from memory."""
    books = asked.playbooks if asked else Playbooks.load()
    ports = cast("Any", tape)
    return Agents(ports, ports, ports, asked or books, books, saver, lambda: now)


async def series(work: Callable[[int], Awaitable[Any]], begin: int) -> Measured:
    """Do it again and again, each time under a number of its own."""
    wall: list[float] = []
    cpu: list[float] = []
    for at in range(begin, begin + ROUNDS):
        began, worked = time.perf_counter(), time.process_time()
        await work(at)
        wall.append(1000 * (time.perf_counter() - began))
        cpu.append(1000 * (time.process_time() - worked))
    cuts, busy = (statistics.quantiles(each, n=100) for each in (wall, cpu))
    return Measured(cuts[49], cuts[98], busy[49], busy[98])


def idle_graph(saver: AsyncSqliteSaver) -> Any:
    """Give a graph of the same shape whose nodes do nothing."""
    graph = StateGraph(State)

    async def nothing(state: State) -> State:
        del state
        return State(notes={})

    for name in ("on_call", "analysis", "kubectl", "gather", "decide"):
        graph.add_node(name, nothing)
    graph.add_edge(START, "on_call")
    graph.add_edge("on_call", "analysis")
    graph.add_edge("on_call", "kubectl")
    graph.add_edge(["analysis", "kubectl"], "gather")
    graph.add_edge("gather", "decide")
    graph.add_edge("decide", END)
    return graph.compile(checkpointer=saver)


def best(found: Sequence[Measured]) -> Measured:
    """Give the least of each figure: what the machine does when others leave it alone."""
    return Measured(*(min(column) for column in zip(*found, strict=True)))


def said(found: Measured) -> str:
    """Say it."""
    cpu = f"processor time {found.cpu_p50:.1f} and {found.cpu_p99:.1f} ms"
    return f"p50 {found.p50:.1f} ms, p99 {found.p99:.1f} ms ({cpu})"


async def decisions(name: str, folder: Path) -> None:
    """Measure one scenario's decision and its baseline, in turns."""
    tape, case, now, first = await recorded(name, folder)
    asked = Asked(Playbooks.load())
    path = str(folder / f"{name}.db")
    async with AsyncSqliteSaver.from_conn_string(path) as saver:
        bench, bare = agents(tape, now, saver, asked), agents(tape, now, None, asked)
        idle = idle_graph(saver)

        async def whole(number: int) -> None:
            found = await bench.investigate(replace(case, incident=f"incident-{number}"))
            assert found.decision == first, found.decision

        async def memory_alone(number: int) -> None:
            await bare.investigate(replace(case, incident=f"incident-{number}"))

        async def framework(number: int) -> None:
            thread: Any = {"configurable": {"thread_id": f"idle-{number}"}}
            await idle.ainvoke(State(case={}), thread, durability="sync")

        found: dict[str, list[Measured]] = {"whole": [], "bare": [], "idle": []}
        for begin in range(0, SERIES * ROUNDS, ROUNDS):
            found["idle"].append(await series(framework, begin))
            found["whole"].append(await series(whole, begin))
            found["bare"].append(await series(memory_alone, begin))
        before = asked.count
        await whole(0)
    what = first.action if isinstance(first, Proposal) else first.answer
    print(f"{name} ({what}):")
    for number, one in enumerate(found["whole"], 1):
        print(f"  series {number} of {ROUNDS}: {said(one)}")
    top, floor, bare_top = (best(found[each]) for each in ("whole", "idle", "bare"))
    print(f"  best: {said(top)}; aim: p99 {AIM:.0f} ms")
    print(f"  = {top.p50 / floor.p50:.1f} times a graph that does nothing ({said(floor)})")
    print(f"  without checkpoints: {said(bare_top)}")
    each = before / (2 * SERIES * ROUNDS)
    print(f"  a reasoner is asked {each:.0f} time per incident, {asked.count - before} on a repeat")


async def large(folder: Path) -> None:
    """Decide on a Deployment of many pods; resident memory before and at its most."""
    tape, case, now, _ = await recorded("bad-release", folder / "large")
    for key, answer in tape.answers.items():
        if key.startswith("list ('v1', 'Pod'") and answer:
            tape.answers[key] = [_again(answer[at % len(answer)], at) for at in range(PODS)]
    asked = Asked(Playbooks.load())
    before = resident()
    async with AsyncSqliteSaver.from_conn_string(str(folder / "large.db")) as saver:
        began, worked = time.perf_counter(), time.process_time()
        found = await agents(tape, now, saver, asked).investigate(case)
        took, busy = time.perf_counter() - began, time.process_time() - worked
    told = sum(len(e.model_dump_json()) for e in found.evidence)
    print(f"{PODS} pods: {took:.2f} s ({busy:.2f} s of the processor), {found.decision.answer}")
    print(f"  memory: {before} MiB with the pods read, at most {resident()} MiB while deciding")
    print(f"  evidence: {len(found.evidence)} pieces, {told / 1024:.0f} KiB")


def _again(pod: Any, number: int) -> Any:
    made = copy.deepcopy(pod)
    made["metadata"] |= {"name": f"{pod['metadata']['name']}-{number}", "uid": f"uid-{number}"}
    return made


def resident() -> int:
    """The most MiB that this process has ever had resident."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most // (1024 if sys.platform == "linux" else 1 << 20)


async def main() -> None:
    """Print all, and how busy the machine was."""
    print(f"load before: {', '.join(f'{one:.1f}' for one in os.getloadavg())}")
    with tempfile.TemporaryDirectory() as folder:
        for name in SCENARIOS:
            await decisions(name, Path(folder))
        await large(Path(folder))
    print(f"load after: {', '.join(f'{one:.1f}' for one in os.getloadavg())}")


if __name__ == "__main__":
    os.environ.setdefault("LANGGRAPH_STRICT_MSGPACK", "true")
    asyncio.run(main())
