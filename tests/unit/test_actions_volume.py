"""expand-volume: its bounds, who may forbid it, and admission's word for the same bounds."""

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tiphys.policies.model import Risk
from tiphys.sandbox.admission import refused_by
from tiphys.sandbox.patches import PatchType, apply
from tiphys.workflow_templates import claims
from tiphys.workflow_templates.action import NotApplicableError, Scope
from tiphys.workflow_templates.expand_volume import ExpandVolume, ExpandVolumeParameters
from tiphys.workflow_templates.mark import ANNOTATION, annotating
from tiphys.workflow_templates.pointers import operations
from tiphys.workflow_templates.quantities import MIB, amount, mebibytes

Obj = dict[str, Any]
ACTION = ExpandVolume()
DIGEST = "a" * 40
RUN = f"tiphys-{DIGEST}"


def claim(asks: str = "10Gi", has: str | None = "10Gi", **more: Any) -> Obj:
    """Give a bound claim of class `fast`; `more` is laid over spec, status or metadata."""
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": asks}},
        "storageClassName": "fast",
        "volumeName": "pv-1",
    }
    status: Obj = {"phase": "Bound"} | ({"capacity": {"storage": has}} if has else {})
    meta = {"namespace": "shop", "name": "cache", "uid": "u"}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": meta | more.get("metadata", {}),
        "spec": spec | more.get("spec", {}),
        "status": status | more.get("status", {}),
    }


def pod(owner: Obj | None = None, phase: str = "Running", of: str = "cache", **meta: Any) -> Obj:
    owners = [owner | {"controller": True}] if owner else []
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": of}}
    return {
        "metadata": {"name": "cache-0", "ownerReferences": owners, **meta},
        "spec": {"volumes": [{"name": "tmp", "emptyDir": {}}, volume]},
        "status": {"phase": phase},
    }


CLASS = {"metadata": {"name": "fast"}, "allowVolumeExpansion": True}
SET = {"kind": "StatefulSet", "name": "cache", "uid": "s"}


def related(**more: list[Obj]) -> dict[str, list[Obj]]:
    return {"StorageClass": [CLASS], "Pod": [pod()]} | more


def planned(target: Obj, percent: int = 150, ceiling: int = 100, **more: list[Obj]) -> Any:
    wanted = ExpandVolumeParameters(percent=percent, ceiling_gib=ceiling)
    (change,) = ACTION.changes(target, related(**more), wanted)
    assert change.path == "/spec/resources/requests/storage"
    assert change.present == target["spec"]["resources"]["requests"]["storage"]
    return change.intended


# --- how much -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "percent", "ceiling", "intended"),
    [
        (claim(), 150, 100, "15Gi"),
        (claim(), 110, 100, "11Gi"),
        (claim(), 200, 100, "20Gi"),
        (claim(), 200, 12, "12Gi"),
        (claim("25Gi", "25Gi"), 150, 100, "38400Mi"),
        (claim("700Gi", "700Gi"), 150, 1024, "1Ti"),
        # A driver rounds up: what it has counts.
        (claim("10G", "10Gi"), 150, 100, "15Gi"),
        (claim("1Gi", "10Gi"), 150, 100, "15Gi"),
        (claim("10485761Ki", "10485761Ki"), 150, 100, "15Gi"),
    ],
)
def test_it_grows_by_percent_of_what_it_has_up_to_the_ceiling(
    target: Obj, percent: int, ceiling: int, intended: str
) -> None:
    assert planned(target, percent, ceiling) == intended


@pytest.mark.parametrize(
    ("target", "ceiling", "why"),
    [
        (claim(), 10, "ceiling of 10 GiB leaves no room"),
        (claim(), 5, "ceiling of 5 GiB leaves no room"),
        (claim("95Gi", "95Gi"), 100, "ceiling of 100 GiB leaves no room"),
        (claim("1Mi", "1Mi"), 100, "too little"),
    ],
)
def test_what_is_not_worth_it_is_not_done(target: Obj, ceiling: int, why: str) -> None:
    with pytest.raises(NotApplicableError, match=why):
        planned(target, 150, ceiling)


@pytest.mark.parametrize(
    "given",
    [
        {"percent": 109},
        {"percent": 201},
        {"percent": 150.0},
        {"percent": "150"},
        {"ceiling_gib": 0},
        {"ceiling_gib": 16385},
        {"ceiling_gib": True},
        {"more": 1},
    ],
)
def test_only_parameters_in_bounds_are_taken(given: Obj) -> None:
    good = {"percent": 110, "ceiling_gib": 16384}
    ExpandVolumeParameters.model_validate(good)
    with pytest.raises(ValidationError):
        ExpandVolumeParameters.model_validate(good | given)


def test_a_size_is_written_as_the_api_server_stores_it() -> None:
    sizes = {1023: "1023Mi", 1024: "1Gi", 1 << 20: "1Ti", (1 << 20) + 1024: "1025Gi"}
    assert {n: mebibytes(n) for n in sizes} == sizes


# --- who forbids it -----------------------------------------------------------------------------


def condition(kind: str, status: str = "True") -> Obj:
    return {"conditions": [{"type": kind, "status": status, "message": "waiting"}]}


OPERATOR = {"apiVersion": "db.example/v1", "kind": "Database", "name": "main", "uid": "d"}
OWNED = {"metadata": {"uid": "s", "ownerReferences": [OPERATOR | {"controller": True}]}}


@pytest.mark.parametrize(
    ("target", "why"),
    [
        (claim(status={"phase": "Pending"}), "Pending, not Bound"),
        (claim(status={"phase": "Lost"}), "Lost, not Bound"),
        (claim(metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"}), "being deleted"),
        (claim(spec={"volumeMode": "Block"}), "block device"),
        (claim("12Gi"), "asks for 12Gi and has 10Gi"),
        (claim(has=None), "asks for 10Gi and has nothing"),
        (claim(status=condition("Resizing")), "Resizing"),
        (claim(status=condition("FileSystemResizePending")), "FileSystemResizePending"),
        (claim(status=condition("ControllerResizeError")), "ControllerResizeError"),
        (claim(status=condition("NodeResizeError")), "NodeResizeError"),
        (
            claim(status={"allocatedResourceStatuses": {"storage": "NodeResizeInfeasible"}}),
            "NodeResizeInfeasible",
        ),
        (claim(metadata={"ownerReferences": [OPERATOR | {"controller": True}]}), "Database main"),
        (claim(spec={"storageClassName": ""}), "has no StorageClass"),
        (claim(spec={"storageClassName": "slow"}), "no StorageClass slow"),
    ],
)
def test_what_it_cannot_be_planned_on(target: Obj, why: str) -> None:
    with pytest.raises(NotApplicableError, match=why):
        planned(target)


@pytest.mark.parametrize(
    ("stage", "ends"),
    [
        ("ControllerResizeInProgress", True),
        ("NodeResizePending", True),
        ("ControllerResizeInfeasible", False),
        ("NodeResizeInfeasible", False),
    ],
)
def test_only_a_stage_that_cannot_end_is_given_up(stage: str, ends: bool) -> None:
    """The stages of PersistentVolumeClaimStatus.allocatedResourceStatuses."""
    staged = claim(status={"allocatedResourceStatuses": {"storage": stage}})
    assert claims.given_up(staged) == (None if ends else stage)


def test_what_has_ended_is_no_obstacle() -> None:
    of_its_set = {"ownerReferences": [SET | {"controller": True}]}
    for fine in (claim(status=condition("Resizing", "False")), claim(metadata=of_its_set)):
        assert planned(fine) == "15Gi"


@pytest.mark.parametrize("allows", [False, None])
def test_its_class_must_allow_it(allows: bool | None) -> None:
    slow = {"metadata": {"name": "fast"}, "allowVolumeExpansion": allows}
    with pytest.raises(NotApplicableError, match="StorageClass fast does not allow expansion"):
        planned(claim(), StorageClass=[slow])


@pytest.mark.parametrize(
    ("pods", "why"),
    [
        ([], "no running pod mounts it"),
        ([pod(phase="Pending")], "no running pod mounts it"),
        ([pod(of="other")], "no running pod mounts it"),
        ([pod(deletionTimestamp="2026-01-01T00:00:00Z")], "no running pod mounts it"),
        ([pod(OPERATOR)], "Database main owns what mounts it"),
        ([pod(SET)], "Database main owns what mounts it"),
        ([pod({"kind": "ReplicaSet", "name": "cache-1", "uid": "r"})], ""),
        ([pod(SET | {"uid": "another"})], ""),
    ],
)
def test_somebody_must_use_it_and_no_operator_own_that(pods: list[Obj], why: str) -> None:
    if not why:
        assert planned(claim(), Pod=pods, StatefulSet=[OWNED]) == "15Gi"
        return
    with pytest.raises(NotApplicableError, match=why):
        planned(claim(), Pod=pods, StatefulSet=[OWNED])


def quota(hard: str, used: str | None, name: str = "requests.storage") -> Obj:
    status = {} if used is None else {"status": {"used": {name: used}}}
    return {"metadata": {"name": "team"}, "spec": {"hard": {name: hard}}, **status}


OF_CLASS = "fast.storageclass.storage.k8s.io/requests.storage"


@pytest.mark.parametrize(
    ("one", "fits"),
    [
        (quota("15Gi", "10Gi"), True),
        (quota("15359Mi", "10Gi"), False),
        (quota("20Gi", "16Gi"), False),
        (quota("90Gi", None), False),
        (quota("15Gi", "10Gi", OF_CLASS), True),
        (quota("14Gi", "10Gi", OF_CLASS), False),
        (quota("1Gi", "1Gi", OF_CLASS.replace("fast", "slow")), True),
        (quota("1", "1", "persistentvolumeclaims"), True),
        (quota("1Gi", "1Gi", "requests.memory"), True),
    ],
)
def test_a_quota_must_have_room_for_the_difference(one: Obj, fits: bool) -> None:
    if fits:
        assert planned(claim(), ResourceQuota=[one]) == "15Gi"
        return
    with pytest.raises(NotApplicableError, match="ResourceQuota team would refuse it"):
        planned(claim(), ResourceQuota=[one])


def test_a_quota_counts_what_is_asked_for_and_not_what_is_there() -> None:
    """From 1Gi asked to 15Gi it is 14Gi more, though the volume has 10Gi already."""
    target = claim("1Gi", "10Gi")
    assert planned(target, ResourceQuota=[quota("15Gi", "1Gi")]) == "15Gi"
    with pytest.raises(NotApplicableError, match="ResourceQuota team"):
        planned(target, ResourceQuota=[quota("14Gi", "1Gi")])


@pytest.mark.parametrize(
    ("kind", "most", "fits"),
    [
        ("PersistentVolumeClaim", "15Gi", True),
        ("PersistentVolumeClaim", "14Gi", False),
        ("Container", "1Gi", True),
    ],
)
def test_a_limit_range_must_allow_it(kind: str, most: str, fits: bool) -> None:
    limits = [{"type": "Container"}, {"type": kind, "max": {"storage": most}}]
    ranges = [{"metadata": {"name": "most"}, "spec": {"limits": limits}}]
    if fits:
        assert planned(claim(), LimitRange=ranges) == "15Gi"
        return
    with pytest.raises(NotApplicableError, match="LimitRange most allows a claim 14Gi"):
        planned(claim(), LimitRange=ranges)


# --- what people are told -----------------------------------------------------------------------


def test_it_says_that_it_is_for_good_and_who_will_not_know() -> None:
    wanted = ExpandVolumeParameters(percent=150, ceiling_gib=14)
    assert ACTION.risk(claim(), wanted) is Risk.MEDIUM
    assert not ACTION.reversible
    assert "never made small again" in ACTION.always_ask
    told = ACTION.blast_radius(claim(), wanted)
    assert "shop/cache of StorageClass fast gets 14336 MiB instead of 10240 MiB, for good" in told
    assert "volumeClaimTemplates" not in told
    of_a_set = ACTION.blast_radius(claim(metadata={"name": "data-db-0"}), wanted)
    assert "its volumeClaimTemplates keep the earlier size" in of_a_set


@pytest.mark.parametrize(
    ("name", "owner"),
    [("data-db-0", "db"), ("data-db-12", "db"), ("data-db-x", None), ("log-db-0", None)],
)
def test_a_claim_of_a_template_is_told_by_its_name(name: str, owner: str | None) -> None:
    templates = [{"metadata": {"name": "data"}}]
    sets = [{"metadata": {"name": "db"}, "spec": {"volumeClaimTemplates": templates}}]
    assert claims.template_of(claim(metadata={"name": name}), sets) == owner


def test_only_classes_are_read_outside_the_namespace_and_that_right_is_no_node_actions() -> None:
    wide = [right for right in ACTION.rights if right.scope is Scope.CLUSTER]
    assert [(r.resource, r.verbs) for r in wide] == [("storageclasses", ("get",))]
    assert not ACTION.works_on_nodes


# --- admission says the same --------------------------------------------------------------------


def patched(target: Obj, asks: str | None, ending: str) -> Obj:
    old = target["spec"]["resources"]["requests"]["storage"]
    values = [] if asks is None else [("/spec/resources/requests/storage", old, asks)]
    patch = [*operations(values), *annotating(target, f"{DIGEST}.{ending}")]
    return apply(target, patch, PatchType.JSON)


def refusals(before: Obj, after: Obj) -> list[str]:
    facts = {"object": after, "oldObject": before, "run": RUN}
    return refused_by(ACTION, "/persistentvolumeclaims", facts)


@pytest.mark.parametrize("percent", [110, 150, 200])
@pytest.mark.parametrize("target", [claim(), claim("10G"), claim("1Gi"), claim("70Mi", "70Mi")])
def test_what_it_does_is_let_through_once(percent: int, target: Obj) -> None:
    after = patched(target, planned(target, percent), "act")
    assert refusals(target, after) == []
    kept = patched(after, None, "kept")
    assert refusals(after, kept) == []
    more = claim("11Gi", "11Gi", metadata=after["metadata"])
    for ending in ("act", "kept", "undone"):
        assert refusals(more, patched(more, "12Gi", ending))
    others = deepcopy(more)
    others["metadata"]["annotations"][ANNOTATION] = f"{'b' * 40}.kept"
    assert refusals(others, patched(others, "12Gi", "act")) == []
    for ending in ("kept", "undone"):
        assert refusals(target, patched(target, planned(target, percent), ending))


SIZES = st.sampled_from(["1Mi", "100M", "1Gi", "10G", "10Gi", "10240Mi", "900Gi", "9Ti", "17Ti"])
TERA = 1 << 20


@given(
    asks=SIZES,
    has=SIZES | st.none(),
    mib=st.integers(1, 20 * TERA) | st.sampled_from([1024, 10240, 20480, 20481, 16 * TERA]),
)
def test_admission_lets_through_exactly_the_bounds(asks: str, has: str | None, mib: int) -> None:
    target = claim(asks, has)
    before, size = amount(asks), max(amount(asks), amount(has or 0))
    may = before < mib * MIB <= 2 * size and mib <= 16 * TERA
    after = patched(target, mebibytes(mib), "act")
    assert (refusals(target, after) == []) is (may or mib * MIB == before)


@given(size=SIZES, percent=st.integers(110, 200), ceiling=st.integers(1, 16384))
def test_whatever_is_planned_is_let_through(size: str, percent: int, ceiling: int) -> None:
    target = claim(size, size)
    try:
        wanted = planned(target, percent, ceiling)
    except NotApplicableError:
        return
    assert amount(size) < amount(wanted) <= 2 * amount(size)
    assert amount(wanted) <= ceiling * 1024 * MIB
    assert refusals(target, patched(target, wanted, "act")) == []
