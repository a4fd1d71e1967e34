"""raise-memory-limit: its bounds, who may forbid it, and admission's word for the same bounds."""

from copy import deepcopy
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tiphys.policies.model import Risk
from tiphys.sandbox.admission import refused_by
from tiphys.sandbox.patches import PatchType, apply
from tiphys.workflow_templates.action import NotApplicableError
from tiphys.workflow_templates.mark import ANNOTATION, annotating
from tiphys.workflow_templates.pointers import operations
from tiphys.workflow_templates.quantities import (
    MIB,
    NotAQuantityError,
    amount,
    mebibytes,
)
from tiphys.workflow_templates.raise_memory_limit import (
    RaiseMemoryLimit,
    RaiseMemoryLimitParameters,
)

Obj = dict[str, Any]
ACTION = RaiseMemoryLimit()
DIGEST = "a" * 40
RUN = f"tiphys-{DIGEST}"
PLACE = "/spec/template/spec/containers/0/resources"


def workload(limit: str | None = "256Mi", request: str | None = "256Mi", **spec: Any) -> Obj:
    """Give a Deployment of three that has settled; its sidecar has 64Mi."""
    resources: Obj = {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}
    if limit is not None:
        resources["limits"]["memory"] = limit
    if request is not None:
        resources["requests"]["memory"] = request
    containers = [
        {"name": "main", "image": "cart:2", "resources": resources},
        {"name": "side", "image": "side:1", "resources": {"limits": {"memory": "64Mi"}}},
    ]
    counts = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
    template = {"metadata": {"labels": {"app": "cart"}}, "spec": {"containers": containers}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"namespace": "shop", "name": "cart", "uid": "u", "generation": 3},
        "spec": {"replicas": 3, "template": template, **spec},
        "status": {"observedGeneration": 3, **dict.fromkeys(counts, 3)},
    }


def planned(
    target: Obj, mib: int = 384, container: str = "main", **related: list[Obj]
) -> list[tuple[str, Any, Any]]:
    wanted = RaiseMemoryLimitParameters(container=container, limit_mib=mib)
    return [(c.path, c.present, c.intended) for c in ACTION.changes(target, related, wanted)]


# --- quantities ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("128974848", 128974848),
        ("129e6", 129000000),
        ("129E6", 129000000),
        ("129M", 129000000),
        ("128974848000m", 128974848),
        ("123Mi", 128974848),
        ("1.5Gi", 3 << 29),
        (".5k", 500),
        ("2E", 2 * 10**18),
        ("1n", Fraction(1, 10**9)),
        (512, 512),
    ],
)
def test_a_quantity_is_read_exactly(text: object, size: Fraction) -> None:
    assert amount(text) == size


@pytest.mark.parametrize(
    "text", ["", "Mi", "1mi", "1KI", "1 Mi", "0x1", "1e", "nan", "1Mi\n", None]
)
def test_what_is_no_quantity_is_refused(text: object) -> None:
    with pytest.raises(NotAQuantityError):
        amount(text)


def test_a_limit_is_written_as_the_api_server_stores_it() -> None:
    """Written otherwise, what is read back would seem somebody else's value."""
    assert [mebibytes(n) for n in (1, 1023, 1024, 1536, 65536)] == [
        "1Mi",
        "1023Mi",
        "1Gi",
        "1536Mi",
        "64Gi",
    ]
    assert amount(mebibytes(3072)) == 3072 * MIB


# --- planning -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "both"), [("256Mi", True), ("268435456", True), ("128Mi", False), (None, False)]
)
def test_a_request_follows_only_where_it_equals_the_limit(asked: str | None, both: bool) -> None:
    found = planned(workload(request=asked))
    assert found[0] == (f"{PLACE}/limits/memory", "256Mi", "384Mi")
    assert found[1:] == ([(f"{PLACE}/requests/memory", asked, "384Mi")] if both else [])


@pytest.mark.parametrize(
    ("mib", "why"),
    [
        (255, "256Mi already"),
        (256, "256Mi already"),
        (257, ""),
        (512, ""),
        (513, "more than 2 times the present limit, 256Mi"),
    ],
)
def test_the_new_limit_is_more_and_at_most_twice_as_much(mib: int, why: str) -> None:
    if not why:
        assert planned(workload(), mib)
        return
    with pytest.raises(NotApplicableError, match=why):
        planned(workload(), mib)


@pytest.mark.parametrize(
    "given",
    [
        {"limit_mib": 65537},
        {"limit_mib": 0},
        {"limit_mib": "384"},
        {"limit_mib": 384.5},
        {"limit_mib": True},
        {"container": ""},
        {"container": "../0"},
        {"container": "Main"},
        {"container": "a" * 64},
        {"more": 1},
    ],
)
def test_only_parameters_in_bounds_are_taken(given: Obj) -> None:
    good = {"container": "main", "limit_mib": 65536}
    RaiseMemoryLimitParameters.model_validate(good)
    with pytest.raises(ValidationError):
        RaiseMemoryLimitParameters.model_validate(good | given)


@pytest.mark.parametrize(
    ("target", "container", "why"),
    [
        (workload(None), "main", "no memory limit"),
        (workload(), "other", "no container other"),
        (workload(paused=True), "main", "paused"),
        (workload(replicas=0), "main", "wants no pods"),
        (workload(replicas=4), "main", "rollout is in progress"),
        ({**workload(), "status": {"observedGeneration": 2}}, "main", "has not seen"),
    ],
)
def test_what_it_cannot_be_planned_on(target: Obj, container: str, why: str) -> None:
    with pytest.raises(NotApplicableError, match=why):
        planned(target, container=container)


def test_it_says_what_it_costs() -> None:
    wanted = RaiseMemoryLimitParameters(container="main", limit_mib=384)
    assert ACTION.risk(workload(), wanted) is Risk.MEDIUM
    told = ACTION.blast_radius(workload(), wanted)
    assert "may use 384 MiB instead of 256 MiB, 384 MiB more in all. Its 3 pods" in told
    assert "at most 0 are missing and 1 too many" in told


# --- who forbids it -----------------------------------------------------------------------------


def scaler(mode: str = "Auto", kind: str = "Deployment", **policies: str) -> Obj:
    """Give a VerticalPodAutoscaler with a mode for each container that is named."""
    spec: Obj = {
        "targetRef": {"apiVersion": "apps/v1", "kind": kind, "name": "cart"},
        "updatePolicy": {"updateMode": mode},
    }
    if policies:
        listed = [
            {"containerName": "*" if k == "any" else k, "mode": v} for k, v in policies.items()
        ]
        spec["resourcePolicy"] = {"containerPolicies": listed}
    return {"metadata": {"name": "vpa"}, "spec": spec}


@pytest.mark.parametrize(
    ("one", "owns"),
    [
        (scaler(), True),
        (scaler("Initial"), True),
        (scaler("Off"), False),
        (scaler(kind="StatefulSet"), False),
        (scaler(main="Off"), False),
        (scaler(side="Off"), True),
        (scaler(any="Off"), False),
        (scaler(any="Off", main="Auto"), True),
    ],
)
def test_it_refuses_under_a_vertical_autoscaler_that_sets_this_memory(one: Obj, owns: bool) -> None:
    if not owns:
        assert planned(workload(), VerticalPodAutoscaler=[one])
        return
    with pytest.raises(NotApplicableError, match="VerticalPodAutoscaler vpa owns the memory"):
        planned(workload(), VerticalPodAutoscaler=[one])


def quota(name: str, hard: str, used: str | None, **spec: Any) -> Obj:
    status = {} if used is None else {"status": {"hard": {name: hard}, "used": {name: used}}}
    return {"metadata": {"name": "team"}, "spec": {"hard": {name: hard}, **spec}, **status}


# Three pods of 256 + 64 MiB there; four of 384 + 64 MiB at the height of the rollout: 1792 MiB.
@pytest.mark.parametrize(
    ("one", "fits"),
    [
        (quota("limits.memory", "1792Mi", "960Mi"), True),
        (quota("limits.memory", "1791Mi", "960Mi"), False),
        (quota("limits.memory", "2Gi", "1216Mi"), True),
        (quota("limits.memory", "2Gi", "1217Mi"), False),
        (quota("requests.memory", "1792Mi", "960Mi"), True),
        (quota("requests.memory", "1791Mi", "960Mi"), False),
        (quota("memory", "1791Mi", "960Mi"), False),
        (quota("limits.memory", "9Gi", None), False),
        (quota("limits.memory", "1Gi", "960Mi", scopes=["Terminating"]), True),
        (quota("limits.memory", "1Gi", "960Mi", scopes=["NotTerminating"]), False),
        (quota("limits.cpu", "1", "3"), True),
        (quota("pods", "1", "3"), True),
    ],
)
def test_a_quota_must_have_room_for_all_replicas_and_the_surplus_ones(one: Obj, fits: bool) -> None:
    if fits:
        assert planned(workload(), ResourceQuota=[one])
        return
    with pytest.raises(NotApplicableError, match="ResourceQuota team"):
        planned(workload(), ResourceQuota=[one])


def test_a_request_that_stays_asks_no_quota_for_more() -> None:
    """Three and one surplus of 128 + 64 MiB."""
    tight = quota("requests.memory", "768Mi", "576Mi")
    assert planned(workload(request="128Mi"), ResourceQuota=[tight])
    with pytest.raises(NotApplicableError, match="ResourceQuota team"):
        planned(workload(request=None), ResourceQuota=[tight])


@pytest.mark.parametrize(
    ("kind", "most", "fits"),
    [
        ("Container", "384Mi", True),
        ("Container", "383Mi", False),
        ("Pod", "448Mi", True),
        ("Pod", "447Mi", False),
        ("PersistentVolumeClaim", "1Mi", True),
    ],
)
def test_a_limit_range_must_allow_it(kind: str, most: str, fits: bool) -> None:
    item = {"type": kind, "max": {"memory": most, "cpu": "1"}}
    ranges = [{"metadata": {"name": "most"}, "spec": {"limits": [{"type": "Container"}, item]}}]
    if fits:
        assert planned(workload(), LimitRange=ranges)
        return
    with pytest.raises(NotApplicableError, match="LimitRange most allows"):
        planned(workload(), LimitRange=ranges)


def test_sidecars_count_and_ordinary_init_containers_do_not_add_up() -> None:
    target = workload()
    target["spec"]["template"]["spec"]["initContainers"] = [
        {"name": "once", "resources": {"limits": {"memory": "400Mi"}}},
        {"name": "proxy", "restartPolicy": "Always", "resources": {"limits": {"memory": "1Mi"}}},
    ]
    item = {"type": "Pod", "max": {"memory": "449Mi"}}
    ranges = [{"metadata": {"name": "most"}, "spec": {"limits": [item]}}]
    assert planned(target, LimitRange=ranges)
    item["max"]["memory"] = "448Mi"
    with pytest.raises(NotApplicableError, match="allows 448 MiB of memory for a pod"):
        planned(target, LimitRange=ranges)


# --- admission says the same --------------------------------------------------------------------


def patched(target: Obj, values: list[tuple[str, Any, Any]], ending: str) -> Obj:
    patch = [*operations(values), *annotating(target, f"{DIGEST}.{ending}")]
    return apply(target, patch, PatchType.JSON)


def refusals(before: Obj, after: Obj) -> list[str]:
    facts = {"object": after, "oldObject": before, "run": RUN}
    return refused_by(ACTION, "apps/deployments", facts)


@pytest.mark.parametrize("asked", ["256Mi", "128Mi", None])
@pytest.mark.parametrize("mib", [257, 384, 512])
def test_what_it_does_and_undoes_is_let_through(mib: int, asked: str | None) -> None:
    before = workload(request=asked)
    values = planned(before, mib)
    after = patched(before, values, "act")
    assert refusals(before, after) == []
    kept = patched(after, [], "kept")
    assert refusals(after, kept) == []
    back = [(path, new, old) for path, old, new in values]
    for raised in (after, kept):
        undone = patched(raised, back, "undone")
        assert undone["spec"] == before["spec"]
        assert refusals(raised, undone) == []
    again = planned(after, mib + 10)
    assert refusals(after, patched(after, again, "act"))
    others = deepcopy(after)
    others["metadata"]["annotations"][ANNOTATION] = f"{'b' * 40}.kept"
    assert refusals(others, patched(others, again, "act")) == []


SIZES = st.sampled_from(["1Mi", "100M", "255Mi", "256Mi", "268435456", "400Mi", "512Mi", "513Mi"])
LARGE = st.sampled_from(["33Gi", "40Gi", "64Gi", "65537Mi", "70Gi"])


@given(before=SIZES | LARGE, mib=st.integers(1, 70_000) | st.sampled_from([511, 512, 513, 65536]))
def test_admission_lets_through_exactly_what_may_be_planned(before: str, mib: int) -> None:
    """Any limit is set by hand here, and the bounds of both are asked."""
    target = workload(before, None)
    size = amount(before)
    may = size < mib * MIB <= 2 * size and mib <= 65536
    after = patched(target, [(f"{PLACE}/limits/memory", before, mebibytes(mib))], "act")
    assert (refusals(target, after) == []) is (may or size == mib * MIB)
    if mib > 65536:
        return
    try:
        found = planned(target, mib)
    except NotApplicableError:
        found = []
    assert bool(found) is may
