"""Steps against a live API: nothing is done twice, and nothing of somebody else's is undone."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tiphys.policies.model import Check, DecidedBy, Plan, Target
from tiphys.policies.plan import digest, encode, short_digest, workflow_name
from tiphys.sandbox import admission
from tiphys.sandbox.behaviour import Behaviour, Behaviours, Match, PodState
from tiphys.sandbox.controllers import Controllers
from tiphys.sandbox.kube_api import kube_app
from tiphys.sandbox.logs import Logs
from tiphys.sandbox.loopback import serving
from tiphys.sandbox.pods import Pace
from tiphys.sandbox.rbac import Tokens
from tiphys.sandbox.store import PatchType, Store
from tiphys.service.database import stamp
from tiphys.workflow_templates import mark, run_step
from tiphys.workflow_templates.action import Action, Report, Result, Run, StepName
from tiphys.workflow_templates.catalogue import find, template_name
from tiphys.workflow_templates.cluster import Cluster, Connection, Unreachable
from tiphys.workflow_templates.pointers import at
from tiphys.workflow_templates.render import RenderSettings, role_bindings
from tiphys.workflow_templates.scale_workload import ScaleWorkload
from tiphys.workflow_templates.signature import public_hex, sign

Obj = dict[str, Any]
SPEED = 10
"""Seconds of a step's clock in one of ours."""
NS = "shop"
KEY = Ed25519PrivateKey.generate()
PRECHECK, ACT, VERIFY, ROLLBACK = StepName
SCALE, UNDO, RESTART = "scale-workload", "rollout-undo", "restart-pod"
AGAIN, MEMORY = "rollout-restart", "raise-memory-limit"
PARAMETERS: dict[str, Any] = {
    SCALE: {"replicas": 3},
    MEMORY: {"container": "main", "limit_mib": 96},
}


class Between(Cluster):
    """The real client, with something happening just before or after its first write, or claim."""

    def __init__(self, connection: Connection, mark: str) -> None:
        super().__init__(connection, mark)
        self.before: list[Callable[[], None]] = []
        self.after: list[Callable[[], None]] = []
        self.claiming: list[Callable[[], None]] = []

    def _ask(self, method: str, path: str, **how: Any) -> Any:
        write = method in {"PUT", "PATCH", "DELETE"}
        if method == "POST" and self.claiming:
            self.claiming.pop()()
        if write and self.before:
            self.before.pop()()
        answer = super()._ask(method, path, **how)
        if write and self.after:
            self.after.pop()()
        return answer


@dataclass
class World:
    """A namespace with one workload, served over HTTP, and the actions' own identities in it."""

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

    def environment(self, plan: Plan, **other: str) -> dict[str, str]:
        account = self.folder / f"{plan.action}-{plan.attempt}"
        account.mkdir(exist_ok=True)
        token = self.tokens.service_account("tiphys-actions", f"act-{plan.action}")
        (account / "token").write_text(token)
        not_after = stamp(datetime.now(UTC) + timedelta(minutes=10))  # As the launcher does.
        given = {
            "TIPHYS_SERVICE_ACCOUNT_DIR": str(account),
            "TIPHYS_KUBERNETES_URL": self.url,
            "TIPHYS_PUBLIC_KEY": public_hex(KEY),
            "TIPHYS_PLAN": encode(plan),
            "TIPHYS_NOT_AFTER": not_after,
            "TIPHYS_TARGET": plan.target.uid,
            "TIPHYS_WORKFLOW": workflow_name(plan),
            "TIPHYS_ACTION": f"{plan.action}-v1",
            **other,
        }
        signed = sign(KEY, digest(plan), given["TIPHYS_NOT_AFTER"])
        return {"TIPHYS_SIGNATURE": signed, **given}

    def cluster(self, plan: Plan) -> Between:
        connection = Connection.of_pod(self.environment(plan))
        return Between(connection, short_digest(plan))

    def run(self, plan: Plan) -> Run:
        return Run(
            plan=plan,
            digest=short_digest(plan),
            not_after=self.now() + timedelta(minutes=10),
            cluster=self.cluster(plan),
            metrics=None,
            now=self.now,
            sleep=lambda seconds: time.sleep(seconds / SPEED),
        )

    async def step(self, step: StepName, plan: Plan, run: Run | None = None) -> Report:
        action = find(plan.action)
        return await asyncio.to_thread(getattr(action, step), run or self.run(plan))

    def plan(self, name: str, attempt: int = 1, **parameters: Any) -> Plan:
        action = find(name)
        target = self.pod() if name == RESTART else self.get()
        related = {r.kind: self.store.list(r.kind, NS) for r in action.reads}
        typed = action.parameters.model_validate(parameters)
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
                name=target["metadata"]["name"],
                uid=target["metadata"]["uid"],
            ),
            parameters=parameters,
            changes=action.changes(target, related, typed),
            check=Check(hold_seconds=1),
            policy="test",
            evidence_hash="0" * 64,
            decided_by=DecidedBy(reasoner="human"),
        )

    def get(self) -> Obj:
        return self.store.get("Deployment", NS, "cart")

    def pod(self) -> Obj:
        return self.store.list("Pod", NS)[0]

    def image(self) -> str:
        return self.get()["spec"]["template"]["spec"]["containers"][0]["image"]

    def version(self) -> str:
        return self.get()["metadata"]["resourceVersion"]

    def human(self, **spec: Any) -> None:
        self.store.patch("Deployment", NS, "cart", {"spec": spec}, manager="kubectl-edit")

    def from_thread(self, work: Callable[[], None]) -> Callable[[], None]:
        """Let work on the store, called in a step's thread, happen in the event loop."""

        def later() -> None:
            async def inside() -> None:
                work()

            asyncio.run_coroutine_threadsafe(inside(), self.loop).result(5)

        return later

    async def until(self, condition: Callable[[], Any]) -> None:
        moved = asyncio.Event()
        unsubscribe = self.store.subscribe(lambda *_: moved.set())
        async with asyncio.timeout(8):
            while not condition():
                await moved.wait()
                moved.clear()
        unsubscribe()

    async def rolled_out(self) -> None:
        def done() -> bool:
            found = self.get()
            status, replicas = found.get("status", {}), found["spec"]["replicas"]
            counts = (status.get(k) for k in ("readyReplicas", "updatedReplicas", "replicas"))
            seen = status.get("observedGeneration") == found["metadata"]["generation"]
            ended = len(self.store.list("Pod", NS)) == replicas
            return seen and ended and all(count == replicas for count in counts)

        await self.until(done)


def memory(limit: str) -> Obj:
    return {"limits": {"memory": limit}, "requests": {"memory": limit}}


def container(image: str) -> Obj:
    env = [{"name": "MODE", "value": image}]
    return {"name": "main", "image": image, "env": env, "resources": memory("64Mi")}


def cart(image: str) -> Obj:
    labels = {"app": "cart"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "cart", "namespace": NS, "labels": labels},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [container(image)]},
            },
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
    settings = RenderSettings(image="i", public_key=public_hex(KEY))
    for one in role_bindings(settings, NS):
        here.store.create(cast(Obj, one))
    admission.install(here.store)
    logs = Logs()
    async with serving(kube_app(here.store, here.tokens, logs)) as here.url:
        control = Controllers(here.store, here.behaviours, logs, Pace(start=0.01, ready=0.02))
        controllers = asyncio.create_task(control.run())
        here.store.create(cart("cart:1"), manager="helm")
        await here.rolled_out()
        yield here
        controllers.cancel()
        with suppress(asyncio.CancelledError):
            await controllers


async def release(world: World, image: str) -> None:
    world.human(template={"spec": {"containers": [container(image)]}})
    await world.rolled_out()


async def planned(world: World, name: str, attempt: int = 1) -> Plan:
    if name == UNDO and world.image() == "cart:1":
        await release(world, "cart:2")
    return world.plan(name, attempt, **PARAMETERS.get(name, {}))


def there(world: World, plan: Plan, *, intended: bool) -> bool:
    live = world.get()
    wanted = [(c.path, c.intended if intended else c.present) for c in plan.changes]
    assert wanted
    return all(at(live, path) == value for path, value in wanted)


OTHER, PRESENT, INTENDED = range(3)


async def somebody_sets(world: World, plan: Plan, value: int) -> None:
    """Let a human set what the plan changes: to what it was, to what it would be, or to more."""
    if plan.action == SCALE:
        world.human(replicas=(5, 2, 3)[value])
    elif plan.action == UNDO:
        await release(world, ("cart:3", "cart:2", "cart:1")[value])
    elif plan.action == MEMORY:
        one = container(world.image())
        one["resources"] = memory(("80Mi", "64Mi", "96Mi")[value])
        world.human(template={"spec": {"containers": [one]}})
    else:
        [change] = plan.changes
        notes = ({"by": "hand"}, change.present, change.intended)[value]
        world.human(template={"metadata": {"annotations": notes}})
    await world.rolled_out()


EACH = pytest.mark.parametrize("name", [SCALE, UNDO, AGAIN, MEMORY])


# --- the way it should go -----------------------------------------------------------------------


@EACH
async def test_a_run_acts_verifies_and_can_be_put_back(world: World, name: str) -> None:
    plan = await planned(world, name)
    before = world.get()["spec"]
    assert (await world.step(PRECHECK, plan)).result is Result.AS_PLANNED
    assert (await world.step(ACT, plan)).result is Result.ACTED
    assert there(world, plan, intended=True)
    assert mark.unfinished(world.get()) == short_digest(plan)
    verified = await world.step(VERIFY, plan)
    assert verified.result is Result.VERIFIED, verified
    assert (await world.step(ROLLBACK, plan)).result is Result.UNDONE
    assert world.get()["spec"] == before


async def test_restart_deletes_one_pod_and_waits_for_its_successor(world: World) -> None:
    plan = world.plan(RESTART)
    others = {p["metadata"]["uid"] for p in world.store.list("Pod", NS)} - {plan.target.uid}
    assert (await world.step(PRECHECK, plan)).result is Result.AS_PLANNED
    assert (await world.step(ACT, plan)).result is Result.ACTED
    assert (await world.step(VERIFY, plan)).result is Result.VERIFIED
    left = {p["metadata"]["uid"] for p in world.store.list("Pod", NS)}
    assert others < left
    assert plan.target.uid not in left
    assert len(left) == 2


@EACH
async def test_not_better_is_not_verified(world: World, name: str) -> None:
    plan = await planned(world, name)
    fault = Behaviour(match=Match(namespace=NS), state=PodState.NOT_READY)
    world.behaviours.add(fault)
    await world.step(ACT, plan)
    run = replace(world.run(plan), verify_share=0.02)
    report = await world.step(VERIFY, plan, run)
    assert report.result is Result.NOT_VERIFIED
    assert "ready" in report.message
    assert (await world.step(ROLLBACK, plan)).result is Result.UNDONE


# --- a second time ------------------------------------------------------------------------------


@EACH
async def test_a_second_act_changes_nothing(world: World, name: str) -> None:
    plan = await planned(world, name)
    await world.step(ACT, plan)
    await world.rolled_out()
    version = world.version()
    assert (await world.step(PRECHECK, plan)).result is Result.ALREADY_DONE
    assert (await world.step(ACT, plan)).result is Result.ALREADY_DONE
    assert world.version() == version


async def test_a_second_restart_deletes_nothing_else(world: World) -> None:
    plan = world.plan(RESTART)
    await world.step(ACT, plan)
    await world.until(lambda: world.store.find("Pod", NS, plan.target.name) is None)
    await world.until(lambda: len(world.store.list("Pod", NS)) == 2)
    left = {p["metadata"]["uid"] for p in world.store.list("Pod", NS)}
    assert (await world.step(PRECHECK, plan)).result is Result.ALREADY_DONE
    assert (await world.step(ACT, plan)).result is Result.ALREADY_DONE
    assert (await world.step(ROLLBACK, plan)).result is Result.NOTHING_TO_RESTORE
    assert {p["metadata"]["uid"] for p in world.store.list("Pod", NS)} == left


async def test_a_successor_of_the_same_name_is_not_taken_for_the_pod(world: World) -> None:
    plan = world.plan(RESTART)
    old = world.store.get("Pod", NS, plan.target.name)
    await world.step(ACT, plan)
    # As a StatefulSet does.
    kept = ("name", "namespace", "labels", "ownerReferences")
    old["metadata"] = {k: old["metadata"][k] for k in kept}
    await world.until(lambda: world.store.find("Pod", NS, plan.target.name) is None)
    world.store.create(old)
    for step, result in (
        (PRECHECK, Result.ALREADY_DONE),
        (ACT, Result.ALREADY_DONE),
        (ROLLBACK, Result.NOTHING_TO_RESTORE),
    ):
        assert (await world.step(step, plan)).result is result


@EACH
async def test_an_undone_run_never_acts_or_undoes_again(world: World, name: str) -> None:
    plan = await planned(world, name)
    await world.step(ACT, plan)
    assert (await world.step(ROLLBACK, plan)).result is Result.UNDONE
    await world.rolled_out()
    version = world.version()

    def never() -> None:
        raise AssertionError("a write")

    for step, result in (
        (PRECHECK, Result.REFUSED),
        (ACT, Result.REFUSED),
        (ROLLBACK, Result.UNDONE),
    ):
        run = world.run(plan)
        cast(Between, run.cluster).before = [never]
        assert (await world.step(step, plan, run)).result is result
        assert world.version() == version


@EACH
async def test_an_undone_run_does_not_act_again_when_its_events_have_expired(
    world: World, name: str
) -> None:
    plan = await planned(world, name)
    await world.step(ACT, plan)
    assert (await world.step(ROLLBACK, plan)).result is Result.UNDONE
    await world.rolled_out()
    world.store.delete("Event", NS, f"tiphys-{short_digest(plan)}.undone")
    for step in (PRECHECK, ACT):
        report = await world.step(step, plan)
        assert (report.result, report.message) == (
            Result.REFUSED, "this run was undone; it does not act again"
        )  # fmt: skip


def counted(run: Run, first: Callable[[Obj], Obj]) -> list[str]:
    """Count a run's reads of the target; the first one is seen as `first` makes it."""
    asked: list[str] = []
    cluster = run.cluster
    real = cluster.get

    def get(version: str, kind: str, namespace: str, name: str) -> Any:
        found = real(version, kind, namespace, name)
        if kind != run.plan.target.kind:
            return found
        asked.append(name)
        return first(dict(found)) if len(asked) == 1 else found

    cluster.get = get  # type: ignore[method-assign]
    return asked


async def test_a_target_that_moves_while_it_is_looked_at_is_looked_at_again(world: World) -> None:
    plan = await planned(world, SCALE)
    run = world.run(plan)

    def earlier(found: Obj) -> Obj:
        meta = {**found["metadata"], "resourceVersion": "1"}
        return {**found, "metadata": meta, "spec": {**found["spec"], "replicas": 5}}

    counted(run, earlier)
    assert (await world.step(PRECHECK, plan, run)).result is Result.AS_PLANNED


async def test_what_is_not_as_planned_and_stands_still_is_believed_at_once(world: World) -> None:
    plan = await planned(world, SCALE)
    await somebody_sets(world, plan, OTHER)
    run = world.run(plan)
    asked = counted(run, lambda found: found)
    assert (await world.step(PRECHECK, plan, run)).result is Result.REFUSED
    assert len(asked) == 2, "to plan again, and to see whether it has moved"


async def test_a_write_without_an_answer_is_looked_up_not_repeated(world: World) -> None:
    plan = await planned(world, SCALE)
    run = world.run(plan)

    def lost() -> None:
        raise Unreachable("the answer was lost")

    cast(Between, run.cluster).after = [lost]
    assert (await world.step(ACT, plan, run)).result is Result.ALREADY_DONE
    assert there(world, plan, intended=True)


# --- after somebody else ------------------------------------------------------------------------


@EACH
async def test_what_somebody_else_changed_since_is_left_alone(world: World, name: str) -> None:
    plan = await planned(world, name)
    await world.step(ACT, plan)
    await somebody_sets(world, plan, OTHER)
    spec = world.get()["spec"]
    assert (await world.step(ACT, plan)).result in {Result.REFUSED, Result.ALREADY_DONE}
    assert (await world.step(VERIFY, plan)).result is Result.NOT_VERIFIED
    assert (await world.step(ROLLBACK, plan)).result is Result.NOT_OURS
    assert world.get()["spec"] == spec


@EACH
async def test_values_that_somebody_put_back_are_not_changed_again(world: World, name: str) -> None:
    plan = await planned(world, name)
    await world.step(ACT, plan)
    await somebody_sets(world, plan, PRESENT)
    if name != SCALE:
        # As `kubectl rollout undo` does: it replaces the annotations, the mark with them.
        annotations = dict(world.get()["metadata"]["annotations"])
        annotations[mark.ANNOTATION] = None
        world.store.patch("Deployment", NS, "cart", {"metadata": {"annotations": annotations}})
    await world.rolled_out()
    version = world.version()
    for step, result in (
        (PRECHECK, Result.REFUSED),
        (ACT, Result.REFUSED),
        (ROLLBACK, Result.NOT_OURS),
    ):
        assert (await world.step(step, plan)).result is result
        assert world.version() == version


@EACH
async def test_an_equal_value_that_somebody_else_wrote_is_not_undone(
    world: World, name: str
) -> None:
    plan = await planned(world, name)
    await somebody_sets(world, plan, INTENDED)
    assert (await world.step(ACT, plan)).result is Result.REFUSED
    assert (await world.step(ROLLBACK, plan)).result is Result.NOTHING_CHANGED
    assert there(world, plan, intended=True)


@EACH
async def test_another_object_of_that_name_is_refused(world: World, name: str) -> None:
    plan = await planned(world, name)
    other = plan.target.model_copy(update={"uid": "00000000-0000-0000-0000-000000000000"})
    plan = plan.model_copy(update={"target": other})
    version = world.version()
    assert "another object" in (await world.step(ACT, plan)).message
    assert (await world.step(ROLLBACK, plan)).result is Result.NOTHING_CHANGED
    assert world.version() == version


async def test_a_pod_that_somebody_else_deleted_is_not_ours(world: World) -> None:
    plan = world.plan(RESTART)
    world.store.delete("Pod", NS, plan.target.name, grace=0)
    await world.until(lambda: len(world.store.list("Pod", NS)) == 2)
    left = {p["metadata"]["uid"] for p in world.store.list("Pod", NS)}
    assert (await world.step(PRECHECK, plan)).result is Result.REFUSED
    assert (await world.step(ACT, plan)).result is Result.REFUSED
    assert (await world.step(ROLLBACK, plan)).result is Result.NOTHING_CHANGED
    assert {p["metadata"]["uid"] for p in world.store.list("Pod", NS)} == left


# --- at the same time ---------------------------------------------------------------------------


@EACH
async def test_a_change_between_reading_and_writing_is_seen(world: World, name: str) -> None:
    plan = await planned(world, name)
    run = world.run(plan)
    change = {"replicas": 7} if name == SCALE else {"template": {"spec": {"hostNetwork": True}}}
    cast(Between, run.cluster).before = [world.from_thread(lambda: world.human(**change))]
    assert (await world.step(ACT, plan, run)).result is Result.REFUSED
    assert not there(world, plan, intended=True)


@EACH
async def test_an_object_replaced_between_reading_and_writing_is_left(
    world: World, name: str
) -> None:
    plan = await planned(world, name)
    run = world.run(plan)

    def swap() -> None:
        old = world.get()
        world.store.delete("Deployment", NS, "cart")
        old["metadata"] = {k: old["metadata"][k] for k in ("name", "namespace", "labels")}
        world.store.create(old, manager="helm")

    cast(Between, run.cluster).before = [world.from_thread(swap)]
    assert (await world.step(ACT, plan, run)).result is Result.REFUSED
    assert not there(world, plan, intended=True)


async def test_a_pod_recreated_between_reading_and_deleting_lives(world: World) -> None:
    plan = world.plan(RESTART)
    run = world.run(plan)

    def swap() -> None:
        old = world.store.get("Pod", NS, plan.target.name)
        world.store.delete("Pod", NS, plan.target.name, grace=0)
        kept = ("name", "namespace", "labels", "ownerReferences")
        old["metadata"] = {k: old["metadata"][k] for k in kept}
        world.store.create(old)

    cast(Between, run.cluster).before = [world.from_thread(swap)]
    await world.step(ACT, plan, run)
    assert world.store.get("Pod", NS, plan.target.name)["metadata"]["uid"] != plan.target.uid


@EACH
async def test_of_two_runs_on_one_target_one_acts(world: World, name: str) -> None:
    first = await planned(world, name, 1)
    second = await planned(world, name, 2)
    plans = [first, second]
    results = [r.result for r in await asyncio.gather(*(world.step(ACT, p) for p in plans))]
    assert sorted(results) == [Result.ACTED, Result.REFUSED]
    loser = plans[results.index(Result.REFUSED)]
    spec = world.get()["spec"]
    assert (await world.step(ROLLBACK, loser)).result is Result.NOTHING_CHANGED
    assert world.get()["spec"] == spec


async def test_a_change_between_reading_and_undoing_is_not_overwritten(world: World) -> None:
    plan = await planned(world, SCALE)
    await world.step(ACT, plan)
    run = world.run(plan)
    cast(Between, run.cluster).before = [world.from_thread(lambda: world.human(replicas=9))]
    assert (await world.step(ROLLBACK, plan, run)).result is Result.NOT_OURS
    assert world.get()["spec"]["replicas"] == 9


async def test_act_that_was_held_up_does_not_act_after_rollback(world: World) -> None:
    plan = await planned(world, SCALE)

    def rollback() -> None:
        assert find(SCALE).rollback(world.run(plan)).result is Result.NOTHING_CHANGED

    # Held up between looking and claiming: rollback finds nothing and closes the door.
    run = world.run(plan)
    cast(Between, run.cluster).claiming = [rollback]
    assert (await world.step(ACT, plan, run)).result is Result.REFUSED
    assert (await world.step(PRECHECK, plan)).result is Result.REFUSED
    assert there(world, plan, intended=False)


async def test_a_held_up_restart_does_not_act_after_rollback(world: World) -> None:
    plan = world.plan(RESTART)

    def rollback() -> None:
        assert find(RESTART).rollback(world.run(plan)).result is Result.NOTHING_CHANGED

    run = world.run(plan)
    cast(Between, run.cluster).claiming = [rollback]
    assert (await world.step(ACT, plan, run)).result is Result.REFUSED
    assert (await world.step(PRECHECK, plan)).result is Result.REFUSED
    assert world.store.get("Pod", NS, plan.target.name)["metadata"]["uid"] == plan.target.uid


async def test_rollback_waits_for_a_write_that_is_under_way(world: World) -> None:
    plan = await planned(world, SCALE)
    run, other = world.run(plan), world.run(plan)
    begun: list[Any] = []

    def rollback() -> None:
        # The claim is made and the door was open; the write comes while rollback looks.
        begun.append(
            asyncio.run_coroutine_threadsafe(world.step(ROLLBACK, plan, other), world.loop)
        )
        deadline = time.monotonic() + 3
        while not mark.found(run, run.digest, mark.Trace.UNDONE) and time.monotonic() < deadline:
            time.sleep(0.005)

    cast(Between, run.cluster).before = [rollback]
    assert (await world.step(ACT, plan, run)).result is Result.ACTED
    report = await asyncio.wrap_future(begun[0])
    assert report.result is Result.UNDONE
    assert there(world, plan, intended=False)


async def test_a_vertical_autoscaler_that_came_since_the_plan_is_heeded(world: World) -> None:
    plan = await planned(world, MEMORY)
    scaler = {
        "apiVersion": "autoscaling.k8s.io/v1",
        "kind": "VerticalPodAutoscaler",
        "metadata": {"name": "vpa", "namespace": NS},
        "spec": {"targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "cart"}},
    }
    world.store.create(scaler)
    for step in (PRECHECK, ACT):
        report = await world.step(step, plan)
        assert report.result is Result.REFUSED
        assert report.message == "VerticalPodAutoscaler vpa owns the memory"
    assert there(world, plan, intended=False)


async def test_of_a_kind_that_is_not_served_there_are_none(world: World) -> None:
    cluster = world.cluster(await planned(world, MEMORY))
    place = "VerticalPodAutoscaler", NS
    assert await asyncio.to_thread(cluster.list, "autoscaling.k8s.io/v1", *place) == []
    assert await asyncio.to_thread(cluster.list, "autoscaling.k8s.io/v9", *place) == []


# --- other runs ---------------------------------------------------------------------------------


@EACH
async def test_another_runs_unfinished_mark_refuses_and_a_kept_one_does_not(
    world: World, name: str
) -> None:
    first = await planned(world, name)
    await world.step(ACT, first)
    await world.rolled_out()
    more = {SCALE: {"replicas": 4}, MEMORY: {"container": "main", "limit_mib": 128}}
    second = world.plan(name, 2, **more.get(name, {}))
    refused = await world.step(PRECHECK, second)
    assert refused.result is Result.REFUSED
    assert "another run" in refused.message
    assert (await world.step(VERIFY, first)).result is Result.VERIFIED
    await world.rolled_out()
    if name != SCALE:
        assert mark.by_annotation(world.get()) == f"{short_digest(first)}.kept"
        assert mark.unfinished(world.get()) is None
    assert (await world.step(PRECHECK, second)).result is Result.AS_PLANNED


# --- what does not hold -------------------------------------------------------------------------


async def test_a_rollback_that_does_not_hold_says_so(world: World) -> None:
    plan = await planned(world, SCALE)
    await world.step(ACT, plan)
    run = world.run(plan)
    cast(Between, run.cluster).after = [world.from_thread(lambda: world.human(replicas=3))]
    assert (await world.step(ROLLBACK, plan, run)).result is Result.NOT_UNDONE


@pytest.mark.parametrize("name", [SCALE, UNDO, RESTART, AGAIN, MEMORY])
async def test_each_right_is_needed_and_its_lack_fails_cleanly(world: World, name: str) -> None:
    plan = await planned(world, name)
    role = world.store.get("Role", NS, f"tiphys-act-{name}")
    # Rights that another kind of target or owner needs.
    elsewhere = {"statefulsets", "statefulsets/scale", "daemonsets", "jobs"}
    for index, rule in enumerate(role["rules"]):
        for verb in rule["verbs"]:
            if rule["resources"][0] in elsewhere:
                continue
            less = json.loads(json.dumps(role))
            less["rules"][index]["verbs"].remove(verb)
            body = {"rules": less["rules"]}
            world.store.patch("Role", NS, role["metadata"]["name"], body, PatchType.MERGE)
            environment = world.environment(plan)
            version, pods = world.version(), world.store.list("Pod", NS)
            report = await asyncio.to_thread(run_step.run, ACT, environment)
            token = (Path(environment["TIPHYS_SERVICE_ACCOUNT_DIR"]) / "token").read_text()
            assert report.result is Result.CRASHED, rule
            assert "403" in report.message
            assert token not in report.message
            assert (world.version(), world.store.list("Pod", NS)) == (version, pods)


# --- who may start it ---------------------------------------------------------------------------


@pytest.mark.parametrize("step", [PRECHECK, ACT, VERIFY, ROLLBACK])
async def test_a_step_takes_only_what_was_signed_for_this_workflow(
    world: World, step: StepName
) -> None:
    plan = await planned(world, SCALE)
    other = plan.model_copy(update={"attempt": 2})
    good = world.environment(plan)
    version = world.version()
    for wrong in (
        {"TIPHYS_SIGNATURE": sign(Ed25519PrivateKey.generate(), digest(plan), "x")},
        {"TIPHYS_SIGNATURE": sign(KEY, digest(other), good["TIPHYS_NOT_AFTER"])},
        {"TIPHYS_NOT_AFTER": "2099-01-01T00:00:00Z"},
        {"TIPHYS_PLAN": encode(other)},
        {"TIPHYS_PLAN": encode(plan) + "AA"},
        {"TIPHYS_PLAN": ""},
        {"TIPHYS_PUBLIC_KEY": public_hex(Ed25519PrivateKey.generate())},
        {"TIPHYS_WORKFLOW": workflow_name(other)},
        {"TIPHYS_TARGET": "somebody-elses"},
        {"TIPHYS_ACTION": "scale-workload-v2"},
        {"TIPHYS_ACTION": "restart-pod-v1"},
    ):
        report = await asyncio.to_thread(run_step.run, step, {**good, **wrong})
        assert report.result is Result.REFUSED, wrong
        assert world.version() == version
    assert (await asyncio.to_thread(run_step.run, PRECHECK, good)).result is Result.AS_PLANNED


async def test_nothing_begins_after_not_after_but_rollback_still_works(world: World) -> None:
    plan = await planned(world, SCALE)
    past = "2026-01-01T00:00:00Z"
    late = world.environment(plan, TIPHYS_NOT_AFTER=past)
    for step in (PRECHECK, ACT):
        report = await asyncio.to_thread(run_step.run, step, late)
        assert (report.result, report.message) == (Result.REFUSED, "notAfter has passed")
    expired = replace(world.run(plan), not_after=world.now())
    assert (await world.step(ACT, plan, expired)).result is Result.REFUSED
    assert there(world, plan, intended=False)
    await world.step(ACT, plan)
    done = await asyncio.to_thread(run_step.run, ACT, late)
    assert done.result is Result.ALREADY_DONE
    undone = await asyncio.to_thread(run_step.run, ROLLBACK, late)
    assert undone.result is Result.UNDONE
    assert there(world, plan, intended=False)


class Careless(ScaleWorkload):
    """Forgets to look at the time."""

    def precheck(self, run: Run) -> Report:
        del run
        return Report(Result.AS_PLANNED, "fine", {})

    act = precheck


async def test_nothing_begins_after_not_after_even_when_the_action_forgets(world: World) -> None:
    expired = replace(world.run(await planned(world, SCALE)), not_after=world.now())
    for step in (PRECHECK, ACT):
        assert run_step.perform(step, Careless(), expired).result is Result.REFUSED


async def test_the_real_process_says_one_line_and_exits_by_its_result(world: World) -> None:
    plan = await planned(world, SCALE)
    outcome, log = world.folder / "outcome", world.folder / "termination-log"
    given = world.environment(
        plan, TIPHYS_OUTCOME_FILE=str(outcome), TIPHYS_TERMINATION_LOG=str(log)
    )
    ours = {k: v for k, v in os.environ.items() if k == "PATH" or k.startswith("PYTHON")}
    token = (Path(given["TIPHYS_SERVICE_ACCOUNT_DIR"]) / "token").read_text()

    def process(step: str, environment: dict[str, str]) -> tuple[int, Obj]:
        command = [sys.executable, "-m", "tiphys.workflow_templates.run_step", step]
        done = subprocess.run(
            command, env={**ours, **environment}, capture_output=True, text=True, check=False
        )
        assert token not in done.stdout + done.stderr
        assert done.stderr == ""
        (line,) = done.stdout.splitlines()
        assert outcome.read_text() == line
        found = json.loads(line)
        assert log.read_text() == f"{found['result']}: {found['message']}"
        return done.returncode, found

    code, said = await asyncio.to_thread(process, "act", given)
    assert (code, said["result"], said["step"]) == (0, "acted", "act")
    code, said = await asyncio.to_thread(process, "precheck", {**given, "TIPHYS_TARGET": "other"})
    assert (code, said["result"]) == (3, "refused")
    code, said = await asyncio.to_thread(process, "rm -rf", given)
    assert (code, said["result"]) == (1, "crashed")


def test_template_names_are_what_steps_expect() -> None:
    actions: list[Action] = [find(name) for name in (SCALE, UNDO, RESTART, AGAIN, MEMORY)]
    assert [template_name(a) for a in actions] == [f"{a.name}-v{a.version}" for a in actions]
