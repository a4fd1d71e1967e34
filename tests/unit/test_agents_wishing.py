"""What a person wants done by hand: resolved by its name, planned on what stands there now."""

import sys
from pathlib import Path
from typing import Any

import pytest

from tiphys.agents.ports import Case
from tiphys.policies.model import Escalate, Proposal, Risk, Wish

sys.path.insert(0, str(Path(__file__).parent))

from test_agents_graph import Cluster, Ports


def wish(action: str = "rollout-restart", **more: Any) -> Wish:
    fields: dict[str, Any] = {
        "action": action, "api_version": "apps/v1", "kind": "Deployment", "namespace": "shop",
        "name": "cart", "by": "ada", "reason": "it leaks",
    }  # fmt: skip
    return Wish(**{**fields, **more})


def case(wanted: Wish) -> Case:
    return Case("inc", 1, "c", True, "run it", [], wanted=wanted)


async def test_the_object_is_found_by_its_name_and_the_action_plans_on_it() -> None:
    agents = Ports().agents()
    found = await agents.investigate(case(wish()))
    decision = found.decision
    assert isinstance(decision, Proposal), decision
    assert (decision.action, decision.target.uid) == ("rollout-restart", "uid-d")
    assert decision.risk is not Risk.LOW, "nobody has diagnosed that it helps"
    assert (decision.decided_by.reasoner, decision.decided_by.note) == ("human", "ada: it leaks")
    assert decision.check.query == "", "no alert is behind it"
    assert decision.changes
    assert found.facts is not None
    assert found.alert is not None
    assert not found.alert.firing
    seen = await agents.inspect(case(wish()), decision)
    assert seen.target is not None
    assert seen.target.changes == decision.changes
    assert seen.alert is not None
    assert seen.alert.names == ()


async def test_a_wish_is_never_graded_low() -> None:
    pod = wish("restart-pod", api_version="v1", kind="Pod", name="cart-abc12-bbbbb")
    decision = (await Ports().agents().investigate(case(pod))).decision
    assert isinstance(decision, Proposal), decision
    assert decision.risk is Risk.MEDIUM


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        (wish(name="till"), "there is no Deployment shop/till"),
        (wish("rollout-undo"), "rollout-undo on Deployment shop/cart cannot be done: "),
        (wish("scale-workload", parameters={"replicas": 2}), "cannot be done: "),
        (wish("scale-workload", parameters={"replicas": 999}), "the parameters do not fit"),
        (wish("delete-all"), "the catalogue has no action"),
    ],
    ids=["not-there", "no-earlier-revision", "as-it-is", "out-of-bounds", "unknown"],
)
async def test_what_the_action_itself_refuses_goes_to_a_human(wanted: Wish, why: str) -> None:
    decision = (await Ports().agents().investigate(case(wanted))).decision
    assert isinstance(decision, Escalate), decision
    assert why in decision.reason


async def test_a_cluster_that_does_not_answer_is_said() -> None:
    silent = Ports(cluster=Cluster(silent=True)).agents()
    assert isinstance((await silent.investigate(case(wish()))).decision, Escalate)
