"""Where the pods of an action on a node run: on any node but that one, or nowhere."""

from typing import Any

import pytest

from tiphys.policies.model import Change, Check, DecidedBy, Outcome, Plan, Target
from tiphys.service.conform.runs import fly
from tiphys.service.conform.trial import Stage
from tiphys.service.conform.trials.cordon_drain_node import TRIAL
from tiphys.service.conform.worlds import World
from tiphys.service.outcomes import outcome
from tiphys.workflow_templates.catalogue import find
from tiphys.workflow_templates.nodes import taints_of

NODES = "/api/v1/nodes"


def homes(pods: list[dict[str, Any]]) -> list[str]:
    """Give the nodes that pods were put on."""
    return [pod["spec"]["nodeName"] for pod in pods if pod["spec"].get("nodeName")]


@pytest.mark.together
def test_the_pods_of_a_run_are_on_another_node(world: World) -> None:
    """Also the rollback's; the trial's nodes are tainted as well, so the next test is stricter."""
    stage = Stage(world)
    target = TRIAL.build(stage)
    assert TRIAL.spoil
    TRIAL.spoil(stage, target)
    flown = fly(world, TRIAL.plan(stage, target))
    seen = homes(world.until("a pod is on its way", flown.pods, homes))
    flown.stop()

    def back() -> list[str]:
        pods = [p for p in flown.pods() if "rollback" in p["metadata"]["name"]]
        return homes(pods)

    seen += world.until("rollback is on its way", back)
    assert target["metadata"]["name"] not in seen
    flown.ended()
    assert outcome(flown.view())[0] in {Outcome.ROLLED_BACK, Outcome.REFUSED}


@pytest.mark.together
def test_a_run_on_the_only_node_that_could_take_its_pod_stays_away(world: World) -> None:
    """Nobody decides to work on that node: the pod is asked for, and waits."""
    nodes = world.wire.items(NODES)
    [only] = [node for node in nodes if not taints_of(node)]
    meta = only["metadata"]
    plan = Plan(
        incident="inc-1",
        attempt=1,
        action="cordon-drain-node",
        version=find("cordon-drain-node").version,
        target=Target(
            cluster="conformance", api_version="v1", kind="Node", namespace="",
            name=meta["name"], uid=meta["uid"],
        ),
        parameters={},
        changes=(Change(path="/spec/unschedulable", present=None, intended=True),),
        check=Check(),
        policy="conformance",
        evidence_hash="0" * 64,
        decided_by=DecidedBy(reasoner="human"),
    )  # fmt: skip
    flown = fly(world, plan)

    def refusals() -> list[str]:
        said = [c for p in flown.pods() for c in p.get("status", {}).get("conditions") or []]
        return [
            c["message"] for c in said if c["type"] == "PodScheduled" and c["status"] == "False"
        ]

    [message, *_] = world.until("its pod finds no node", refusals)
    assert "affinity" in message
    assert homes(flown.pods()) == []
    assert not world.wire.get(f"{NODES}/{meta['name']}")["spec"].get("unschedulable")
    world.wire.delete(flown.path)
