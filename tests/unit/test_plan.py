"""Plans: equal plans have one name, and nothing but a canonical plan is read back."""

import base64
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiphys.policies.model import Change, Check, DecidedBy, Plan, Target
from tiphys.policies.plan import (
    PlanUnreadableError,
    canonical,
    decode,
    digest,
    encode,
    short_digest,
    signed_message,
    workflow_name,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)  # fmt: skip
TEXT = st.text(max_size=10)
PLANS = st.builds(
    Plan,
    incident=TEXT,
    attempt=st.integers(1, 9),
    action=st.sampled_from(["restart-pod", "scale-workload"]),
    version=st.integers(1, 3),
    target=st.builds(
        Target, cluster=TEXT, api_version=TEXT, kind=TEXT, namespace=TEXT, name=TEXT, uid=TEXT
    ),
    parameters=st.dictionaries(TEXT, JSON, max_size=3),
    changes=st.lists(
        st.builds(Change, path=TEXT, present=JSON, intended=JSON), max_size=2
    ).map(tuple),
    check=st.builds(Check, query=TEXT, labels=st.dictionaries(TEXT, TEXT, max_size=2)),
    policy=TEXT,
    evidence_hash=TEXT,
    decided_by=st.builds(DecidedBy, reasoner=st.just("playbooks"), note=TEXT),
)  # fmt: skip
FREELY = settings(max_examples=100, deadline=None)


@FREELY
@given(PLANS)
def test_it_travels_and_comes_back_equal(plan: Plan) -> None:
    parameter = encode(plan)
    assert re.fullmatch(r"[A-Za-z0-9_-]+", parameter)
    again = decode(parameter)
    assert again == plan
    assert canonical(again) == canonical(plan)
    assert workflow_name(again) == workflow_name(plan)


@FREELY
@given(PLANS)
def test_the_name_is_what_admission_demands(plan: Plan) -> None:
    assert re.fullmatch(r"tiphys-[a-z2-7]{40}", workflow_name(plan))
    assert workflow_name(plan) == f"tiphys-{short_digest(plan)}"
    assert re.fullmatch(r"[0-9a-f]{64}", digest(plan))


PLAN = Plan(
    incident="inc-1",
    attempt=1,
    action="restart-pod",
    version=1,
    target=Target(
        cluster="c", api_version="v1", kind="Pod", namespace="shop", name="cart-1", uid="u"
    ),
    parameters={"b": 1, "a": {"y": 1, "x": [1, 2.5, "é"]}},
    changes=(Change(path="", present="u", intended=None),),
    check=Check(),
    policy="demo 1",
    evidence_hash="e" * 64,
    decided_by=DecidedBy(reasoner="playbooks"),
)


def test_the_order_of_keys_makes_no_difference_and_anything_else_does() -> None:
    reordered = PLAN.model_copy(update={"parameters": {"a": {"x": [1, 2.5, "é"], "y": 1}, "b": 1}})
    assert digest(reordered) == digest(PLAN)
    for change in (
        {"attempt": 2},
        {"incident": "inc-2"},
        {"version": 2},
        {"policy": "demo 2"},
        {"evidence_hash": "f" * 64},
        {"target": PLAN.target.model_copy(update={"uid": "v"})},
        {"parameters": {}},
        {"changes": ()},
        {"check": Check(hold_seconds=31)},
        {"decided_by": DecidedBy(reasoner="human")},
    ):
        assert workflow_name(PLAN.model_copy(update=change)) != workflow_name(PLAN)


def test_the_name_never_changes_between_releases() -> None:
    assert workflow_name(PLAN) == "tiphys-g2oelgofugpnydtfbdgrhmlxsrio3cw54lgpzdid"


def packed(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


PLAIN = json.loads(canonical(PLAN))


@pytest.mark.parametrize(
    "parameter",
    [
        "",
        "!!!",
        "é",
        packed(b"{}"),
        packed(b"null"),
        packed(b"\xff\xfe"),
        packed(json.dumps(PLAIN).encode()),
        packed(canonical(PLAN) + b" "),
        packed(canonical({**PLAIN, "extra": 1})),
        packed(canonical({**PLAIN, "attempt": 0})),
        packed(canonical({**PLAIN, "attempt": "1"})),
        packed(canonical({k: v for k, v in PLAIN.items() if k != "policy"})),
        packed(canonical({**PLAIN, "format": "tiphys/plan/v2"})),
        packed(canonical(PLAN).replace(b'"policy":', b'"policy":"x","policy":')),
        encode(PLAN) + "=" * (-len(encode(PLAN)) % 4 or 4),
        encode(PLAN).replace("e", "e\n", 1),
    ],
)  # fmt: skip
def test_anything_but_a_canonical_plan_is_refused(parameter: str) -> None:
    with pytest.raises(PlanUnreadableError):
        decode(parameter)


def test_another_spelling_of_the_same_bytes_is_refused() -> None:
    plan = next(
        p for n in range(9) if len(encode(p := PLAN.model_copy(update={"policy": "x" * n}))) % 4
    )
    good = encode(plan)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    sibling = good[:-1] + alphabet[alphabet.index(good[-1]) + 1]
    padding = "=" * (-len(good) % 4)
    assert base64.urlsafe_b64decode(sibling + padding) == base64.urlsafe_b64decode(good + padding)
    assert decode(good) == plan
    with pytest.raises(PlanUnreadableError):
        decode(sibling)


def test_what_json_cannot_say_has_no_canonical_form() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical({"x": float("nan")})


def test_the_signature_covers_digest_and_time() -> None:
    message = signed_message("d", "2026-01-01T00:00:00Z")
    assert message == b"tiphys/launch/v1\nd\n2026-01-01T00:00:00Z"
    assert message != signed_message("d", "2026-01-01T00:00:01Z")
