"""Stop means within a second, in every replica, and where the API server refuses nothing itself."""

import asyncio
import contextlib
import time
from datetime import timedelta
from typing import Any

import pytest

from tiphys.policies.lifecycle import State
from tiphys.policies.model import StopFacts
from tiphys.policies.parse import parse
from tiphys.sandbox import admission, installation
from tiphys.service import launch as launch_stage
from tiphys.service.pipeline import Pace, Pipeline
from tiphys.service.records import AuditEvent
from tiphys.service.stop_switch import LABEL, StopSwitch

EAGER = """
format: tiphys/policy/v1
name: eager
version: 1
rules:
  autonomy: {grants: [{level: auto, actions: ["*"], namespaces: [shop]}]}
  namespace-concurrency: {limit: 10000}
  cluster-concurrency: {limit: 10000}
  launch-rate: {limit: 10000, target_limit: 10000, cluster_limit: 10000}
  budget: {namespace_limit: 10000, cluster_limit: 10000}
  namespace-share: {at_least: 10000}
"""
"""Nothing of the gate's own is in the way of one launch after the other."""


def without_admission(kube: Any) -> None:
    """As on an API server whose policies were never installed, or are gone."""
    kube.store.admission.clear()


async def launched(bench: Any, kube: Any, incident: Any) -> Any:
    return await bench.run(bench.launch(kube.argo, kube.key), incident)


# --- one launch -----------------------------------------------------------------------------------


async def test_a_launch_asks_the_switch_itself_and_goes_to_a_human_with_a_sentence(
    bench: Any, kube: Any
) -> None:
    """The gate had allowed it; the stop came between the intent and the Workflow."""
    incident = await bench.launching()
    without_admission(kube)
    bench.lever = StopSwitch(kube.launcher, installation.STOP)
    kube.stop("big sale")
    incident = await launched(bench, kube, incident)
    assert incident.state == State.ESCALATED
    assert "not started: the stop switch is engaged: big sale" in incident.reason
    assert kube.workflows() == []
    assert not (await bench.run_of(incident)).open, "the target is free for others"
    await bench.run(bench.settle, incident)
    assert bench.bell.rung[-1][0] == incident.id, "a human is told"


async def test_what_a_stop_kept_from_starting_does_not_start_when_it_is_released(
    bench: Any, kube: Any
) -> None:
    incident = await bench.launching()
    without_admission(kube)
    bench.lever = StopSwitch(kube.launcher, installation.STOP)
    kube.stop()
    incident = await launched(bench, kube, incident)
    kube.store.delete("ConfigMap", installation.STOP, "stop")
    for stage in (bench.settle, bench.settle):
        incident = await bench.run(stage, incident)
    assert incident.state == State.ESCALATED
    assert kube.workflows() == []
    again = await bench.launching("pod shop/cart-1 again")
    assert (await launched(bench, kube, again)).state == State.RUNNING, "others go on"


async def test_a_workflow_that_exists_already_is_not_called_unstarted(
    bench: Any, kube: Any
) -> None:
    incident = await bench.launching()
    kube.door.mode = "deaf"
    incident = await launched(bench, kube, incident)
    kube.door.mode = ""
    bench.lever.facts = StopFacts(engaged=True, reason="too late for this one")
    incident = await launched(bench, kube, incident)
    assert incident.state == State.RUNNING, "it runs on and is watched"
    assert len(kube.workflows()) == 1


async def test_a_switch_that_nobody_can_read_starts_nothing_until_not_after(
    bench: Any, kube: Any
) -> None:
    incident = await bench.launching()
    bench.lever.facts = None
    for _ in range(3):
        incident = await launched(bench, kube, incident)
        assert incident.state == State.LAUNCHING
    assert kube.workflows() == []
    bench.clock.forward(301)
    incident = await launched(bench, kube, incident)
    assert incident.state == State.ESCALATED
    assert "in time" in incident.reason


async def test_an_answer_that_took_long_is_not_acted_on(bench: Any, kube: Any) -> None:
    """Somebody may have said stop while it was on its way."""
    incident = await bench.launching()
    lever = bench.lever

    class Slow:
        seconds = launch_stage.FRESH_SECONDS + 0.1

        async def read(self) -> StopFacts | None:
            found = await lever.read()
            await asyncio.sleep(self.seconds)
            return found

    bench.lever = Slow()
    incident = await launched(bench, kube, incident)
    assert incident.state == State.LAUNCHING
    assert kube.workflows() == []
    bench.lever = lever
    assert (await launched(bench, kube, incident)).state == State.RUNNING


# --- what counts as a stop ------------------------------------------------------------------------


@pytest.mark.parametrize("label", ["true", "false", "", "yes-please"])
@pytest.mark.parametrize("judge", ["admission", "service"])
async def test_the_label_counts_whatever_its_value_here_and_in_admission(
    bench: Any, kube: Any, label: str, judge: str
) -> None:
    incident = await bench.launching()
    if judge == "service":
        without_admission(kube)
        bench.lever = StopSwitch(kube.launcher, installation.STOP)
    kube.stop("by hand", label=label)
    assert (await launched(bench, kube, incident)).state == State.ESCALATED
    assert kube.workflows() == []


@pytest.mark.parametrize("judge", ["admission", "service"])
async def test_every_stop_must_go_and_one_that_is_being_deleted_still_counts(
    bench: Any, kube: Any, judge: str
) -> None:
    incidents = [await bench.launching(f"pod shop/{n}") for n in ("a", "b")][:1]
    if judge == "service":
        without_admission(kube)
        bench.lever = StopSwitch(kube.launcher, installation.STOP)
    for name, finalizers in (("one", []), ("two", ["example.org/wait"])):
        meta = {"name": name, "namespace": installation.STOP, "labels": {LABEL: "true"}}
        kube.store.create(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {**meta, "finalizers": finalizers},
                "data": {"reason": f"reason {name}"},
            }
        )
    switch = StopSwitch(kube.launcher, installation.STOP)
    facts = await switch.read()
    assert facts == StopFacts(engaged=True, reason="reason one; reason two")
    kube.store.delete("ConfigMap", installation.STOP, "one")
    kube.store.delete("ConfigMap", installation.STOP, "two")
    left = kube.store.get("ConfigMap", installation.STOP, "two")
    assert left["metadata"]["deletionTimestamp"], "it waits for its finalizer"
    [incident] = incidents
    assert (await launched(bench, kube, incident)).state == State.ESCALATED
    assert kube.workflows() == []


# --- three replicas -------------------------------------------------------------------------------


class Blind:
    """A switch that never sees a stop."""

    async def read(self) -> StopFacts | None:
        return StopFacts(engaged=False)


@contextlib.asynccontextmanager
async def replicas(bench: Any, kube: Any, *, gate_sees: bool) -> Any:
    """Three launchers of one installation, each with its own view of the switch, at work."""
    tasks: list[asyncio.Task[None]] = []
    for _ in range(3):
        replica = bench.replica()
        replica.lever = StopSwitch(kube.launcher, installation.STOP)
        launch = replica.launch(kube.argo, kube.key)
        if not gate_sees:
            replica.lever = Blind()
        stages = {State.INSPECTED: replica.judge, State.LAUNCHING: launch}
        pace = Pace(poll=timedelta(seconds=0.05), lease=timedelta(seconds=15))
        tasks.append(asyncio.create_task(Pipeline(replica.ledger, stages, pace).run()))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def storm(bench: Any, target: Any, over: asyncio.Event) -> int:
    """Lay one incident after the other before the gate."""
    laid = 0
    while not over.is_set():
        laid += 1
        await bench.inspected(f"pod shop/p-{laid}", target=target(f"p-{laid}"))
    return laid


@pytest.mark.parametrize("walls", ["the launcher's look alone", "all"])
async def test_within_a_second_no_replica_launches_any_more(
    bench: Any, kube: Any, target: Any, walls: str
) -> None:
    """A ConfigMap made by hand, amid a storm that goes on for seconds after it."""
    bench.policy = parse(EAGER, "eager.yaml")
    if walls != "all":
        without_admission(kube)
    created: list[float] = []
    under_way, over = asyncio.Event(), asyncio.Event()

    def note(event: str, obj: dict[str, Any]) -> None:
        if event == "ADDED" and obj["kind"] == "Workflow":
            created.append(time.monotonic())
            if len(created) == 5:
                under_way.set()

    kube.store.subscribe(note)
    async with replicas(bench, kube, gate_sees=walls == "all"):
        feeding = asyncio.create_task(storm(bench, target, over))
        async with asyncio.timeout(120):
            await under_way.wait()
            kube.stop("an exercise")
            stopped = time.monotonic()
            await asyncio.sleep(2.5)
            over.set()
            laid = await feeding
            await settle(bench, laid)
    late = [moment - stopped for moment in created if moment > stopped]
    assert max(late, default=0.0) < 1.0
    assert len(created) < laid, "the storm went on after the stop"
    assert len(kube.workflows()) == len(created)
    records = await bench.records()
    assert len([r for r in records if r.event == AuditEvent.WORKFLOW_CREATED]) == len(created)


async def settle(bench: Any, laid: int) -> None:
    """Wait until every incident runs or is in a human's hands."""
    while True:
        states = [row["state"] for row in await bench.rows("incidents")]
        if len(states) == laid and set(states) <= {State.RUNNING, State.ESCALATED}:
            return
        await asyncio.sleep(0.1)


# --- stop --runs ----------------------------------------------------------------------------------


async def test_a_wish_for_a_run_that_does_not_exist_yet_keeps_it_from_being_created(
    bench: Any, kube: Any
) -> None:
    incident = await bench.launching()
    await bench.run_stops.ask(incident.id, by="ada", reason="wrong pod")
    incident = await launched(bench, kube, incident)
    assert incident.state == State.ESCALATED
    assert "not started: stopped by ada: wrong pod" in incident.reason
    assert kube.workflows() == []


async def test_every_open_run_is_asked_once_and_asking_again_asks_nothing(
    bench: Any, kube: Any, target: Any
) -> None:
    running = [
        await launched(bench, kube, await bench.launching(f"pod shop/{n}", target=target(n)))
        for n in ("a", "b")
    ]
    launching = await bench.launching("pod shop/c", target=target("c"))
    over = await bench.escalated("pod shop/d")
    asked = await bench.run_stops.ask_all(by="ada", reason="evacuate")
    assert {one.id for one in asked} == {one.id for one in [*running, launching]}
    assert await bench.run_stops.ask_all(by="bob", reason="me too") == []
    told = [r for r in await bench.records() if r.event == AuditEvent.RUN_STOP_ASKED]
    assert len(told) == 3
    assert {r.actor for r in told} == {"ada"}
    assert over.id not in {r.incident_id for r in told}
    assert (await launched(bench, kube, launching)).state == State.ESCALATED
    for incident in running:
        await bench.run(bench.watch(kube.argo), incident)
    assert [w["spec"].get("shutdown") for w in kube.workflows()] == ["Stop", "Stop"]


def test_the_service_and_admission_look_for_one_label() -> None:
    assert LABEL == admission.STOP_LABEL
