"""expand-volume's steps against a live API: one write, and the truth about what cannot go back."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tiphys.policies.model import Check, DecidedBy, Plan, Target
from tiphys.policies.plan import short_digest
from tiphys.sandbox.behaviour import Behaviours
from tiphys.sandbox.controllers import Controllers
from tiphys.sandbox.installation import nodes
from tiphys.sandbox.kube_api import kube_app
from tiphys.sandbox.logs import Logs
from tiphys.sandbox.loopback import serving
from tiphys.sandbox.rbac import Tokens
from tiphys.sandbox.store import Store
from tiphys.sandbox.volumes import PROVISIONER
from tiphys.workflow_templates import mark
from tiphys.workflow_templates.action import NotApplicableError, Report, Result, Run, StepName
from tiphys.workflow_templates.catalogue import find
from tiphys.workflow_templates.cluster import Cluster, Connection, Unreachable
from tiphys.workflow_templates.render import RenderSettings, cluster_role_bindings, role_bindings

Obj = dict[str, Any]
SPEED = 20
"""Seconds of a step's clock in one of ours."""
NS, NAME, KIND = "shop", "data-db-0", "PersistentVolumeClaim"
PRECHECK, ACT, VERIFY, ROLLBACK = StepName
ACTION = find("expand-volume")
NOBODY = "nobody.example"


class Between(Cluster):
    """The real client, with something happening before each of its patches, or to its answer."""

    def __init__(self, connection: Connection, digest: str) -> None:
        super().__init__(connection, digest)
        self.before: list[Callable[[], None]] = []
        self.lost = 0
        """How many answers to patches get lost."""
        self.patches = 0
        self.silent = False
        """Nothing is said of claims."""

    def _ask(self, method: str, path: str, **how: Any) -> Any:
        if self.silent and "/persistentvolumeclaims/" in path:
            raise Unreachable("no answer")
        if method != "PATCH":
            return super()._ask(method, path, **how)
        self.patches += 1
        if self.before:
            self.before.pop(0)()
        answer = super()._ask(method, path, **how)
        if self.lost:
            self.lost -= 1
            raise Unreachable("no answer")
        return answer


@dataclass
class Patience:
    """Sleeps, and ends what sleeps too often."""

    sleep: Callable[[float], None]
    left: int

    def __call__(self, seconds: float) -> None:
        self.left -= 1
        assert self.left, "it never ends"
        self.sleep(seconds)


@dataclass
class World:
    """A StatefulSet with one claim, behind a real port, with the action's own rights."""

    folder: Path
    url: str = ""
    store: Store = field(default_factory=Store)
    tokens: Tokens = field(default_factory=Tokens)
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    began: float = field(default_factory=time.monotonic)

    def now(self) -> datetime:
        ahead = (time.monotonic() - self.began) * (SPEED - 1)
        return datetime.now(UTC) + timedelta(seconds=ahead)

    def run(self, plan: Plan) -> Run:
        account = self.tokens.service_account("tiphys-actions", f"act-{plan.action}")
        (self.folder / "token").write_text(account)
        digest = short_digest(plan)
        return Run(
            plan=plan,
            digest=digest,
            not_after=self.now() + timedelta(minutes=10),
            cluster=self.between(digest),
            metrics=None,
            now=self.now,
            sleep=lambda seconds: time.sleep(seconds / SPEED),
            verify_share=0.1,
        )

    def between(self, digest: str) -> Between:
        return Between(Connection(self.url, self.folder / "token", None), digest)

    async def step(self, step: StepName, given: Plan | Run) -> Report:
        run = given if isinstance(given, Run) else self.run(given)
        return await asyncio.to_thread(getattr(ACTION, step), run)

    def get(self) -> Obj:
        return self.store.get(KIND, NS, NAME)

    def asks(self) -> str:
        return self.get()["spec"]["resources"]["requests"]["storage"]

    def marked(self) -> str:
        return (self.get()["metadata"].get("annotations") or {}).get(mark.ANNOTATION, "")

    def write(self, body: Obj, subresource: str = "") -> None:
        self.store.patch(KIND, NS, NAME, body, manager="somebody", subresource=subresource)

    def inside(self, work: Callable[[], Any]) -> Callable[[], None]:
        """Let work on the store, called in a step's thread, happen in the event loop."""

        async def later() -> None:
            work()

        def call() -> None:
            asyncio.run_coroutine_threadsafe(later(), self.loop).result(5)

        return call

    def plan(self, attempt: int = 1) -> Plan:
        target = self.get()
        wanted = {"percent": 150, "ceiling_gib": 100}
        related = {r.kind: self.store.list(r.kind, r.place(NS)) for r in ACTION.reads}
        return Plan(
            incident="inc-1",
            attempt=attempt,
            action=ACTION.name,
            version=1,
            target=Target(
                cluster="c",
                api_version="v1",
                kind=KIND,
                namespace=NS,
                name=NAME,
                uid=target["metadata"]["uid"],
            ),
            parameters=wanted,
            changes=ACTION.changes(target, related, ACTION.parameters.model_validate(wanted)),
            check=Check(hold_seconds=1),
            policy="test",
            evidence_hash="0" * 64,
            decided_by=DecidedBy(reasoner="human"),
        )

    def driver(self, name: str) -> None:
        """Say who expands the volumes."""
        self.store.patch("StorageClass", "", "fast", {"provisioner": name})


def objects() -> list[Obj]:
    labels, pods = {"app": "db"}, {"containers": [{"name": "db", "image": "db:1"}]}
    claims = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "fast",
        "resources": {"requests": {"storage": "10Gi"}},
    }
    spec = {
        "replicas": 1,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pods},
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": claims}],
    }
    fast = {"provisioner": PROVISIONER, "allowVolumeExpansion": True}
    return [
        {"kind": "Namespace", "metadata": {"name": NS}},
        {"kind": "StorageClass", "metadata": {"name": "fast"}, **fast},
        {"kind": "StatefulSet", "metadata": {"name": "db", "namespace": NS}, "spec": spec},
    ]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    settings = RenderSettings(image="x", public_key="0" * 64)
    wide = cluster_role_bindings(settings, nodes=False)
    for one in [*nodes(1), *objects(), *wide, *role_bindings(settings, NS)]:
        made.store.create(one)
    controllers = Controllers(made.store, Behaviours(), Logs())
    async with serving(kube_app(made.store, made.tokens, Logs())) as made.url:
        task = asyncio.create_task(controllers.run())

        def ready() -> bool:
            found = made.store.find(KIND, NS, NAME)
            pod = made.store.find("Pod", NS, "db-0")
            bound = (found or {}).get("status", {}).get("phase") == "Bound"
            return bound and (pod or {}).get("status", {}).get("phase") == "Running"

        async with asyncio.timeout(20):
            while not ready():  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        yield made
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_claim_grows_once_and_its_mark_says_how_it_ended(world: World) -> None:
    plan = world.plan()
    said = [(await world.step(step, plan)).result for step in (PRECHECK, ACT, VERIFY)]
    assert said == [Result.AS_PLANNED, Result.ACTED, Result.VERIFIED]
    assert world.asks() == world.get()["status"]["capacity"]["storage"] == "15Gi"
    assert world.marked() == f"{short_digest(plan)}.kept"
    again = world.run(plan)
    assert (await world.step(ACT, again)).result is Result.ALREADY_DONE
    assert isinstance(again.cluster, Between)
    assert again.cluster.patches == 0
    assert world.plan(2).changes[0].intended == "23040Mi"


async def test_a_claim_that_moved_in_between_is_read_again_and_then_grown(world: World) -> None:
    """Its driver writes the status all the time; there is no generation that would tell."""
    plan = world.plan()
    run = world.run(plan)
    assert isinstance(run.cluster, Between)
    touch = {"metadata": {"labels": {"seen": "now"}}}
    run.cluster.before = [world.inside(lambda: world.write(touch))]
    assert (await world.step(ACT, run)).result is Result.ACTED
    assert run.cluster.patches == 2
    assert world.asks() == "15Gi"


async def test_an_answer_that_got_lost_is_no_second_write(world: World) -> None:
    run = world.run(world.plan())
    assert isinstance(run.cluster, Between)
    run.cluster.lost = 1
    assert (await world.step(ACT, run)).result is Result.ALREADY_DONE
    assert run.cluster.patches == 1


async def test_a_mark_that_somebody_removed_is_missed(world: World) -> None:
    plan = world.plan()
    assert (await world.step(ACT, plan)).result is Result.ACTED
    world.write({"metadata": {"annotations": {mark.ANNOTATION: None}}})
    assert (await world.step(ACT, plan)).result is Result.REFUSED
    assert (await world.step(ROLLBACK, plan)).result is Result.NOT_OURS
    assert world.asks() == "15Gi"


async def test_what_has_grown_is_told_and_not_put_back(world: World) -> None:
    plan = world.plan()
    await world.step(ACT, plan)
    for _ in range(2):
        said = await world.step(ROLLBACK, plan)
        assert said.result is Result.NOTHING_TO_RESTORE
        assert said.message == "it has grown to 15Gi, and nothing makes it smaller"
    assert (await world.step(ACT, plan)).result is Result.ALREADY_DONE
    assert world.asks() == "15Gi"


async def test_a_rollback_that_knows_how_it_stands_does_not_wait(world: World) -> None:
    plan = world.plan()
    await world.step(ACT, plan)
    await world.step(VERIFY, plan)

    def never(_seconds: float) -> None:
        pytest.fail("it waits although there is nothing to wait for")

    said = await world.step(ROLLBACK, replace(world.run(plan), sleep=never))
    assert said.result is Result.NOTHING_TO_RESTORE


async def test_an_expansion_that_hangs_is_a_humans(world: World) -> None:
    plan = world.plan()
    world.driver(NOBODY)
    assert (await world.step(ACT, plan)).result is Result.ACTED
    seen = await world.step(VERIFY, plan)
    assert seen.result is Result.NOT_VERIFIED
    assert "it asks for 15Gi and has 10Gi" in seen.message
    said = await world.step(ROLLBACK, plan)
    assert said.result is Result.NOT_UNDONE
    assert "its expansion hangs" in said.message
    assert said.observed == {"asked": "15Gi", "has": "10Gi"}
    assert world.asks() == "15Gi", "the API server would not take it back"
    with pytest.raises(NotApplicableError, match="has not ended"):
        world.plan(2)


async def test_an_expansion_that_was_given_up_is_not_waited_for(world: World) -> None:
    plan = world.plan()
    world.driver(NOBODY)
    await world.step(ACT, plan)
    failed = {"type": "ControllerResizeError", "status": "True", "message": "no space left"}
    world.write({"status": {"conditions": [failed]}}, "status")
    began = world.now()
    assert (await world.step(VERIFY, plan)).result is Result.NOT_VERIFIED
    said = await world.step(ROLLBACK, plan)
    assert said.result is Result.NOT_UNDONE
    assert "no space left" in said.message
    assert world.now() - began < timedelta(seconds=30)


async def test_an_expansion_that_ends_late_is_waited_for(world: World) -> None:
    plan = world.plan()
    world.driver(NOBODY)
    await world.step(ACT, plan)
    patient = replace(world.run(plan), verify_share=1.0)
    ending = asyncio.create_task(world.step(ROLLBACK, patient))
    await asyncio.sleep(20 / SPEED)
    assert not ending.done()
    world.write({"status": {"capacity": {"storage": "15Gi"}}}, "status")
    assert (await ending).result is Result.NOTHING_TO_RESTORE


async def test_a_rollback_that_sees_nothing_for_too_long_gives_up(world: World) -> None:
    plan = world.plan()
    await world.step(ACT, plan)
    run = world.run(plan)
    assert isinstance(run.cluster, Between)
    run.cluster.silent = True
    with pytest.raises(Unreachable):
        await world.step(ROLLBACK, replace(run, sleep=Patience(run.sleep, 60)))


async def test_a_rollback_closes_the_door(world: World) -> None:
    plan = world.plan()
    assert (await world.step(ROLLBACK, plan)).result is Result.NOTHING_CHANGED
    assert (await world.step(ACT, plan)).result is Result.REFUSED
    assert world.asks() == "10Gi"


async def test_what_somebody_raised_or_deleted_since_is_theirs(world: World) -> None:
    plan = world.plan()
    await world.step(ACT, plan)
    world.write({"spec": {"resources": {"requests": {"storage": "40Gi"}}}})
    assert (await world.step(VERIFY, plan)).result is Result.NOT_VERIFIED
    assert (await world.step(ROLLBACK, plan)).result is Result.NOT_OURS
    world.store.delete(KIND, NS, NAME)
    said = await world.step(ROLLBACK, plan)
    assert (said.result, said.message) == (Result.NOT_OURS, "somebody else deleted the claim")


async def test_another_runs_unfinished_mark_keeps_it_away(world: World) -> None:
    first, second = world.plan(), world.plan(2)
    world.write({"metadata": {"annotations": {mark.ANNOTATION: f"{short_digest(first)}.act"}}})
    assert (await world.step(ACT, second)).result is Result.REFUSED
    assert world.asks() == "10Gi"
