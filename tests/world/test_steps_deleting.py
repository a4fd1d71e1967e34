"""Steps that delete garbage, against a live API: what is planned goes, and nothing else."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from tiphys.policies.model import Check, DecidedBy, Plan, Target
from tiphys.policies.plan import MAX_ENCODED_PLAN, encode, short_digest
from tiphys.sandbox.behaviour import Behaviour, Behaviours, Match, PodState
from tiphys.sandbox.controllers import Controllers
from tiphys.sandbox.kube_api import kube_app
from tiphys.sandbox.logs import Logs
from tiphys.sandbox.loopback import serving
from tiphys.sandbox.pods import Pace
from tiphys.sandbox.rbac import Tokens
from tiphys.sandbox.store import Store
from tiphys.workflow_templates import mark
from tiphys.workflow_templates.action import NotApplicableError, Report, Result, Run, StepName
from tiphys.workflow_templates.catalogue import find
from tiphys.workflow_templates.cluster import Cluster, Connection, Forbidden, Unreachable
from tiphys.workflow_templates.render import RenderSettings, role_bindings

Obj = dict[str, Any]
SPEED = 10
"""Seconds of a step's clock in one of ours."""
NS = "shop"
PRECHECK, ACT, VERIFY, ROLLBACK = StepName
PODS = "delete-failed-pods"


class Interrupted(Cluster):
    """The real client; before each deletion something may happen, instead of an answer too."""

    def __init__(self, connection: Connection, digest: str) -> None:
        super().__init__(connection, digest)
        self.before: list[Callable[[], None]] = []
        self.lost: list[bool] = []
        """For each deletion in turn: its answer gets lost."""

    def _ask(self, method: str, path: str, **how: Any) -> Any:
        if method == "DELETE" and self.before:
            self.before.pop(0)()
        answer = super()._ask(method, path, **how)
        if method == "DELETE" and self.lost and self.lost.pop(0):
            raise Unreachable("no answer")
        return answer


@dataclass
class World:
    """A namespace behind a real port, with the actions' own rights in it."""

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
        (self.folder / "token").write_text(
            self.tokens.service_account("tiphys-actions", f"act-{plan.action}")
        )
        digest = short_digest(plan)
        return Run(
            plan=plan,
            digest=digest,
            not_after=other.get("not_after") or self.now() + timedelta(minutes=10),
            cluster=Interrupted(Connection(self.url, self.folder / "token", None), digest),
            metrics=None,
            now=self.now,
            sleep=lambda seconds: time.sleep(seconds / SPEED),
        )

    async def step(self, step: StepName, given: Plan | Run) -> Report:
        run = given if isinstance(given, Run) else self.run(given)
        return await asyncio.to_thread(getattr(find(run.plan.action), step), run)

    def plan(self, name: str, target: Obj, attempt: int = 1) -> Plan:
        action, meta = find(name), target["metadata"]
        related = {r.kind: self.store.list(r.kind, NS) for r in action.reads}
        return Plan(
            incident="inc-1",
            attempt=attempt,
            action=name,
            version=action.version,
            target=Target(
                cluster="c",
                api_version=target["apiVersion"],
                kind=target["kind"],
                namespace=NS,
                name=meta["name"],
                uid=meta["uid"],
            ),
            parameters={},
            changes=action.changes(target, related, action.parameters()),
            check=Check(hold_seconds=1),
            policy="test",
            evidence_hash="0" * 64,
            decided_by=DecidedBy(reasoner="human"),
        )

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

    def pods(self) -> dict[str, str]:
        """Give the phase of each pod by its name."""
        found = self.store.list("Pod", NS)
        return {p["metadata"]["name"]: p.get("status", {}).get("phase", "") for p in found}

    def events(self) -> list[str]:
        names = [e["metadata"]["name"] for e in self.store.list("Event", NS)]
        return sorted(n.rpartition(".")[2] for n in names if n.startswith("tiphys-"))


def workload(name: str = "cart", replicas: int = 3) -> Obj:
    labels = {"app": name}
    container = {"name": "main", "image": "cart:1"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": NS, "labels": labels},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    here = World(tmp_path)
    for name in (NS, "tiphys-actions"):
        here.store.create({"kind": "Namespace", "metadata": {"name": name}})
    capacity = {"cpu": "8", "memory": "32Gi", "pods": "110"}
    ready = {"type": "Ready", "status": "True"}
    status = {"allocatable": capacity, "capacity": capacity, "conditions": [ready]}
    here.store.create({"kind": "Node", "metadata": {"name": "n1"}, "spec": {}, "status": status})
    for one in role_bindings(RenderSettings(image="i", public_key="ab" * 32), NS):
        here.store.create(cast(Obj, one))
    async with serving(kube_app(here.store, here.tokens, Logs())) as here.url:
        control = Controllers(here.store, here.behaviours, Logs(), Pace(start=0.01, ready=0.02))
        controllers = asyncio.create_task(control.run())
        yield here
        controllers.cancel()
        with suppress(asyncio.CancelledError):
            await controllers


# --- pods that their nodes ended ----------------------------------------------------------------


def evict(world: World, *names: str, reason: str = "Evicted") -> None:
    """End pods as their node does."""
    for name in names:
        pod = world.store.get("Pod", NS, name)
        pod["status"] |= {"phase": "Failed", "reason": reason}
        ready = {"type": "Ready", "status": "False"}
        pod["status"]["conditions"] = [ready]
        world.store.update(pod, subresource="status")


async def whole(world: World, name: str = "cart") -> Obj:
    """Wait until a Deployment is as it should be."""

    def ready() -> bool:
        found = world.store.get("Deployment", NS, name)
        pods = world.store.list("Pod", NS, f"app={name}")
        status = [p["status"] for p in pods if p["status"]["phase"] == "Running"]
        conditions = [c["status"] for s in status for c in s["conditions"] if c["type"] == "Ready"]
        wanted = found["spec"]["replicas"]
        count = found.get("status", {}).get("availableReplicas")
        return conditions == ["True"] * wanted and count == wanted

    await world.until(ready)
    return world.store.get("Deployment", NS, name)


async def evicted(world: World, count: int = 3, name: str = "cart") -> tuple[Obj, list[str]]:
    """Make a Deployment that has replaced pods which its node ended; give it and those pods."""
    world.store.create(workload(name, max(count, 1)))
    await whole(world, name)
    gone = sorted(n for n in world.pods() if n.startswith(f"{name}-"))[:count]
    evict(world, *gone)
    await world.until(lambda: len(world.pods()) >= 2 * count)
    return await whole(world, name), gone


async def test_exactly_the_ended_pods_go(world: World) -> None:
    target, gone = await evicted(world)
    plan = world.plan(PODS, target)
    assert [c.path for c in plan.changes] == [f"/pods/{name}" for name in gone]
    running = set(world.pods()) - {*gone}
    assert (await world.step(PRECHECK, plan)).result is Result.AS_PLANNED
    assert (await world.step(ACT, plan)).result is Result.ACTED
    assert set(world.pods()) == running
    verified = await world.step(VERIFY, plan)
    assert verified.result is Result.VERIFIED, verified
    assert world.events() == ["act", "acted", "kept"]


async def test_a_second_act_deletes_nothing_more(world: World) -> None:
    target, _ = await evicted(world)
    plan = world.plan(PODS, target)
    await world.step(ACT, plan)
    evict(world, next(iter(world.pods())))
    await whole(world)
    before = world.pods()
    assert (await world.step(PRECHECK, plan)).result is Result.ALREADY_DONE
    assert (await world.step(ACT, plan)).result is Result.ALREADY_DONE
    assert (await world.step(ROLLBACK, plan)).result is Result.NOTHING_TO_RESTORE
    assert world.pods() == before


class Killed(Exception):
    """The step's process ends here."""


def dies() -> None:
    raise Killed


def interrupted(world: World, plan: Plan, *before: Callable[[], None], **other: Any) -> Run:
    """Give a run with something happening before each deletion in turn."""
    run = world.run(plan, **other)
    cast(Interrupted, run.cluster).before = [*before]
    return run


def nothing() -> None:
    return


async def test_an_act_that_was_killed_is_gone_on_with(world: World) -> None:
    target, gone = await evicted(world)
    plan = world.plan(PODS, target)
    with pytest.raises(Killed):
        await world.step(ACT, interrupted(world, plan, nothing, dies))
    assert len({*world.pods()} & {*gone}) == 2
    assert (await world.step(PRECHECK, plan)).result is Result.AS_PLANNED
    assert (await world.step(ACT, plan)).result is Result.ACTED
    assert not {*world.pods()} & {*gone}
    assert (await world.step(VERIFY, plan)).result is Result.VERIFIED


async def test_a_killed_act_is_not_gone_on_with_after_its_time_or_its_rollback(
    world: World,
) -> None:
    target, gone = await evicted(world)
    plan = world.plan(PODS, target)
    with pytest.raises(Killed):
        await world.step(ACT, interrupted(world, plan, nothing, dies))
    late = world.run(plan, not_after=world.now() - timedelta(seconds=1))
    assert (await world.step(ACT, late)).message == "notAfter has passed"
    assert (await world.step(ROLLBACK, plan)).result is Result.NOTHING_TO_RESTORE
    for step in (PRECHECK, ACT):
        assert (await world.step(step, plan)).message.startswith("this run has ended")
    assert len({*world.pods()} & {*gone}) == 2


async def test_a_rollback_in_the_middle_of_act_ends_it(world: World) -> None:
    target, gone = await evicted(world)
    plan = world.plan(PODS, target)
    run = world.run(plan)
    cast(Interrupted, run.cluster).before = [lambda: mark.close_door(run)]
    report = await world.step(ACT, run)
    assert report.result is Result.CRASHED
    assert report.message.startswith("interrupted after 1 of 3")
    assert len({*world.pods()} & {*gone}) == 2


async def test_a_lost_answer_is_looked_after(world: World) -> None:
    target, gone = await evicted(world)
    plan = world.plan(PODS, target)
    run = world.run(plan)
    cast(Interrupted, run.cluster).lost = [True, False, True]
    assert (await world.step(ACT, run)).result is Result.ACTED
    assert not {*world.pods()} & {*gone}


async def test_what_somebody_else_deleted_is_no_reason_to_refuse_the_rest(world: World) -> None:
    target, gone = await evicted(world)
    plan = world.plan(PODS, target)
    world.store.delete("Pod", NS, gone[0])
    away = world.inside(lambda: world.store.delete("Pod", NS, gone[1]))
    assert (await world.step(ACT, interrupted(world, plan, away))).result is Result.ACTED
    assert not {*world.pods()} & {*gone}


async def test_what_is_gone_without_this_run_is_refused(world: World) -> None:
    target, gone = await evicted(world)
    plan = world.plan(PODS, target)
    for name in gone:
        world.store.delete("Pod", NS, name)
    for step in (PRECHECK, ACT):
        report = await world.step(step, plan)
        assert report.result is Result.REFUSED
        assert report.message.endswith("is gone, not by this run")
    assert (await world.step(ROLLBACK, plan)).result is Result.NOTHING_CHANGED


async def test_another_pod_of_a_planned_name_stays(world: World) -> None:
    target, gone = await evicted(world, 1)
    plan = world.plan(PODS, target)
    other = world.store.get("Pod", NS, gone[0])

    def swap() -> None:
        world.store.delete("Pod", NS, gone[0])
        kept = {k: other["metadata"][k] for k in ("name", "namespace", "labels")}
        world.store.create({"kind": "Pod", "metadata": kept, "spec": {"containers": [{}]}})

    await world.step(ACT, interrupted(world, plan, world.inside(swap)))
    assert gone[0] in world.pods()


async def test_garbage_of_a_planned_name_with_another_uid_stays(world: World) -> None:
    target, gone = await evicted(world, 1)
    plan = world.plan(PODS, target)
    other = world.store.get("Pod", NS, gone[0])
    world.store.delete("Pod", NS, gone[0])
    kept = {k: other["metadata"][k] for k in ("name", "namespace", "labels", "ownerReferences")}
    world.store.create({**other, "metadata": kept})
    assert world.plan(PODS, target).changes != plan.changes
    assert (await world.step(ACT, plan)).result is Result.REFUSED
    assert gone[0] in world.pods()


async def test_another_deployment_of_that_name_is_left_alone(world: World) -> None:
    target, gone = await evicted(world)
    plan = world.plan(PODS, target)
    elsewhere = plan.target.model_copy(update={"uid": "u-other"})
    report = await world.step(ACT, plan.model_copy(update={"target": elsewhere}))
    assert report.result is Result.REFUSED
    assert report.message == "Deployment shop/cart is another object of that name"
    assert {*gone} <= {*world.pods()}


async def test_a_deployment_that_is_not_whole_keeps_its_evidence(world: World) -> None:
    target, gone = await evicted(world)
    plan = world.plan(PODS, target)
    ill = Behaviour(match=Match(namespace=NS), state=PodState.NOT_READY)
    world.behaviours.add(ill)
    evict(world, next(n for n, phase in world.pods().items() if phase == "Running"))

    def lacking() -> bool:
        status = world.store.get("Deployment", NS, "cart")["status"]
        return status.get("availableReplicas") != 3

    await world.until(lacking)
    for step in (PRECHECK, ACT):
        report = await world.step(step, plan)
        assert report.result is Result.REFUSED
        assert "not whole" in report.message
    assert {*gone} <= {*world.pods()}
    with pytest.raises(NotApplicableError, match="not whole"):
        world.plan(PODS, world.store.get("Deployment", NS, "cart"), 2)


async def test_a_deployment_that_falls_ill_afterwards_is_not_verified(world: World) -> None:
    target, _ = await evicted(world)
    plan = world.plan(PODS, target)
    await world.step(ACT, plan)
    world.behaviours.add(Behaviour(match=Match(namespace=NS), state=PodState.NOT_READY))
    evict(world, next(iter(world.pods())))
    report = await world.step(VERIFY, replace(world.run(plan), verify_share=0.02))
    assert report.result is Result.NOT_VERIFIED
    assert (await world.step(ROLLBACK, plan)).result is Result.NOTHING_TO_RESTORE


async def test_a_pod_that_is_left_is_not_verified(world: World) -> None:
    target, _ = await evicted(world)
    plan = world.plan(PODS, target)
    report = await world.step(VERIFY, replace(world.run(plan), verify_share=0.02))
    assert report.result is Result.NOT_VERIFIED
    assert "3 of the planned pods are still there" in report.message


async def test_another_run_on_the_deployment_goes_first(world: World) -> None:
    target, gone = await evicted(world)
    plan = world.plan(PODS, target)
    note = {"metadata": {"annotations": {mark.ANNOTATION: f"{'b' * 40}.act"}}}
    world.store.patch("Deployment", NS, "cart", note)
    await world.until(lambda: world.store.get("Deployment", NS, "cart")["status"])
    report = await world.step(ACT, plan)
    assert report.result is Result.REFUSED
    assert {*gone} <= {*world.pods()}


# --- what is garbage, and what is not -----------------------------------------------------------


async def test_only_this_deployment_s_ended_pods_are_planned(world: World) -> None:
    target, gone = await evicted(world)
    await evicted(world, 1, "other")
    assert len(world.plan(PODS, target).changes) == 3
    evict(world, *gone[:1], reason="Error")
    evict(world, *gone[1:2], reason="")
    (change,) = world.plan(PODS, target).changes
    assert change.path == f"/pods/{gone[2]}"
    assert change.intended is None
    evict(world, *gone[2:], reason="DeadlineExceeded")
    with pytest.raises(NotApplicableError, match="there are no pods"):
        world.plan(PODS, target)


async def test_a_pod_that_is_no_longer_garbage_stops_it(world: World) -> None:
    target, gone = await evicted(world)
    plan = world.plan(PODS, target)
    evict(world, gone[1], reason="Error")
    report = await world.step(ACT, plan)
    assert report.result is Result.REFUSED
    assert report.message == f"no longer garbage of Deployment shop/cart: {gone[1]}"
    assert {*gone} <= {*world.pods()}


def litter(world: World, target: Obj, count: int) -> list[Obj]:
    """Give a ReplicaSet's pods with the longest names, evicted, without a cluster."""
    (made,) = world.store.list("ReplicaSet", NS)
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": made["metadata"]["name"]}
    owner |= {"uid": made["metadata"]["uid"], "controller": True}
    status = {"phase": "Failed", "reason": "OutOfephemeral-storage"}
    return [
        {
            "metadata": {
                "name": f"{'n' * 60}{i:03}",
                "uid": f"{i:036}",
                "ownerReferences": [owner],
            },
            "status": status,
        }
        for i in range(count)
    ]


async def test_fifty_fit_into_a_plan_and_more_are_no_leftover(world: World) -> None:
    target, _ = await evicted(world, 1)
    sets = world.store.list("ReplicaSet", NS)
    action = find(PODS)

    def plan(count: int) -> Plan:
        related = {"ReplicaSet": sets, "Pod": litter(world, target, count)}
        changes = action.changes(target, related, action.parameters())
        return world.plan(PODS, target).model_copy(update={"changes": changes})

    assert len(plan(50).changes) == 50
    assert len(encode(plan(50))) < MAX_ENCODED_PLAN * 0.9
    with pytest.raises(NotApplicableError, match=r"51 pods .* more than 50"):
        plan(51)


# --- rights -------------------------------------------------------------------------------------


def without(world: World, name: str, resource: str, verb: str) -> None:
    """Take one verb out of an action's Role."""
    role = world.store.get("Role", NS, f"tiphys-act-{name}")
    for rule in role["rules"]:
        if resource in rule["resources"]:
            rule["verbs"] = [v for v in rule["verbs"] if v != verb]
    world.store.update(role)


VERBS = [(right.resource, verb) for right in find(PODS).rights for verb in right.verbs]


@pytest.mark.parametrize(("resource", "verb"), VERBS)
async def test_without_a_right_it_fails_and_deletes_nothing(
    world: World, resource: str, verb: str
) -> None:
    target, gone = await evicted(world)
    plan = world.plan(PODS, target)
    without(world, PODS, resource, verb)
    with pytest.raises(Forbidden):
        await world.step(ACT, plan)
    assert {*gone} <= {*world.pods()}
