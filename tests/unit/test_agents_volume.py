"""Which claim fills up, whether it may grow, whose it is; and what is answered then."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tiphys.agents.playbooks import Playbooks
from tiphys.agents.ports import Answer, Case, Findings
from tiphys.agents.target_facts import field_owner
from tiphys.agents.volume_facts import facts_of, workload_pod
from tiphys.policies.model import Alert, Change, Json

NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
Obj = dict[str, Any]
FILLING, INODES = "KubePersistentVolumeFillingUp", "KubePersistentVolumeInodesFillingUp"


def ago(minutes: float) -> str:
    return (NOW - timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")


def entry(manager: str, minutes: float, *, asks: bool = True) -> Obj:
    """Give what a manager last set so long ago."""
    fields: Obj = {"f:resources": {"f:requests": {"f:storage": {}}}} if asks else {}
    return {"manager": manager, "time": ago(minutes), "fieldsV1": {"f:spec": fields}}


def claim(*entries: Obj, name: str = "data-db-0", **spec: Any) -> Obj:
    made = {"name": name, "creationTimestamp": ago(50_000), "managedFields": [*entries]}
    asks = {"resources": {"requests": {"storage": "10Gi"}}, "storageClassName": "fast"}
    return {
        "metadata": made,
        "spec": asks | spec,
        "status": {"phase": "Bound", "capacity": {"storage": "10Gi"}},
    }


def pod(name: str, of: str = "data-db-0", phase: str = "Running") -> Obj:
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": of}}
    return {
        "metadata": {"name": name},
        "spec": {"volumes": [volume]},
        "status": {"phase": phase},
    }


SET = {
    "metadata": {"name": "db", "uid": "s"},
    "spec": {"volumeClaimTemplates": [{"metadata": {"name": "data"}}]},
}
FAST = {"metadata": {"name": "fast"}, "allowVolumeExpansion": True}
AROUND = {"StorageClass": [FAST], "Pod": [pod("db-0")], "StatefulSet": [SET]}


def test_a_claim_is_told_with_its_size_its_users_and_its_template() -> None:
    assert facts_of(claim(), AROUND, NOW) == {
        "name": "data-db-0",
        "size_gib": 10.0,
        "class": "fast",
        "obstacle": "",
        "mounted_by": ["db-0"],
        "template_of": "db",
        "raised_minutes": -1.0,
        "raised_lately": False,
    }


@pytest.mark.parametrize(
    ("target", "around", "why"),
    [
        (claim(storageClassName="slow"), {}, "no StorageClass slow"),
        (claim(), {"StorageClass": [FAST | {"allowVolumeExpansion": False}]}, "does not allow"),
        (claim(), {"Pod": []}, "no running pod mounts it"),
        (claim(resources={"requests": {"storage": "much"}}), {}, "not a quantity"),
    ],
)
def test_what_keeps_it_from_growing_is_told(target: Obj, around: Obj, why: str) -> None:
    assert why in str(facts_of(target, AROUND | around, NOW)["obstacle"])


@pytest.mark.parametrize(
    ("entries", "minutes", "lately"),
    [
        ([entry("tiphys-x", 90)], 90, True),
        ([entry("tiphys-x", 90), entry("kubectl-edit", 30)], 30, True),
        ([entry("tiphys-x", 10_081)], 10_081, False),
        ([entry("kube-controller-manager", 90)], -1, False),
        ([entry("kubectl-label", 90, asks=False)], -1, False),
        ([entry("kubectl-create", 50_000)], -1, False),
    ],
)
def test_a_claim_that_was_raised_lately_is_seen(
    entries: list[Obj], minutes: float, lately: bool
) -> None:
    found = facts_of(claim(*entries), AROUND, NOW)
    assert (found["raised_minutes"], found["raised_lately"]) == (minutes, lately)


def test_its_workload_is_found_by_a_pod_that_runs() -> None:
    pods = [pod("other", "x"), pod("db-1", phase="Failed"), pod("db-0")]
    assert workload_pod(claim(), pods) == pod("db-0")
    assert workload_pod(claim(), pods[:2]) == pod("db-1", phase="Failed")
    assert workload_pod(claim(), pods[:1]) is None


def test_a_request_that_a_gitops_controller_applies_is_its_own() -> None:
    path = "/spec/resources/requests/storage"
    changes = [Change(path=path, present="10Gi", intended="15Gi")]
    applied = claim(entry("argocd-application-controller", 90))
    assert field_owner(applied, [], changes) == "argocd-application-controller"
    assert field_owner(claim(entry("kube-controller-manager", 90)), [], changes) is None


# --- what is answered ---------------------------------------------------------------------------

VOLUME: dict[str, Json] = {
    "name": "data-db-0",
    "size_gib": 10.0,
    "class": "fast",
    "obstacle": "",
    "mounted_by": ["db-0"],
    "template_of": "",
    "raised_minutes": -1.0,
    "raised_lately": False,
}
SLOWLY: dict[str, Json] = {"used_share": 0.98, "growth_an_hour": 0.001}


def filling(volume: dict[str, Json], gathered: dict[str, Json], alert: str = FILLING) -> Findings:
    labels = {"alertname": alert, "persistentvolumeclaim": "data-db-0", "namespace": "shop"}
    firing = Alert.model_validate(
        {
            "id": "a",
            "cluster": "c",
            "fingerprint": "f",
            "status": "firing",
            "starts_at": NOW,
            "labels": labels,
            "received_at": NOW,
        }
    )
    facts: dict[str, Json] = {
        "alert": {"name": alert, "names": [alert], "labels": {**labels}},
        "resolution": {"missing": ["PersistentVolumeClaim shop/data-db-0"]},
        "volume": volume,
        "gathered": gathered,
    }
    return Findings(Case("i", 1, "c", True, "s", [firing], ()), facts, {}, [])


async def test_a_volume_that_fills_slowly_is_made_larger() -> None:
    books = Playbooks.load()
    choice = await books.decide(filling(VOLUME, SLOWLY))
    assert (choice.answer, choice.action, choice.target) == (Answer.ACT, "expand-volume", "claim")
    assert choice.parameters == {"percent": 150, "ceiling_gib": 1000}
    assert "StatefulSet" not in choice.reason
    choice = await books.decide(filling(VOLUME | {"template_of": "db"}, SLOWLY))
    assert choice.action == "expand-volume"
    assert "volumeClaimTemplates of StatefulSet db" in choice.reason


@pytest.mark.parametrize(
    ("volume", "gathered", "alert", "why"),
    [
        (VOLUME, SLOWLY, INODES, "runs out of inodes"),
        ({}, SLOWLY, FILLING, "not in the cluster: PersistentVolumeClaim shop/data-db-0"),
        (VOLUME | {"obstacle": "StorageClass fast does not allow expansion"}, SLOWLY, FILLING,
         "cannot be expanded: StorageClass fast does not allow expansion"),
        (VOLUME | {"raised_minutes": 90.0, "raised_lately": True}, SLOWLY, FILLING, "90 min ago"),
        (VOLUME, {}, FILLING, "Prometheus has no such series"),
        (VOLUME, {"used_share": 0.98}, FILLING, "Prometheus has no such series"),
        (VOLUME, SLOWLY | {"growth_an_hour": 0.3}, FILLING, "Find what writes, in db-0"),
        (VOLUME | {"size_gib": 950.0}, SLOWLY, FILLING, "a decision about cost"),
        (VOLUME, SLOWLY | {"used_share": 0.5}, FILLING, "0.5 used"),
        (VOLUME, SLOWLY, "KubePersistentVolumeErrors", "error phase"),
    ],
)  # fmt: skip
async def test_where_a_larger_volume_harms_or_does_not_help_a_human_decides(
    volume: dict[str, Json], gathered: dict[str, Json], alert: str, why: str
) -> None:
    choice = await Playbooks.load().decide(filling(volume, gathered, alert))
    assert choice.answer is Answer.ESCALATE
    assert why in choice.reason, choice.reason
