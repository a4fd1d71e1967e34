"""What a whole workload's trouble follows from: no DNS, a full quota, or nothing."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from tiphys.agents.notebook import Notebook
from tiphys.agents.shared_cause import SharedCause

NOW = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)


class Cluster:
    """Two sound nodes, and the pods of the cluster's DNS."""

    def __init__(self, *dns: bool, label: str = "kube-dns", namespace: str = "kube-system") -> None:
        self.dns = [
            {
                "kind": "Pod",
                "metadata": {
                    "name": f"coredns-5d78c9869d-{number}vf2x",
                    "namespace": namespace,
                    "labels": {"k8s-app": label},
                },
                "status": {
                    "phase": "Running",
                    "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
                },
            }
            for number, ready in enumerate(dns, start=4)
        ]
        self.asked: list[str] = []

    async def get(self, version: str, kind: str, namespace: str, name: str) -> Any:
        del version, namespace
        self.asked.append(f"get {kind} {name}")
        ready = [{"type": "Ready", "status": "True"}]
        return {"kind": kind, "metadata": {"name": name}, "status": {"conditions": ready}}

    async def list(self, version: str, kind: str, namespace: str = "", **_: str) -> Sequence[Any]:
        del version
        self.asked.append(f"list {kind} {namespace}")
        return self.dns


def group(trouble: str, count: int = 1, node: str = "n1") -> dict[str, Any]:
    return {"trouble": trouble, "count": count, "node": node, "minutes": 3.0}


def where(*groups: dict[str, Any], quota: bool = False, namespace: str = "shop") -> Any:
    return {"namespace": namespace, "groups": [*groups], "quota": quota}


async def cause(cluster: Cluster, seen: Any) -> tuple[str, ...]:
    found = await SharedCause(cluster, None, Notebook(lambda: NOW)).of_pods(seen)  # type: ignore[arg-type]
    return found.subjects if found else ()


@pytest.mark.parametrize("troubles", [["unready"], ["crash"], ["unready", "crash"]])
async def test_pods_that_run_without_names_follow_from_the_dns(troubles: list[str]) -> None:
    seen = where(*(group(one) for one in troubles))
    assert await cause(Cluster(False, False), seen) == ("deployment kube-system/coredns",)


@pytest.mark.parametrize(
    ("cluster", "seen"),
    [
        pytest.param(Cluster(False, True), where(group("unready")), id="one-serves"),
        pytest.param(Cluster(), where(group("unready")), id="nobody-knows-of-any"),
        pytest.param(Cluster(False, label="other"), where(group("unready")), id="other-pods"),
        pytest.param(Cluster(False, namespace="shop"), where(group("unready")), id="elsewhere"),
        pytest.param(Cluster(False), where(group("image")), id="no-image"),
        pytest.param(
            Cluster(False), where(group("unready"), group("unschedulable", node="")), id="and-more"
        ),
        pytest.param(
            Cluster(False), where(group("unready"), namespace="kube-system"), id="the-dns-itself"
        ),
        pytest.param(Cluster(False), where(), id="nothing-fails"),
    ],
)
async def test_what_the_dns_does_not_explain_follows_nobody(cluster: Cluster, seen: Any) -> None:
    assert await cause(cluster, seen) == ()


@pytest.mark.parametrize(
    "seen",
    [
        pytest.param(where(quota=True), id="none-were-made"),
        pytest.param(where(group("starting"), quota=True), id="one-is-on-its-way"),
        pytest.param(where(group("unschedulable", node=""), quota=True), id="no-node-yet"),
    ],
)
async def test_pods_that_a_quota_refuses_follow_from_the_namespace(seen: Any) -> None:
    assert await cause(Cluster(True), seen) == ("namespace shop",)


@pytest.mark.parametrize(
    "seen",
    [
        pytest.param(where(group("crash"), quota=True), id="one-fails-for-itself"),
        pytest.param(where(group("starting"), group("image"), quota=True), id="one-has-no-image"),
        pytest.param(where(group("starting")), id="nothing-is-refused"),
    ],
)
async def test_a_quota_does_not_explain_what_fails_for_itself(seen: Any) -> None:
    assert await cause(Cluster(True), seen) == ()
