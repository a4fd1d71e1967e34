"""A frozen target's incident holds what a person needs: read again, kept once, paged, shown."""

from typing import Any

from rich.console import Console

from tiphys.policies.lifecycle import Move, State
from tiphys.policies.model import Change, Incident, Outcome, Target
from tiphys.policies.plan import workflow_name
from tiphys.service.incidents import Step
from tiphys.service.records import AuditEvent
from tiphys.service.rendering import print_page
from tiphys.service.views import Views

CART = Target(
    cluster="sandbox",
    api_version="apps/v1",
    kind="Deployment",
    namespace="shop",
    name="cart",
    uid="uid-cart",
)
SCALED = {
    "action": "scale-workload",
    "target": CART,
    "parameters": {"replicas": 4},
    "changes": (Change(path="/spec/replicas", present=2, intended=4),),
}


def cart(replicas: int) -> dict[str, Any]:
    return {"metadata": {"name": "cart", "uid": CART.uid}, "spec": {"replicas": replicas}}


async def frozen(bench: Any, outcome: Outcome = Outcome.ROLLBACK_FAILED) -> Incident:
    """An incident whose run froze its target."""
    incident = await bench.launching(**SCALED)
    assert incident.state == State.LAUNCHING, incident.reason
    async with bench.ledger.person(incident.id) as entry:
        await entry.move(Step(Move.START, "runs"))
        await entry.move(Step(Move.ESCALATE, "its rollback did not hold", outcome=outcome))
        return entry.incident


async def view(bench: Any, incident: Incident) -> Any:
    shown = Views(bench.database, bench.audit, bench.incidents, bench.cases, bench.runs)
    return await shown.incident(incident.id)


async def test_a_page_says_what_is_wrong_and_the_incident_how_to_mend_it(bench: Any) -> None:
    incident = await frozen(bench)
    bench.scout.world.thing = cart(4)
    incident = await bench.run(bench.settle, incident)
    [(rung, words)] = bench.bell.rung
    assert rung == incident.id
    assert "its rollback did not hold" in words
    assert "1 of 1 fields are not as before" in words
    assert f"tiphys incidents show {incident.id}" in words
    found = await view(bench, incident)
    [field] = found.repair.fields
    assert (field.before, field.left, field.now) == (2, 4, 4)
    run = await bench.run_of(incident)
    assert found.repair.commands[-1].startswith(f"tiphys release target:{run.owner_uid} ")
    assert found.repair.run == run.name
    console = Console(record=True, width=60)
    print_page(console, found.model_dump(mode="json"))
    said = console.export_text()
    for command in found.repair.commands:
        assert command in said, "on one line, however narrow the terminal"


async def test_what_stands_there_is_kept_when_it_differs_from_the_last_look(bench: Any) -> None:
    incident = await frozen(bench)
    for replicas in (4, 4, 4, 2, 2, 7):
        bench.scout.world.thing = cart(replicas)
        incident = await bench.run(bench.settle, incident)
    records = await bench.records(incident)
    looks = [
        r.body["summary"]
        for r in records
        if r.event == AuditEvent.EVIDENCE_GATHERED and "did not hold" in r.body["question"]
    ]
    assert len(looks) == 3
    assert "as before" in looks[1]
    assert (await view(bench, incident)).repair.fields[0].now == 7


async def test_a_cluster_that_does_not_answer_holds_no_page_up(bench: Any) -> None:
    incident = await frozen(bench)
    bench.scout.world.away = True
    incident = await bench.run(bench.settle, incident)
    [(_, words)] = bench.bell.rung
    assert "not everything could be read" in words
    found = (await view(bench, incident)).repair
    assert found.fields[0].before == 2
    assert "could not be read" in found.notes[0]
    assert found.commands[0].startswith("kubectl patch ")


async def test_only_a_frozen_target_is_read_again(bench: Any) -> None:
    incident = await frozen(bench, Outcome.ROLLED_BACK)
    incident = await bench.run(bench.settle, incident)
    assert bench.bell.rung[0][1] == "its rollback did not hold"
    assert (await view(bench, incident)).repair is None


async def test_the_page_is_about_the_run_that_froze_it(bench: Any) -> None:
    incident = await frozen(bench)
    bench.scout.world.thing = cart(4)
    incident = await bench.run(bench.settle, incident)
    async with bench.database.reading() as tx:
        plan = await bench.runs.plan(tx, incident)
    assert (await view(bench, incident)).repair.run == workflow_name(plan)
    assert (await bench.verify()).problem is None
