"""What the kit takes for exactly what a plan declares, and for a part of it."""

from typing import Any

import pytest

from tiphys.policies.model import Change, Check, DecidedBy, ObjectReference, Plan, Target
from tiphys.service.conform.properties import NotProvenError, exactly
from tiphys.service.conform.snapshot import Snapshot

Obj = dict[str, Any]
TARGET: Obj = {"kind": "Deployment", "metadata": {"name": "cart"}}


def thing(kind: str, name: str, **spec: Any) -> tuple[tuple[str, str], Obj]:
    meta = {"name": name, "namespace": "shop", "uid": f"u-{name}"}
    return (kind, name), {"kind": kind, "metadata": meta, "spec": spec}


def ended(name: str) -> Change:
    of = ObjectReference(api_version="v1", kind="Pod", namespace="shop", name=name, uid=f"u-{name}")
    return Change(of=of, path="", present={}, intended=None)


PLAN = Plan(
    incident="inc-1",
    attempt=1,
    action="delete-failed-pods",
    version=1,
    target=Target(
        cluster="c",
        api_version="apps/v1",
        kind="Deployment",
        namespace="shop",
        name="cart",
        uid="u",
    ),
    parameters={},
    changes=(ended("a"), ended("b"), Change(path="/spec/paused", present=None, intended=True)),
    check=Check(),
    policy="test",
    evidence_hash="0" * 64,
    decided_by=DecidedBy(reasoner="human"),
)
BEFORE = Snapshot(
    dict([thing("Deployment", "cart"), *(thing("Pod", name) for name in ("a", "b", "c"))])
)


def after(*pods: str, **spec: Any) -> Snapshot:
    return Snapshot(
        dict([thing("Deployment", "cart", **spec), *(thing("Pod", name) for name in pods)])
    )


@pytest.mark.parametrize("partly", [False, True])
def test_all_that_is_declared_and_nothing_else(partly: bool) -> None:
    exactly(PLAN, TARGET, BEFORE, after("c", paused=True), partly=partly)
    for other in (after("c", paused=True, replicas=3), after(paused=True)):
        with pytest.raises(NotProvenError):
            exactly(PLAN, TARGET, BEFORE, other, partly=partly)


@pytest.mark.parametrize("half", [after("b", "c"), after("b", "c", paused=True), after("c")])
def test_a_part_of_it_is_enough_only_where_a_part_may_be(half: Snapshot) -> None:
    exactly(PLAN, TARGET, BEFORE, half, partly=True)
    with pytest.raises(NotProvenError):
        exactly(PLAN, TARGET, BEFORE, half)
