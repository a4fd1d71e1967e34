"""Which value a key of a ConfigMap may be set to, by the policy: a listed one, and no other."""

from datetime import UTC, datetime
from typing import Any

import pytest

from tiphys.policies.config_values import AllowedValues, ConfigValues
from tiphys.policies.model import (
    Change,
    Check,
    DecidedBy,
    Facts,
    ObjectReference,
    Proposal,
    Risk,
    Target,
)
from tiphys.policies.parse import built_in, parse
from tiphys.policies.rule import Request
from tiphys.policies.verdict import Allowed, Denied

NOW = datetime(2026, 1, 2, tzinfo=UTC)
OF = ObjectReference(api_version="v1", kind="ConfigMap", namespace="shop", name="fares", uid="u2")
SETTING = Change(of=OF, path="/data/pool-size", present="20", intended="40")
RESTART = Change(path="/spec/template/metadata/annotations", present=None, intended={"a": "b"})
TARGET = Target(
    cluster="c", api_version="apps/v1", kind="Deployment", namespace="shop", name="cart", uid="u1"
)
FILE = """
format: tiphys/policy/v1
name: ours
version: 1
rules:
  config-values:
    allowed:
      - {namespace: shop, configmap: fares, key: pool-size, values: ["20", "40"]}
      - {namespace: shop, configmap: fares, key: mode, values: [slow]}
      - {namespace: till, configmap: beta, key: mode, values: [slow]}
"""
RULE = parse(FILE, "policy.yaml").rule(ConfigValues)


def verdict(*changes: Change, rule: ConfigValues = RULE, **target: Any) -> Allowed | Denied:
    proposal = Proposal(
        action="update-config",
        version=1,
        target=TARGET.model_copy(update=target),
        changes=changes,
        risk=Risk.HIGH,
        reversible=True,
        blast_radius="",
        undo="",
        reason="",
        check=Check(),
        evidence=(),
        decided_by=DecidedBy(reasoner="human"),
    )
    facts = Facts(alert=None, target=None, history=None, stop=None, evidence=())
    found = rule.judge(Request(proposal=proposal, facts=facts, now=NOW))
    assert isinstance(found, Allowed | Denied)
    return found


def of(**other: str) -> Change:
    return SETTING.model_copy(update={"of": OF.model_copy(update=other)})


def to(**other: Any) -> Change:
    return SETTING.model_copy(update=other)


def test_a_listed_value_is_allowed_and_other_fields_are_none_of_its_business() -> None:
    assert isinstance(verdict(SETTING, RESTART), Allowed)
    assert isinstance(verdict(to(present="odd")), Allowed)
    assert isinstance(verdict(RESTART), Allowed)
    assert isinstance(verdict(RESTART, rule=ConfigValues()), Allowed)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (to(intended="41"), "may be set to 20, 40, and nothing else"),
        (to(intended=40), "may be set to 20, 40"),
        (to(intended=None), "may be set to 20, 40"),
        (to(present=None), "may be set to 20, 40"),
        (to(path="/data/mode"), "may be set to slow"),
        (to(path="/data/other"), "lists no values for key other of ConfigMap shop/fares"),
        (to(path="/data/pool-size/x"), "lists no values"),
        (to(path="/data"), "only a key of its data"),
        (to(path="/binaryData/pool-size"), "only a key of its data"),
        (to(path=""), "only a key of its data"),
        (of(namespace="till"), "lists no values"),
        (of(name="beta"), "lists no values"),
    ],
)
def test_anything_else_is_denied_wherever_it_stands_in_the_plan(change: Change, why: str) -> None:
    for changes in ((change,), (SETTING, change), (change, SETTING)):
        found = verdict(*changes)
        assert isinstance(found, Denied)
        assert why in found.reason


def test_a_config_map_that_is_the_target_itself_is_judged_too() -> None:
    own = to(of=None)
    fits = {"api_version": "v1", "kind": "ConfigMap", "name": "fares"}
    assert isinstance(verdict(own, **fits), Allowed)
    assert isinstance(verdict(own.model_copy(update={"intended": "41"}), **fits), Denied)


def test_nothing_is_listed_out_of_the_box() -> None:
    for which in ("default", "demo"):
        rule = built_in(which).rule(ConfigValues)
        assert rule == ConfigValues()
        assert isinstance(verdict(SETTING, rule=rule), Denied)


def test_the_agents_may_read_what_is_listed_and_nothing_else() -> None:
    assert [RULE.configmaps(where) for where in ("shop", "till", "other")] == [
        ["fares"],
        ["beta"],
        [],
    ]


def test_a_value_is_one_line_of_text() -> None:
    for value in ("", "a\nb", "x" * 257):
        with pytest.raises(ValueError, match="String should match pattern"):
            AllowedValues("shop", "fares", "key", (value,))
