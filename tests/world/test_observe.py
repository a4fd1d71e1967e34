"""Autonomy's lowest level: what would be done is recorded, nobody is told, nothing starts."""

from typing import Any

from tiphys.policies.lifecycle import State
from tiphys.policies.model import DecidedBy, Risk
from tiphys.policies.parse import parse

OBSERVES = parse(
    "format: tiphys/policy/v1\nname: observes\nversion: 1\nrules: {autonomy: {default: observe}}",
    "observes.yaml",
)


async def test_where_it_only_observes_it_records_what_it_would_do_and_tells_nobody(
    bench: Any,
) -> None:
    bench.policy = OBSERVES
    incident = await bench.launching()
    assert incident.state == State.MONITORING
    assert incident.deadline_at is None
    told = "Observed only, would have launched it. Proposed: restart-pod on Pod shop/cart-1: "
    assert incident.reason.startswith(told)
    [proposal] = await bench.rows("proposals")
    assert '"observed":true' in proposal["judgement"]
    assert await bench.rows("runs") == await bench.rows("plans") == []

    bench.clock.forward(7 * 86_400)
    await bench.run(bench.settle, incident)
    await bench.overlooked.once()
    assert (await bench.get(incident)).state == State.MONITORING
    assert bench.bell.rung == [], "a week later, still firing: that is not ours to tell"
    await bench.end_alerts(incident)
    assert (await bench.run(bench.settle, incident)).state == State.CLOSED
    assert bench.bell.rung == []


async def test_what_it_would_have_asked_or_refused_is_recorded_too(bench: Any, target: Any) -> None:
    bench.policy = OBSERVES
    asked = await bench.launching("pod shop/a", target=target("a"), risk=Risk.HIGH)
    assert "Observed only, would have asked: risk: high risk needs approval." in asked.reason
    bench.scout.target = {"annotations": {"tiphys.io/hands-off": "mine"}}
    refused = await bench.launching("pod shop/b", target=target("b"))
    assert "Observed only, would not have started it: hands-off: " in refused.reason
    bench.scout.firing = False
    over = await bench.launching("pod shop/c", target=target("c"))
    assert {one.state for one in (asked, refused, over)} == {State.MONITORING}
    assert over.deadline_at is None
    assert bench.bell.rung == []


async def test_a_person_who_asked_is_told_that_it_only_observes(bench: Any) -> None:
    bench.policy = OBSERVES
    incident = await bench.launching(decided_by=DecidedBy(reasoner="human"))
    assert incident.state == State.ESCALATED
    assert "observe only" in incident.reason
