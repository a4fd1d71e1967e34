"""What is counted for the gate, and the rules that live on it, across incidents."""

from typing import Any

from tiphys.policies.lifecycle import State
from tiphys.policies.limits import Breaker, Budget, Cooldown, LaunchRate
from tiphys.policies.model import (
    Change,
    HistoryFacts,
    Impact,
    Incident,
    Outcome,
    Owner,
    TargetFacts,
)
from tiphys.policies.oscillation import RepeatedIneffective, move_of
from tiphys.policies.parts import ObjectReference
from tiphys.policies.rule import Rule
from tiphys.service.history import History

NODE = Change(
    of=ObjectReference(api_version="v1", kind="Machine", namespace="shop", name="m", uid="m"),
    path="/metadata/annotations/delete",
    present=None,
    intended="yes",
)


def obey(bench: Any, *rules: Rule) -> None:
    settings = {**bench.policy.settings, **{rule.name: rule for rule in rules}}
    bench.policy = type(bench.policy)(**{**vars(bench.policy), "settings": settings})


async def end(bench: Any, incident: Incident, outcome: Outcome | None) -> None:
    """Let a run be over, as the watch writes it."""
    run = await bench.run_of(incident)
    async with bench.database.transaction() as tx:
        if outcome is not None:
            await bench.runs.created(tx, run.name)
        await bench.runs.end(tx, run.name, outcome, bench.clock())


async def counted(bench: Any, target: Any) -> HistoryFacts:
    proposal = bench.scout.proposal.model_copy(update={"target": target})
    facts: TargetFacts = bench.scout.target_facts(proposal)
    async with bench.database.transaction() as tx:
        return await History(bench.database).of(tx, target, facts, bench.policy, bench.clock())


async def test_everything_is_counted_where_it_belongs(bench: Any, target: Any) -> None:
    obey(bench, Cooldown(seconds=0))
    await bench.launching("pod shop/a", target=target("a"))
    away = target("m", "research").model_copy(update={"kind": "MachineDeployment"})
    bench.scout.target = {"impact": Impact(nodes=9, nodes_away=0, pool=9, pool_away=0)}
    second = await bench.launching("pool research/m", target=away, changes=(NODE,))
    assert second.state == State.LAUNCHING, second.reason
    bench.scout.target = {}
    before = await counted(bench, target("b"))
    assert before.open_runs_in_cluster == 2
    assert before.open_runs_in_namespace == before.recent_launches_in_namespace == 1
    assert before.spent_in_namespace == 1
    assert before.recent_launches_in_cluster == before.spent_in_cluster == 2
    assert before.recent_launches_on_target == before.open_runs_on_target == 0
    assert before.other_workloads == 1
    assert before.open_runs_on_nodes == 1
    assert before.past == ()
    bench.clock.forward(bench.policy.rule(LaunchRate).window_seconds + 1)
    later = await counted(bench, target("b"))
    assert (later.recent_launches_in_namespace, later.recent_launches_in_cluster) == (0, 0)
    assert (later.spent_in_namespace, later.spent_in_cluster) == (1, 2)
    bench.clock.forward(bench.policy.rule(Budget).window_seconds)
    latest = await counted(bench, target("b"))
    assert (latest.spent_in_namespace, latest.spent_in_cluster) == (0, 0)
    assert latest.other_workloads == 1, "it is still open"


async def test_the_past_holds_what_acted_oldest_first(bench: Any, target: Any) -> None:
    obey(bench, Cooldown(seconds=0), RepeatedIneffective(limit=20))
    ends = (Outcome.VERIFIED, Outcome.REFUSED, None, Outcome.ROLLED_BACK, Outcome.INEFFECTIVE)
    for at, outcome in enumerate(ends):
        incident = await bench.launching(f"incident {at}", target=target("a"))
        assert incident.state == State.LAUNCHING, incident.reason
        await end(bench, incident, outcome)
        bench.clock.forward(60)
    history = await counted(bench, target("a"))
    assert history.past is not None
    assert [run.outcome for run in history.past] == [
        Outcome.VERIFIED, Outcome.ROLLED_BACK, Outcome.INEFFECTIVE,
    ]  # fmt: skip
    assert history.recent_launches_on_target == 5
    changes = bench.scout.proposal.changes
    assert {run.move for run in history.past} == {move_of("restart-pod", changes)}
    assert [run.began_at for run in history.past] == sorted(r.began_at for r in history.past)
    assert (await counted(bench, target("b"))).past == ()


async def launched_again(bench: Any, target: Any, name: str = "a") -> Incident:
    """Another incident about another pod of the same owner."""
    owner = Owner(api_version="apps/v1", kind="Deployment", name="cart", uid="one-owner")
    bench.scout.target = {"owners": (owner,)}
    return await bench.launching(f"pod shop/{name}", target=target(name))


async def test_the_rest_of_an_owner_doubles_across_incidents(bench: Any, target: Any) -> None:
    obey(bench, Cooldown(seconds=100, max_seconds=1000), Breaker(ineffective=99))
    await end(bench, await launched_again(bench, target, "a"), Outcome.VERIFIED)
    bench.clock.forward(101)
    second = await launched_again(bench, target, "b")
    assert second.state == State.LAUNCHING
    await end(bench, second, Outcome.ROLLED_BACK)
    bench.clock.forward(101)
    third = await launched_again(bench, target, "c")
    assert third.state == State.ESCALATED
    assert "cooldown: Pod shop/c rests for another" in third.reason
    assert "after 2 runs in a row" in third.reason
    bench.clock.forward(100)
    assert (await launched_again(bench, target, "d")).state == State.LAUNCHING


async def test_what_did_not_help_is_not_tried_again_in_another_incident(
    bench: Any, target: Any
) -> None:
    obey(bench, Cooldown(seconds=0), RepeatedIneffective(limit=2))
    for name in ("a", "b"):
        await end(bench, await launched_again(bench, target, name), Outcome.INEFFECTIVE)
    third = await launched_again(bench, target, "c")
    assert third.state == State.ESCALATED
    assert "repeated-ineffective: restart-pod on Pod shop/c did not help 2 times" in third.reason
    elsewhere = await bench.launching("pod shop/x", target=target("x"))
    bench.scout.target = {}
    assert elsewhere.state == State.ESCALATED, "the same owner"
    other = await bench.launching("pod shop/y", target=target("y"))
    assert other.state == State.LAUNCHING
