"""A cluster of three nodes behind a real port, whose steps have just the action's own rights."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tiphys.policies.model import Check, DecidedBy, Plan, Target
from tiphys.policies.plan import short_digest
from tiphys.sandbox.behaviour import Behaviours
from tiphys.sandbox.rbac import Tokens
from tiphys.sandbox.store import Store
from tiphys.workflow_templates.action import Report, Run, StepName
from tiphys.workflow_templates.catalogue import find
from tiphys.workflow_templates.cluster import Cluster, Connection, Unreachable

Obj = dict[str, Any]
ACTION = "cordon-drain-node"
NODE = "worker-1"
NS = "shop"
SPEED = 10
"""Seconds of a step's clock in one of ours."""
OPTED_IN = {"tiphys.io/heal": "enabled"}


class Watched(Cluster):
    """The real client; before a write something may happen, and its answer may get lost."""

    def __init__(self, connection: Connection, digest: str) -> None:
        super().__init__(connection, digest)
        self.before: dict[str, list[Callable[[], None]]] = {}
        """By a part of the request, such as `eviction`: what happens before each in turn."""
        self.lost: list[str] = []
        """Parts of requests whose answers get lost, once each."""
        self.sent: list[str] = []

    def _ask(self, method: str, path: str, **how: Any) -> Any:
        what = f"{method} {path}"
        if method != "GET":
            self.sent.append(what)
        for part, waiting in self.before.items():
            if part in what and waiting:
                waiting.pop(0)()
        answer = super()._ask(method, path, **how)
        for part in [one for one in self.lost if one in what]:
            self.lost.remove(part)
            raise Unreachable("no answer")
        return answer


@dataclass
class World:
    """Nodes, pods and rights."""

    folder: Path
    url: str = ""
    store: Store = field(default_factory=Store)
    tokens: Tokens = field(default_factory=Tokens)
    behaviours: Behaviours = field(default_factory=Behaviours)
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    began: float = field(default_factory=time.monotonic)

    def now(self) -> datetime:
        ahead = (time.monotonic() - self.began) * (SPEED - 1)
        return datetime.now(UTC) + timedelta(seconds=ahead)

    def run(self, plan: Plan, **other: Any) -> Run:
        token = self.tokens.service_account("tiphys-actions", f"act-{ACTION}")
        (self.folder / "token").write_text(token)
        digest = short_digest(plan)
        return Run(
            plan=plan,
            digest=digest,
            not_after=other.get("not_after") or self.now() + timedelta(minutes=10),
            cluster=Watched(Connection(self.url, self.folder / "token", None), digest),
            metrics=None,
            now=self.now,
            sleep=lambda seconds: time.sleep(seconds / SPEED),
            verify_share=other.get("share", 1.0),
        )

    async def step(self, step: StepName, given: Plan | Run) -> Report:
        run = given if isinstance(given, Run) else self.run(given)
        return await asyncio.to_thread(getattr(find(run.plan.action), step), run)

    def related(self) -> dict[str, list[Obj]]:
        return {r.kind: self.store.list(r.kind, "") for r in find(ACTION).reads}

    def plan(self, attempt: int = 1) -> Plan:
        action, node = find(ACTION), self.node()
        return Plan(
            incident="inc-1",
            attempt=attempt,
            action=ACTION,
            version=action.version,
            target=Target(
                cluster="c", api_version="v1", kind="Node", namespace="",
                name=NODE, uid=node["metadata"]["uid"],
            ),
            parameters={},
            changes=action.changes(node, self.related(), action.parameters()),
            check=Check(hold_seconds=1),
            policy="test",
            evidence_hash="0" * 64,
            decided_by=DecidedBy(reasoner="human"),
        )  # fmt: skip

    def inside(self, work: Callable[[], Any]) -> Callable[[], None]:
        """Let work on the store, called in a step's thread, happen in the event loop."""

        async def later() -> None:
            work()

        return lambda: asyncio.run_coroutine_threadsafe(later(), self.loop).result(5)

    async def until(self, condition: Callable[[], Any]) -> None:
        moved = asyncio.Event()
        unsubscribe = self.store.subscribe(lambda *_: moved.set())
        async with asyncio.timeout(8):
            while not condition():
                await moved.wait()
                moved.clear()
        unsubscribe()

    def node(self, name: str = NODE) -> Obj:
        return self.store.get("Node", "", name)

    def change_node(self, merge: Obj, name: str = NODE) -> None:
        self.store.update(_merged(self.node(name), merge))

    def pods(self, node: str = NODE) -> list[Obj]:
        here = [p for p in self.store.list("Pod", "") if p["spec"].get("nodeName") == node]
        return [p for p in here if "deletionTimestamp" not in p["metadata"]]

    def names(self, node: str = NODE) -> list[str]:
        return sorted(p["metadata"]["name"] for p in self.pods(node))

    def events(self) -> list[str]:
        names = [e["metadata"]["name"] for e in self.store.list("Event", "default")]
        return sorted(n.rpartition(".")[2] for n in names if n.startswith("tiphys-"))

    def all_ready(self, count: int, namespace: str = NS) -> bool:
        ready = [
            p
            for p in self.store.list("Pod", namespace)
            if any(
                c["type"] == "Ready" and c["status"] == "True"
                for c in p.get("status", {}).get("conditions") or []
            )
        ]
        return len(ready) == count


def _merged(one: Obj, other: Obj) -> Obj:
    made = dict(one)
    for key, value in other.items():
        if value is None:
            made.pop(key, None)
        elif isinstance(value, dict) and isinstance(made.get(key), dict):
            made[key] = _merged(made[key], value)
        else:
            made[key] = value
    return made


def workload(name: str, replicas: int, namespace: str = NS, **spec: Any) -> Obj:
    """Give a Deployment of pods that ask for little."""
    labels = {"app": name}
    asked = {"requests": {"cpu": "100m", "memory": "64Mi"}}
    container = {"name": "main", "image": f"{name}:1", "resources": spec.pop("resources", asked)}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [container], **spec},
            },
        },
    }


async def shop(world: World, replicas: int = 6, **spec: Any) -> None:
    """Run two pods on each node."""
    world.store.create(workload("cart", replicas, **spec))
    await world.until(lambda: world.all_ready(replicas))
    assert len(world.pods()) == 2
