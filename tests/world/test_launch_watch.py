"""Launching and watching: over real HTTP against the simulated API server, with admission."""

import asyncio
import sqlite3
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tiphys.policies.lifecycle import State
from tiphys.policies.model import Incident, Outcome, Risk
from tiphys.sandbox.argo import Argo as SandboxArgo
from tiphys.sandbox.store import AdmissionRequest
from tiphys.service.records import AuditEvent
from tiphys.service.stop_switch import StopSwitch

STEP = """
import json, os, sys
codes = {"as_planned": 0, "acted": 0, "verified": 0, "unknowable": 0, "undone": 0, "refused": 3,
    "nothing_changed": 0, "nothing_to_restore": 0, "crashed": 1, "not_verified": 4,
    "not_ours": 5, "not_undone": 6, "killed": 137}
said = os.environ["SAYS_" + sys.argv[1].upper()]
if said != "killed":
    words = {"step": sys.argv[1], "result": said, "message": sys.argv[1] + " speaks"}
    open(os.environ["TIPHYS_OUTCOME_FILE"], "w").write(json.dumps(words))
    open(os.environ["TIPHYS_TERMINATION_LOG"], "w").write(said + ": " + words["message"])
sys.exit(codes[said])
"""


async def launched(bench: Any, kube: Any, incident: Incident | None = None) -> Incident:
    launch = bench.launch(kube.argo, kube.key)
    return await bench.run(launch, incident or await bench.launching())


async def look(bench: Any, kube: Any, incident: Incident) -> Incident:
    return await bench.run(bench.watch(kube.argo), incident)


# --- launching ------------------------------------------------------------------------------------


async def test_the_intent_is_committed_before_the_api_server_sees_the_workflow(
    bench: Any, kube: Any, tmp_path: Any
) -> None:
    """Look into the database's file at the very moment of admission, as a power cut would."""
    if not bench.database.sqlite:
        pytest.skip("looks into SQLite's file")
    seen: list[tuple[str, ...]] = []

    def look_into_the_database(request: AdmissionRequest) -> None:
        if request.kind == "Workflow" and request.operation == "CREATE":
            with sqlite3.connect(tmp_path / "tiphys.db") as connection:
                rows = connection.execute("SELECT event FROM audit ORDER BY seq").fetchall()
                runs = connection.execute("SELECT name, open, created FROM runs").fetchall()
            assert runs == [(request.obj["metadata"]["name"], 1, 0)]
            seen.append(tuple(event for (event,) in rows))

    kube.store.admission.append(look_into_the_database)
    assert (await launched(bench, kube)).state == State.RUNNING
    [events] = seen
    assert AuditEvent.PLANNED in events
    assert AuditEvent.LAUNCH_INTENDED in events
    assert AuditEvent.WORKFLOW_CREATED not in events


async def test_a_launch_creates_the_planned_workflow_and_nothing_else(
    bench: Any, kube: Any
) -> None:
    incident = await launched(bench, kube)
    run = await bench.run_of(incident)
    [workflow] = kube.workflows()
    assert workflow["metadata"]["name"] == run.name
    assert workflow["metadata"]["labels"]["tiphys.io/incident"] == incident.id
    assert workflow["spec"]["workflowTemplateRef"] == {"name": "restart-pod-v1"}
    assert incident.deadline_at == run.deadline_at
    assert run.created
    created = [r for r in await bench.records(incident) if r.event == AuditEvent.WORKFLOW_CREATED]
    assert [r.body["adopted"] for r in created] == [False]


async def test_what_was_created_before_we_died_is_adopted(bench: Any, kube: Any) -> None:
    incident = await bench.launching()
    launch = bench.launch(kube.argo, kube.key)
    async with bench.database.reading() as tx:
        run, plan = await bench.runs.of(tx, incident), await bench.runs.plan(tx, incident)
    assert await kube.argo.create(launch._submission(run, plan)), "and here the power fails"
    incident = await launched(bench, kube, incident)
    assert incident.state == State.RUNNING
    assert len(kube.workflows()) == 1
    created = [r for r in await bench.records(incident) if r.event == AuditEvent.WORKFLOW_CREATED]
    assert [r.body["adopted"] for r in created] == [True]


async def test_another_workflow_of_that_name_is_never_adopted(bench: Any, kube: Any) -> None:
    incident = await bench.launching()
    run = await bench.run_of(incident)
    foreign = {"workflowTemplateRef": {"name": "scale-workload-v1"}, "arguments": {}}
    meta = {"name": run.name, "namespace": "tiphys-actions"}
    kube.store.create(
        {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": meta,
         "spec": foreign}
    )  # fmt: skip
    incident = await launched(bench, kube, incident)
    assert incident.state == State.ESCALATED
    assert "another Workflow" in incident.reason
    run = await bench.run_of(incident)
    assert (run.open, run.created, run.outcome) == (False, False, None)


async def test_another_workflow_is_not_adopted_after_its_time_either(bench: Any, kube: Any) -> None:
    incident = await bench.launching()
    run = await bench.run_of(incident)
    meta = {"name": run.name, "namespace": "tiphys-actions"}
    kube.store.create(
        {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "metadata": meta, "spec": {}}
    )
    bench.clock.forward(301)
    assert (await launched(bench, kube, incident)).state == State.ESCALATED


async def test_an_api_server_that_is_away_is_asked_again_until_not_after_and_never_after(
    bench: Any, kube: Any
) -> None:
    incident = await bench.launching()
    kube.door.mode = "away"
    for _ in range(3):
        incident = await launched(bench, kube, incident)
        assert incident.state == State.LAUNCHING
    bench.clock.forward(301)
    kube.door.calls.clear()
    assert (await launched(bench, kube, incident)).state == State.LAUNCHING, "it may exist"
    kube.door.mode = ""
    incident = await launched(bench, kube, incident)
    assert incident.state == State.ESCALATED
    assert "in time" in incident.reason
    assert "POST" not in {method for method, _ in kube.door.calls}
    assert kube.workflows() == []
    ended = [r for r in await bench.records(incident) if r.event == AuditEvent.RUN_ENDED]
    assert [r.body["outcome"] for r in ended] == [None]
    assert not (await bench.run_of(incident)).open, "the target is free for others"


async def test_an_api_server_that_comes_back_in_time_is_used(bench: Any, kube: Any) -> None:
    incident = await bench.launching()
    kube.door.mode = "away"
    incident = await launched(bench, kube, incident)
    kube.door.mode = ""
    assert (await launched(bench, kube, incident)).state == State.RUNNING


@pytest.mark.parametrize("then", ["again", "stopped", "too late"])
async def test_a_workflow_whose_creation_was_not_answered_is_not_called_unstarted(
    bench: Any, kube: Any, then: str
) -> None:
    """It runs, whatever the API server says to the next try."""
    incident = await bench.launching()
    kube.door.mode = "deaf"
    incident = await launched(bench, kube, incident)
    assert incident.state == State.LAUNCHING
    assert len(kube.workflows()) == 1
    kube.door.mode = ""
    if then == "stopped":
        kube.stop()
    if then == "too late":
        bench.clock.forward(301)
    incident = await launched(bench, kube, incident)
    assert incident.state == State.RUNNING
    assert len(kube.workflows()) == 1
    assert (await bench.run_of(incident)).open


async def test_what_admission_refuses_goes_to_a_human_and_frees_the_target(
    bench: Any, kube: Any
) -> None:
    kube.stop("big sale")
    incident = await launched(bench, kube)
    assert incident.state == State.ESCALATED
    assert "stopped by ConfigMap" in incident.reason
    assert "big sale" in incident.reason
    assert kube.workflows() == []
    assert not (await bench.run_of(incident)).open


async def test_a_launch_whose_intent_cannot_be_found_goes_to_a_human(bench: Any, kube: Any) -> None:
    from sqlalchemy import text

    incident = await bench.launching()
    async with bench.database.transaction() as tx:
        await tx.execute(text("DELETE FROM runs"))
    assert (await launched(bench, kube, incident)).state == State.ESCALATED
    assert kube.workflows() == []


# --- watching -------------------------------------------------------------------------------------


def container(name: str, phase: str, code: int | None = None) -> dict[str, Any]:
    outputs = {} if code is None else {"outputs": {"exitCode": str(code)}}
    started = {"startedAt": "2026-03-04T03:00:00Z"}
    return {"type": "Container", "displayName": name, "phase": phase, **started, **outputs}


async def test_every_step_is_recorded_once_as_it_happens(bench: Any, kube: Any) -> None:
    incident = await launched(bench, kube)
    name = (await bench.run_of(incident)).name
    nodes: dict[str, Any] = {"a": container("precheck", "Running")}
    kube.status(name, {"phase": "Running", "nodes": nodes})
    for _ in range(2):
        assert (await look(bench, kube, incident)).state == State.RUNNING
    nodes |= {"a": container("precheck", "Succeeded", 0), "b": container("act", "Running")}
    kube.status(name, {"phase": "Running", "nodes": nodes})
    await look(bench, kube, incident)
    told = [
        (r.body["step"]["step"], r.body["step"]["phase"])
        for r in await bench.records(incident)
        if r.event == AuditEvent.RUN_STEP
    ]
    assert told == [("precheck", "Running"), ("precheck", "Succeeded"), ("act", "Running")]
    kube.status(name, {"phase": "Running", "nodes": "compressed"})
    await look(bench, kube, incident)
    assert len((await bench.run_of(incident)).steps) == 2, "what was seen is not forgotten"


async def frozen_and_told(bench: Any, incident: Incident, words: str) -> None:
    assert incident.state == State.ESCALATED
    assert incident.outcome == Outcome.UNKNOWN
    assert words in incident.reason
    run = await bench.run_of(incident)
    assert (run.open, run.outcome) == (False, Outcome.UNKNOWN)
    [freeze] = await bench.rows("freezes")
    assert freeze["target_uid"] == run.owner_uid, "the owner, or the successor would be acted on"
    events = await bench.events(incident)
    assert events.index(AuditEvent.RUN_ENDED) < events.index(AuditEvent.TARGET_FROZEN)
    await bench.run(bench.settle, incident)
    assert bench.bell.rung[-1][0] == incident.id, "a human is paged"


@pytest.mark.parametrize("status", [{}, {"phase": "Running"}, "nonsense"])
async def test_a_workflow_that_never_ends_pages_at_its_deadline_and_freezes(
    bench: Any, kube: Any, status: Any
) -> None:
    incident = await launched(bench, kube)
    run = await bench.run_of(incident)
    kube.status(run.name, status)
    bench.clock.forward((run.deadline_at - bench.clock()).total_seconds() - 5)
    assert (await look(bench, kube, incident)).state == State.RUNNING
    bench.clock.forward(6)
    await frozen_and_told(bench, await look(bench, kube, incident), "after its deadline")


async def test_an_api_server_that_is_away_past_the_deadline_pages_and_freezes(
    bench: Any, kube: Any
) -> None:
    incident = await launched(bench, kube)
    kube.door.mode = "away"
    assert (await look(bench, kube, incident)).state == State.RUNNING
    bench.clock.forward(7200)
    await frozen_and_told(bench, await look(bench, kube, incident), "not ended in time")


async def test_a_workflow_that_vanished_pages_and_freezes(bench: Any, kube: Any) -> None:
    incident = await launched(bench, kube)
    kube.store.delete("Workflow", "tiphys-actions", (await bench.run_of(incident)).name)
    await frozen_and_told(bench, await look(bench, kube, incident), "gone")


async def test_nothing_is_done_to_a_frozen_target_or_to_what_its_owner_makes_next(
    bench: Any, kube: Any, target: Any
) -> None:
    incident = await launched(bench, kube)
    kube.store.delete("Workflow", "tiphys-actions", (await bench.run_of(incident)).name)
    await look(bench, kube, incident)
    bench.clock.forward(3600)
    owner = {"api_version": "apps/v1", "kind": "Deployment", "name": "cart"}
    bench.scout.target = {"owners": ({**owner, "uid": "owner-uid-shop-cart-1"},)}
    successor = await bench.launching("pod shop/cart-2", target=target("cart-2"))
    assert successor.state == State.ESCALATED
    assert "frozen" in successor.reason
    assert kube.workflows() == []


# --- every ending, with the sandbox's Argo and real step processes -------------------------------


@asynccontextmanager
async def argo_running(kube: Any, **says: str) -> AsyncGenerator[None]:
    said = {f"SAYS_{step.upper()}": result for step, result in says.items()}
    argo = SandboxArgo(kube.store, kube.tokens, kube.url, (sys.executable, "-c", STEP), said)
    task = asyncio.create_task(argo.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await argo.close()


GOOD = {"precheck": "as_planned", "act": "acted", "verify": "verified", "rollback": "crashed"}


@pytest.mark.parametrize(
    ("says", "outcome", "state"),
    [
        ({}, Outcome.VERIFIED, State.MONITORING),
        ({"verify": "unknowable"}, Outcome.UNKNOWN, State.ESCALATED),
        ({"precheck": "refused", "rollback": "nothing_changed"}, Outcome.REFUSED, State.OPEN),
        ({"act": "refused", "rollback": "nothing_changed"}, Outcome.REFUSED, State.OPEN),
        ({"verify": "not_verified", "rollback": "undone"}, Outcome.ROLLED_BACK, State.OPEN),
        ({"verify": "killed", "rollback": "undone"}, Outcome.ROLLED_BACK, State.OPEN),
        (
            {"verify": "not_verified", "rollback": "nothing_to_restore"},
            Outcome.INEFFECTIVE,
            State.OPEN,
        ),
        (
            {"verify": "not_verified", "rollback": "not_ours"},
            Outcome.ROLLBACK_FAILED,
            State.ESCALATED,
        ),
        (
            {"verify": "not_verified", "rollback": "not_undone"},
            Outcome.ROLLBACK_FAILED,
            State.ESCALATED,
        ),
        ({"act": "crashed", "rollback": "killed"}, Outcome.UNKNOWN, State.ESCALATED),
    ],
)
async def test_every_ending_of_a_real_run(
    bench: Any, kube: Any, says: dict[str, str], outcome: Outcome, state: State
) -> None:
    incident = await launched(bench, kube)
    # A killed rollback is tried again, three times within 35 s.
    async with argo_running(kube, **{**GOOD, **says}), asyncio.timeout(90):
        while (incident := await look(bench, kube, incident)).state == State.RUNNING:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    run = await bench.run_of(incident) if incident.attempt == 1 else None
    [row] = await bench.rows("runs")
    assert row["outcome"] == incident.outcome == outcome
    assert not row["open"]
    assert incident.state == state
    frozen = outcome in {Outcome.UNKNOWN, Outcome.ROLLBACK_FAILED}
    assert bool(await bench.rows("freezes")) == frozen
    assert incident.attempt == (2 if state == State.OPEN else 1)
    if run:
        said = {s["step"]: s["result"] for s in run.steps}
        assert set(said) >= {"precheck", "act"}
    ended = [r.body for r in await bench.records(incident) if r.event == AuditEvent.RUN_ENDED]
    assert [body["outcome"] for body in ended] == [outcome]
    assert (await bench.verify()).problem is None


async def test_after_the_last_attempt_a_human_decides(bench: Any, kube: Any) -> None:
    says = {**GOOD, "verify": "not_verified", "rollback": "undone"}
    incident = await bench.launching()
    async with argo_running(kube, **says), asyncio.timeout(60):
        for attempt in (1, 2, 3):
            assert incident.attempt == attempt
            incident = await launched(bench, kube, incident)
            while (incident := await look(bench, kube, incident)).state == State.RUNNING:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            if attempt < 3:
                bench.clock.forward(5)  # the demo's cooldown
                incident = await bench.run(bench.investigate, incident)
                incident = await bench.run(bench.decide, incident)
    assert incident.state == State.ESCALATED
    assert "rolled back" in incident.reason
    assert len(kube.workflows()) == 3, "each attempt is a Workflow of its own"


# --- the stop switch ------------------------------------------------------------------------------


async def test_the_stop_switch_is_read_by_the_launcher_and_pulled_by_the_gateway(
    kube: Any, bench: Any
) -> None:
    switch = StopSwitch(kube.launcher, "tiphys-stop")
    assert (await switch.read()).engaged is False
    gateway = StopSwitch(kube.gateway, "tiphys-stop")
    name = await gateway.engage(by="ann", reason="big sale", now=bench.clock())
    facts = await switch.read()
    assert (facts.engaged, facts.reason) == (True, "big sale")
    assert kube.store.get("ConfigMap", "tiphys-stop", name)["data"]["by"] == "ann"
    from tiphys.service.errors import ArgoUnavailableError

    with pytest.raises(ArgoUnavailableError, match="403"):
        await gateway.release()
    assert await StopSwitch(kube.admin, "tiphys-stop").release() == [name]
    assert (await switch.read()).engaged is False


@pytest.mark.parametrize("label", ["true", "yes", ""])
async def test_any_stop_label_stops_us(kube: Any, label: str) -> None:
    kube.stop(label=label)
    assert (await StopSwitch(kube.launcher, "tiphys-stop").read()).engaged


async def test_a_stop_switch_that_does_not_answer_is_unknown(kube: Any) -> None:
    kube.door.mode = "away"
    assert await StopSwitch(kube.launcher, "tiphys-stop").read() is None


async def test_high_risk_waits_for_its_approval_before_anything_reaches_the_cluster(
    bench: Any, kube: Any
) -> None:
    incident = await bench.launching(risk=Risk.HIGH)
    assert incident.state == State.AWAITING_APPROVAL
    assert kube.workflows() == []
    await bench.approvals.approve(incident.id, by="ann", reason="")
    assert (await launched(bench, kube, await bench.run(bench.decide, incident))).state == (
        State.RUNNING
    )
