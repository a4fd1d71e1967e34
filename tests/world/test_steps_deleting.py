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

from tiphys.policies.model import Change, Check, DecidedBy, Plan, Target
from tiphys.policies.plan import MAX_ENCODED_PLAN, encode, short_digest
from tiphys.sandbox.behaviour import Behaviour, Behaviours, Match, PodState
from tiphys.sandbox.controllers import Controllers
from tiphys.sandbox.kube_api import kube_app
from tiphys.sandbox.logs import Logs
from tiphys.sandbox.loopback import serving
from tiphys.sandbox.pods import Pace
from tiphys.sandbox.rbac import Tokens
from tiphys.sandbox.store import LAG, Store
from tiphys.workflow_templates import mark
from tiphys.workflow_templates.action import NotApplicableError, Report, Result, Run, StepName
from tiphys.workflow_templates.catalogue import find
from tiphys.workflow_templates.cluster import Cluster, Connection, Forbidden, Unreachable
from tiphys.workflow_templates.render import RenderSettings, role_bindings
from tiphys.workflow_templates.scheduled_runs import end_of

Obj = dict[str, Any]
SPEED = 10
"""Seconds of a step's clock in one of ours."""
NS = "shop"
PRECHECK, ACT, VERIFY, ROLLBACK = StepName
PODS, JOB = "delete-failed-pods", "delete-failed-job"


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
    assert [c.place for c in plan.changes] == [f"Pod {NS}/{name}" for name in gone]
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


def ending(world: World, name: str) -> None:
    """Have a pod deleted that something holds back, so that it is on its way out for a while."""
    pod = world.store.get("Pod", NS, name)
    pod["metadata"]["finalizers"] = ["example.org/keeps"]
    world.store.update(pod)
    world.store.delete("Pod", NS, name)


async def test_what_is_on_its_way_out_is_not_deleted_again(world: World) -> None:
    target, gone = await evicted(world)
    plan = world.plan(PODS, target)
    ending(world, gone[0])
    assert (await world.step(PRECHECK, plan)).message == "2 of 3 are there, as planned"
    report = await world.step(ACT, plan)
    assert (report.result, report.message) == (Result.ACTED, "deleted 2")


async def test_a_planned_pod_that_has_lost_its_owner_stops_it(world: World) -> None:
    target, gone = await evicted(world)
    plan = world.plan(PODS, target)
    pod = world.store.get("Pod", NS, gone[1])
    del pod["metadata"]["ownerReferences"]
    world.store.update(pod)
    await world.until(lambda: gone[1] in world.pods())
    report = await world.step(ACT, plan)
    assert report.result is Result.REFUSED
    assert report.message == f"no longer garbage of Deployment shop/cart: {gone[1]}"
    assert {*gone} <= {*world.pods()}


async def test_a_change_that_names_no_pod_deletes_nothing(world: World) -> None:
    target, gone = await evicted(world)
    plan = world.plan(PODS, target)
    itself = Change(path="", present=None, intended=None)
    both = plan.model_copy(update={"changes": (itself, *plan.changes)})
    assert (await world.step(ACT, both)).message == "deleted 3"
    assert not {*world.pods()} & {*gone}
    assert world.store.get("Deployment", NS, "cart")["spec"] == target["spec"]


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
    assert (change.path, change.place) == ("", f"Pod {NS}/{gone[2]}")
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


async def test_forty_fit_into_a_plan_and_more_are_no_leftover(world: World) -> None:
    target, _ = await evicted(world, 1)
    sets = world.store.list("ReplicaSet", NS)
    action = find(PODS)

    def plan(count: int) -> Plan:
        related = {"ReplicaSet": sets, "Pod": litter(world, target, count)}
        changes = action.changes(target, related, action.parameters())
        return world.plan(PODS, target).model_copy(update={"changes": changes})

    assert len(plan(40).changes) == 40
    assert len(encode(plan(40))) < MAX_ENCODED_PLAN * 0.9
    with pytest.raises(NotApplicableError, match=r"41 pods .* more than 40"):
        plan(41)


# --- a CronJob's failed run ---------------------------------------------------------------------


def cron_job(world: World, name: str = "report") -> Obj:
    meta = {"name": name, "namespace": NS}
    return world.store.create({"kind": "CronJob", "metadata": meta, "spec": {"schedule": "@daily"}})


async def ran(world: World, name: str, *, well: bool, maker: Obj | None = None) -> Obj:
    """Let a Job run to its end, begun as its number says: each a minute after the one before."""
    owner: list[Obj] = []
    if maker:
        kind = {"apiVersion": "batch/v1", "kind": "CronJob", "controller": True}
        owner = [kind | {k: maker["metadata"][k] for k in ("name", "uid")}]
    state = PodState.SUCCEEDED if well else PodState.CRASH
    world.behaviours.add(Behaviour(match=Match(name=f"{name}-*"), state=state))
    meta = {"name": name, "namespace": NS, "ownerReferences": owner}
    pods = {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": "r:1"}]}}
    job = {"kind": "Job", "metadata": meta, "spec": {"backoffLimit": 0, "template": pods}}
    past = LAG.set(60.0 * (10 - int(name[-1])))
    world.store.create(job)
    LAG.reset(past)
    await world.until(lambda: end_of(world.store.get("Job", NS, name)))
    return world.store.get("Job", NS, name)


async def made_up_for(world: World) -> tuple[Obj, Obj]:
    """Give a CronJob and its failed run, after which another has succeeded."""
    maker = cron_job(world)
    failed = await ran(world, "report-1", well=False, maker=maker)
    await ran(world, "report-2", well=True, maker=maker)
    return maker, failed


def jobs(world: World) -> list[str]:
    return sorted(j["metadata"]["name"] for j in world.store.list("Job", NS))


def owners_of_pods(world: World) -> set[str]:
    return {p["metadata"]["ownerReferences"][0]["name"] for p in world.store.list("Pod", NS)}


async def test_the_failed_run_goes_with_its_pods_and_the_others_stay(world: World) -> None:
    _, failed = await made_up_for(world)
    plan = world.plan(JOB, failed)
    assert owners_of_pods(world) == {"report-1", "report-2"}
    assert (await world.step(PRECHECK, plan)).result is Result.AS_PLANNED
    assert (await world.step(ACT, plan)).result is Result.ACTED
    verified = await world.step(VERIFY, plan)
    assert verified.result is Result.VERIFIED, verified
    assert "report-2 has succeeded" in verified.message
    assert jobs(world) == ["report-2"]
    assert owners_of_pods(world) == {"report-2"}
    assert (await world.step(PRECHECK, plan)).result is Result.ALREADY_DONE
    assert (await world.step(ACT, plan)).result is Result.ALREADY_DONE
    assert (await world.step(ROLLBACK, plan)).result is Result.NOTHING_TO_RESTORE


async def test_a_job_of_that_name_with_another_uid_stays(world: World) -> None:
    _, failed = await made_up_for(world)
    plan = world.plan(JOB, failed)
    other = {**failed, "metadata": {k: failed["metadata"][k] for k in ("name", "namespace")}}

    def swap() -> None:
        world.store.delete("Job", NS, "report-1")
        world.store.create(other)

    report = await world.step(ACT, interrupted(world, plan, world.inside(swap)))
    assert report.result is Result.ALREADY_DONE
    assert jobs(world) == ["report-1", "report-2"]


async def test_a_failure_that_nothing_made_up_for_stays(world: World) -> None:
    maker = cron_job(world)
    await ran(world, "report-0", well=True, maker=maker)
    failed = await ran(world, "report-1", well=False, maker=maker)
    await ran(world, "other-2", well=True, maker=cron_job(world, "other"))
    await ran(world, "alone-2", well=True)
    with pytest.raises(NotApplicableError, match="last run of CronJob report is no later success"):
        world.plan(JOB, failed)


async def test_a_success_with_another_failure_after_it_proves_nothing(world: World) -> None:
    maker, failed = await made_up_for(world)
    plan = world.plan(JOB, failed)
    await ran(world, "report-3", well=False, maker=maker)
    report = await world.step(ACT, plan)
    assert report.result is Result.REFUSED
    assert "is no later success" in report.message
    assert "report-1" in jobs(world)


async def test_the_next_run_that_fails_is_not_verified(world: World) -> None:
    maker, failed = await made_up_for(world)
    plan = world.plan(JOB, failed)
    await world.step(ACT, plan)
    await ran(world, "report-3", well=False, maker=maker)
    report = await world.step(VERIFY, plan)
    assert report.result is Result.NOT_VERIFIED
    assert report.message == "the last run of CronJob report is no success"
    assert (await world.step(ROLLBACK, plan)).result is Result.NOTHING_TO_RESTORE


async def test_a_job_or_a_pod_that_is_left_is_not_verified(world: World) -> None:
    _, failed = await made_up_for(world)
    plan = world.plan(JOB, failed)
    hasty = replace(world.run(plan), verify_share=0.02)
    assert "is still there" in (await world.step(VERIFY, hasty)).message
    pod = next(p for p in world.store.list("Pod", NS) if p["metadata"]["name"] > "report-1")
    pod["metadata"]["finalizers"] = ["example.org/keeps"]
    world.store.update(pod)
    await world.step(ACT, plan)
    report = await world.step(VERIFY, hasty)
    assert report.result is Result.NOT_VERIFIED
    assert "1 of its pods are still there" in report.message


async def test_a_pod_that_takes_its_time_to_end_is_waited_for(world: World) -> None:
    _, failed = await made_up_for(world)
    plan = world.plan(JOB, failed)
    pod = next(p for p in world.store.list("Pod", NS) if p["metadata"]["name"] > "report-1")
    pod["metadata"]["finalizers"] = ["example.org/keeps"]
    world.store.update(pod)
    await world.step(ACT, plan)
    run, looks = world.run(plan), 0

    def let_go() -> None:
        held = world.store.get("Pod", NS, pod["metadata"]["name"])
        held["metadata"]["finalizers"] = []
        world.store.update(held)

    def sleep(seconds: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 2:
            world.inside(let_go)()
        time.sleep(seconds / SPEED)

    report = await world.step(VERIFY, replace(run, sleep=sleep))
    assert report.result is Result.VERIFIED, report
    assert looks >= 2


def suspend(world: World, kind: str, name: str) -> None:
    world.store.patch(kind, NS, name, {"spec": {"suspend": True}})


def still_active(world: World) -> None:
    job = world.store.get("Job", NS, "report-1")
    job["status"]["active"] = 1
    world.store.update(job, subresource="status")


def still_ending(world: World) -> None:
    job = world.store.get("Job", NS, "report-1")
    job["status"]["terminating"] = 1
    world.store.update(job, subresource="status")


def with_a_pod(world: World) -> None:
    job = world.store.get("Job", NS, "report-1")["metadata"]
    owner = {"apiVersion": "batch/v1", "kind": "Job", "controller": True}
    owner |= {k: job[k] for k in ("name", "uid")}
    meta = {"name": "straggler", "namespace": NS, "ownerReferences": [owner]}
    spec = {"containers": [{"name": "main", "image": "r:1"}]}
    world.store.create({"kind": "Pod", "metadata": meta, "spec": spec})


def marked(world: World) -> None:
    note = {"metadata": {"annotations": {mark.ANNOTATION: f"{'b' * 40}.act"}}}
    world.store.patch("Job", NS, "report-1", note)


def orphaned(world: World) -> None:
    world.store.delete("CronJob", NS, "report", orphan=True)


MEANWHILE: list[tuple[Callable[[World], None], str]] = [
    (lambda world: suspend(world, "CronJob", "report"), "suspended"),
    (lambda world: suspend(world, "Job", "report-1"), "suspended"),
    (still_active, "1 of its pods are active"),
    (still_ending, "1 of its pods are terminating"),
    (with_a_pod, "straggler has not ended"),
    (marked, "another run"),
    (orphaned, "no CronJob made this Job"),
    (lambda world: world.store.delete("CronJob", NS, "report"), "gone, not by this run"),
]


@pytest.mark.parametrize(("happen", "why"), MEANWHILE)
async def test_what_has_happened_meanwhile_stops_it(
    world: World, happen: Callable[[World], Any], why: str
) -> None:
    _, failed = await made_up_for(world)
    plan = world.plan(JOB, failed)
    happen(world)
    report = await world.step(PRECHECK, plan)
    assert (report.result, why in report.message) == (Result.REFUSED, True), report
    assert (await world.step(ACT, plan)).result is Result.REFUSED
    assert "act" not in world.events()


async def test_a_job_that_is_no_garbage_is_not_planned(world: World) -> None:
    maker, failed = await made_up_for(world)
    with pytest.raises(NotApplicableError, match="the Job has not failed"):
        world.plan(JOB, world.store.get("Job", NS, "report-2"))
    lone = await ran(world, "lone-1", well=False)
    with pytest.raises(NotApplicableError, match="no CronJob made this Job"):
        world.plan(JOB, lone)
    ending = {**failed, "metadata": {**failed["metadata"], "deletionTimestamp": "2026-01-01"}}
    with pytest.raises(NotApplicableError, match="being deleted already"):
        world.plan(JOB, ending)
    world.store.delete("CronJob", NS, "report", orphan=True)
    with pytest.raises(NotApplicableError, match="CronJob report is gone"):
        world.plan(JOB, failed)
    assert maker


# --- rights -------------------------------------------------------------------------------------


def without(world: World, name: str, resource: str, verb: str) -> None:
    """Take one verb out of an action's Role."""
    role = world.store.get("Role", NS, f"tiphys-act-{name}")
    for rule in role["rules"]:
        if resource in rule["resources"]:
            rule["verbs"] = [v for v in rule["verbs"] if v != verb]
    world.store.update(role)


VERBS = [
    (name, right.resource, verb)
    for name in (PODS, JOB)
    for right in find(name).rights
    for verb in right.verbs
    if (name, right.resource, verb) != (JOB, "pods", "get")
]
"""What act needs; verify of delete-failed-job reads single pods."""


@pytest.mark.parametrize(("name", "resource", "verb"), VERBS)
async def test_without_a_right_it_fails_and_deletes_nothing(
    world: World, name: str, resource: str, verb: str
) -> None:
    target = (await evicted(world))[0] if name == PODS else (await made_up_for(world))[1]
    plan = world.plan(name, target)
    without(world, name, resource, verb)
    before = {*world.pods(), *jobs(world)}
    with pytest.raises(Forbidden):
        await world.step(ACT, plan)
    assert before <= {*world.pods(), *jobs(world)}


async def test_verify_that_may_not_read_pods_is_not_verified(world: World) -> None:
    _, failed = await made_up_for(world)
    plan = world.plan(JOB, failed)
    without(world, JOB, "pods", "get")
    # They end later than the Job, so that there is something to read.
    for pod in world.store.list("Pod", NS):
        pod["metadata"]["finalizers"] = ["example.org/keeps"]
        world.store.update(pod)
    await world.step(ACT, plan)
    report = await world.step(VERIFY, replace(world.run(plan), verify_share=0.02))
    assert report.result is Result.NOT_VERIFIED
    assert "cannot get" in report.message
