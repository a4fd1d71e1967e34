"""How much of a whole may be away at once; one always may, and what nobody read is no zero."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiphys.agents.impact_facts import Around, impact_of
from tiphys.policies.blast_radius import (
    BlastRadius,
    NamespaceShare,
    NodesAtOnce,
    PoolShare,
    share,
    takes_nodes,
)
from tiphys.policies.model import (
    Change,
    Check,
    DecidedBy,
    Facts,
    HistoryFacts,
    Impact,
    ObjectReference,
    Proposal,
    Risk,
    Target,
    TargetFacts,
)
from tiphys.policies.rule import FactsMissingError, Request, Rule
from tiphys.policies.verdict import Denied

NOW = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)
GONE = Change(path="", present={}, intended=None)
CLOSED = Change(path="/spec/unschedulable", present=None, intended=True)
IMAGE = Change(path="/spec/template/spec/containers/0/image", present="a", intended="b")
HISTORY = {
    "open_runs_on_target": 0, "open_runs_in_cluster": 0, "recent_launches_in_namespace": 0,
    "other_workloads": 0, "open_runs_on_nodes": 0,
}  # fmt: skip


def target(kind: str, name: str = "cart", uid: str = "u1") -> Target:
    space = "" if kind == "Node" else "shop"
    return Target(cluster="c", api_version="v1", kind=kind, namespace=space, name=name, uid=uid)


def replicas(present: int, intended: int) -> Change:
    return Change(path="/spec/replicas", present=present, intended=intended)


def of(kind: str, uid: str, path: str = "", intended: Any = None) -> Change:
    named = ObjectReference(api_version="v1", kind=kind, namespace="shop", name=uid, uid=uid)
    return Change(of=named, path=path, present={}, intended=intended)


def denied(
    rule: Rule,
    kind: str,
    impact: Impact | None,
    *changes: Change,
    undo: bool = False,
    **history: Any,
) -> str:
    """Give the reason, or nothing."""
    it, made = target(kind), changes or (GONE,)
    proposal = Proposal(
        action="some-action", version=1, target=it, changes=made, risk=Risk.LOW, reversible=True,
        blast_radius="", undo="", reason="", check=Check(), evidence=(),
        decided_by=DecidedBy(reasoner="human" if undo else "playbooks"),
        undoes="tiphys-" + "a" * 40 if undo else None,
    )  # fmt: skip
    facts = TargetFacts(
        target=it, changes=made, managed_cluster=True, namespace_labels={}, labels={},
        annotations={}, rollout_in_progress=False, impact=impact, read_at=NOW,
    )  # fmt: skip
    known = HistoryFacts.model_validate({**HISTORY, **history})
    whole = Facts(alert=None, target=facts, history=known, stop=None, evidence=())
    said = rule.judge(Request(proposal=proposal, facts=whole, now=NOW))
    return said.reason if isinstance(said, Denied) else ""


# --- the rules ----------------------------------------------------------------------------------


@given(whole=st.integers(0, 10_000), percent=st.integers(1, 100))
def test_one_always_may_and_a_share_is_never_exceeded_beyond_it(whole: int, percent: int) -> None:
    allowed = share(whole, percent)
    assert allowed >= 1
    assert allowed == 1 or allowed * 100 <= whole * percent


@pytest.mark.parametrize(
    ("pods", "taken", "rolling", "refused"),
    [
        (1, 1, False, False),
        (9, 1, False, False),
        (9, 2, False, True),
        (20, 2, False, False),
        (20, 3, False, True),
        (20, 3, True, False),
        (20, 5, True, False),
        (20, 6, True, True),
        (5, 5, True, True),
        (1, 1, True, False),
        (0, 1, False, False),
    ],
)
def test_a_tenth_of_the_replicas_or_one_or_what_a_rollout_takes(
    pods: int, taken: int, rolling: bool, refused: bool
) -> None:
    impact = Impact(pods=pods, pods_taken=taken, rolling=rolling)
    assert bool(denied(BlastRadius(), "Deployment", impact)) == refused
    assert not denied(BlastRadius(), "Deployment", impact, undo=True)


def test_the_reason_has_the_numbers() -> None:
    said = denied(BlastRadius(), "Deployment", Impact(pods=20, pods_taken=3))
    assert said == (
        "some-action takes 3 of 20 pods of Deployment shop/cart away at once, at most 2 may be "
        "(10 %)"
    )


@pytest.mark.parametrize(
    ("workloads", "others", "refused"),
    [(2, 2, False), (4, 3, True), (10, 2, False), (10, 3, True), (20, 5, False), (20, 6, True)],
)
def test_few_workloads_of_a_namespace(workloads: int, others: int, refused: bool) -> None:
    impact = Impact(workloads=workloads)
    found = denied(NamespaceShare(), "Pod", impact, other_workloads=others)
    assert bool(found) == refused


@pytest.mark.parametrize(
    ("nodes", "away", "opened", "refused"),
    [
        (1, 0, 0, False),
        (3, 0, 0, False),
        (3, 1, 0, True),
        (30, 2, 0, False),
        (30, 3, 0, True),
        (30, 0, 1, True),
    ],
)
def test_one_node_at_a_time(nodes: int, away: int, opened: int, refused: bool) -> None:
    impact = Impact(nodes=nodes, nodes_away=away, pool=0, pool_away=0)
    found = denied(NodesAtOnce(), "Node", impact, CLOSED, open_runs_on_nodes=opened)
    assert bool(found) == refused
    assert not denied(NodesAtOnce(), "Node", impact, CLOSED, undo=True, open_runs_on_nodes=opened)


SHRINK = (replicas(8, 6), of("Machine", "m1", "/metadata/annotations/x", "yes"))


@pytest.mark.parametrize(
    ("kind", "changes", "pool", "away", "refused"),
    [
        ("Node", (CLOSED,), 4, 0, False),
        ("Node", (CLOSED,), 4, 1, True),
        ("Node", (CLOSED,), 8, 1, False),
        ("Node", (CLOSED,), 0, 0, False),
        ("MachineDeployment", SHRINK, 8, 0, False),
        ("MachineDeployment", SHRINK, 8, 1, True),
        ("MachineDeployment", (replicas(2, 4),), 2, 2, False),
    ],
)
def test_a_quarter_of_a_pool(
    kind: str, changes: tuple[Change, ...], pool: int, away: int, refused: bool
) -> None:
    impact = Impact(nodes=100, nodes_away=0, pool=pool, pool_away=away)
    assert bool(denied(PoolShare(), kind, impact, *changes)) == refused


@pytest.mark.parametrize(
    ("rule", "kind", "change"),
    [
        (BlastRadius(), "Pod", GONE),
        (NamespaceShare(), "StatefulSet", IMAGE),
        (NodesAtOnce(), "Node", CLOSED),
        (PoolShare(), "Node", CLOSED),
    ],
)
def test_what_nobody_read_is_no_zero(rule: Rule, kind: str, change: Change) -> None:
    with pytest.raises(FactsMissingError, match="could not be read"):
        denied(rule, kind, None, change)


@pytest.mark.parametrize("missing", ["other_workloads", "open_runs_on_nodes"])
def test_what_nobody_counted_is_no_zero(missing: str) -> None:
    rule: Rule = NamespaceShare() if missing == "other_workloads" else NodesAtOnce()
    kind = "Pod" if missing == "other_workloads" else "Node"
    with pytest.raises(FactsMissingError):
        denied(rule, kind, Impact(workloads=3, nodes=3, nodes_away=0), **{missing: None})


def test_rules_that_do_not_need_them_do_without() -> None:
    for rule in (BlastRadius(), NamespaceShare(), NodesAtOnce(), PoolShare()):
        assert not denied(rule, "PersistentVolumeClaim", None, replicas(1, 2))


def test_what_takes_nodes_away() -> None:
    assert takes_nodes(target("Node"), [CLOSED])
    assert takes_nodes(target("MachineDeployment"), SHRINK)
    assert not takes_nodes(target("MachineDeployment"), [replicas(2, 4)])
    assert not takes_nodes(target("Deployment"), [GONE, of("Pod", "p")])


# --- the facts ----------------------------------------------------------------------------------


class Cluster:
    """Answers lists."""

    def __init__(self, **lists: list[dict[str, Any]]) -> None:
        self.lists = lists

    async def list(self, _version: str, kind: str, _namespace: str, *_rest: Any) -> Any:
        return self.lists.get(kind, [])

    async def get(self, *_what: str) -> Any:
        raise AssertionError("nothing is to be got")


def deployment(replicas: int, **strategy: Any) -> dict[str, Any]:
    return {
        "kind": "Deployment",
        "metadata": {"name": "cart", "uid": "u1"},
        "spec": {"replicas": replicas, "strategy": strategy},
    }


def pod(uid: str, phase: str = "Running") -> dict[str, Any]:
    return {"kind": "Pod", "metadata": {"name": uid, "uid": uid}, "status": {"phase": phase}}


def node(name: str, *, ready: bool = True, closed: bool = False, gpu: str = "") -> dict[str, Any]:
    return {
        "kind": "Node",
        "metadata": {"name": name, "labels": {"nvidia.com/gpu.product": gpu} if gpu else {}},
        "spec": {"unschedulable": True} if closed else {},
        "status": {"conditions": [{"type": "Ready", "status": "True" if ready else "False"}]},
    }


async def read(cluster: Cluster, around: Around, *changes: Change) -> Impact:
    return await impact_of(cluster, around, changes)


async def test_a_pod_is_one_of_its_workloads() -> None:
    pods = [pod("a"), pod("b"), pod("c")]
    whole = deployment(3)
    around = Around(target("Pod", "a", "a"), pods[0], whole, pods)
    cluster = Cluster(Deployment=[whole, {}], StatefulSet=[{}])
    assert await read(cluster, around, GONE) == Impact(pods=3, pods_taken=1, workloads=3)


async def test_a_pod_that_has_ended_is_away_already() -> None:
    pods = [pod("a", "Failed"), pod("b", "Failed"), pod("c")]
    around = Around(target("Deployment"), deployment(3), deployment(3), pods)
    seen = await read(Cluster(), around, of("Pod", "a"), of("Pod", "b"))
    assert seen == Impact(pods=3, pods_taken=0, workloads=0)
    seen = await read(Cluster(), around, of("Pod", "a"), of("Pod", "c"), of("Pod", "unseen"))
    assert seen.pods_taken == 2, "what was not seen may well run"


@pytest.mark.parametrize(
    ("strategy", "missing"),
    [
        ({}, 2),
        ({"type": "Recreate"}, 8),
        ({"rollingUpdate": {"maxUnavailable": "50%"}}, 4),
        ({"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}, 0),
    ],
)
async def test_a_rollout_takes_what_its_strategy_allows(
    strategy: dict[str, Any], missing: int
) -> None:
    whole = deployment(8, **strategy)
    around = Around(target("Deployment"), whole, whole, [])
    seen = await read(Cluster(), around, IMAGE)
    assert (seen.pods, seen.pods_taken, seen.rolling) == (8, missing, True)


async def test_scaling_down_takes_what_goes_and_up_nothing() -> None:
    around = Around(target("Deployment"), deployment(8), deployment(8), [])
    assert (await read(Cluster(), around, replicas(8, 5))).pods_taken == 3
    assert (await read(Cluster(), around, replicas(8, 12))).pods_taken == 0


async def test_nodes_that_are_away_and_those_like_the_target() -> None:
    nodes = [
        node("a", ready=False, gpu="H100"),
        node("b", gpu="H100"),
        node("c", closed=True, gpu="H100"),
        node("d", ready=False),
        node("e", gpu="T4"),
    ]
    around = Around(target("Node", "a"), nodes[0], nodes[0], [])
    seen = await read(Cluster(Node=nodes), around, CLOSED)
    assert seen == Impact(nodes=5, nodes_away=2, pool=3, pool_away=1), "the target not among them"
    around = Around(target("Node", "d"), nodes[3], nodes[3], [])
    seen = await read(Cluster(Node=nodes), around, CLOSED)
    assert (seen.nodes_away, seen.pool, seen.pool_away) == (2, 0, 0)


async def test_a_pool_that_gets_smaller_counts_what_is_not_ready() -> None:
    pool = {"spec": {"replicas": 8}, "status": {"readyReplicas": 7}}
    around = Around(target("MachineDeployment"), pool, pool, [])
    seen = await read(Cluster(Node=[node("a"), node("b", ready=False)]), around, *SHRINK)
    assert seen == Impact(nodes=2, nodes_away=1, pool=8, pool_away=1)


async def test_what_has_no_pods_takes_none() -> None:
    claim = target("PersistentVolumeClaim")
    assert await read(Cluster(), Around(claim, {}, {}, []), replicas(1, 2)) == Impact()
