"""A person stops one run: the Workflow is told once, rolls back, and nothing else is tried."""

from typing import Any

import pytest

from tiphys.policies.lifecycle import State
from tiphys.policies.model import Outcome
from tiphys.service.errors import ArgoUnavailableError, NothingRunsError
from tiphys.service.records import AuditEvent


class Running:
    """Argo with one Workflow, which stops when it is told to."""

    namespace = "tiphys-actions"

    def __init__(self) -> None:
        self.told: list[str] = []
        self.away = False
        self.status: dict[str, Any] = {"phase": "Running"}

    async def create(self, _submission: Any) -> bool:
        return True

    async def get(self, name: str) -> dict[str, Any]:
        spec = {"shutdown": "Stop"} if name in self.told else {}
        return {"spec": spec, "status": self.status}

    async def stop(self, name: str) -> None:
        if self.away:
            raise ArgoUnavailableError("503")
        self.told.append(name)

    def rolled_back(self) -> None:
        outcome = '{"step": "rollback", "result": "undone", "message": "put back"}'
        parameters = [{"name": "outcome", "value": outcome}]
        node = {
            "type": "Pod",
            "templateName": "rollback",
            "phase": "Succeeded",
            "outputs": {"parameters": parameters},
        }
        self.status = {"phase": "Failed", "message": "stopped", "nodes": {"x": node}}


async def running(bench: Any, argo: Any) -> Any:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    launch = bench.launch(argo, Ed25519PrivateKey.generate())
    return await bench.run(launch, await bench.launching())


async def test_a_run_that_a_person_stops_rolls_back_and_is_in_a_humans_hands(bench: Any) -> None:
    argo = Running()
    incident = await running(bench, argo)
    await bench.run(bench.watch(argo), incident)
    assert argo.told == []
    await bench.run_stops.ask(incident.id, by="ada", reason="wrong pod")
    for _ in range(2):
        incident = await bench.run(bench.watch(argo), incident)
    assert argo.told == [(await bench.run_of(incident)).name], "once is enough"
    assert incident.state == State.RUNNING, "its rollback goes on"
    argo.rolled_back()
    incident = await bench.run(bench.watch(argo), incident)
    assert (incident.state, incident.outcome) == (State.ESCALATED, Outcome.ROLLED_BACK)
    assert "stopped by ada: wrong pod" in incident.reason
    asked = [r for r in await bench.records(incident) if r.event == AuditEvent.RUN_STOP_ASKED]
    assert [r.actor for r in asked] == ["ada"]


async def test_without_a_persons_wish_the_next_attempt_follows(bench: Any) -> None:
    argo = Running()
    incident = await running(bench, argo)
    argo.rolled_back()
    incident = await bench.run(bench.watch(argo), incident)
    assert (incident.state, incident.attempt) == (State.OPEN, 2)


async def test_an_api_server_that_is_away_is_told_again(bench: Any) -> None:
    argo = Running()
    incident = await running(bench, argo)
    await bench.run_stops.ask(incident.id, by="ada", reason="")
    argo.away = True
    incident = await bench.run(bench.watch(argo), incident)
    argo.away = False
    await bench.run(bench.watch(argo), incident)
    assert len(argo.told) == 1


async def test_nothing_that_does_not_run_is_stopped(bench: Any) -> None:
    waiting = await bench.asked()
    with pytest.raises(NothingRunsError, match="awaiting_approval"):
        await bench.run_stops.ask(waiting.id, by="ada", reason="")
    assert AuditEvent.RUN_STOP_ASKED not in await bench.events()


async def test_a_second_wish_is_refused(bench: Any) -> None:
    incident = await running(bench, Running())
    await bench.run_stops.ask(incident.id, by="ada", reason="")
    with pytest.raises(NothingRunsError, match="already"):
        await bench.run_stops.ask(incident.id, by="bob", reason="")
    assert (await bench.events(incident)).count(AuditEvent.RUN_STOP_ASKED) == 1
