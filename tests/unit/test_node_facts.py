"""What the gate and the playbooks are told of a node, and of the pods that a drain would end."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tiphys.agents.node_around import around
from tiphys.agents.notebook import Notebook
from tiphys.agents.resolver import Resolver, names_a_pod
from tiphys.agents.target_facts import Use, see, target_facts
from tiphys.policies.model import Facts, Object, Proposal, Target, TargetFacts
from tiphys.policies.ownership import LongJob
from tiphys.policies.protected import OptedIn, ProtectedNamespaces
from tiphys.policies.rule import Request
from tiphys.policies.verdict import Allowed, Denied, NeedsApproval
from tiphys.workflow_templates.catalogue import find

Obj = dict[str, Any]
NOW = datetime(2026, 3, 4, 3, 0, tzinfo=UTC)
ACTION = find("cordon-drain-node")
OPTED_IN = {"tiphys.io/heal": "enabled"}
TARGET = Target(cluster="c", api_version="v1", kind="Node", namespace="", name="n1", uid="u-n1")


def node(name: str, *problems: str, **spec: Any) -> Obj:
    conditions = [{"type": "Ready", "status": "True"}]
    conditions += [{"type": problem, "status": "True"} for problem in problems]
    room = {"cpu": "8", "memory": "8Gi", "pods": "10", "nvidia.com/gpu": "8"}
    return {
        "metadata": {"name": name, "uid": f"u-{name}", "labels": {**OPTED_IN}},
        "spec": spec,
        "status": {"allocatable": room, "conditions": conditions},
    }


def owned(kind: str, name: str, above: Obj | None = None, **meta: Any) -> Obj:
    owners = [] if above is None else [reference(above)]
    return {
        "kind": kind,
        "apiVersion": "batch/v1" if kind == "Job" else "apps/v1",
        "metadata": {
            "name": name, "namespace": "shop", "uid": f"u-{name}", "ownerReferences": owners, **meta
        },
        "spec": {"replicas": 1},
    }  # fmt: skip


def reference(owner: Obj) -> Obj:
    meta = {key: owner["metadata"][key] for key in ("name", "uid")}
    kind = {"kind": owner["kind"], "apiVersion": owner["apiVersion"]}
    return {**kind, **meta, "controller": True}


def pod(name: str, owner: Obj, gpus: int = 0, **meta: Any) -> Obj:
    limits = {"limits": {"nvidia.com/gpu": str(gpus)}} if gpus else {}
    began = (NOW - timedelta(hours=3)).isoformat()
    return {
        "metadata": {
            "name": name, "namespace": "shop", "uid": f"u-{name}",
            "ownerReferences": [reference(owner)], **meta,
        },
        "spec": {"nodeName": "n1", "containers": [{"name": "main", "resources": limits}]},
        "status": {"phase": "Running", "startTime": began},
    }  # fmt: skip


class Cluster:
    """Answers from lists."""

    def __init__(self, *pods: Obj, owners: Sequence[Obj], **space: str) -> None:
        self.kinds: dict[str, list[Obj]] = {
            "Node": [node("n1"), node("n2")],
            "Pod": [*pods],
            "Namespace": [{"metadata": {"name": "shop", "labels": OPTED_IN, "annotations": space}}],
        }
        for one in owners:
            self.kinds.setdefault(one["kind"], []).append(one)

    async def get(self, *asked: str) -> Object | None:
        _, kind, _, name = asked
        found = (o for o in self.kinds.get(kind, ()) if o["metadata"]["name"] == name)
        return next(found, None)

    async def list(self, *asked: str, **selectors: str) -> Sequence[Object]:
        del selectors
        return self.kinds.get(asked[1], [])

    async def logs(self, *args: Any, **kwargs: Any) -> str:
        raise NotImplementedError


async def facts(cluster: Cluster) -> TargetFacts:
    sight = await see(cluster, Resolver(cluster, Notebook(lambda: NOW)), TARGET)
    none = ACTION.parameters()
    use = Use(ACTION, none, lambda thing, near: ACTION.changes(thing, near, none))
    return await target_facts(cluster, sight, use, True, NOW)


async def verdict(cluster: Cluster) -> object:
    seen = await facts(cluster)
    return LongJob().judge(request(seen))


def request(seen: TargetFacts) -> Request:
    proposal = Proposal.model_construct(action=ACTION.name, target=TARGET, changes=seen.changes)
    return Request(proposal, Facts.model_construct(target=seen), NOW)


SET = owned("ReplicaSet", "cart")
JOB = owned("Job", "train")


async def test_an_ordinary_drain_needs_no_word_about_jobs() -> None:
    seen = await facts(Cluster(pod("a", SET), owners=[SET]))
    assert [change.place for change in seen.changes] == ["/spec/unschedulable", "Pod shop/a"]
    assert seen.ends_long_job is None
    assert isinstance(LongJob().judge(request(seen)), Allowed)
    assert seen.field_owner is None


async def test_gpus_on_the_node_are_counted_in_hours() -> None:
    seen = await facts(Cluster(pod("a", SET, gpus=4), pod("b", SET), owners=[SET]))
    assert seen.gpu_hours_at_stake == 12.0
    answer = LongJob().judge(request(seen))
    assert isinstance(answer, NeedsApproval)
    assert "12.0 GPU hours" in answer.reason


@pytest.mark.parametrize(
    "cluster",
    [
        Cluster(pod("a", JOB), owners=[JOB]),
        Cluster(
            pod("a", owned("StatefulSet", "w")),
            owners=[
                owned("StatefulSet", "w", {
                    "kind": "LeaderWorkerSet", "apiVersion": "x/v1",
                    "metadata": {"name": "l", "uid": "u-l"},
                })
            ],
        ),
        Cluster(pod("a", SET, annotations={"tiphys.io/long-running": "true"}), owners=[SET]),
        Cluster(
            pod("a", SET),
            owners=[owned("ReplicaSet", "cart", annotations={"tiphys.io/long-running": "yes"})],
        ),
        Cluster(pod("a", SET), owners=[SET], **{"tiphys.io/long-running": ""}),
    ],
    ids=["a Job's", "a training operator's", "by the pod", "by its owner", "by its namespace"],
)  # fmt: skip
async def test_a_long_job_on_the_node_is_not_ended_without_asking(cluster: Cluster) -> None:
    assert isinstance(await verdict(cluster), NeedsApproval)


async def test_a_protected_namespaces_pods_are_protected_from_a_drain() -> None:
    seen = await facts(Cluster(pod("a", SET), owners=[SET]))
    assert isinstance(ProtectedNamespaces().judge(request(seen)), Allowed)
    rule = ProtectedNamespaces(patterns=("sho*",))
    assert isinstance(rule.judge(request(seen)), Denied)


async def test_a_node_opts_in_itself() -> None:
    cluster = Cluster(pod("a", SET), owners=[SET])
    seen = await facts(cluster)
    assert isinstance(OptedIn().judge(request(seen)), Allowed)
    out = seen.model_copy(update={"labels": {}})
    assert isinstance(OptedIn().judge(request(out)), Denied)


def test_an_exporters_pod_is_not_what_a_nodes_alert_is_about() -> None:
    exporter = {"namespace": "monitoring", "pod": "kube-state-metrics-0", "node": "n1"}
    assert names_a_pod({**exporter})
    assert not names_a_pod({**exporter, "condition": "Ready"})
    assert not names_a_pod({**exporter, "key": "k", "effect": "NoSchedule"})


def test_the_other_nodes_are_counted_and_compared() -> None:
    sick = node("n1", "ReadonlyFilesystem", "DiskPressure")
    others = [node("n2", "ReadonlyFilesystem"), node("n3", unschedulable=True), node("n4")]
    assert around(sick, [sick, *others]) == {
        "problems": ["ReadonlyFilesystem"],
        "others_open": 2,
        "others_ill": ["n2"],
        "others_not_ready": [],
    }
    lost = {"metadata": {"name": "n5"}}
    closed = {"metadata": {"name": "n6"}, "spec": {"unschedulable": True}}
    assert around(sick, [sick, *others, lost, closed])["others_not_ready"] == ["n5"]
