"""Policy files: what is read is what is written, and every fault is named by line and key."""

import contextlib
import re
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tiphys.policies import strict_yaml
from tiphys.policies.approval import Autonomy, Level
from tiphys.policies.gate import RULES, rules_of
from tiphys.policies.limits import Cooldown
from tiphys.policies.model import Severity
from tiphys.policies.parse import PolicyUnreadableError, built_in, load, parse
from tiphys.policies.policy import Policy
from tiphys.policies.strict_yaml import YamlUnreadableError, read_yaml

ROOT = Path(__file__).resolve().parent.parent
BAD = ROOT / "data" / "policies" / "bad"
ACTIONS = {"restart-pod", "rollout-undo", "scale-workload"}
HEAD = "format: tiphys/policy/v1\nname: ours\nversion: 7\n"

FAULTS = {
    "a_list": ":1: the policy: expected keys and values, not [",
    "a_name_with_spaces": ":2: name: expected text that matches '^[a-z0-9]",
    "allow_rule_that_names_people": ":9: custom[0].by: only a rule that asks has by",
    "aliases_that_multiply": ":4: anchors and aliases are not allowed",
    "anchor_and_alias": ":4: anchors and aliases are not allowed",
    "another_format": ":1: format: expected 'tiphys/policy/v1', not \"tiphys/policy/v2\"",
    "config_key_listed_twice": ":6: rules.config-values.allowed: key pool-size of fares stands",
    "config_key_without_values": ":7: rules.config-values.allowed[0].values: expected at least one",
    "config_namespace_that_is_a_pattern": ":7: rules.config-values.allowed[0].namespace: expected "
    "text that matches '^[a-z0-9]",
    "config_value_that_is_a_number": ":7: rules.config-values.allowed[0].values[0]: expected text, "
    "not 20",
    "confidence_above_one": ":6: rules.confidence.low: expected a number less than or equal to 1",
    "denying_rule_with_two_people": ":8: custom[0].people: only a rule that asks has people",
    "duplicate_key": ":7: the key seconds stands here twice",
    "empty": ":1: the policy: expected keys and values, not null",
    "expiry_of_zero": ":5: approval.expiry_seconds: expected a number greater than or equal to 1",
    "expression_that_does_not_parse": ":6: custom[0].expression: `now.hour >` is no CEL expression",
    "expression_with_unknown_function": ":6: custom[0].expression: `target.name.lowerAscii() == "
    '"x"`: there is no function .lowerAscii()',
    "expression_with_unknown_path": ":6: custom[0].expression: `now.hours > 6`: there is no fact "
    "now.hours; did you mean now.hour?",
    "grant_without_namespaces": ":7: rules.autonomy.grants[0].namespaces: is missing",
    "key_that_is_a_list": ":4: a key must be text",
    "loops_that_cost_too_much": ":15: custom[2]: up to here the expressions may take 6",
    "message_expression_with_unknown_function": ':8: custom[0].messageExpression: `"at " + '
    "upper(now.date)`: there is no function upper()",
    "negative_cooldown": ":6: rules.cooldown.seconds: expected a number greater than or equal to 0",
    "no_version": ":1: version: is missing",
    "not_utf8": ":2: is not UTF-8 text",
    "number_as_text": ':6: rules.cooldown.seconds: expected a whole number, not "900"',
    "number_too_large": ":6: the number 1e999 is too large",
    "rule_switched_off": ":5: rules.cooldown: expected keys and values, not false",
    "somebody_named_twice": ":9: custom[0].by: somebody stands there twice",
    "tab_for_indent": ":5: not YAML: found character",
    "tag_that_builds_an_object": ":4: the tag tag:yaml.org,2002:python/object/apply:os.system is",
    "test_of_a_rule_that_fails": ":9: tests[0]: the test at-night fails: expected denied of "
    "custom/night, got allowed",
    "test_that_expects_nothing": ":5: tests[0]: the test expects nothing: say expect, or rules",
    "test_that_fails": ":7: tests[0]: the test nothing-may-restart fails: expected denied, got "
    "allowed, no rule objects",
    "test_that_is_too_large": ":5: tests[0]: a test of 16576 bytes, at most 16384 may be",
    "test_that_names_an_unknown_rule": ":6: tests[0].rules.custom/nigth: there is no such rule",
    "test_with_a_fact_of_another_type": ":7: tests[0].request.history.open_runs_in_cluster: "
    'expected a whole number, not "many"',
    "test_with_a_time_without_zone": ":6: tests[0].at: expected a time with its zone, such as Z, "
    'not "2026-03-04T12:00:00"',
    "test_with_an_unknown_action": ":7: tests[0].request.action.name: there is no action "
    "restart-pot; did you mean restart-pod?",
    "test_with_an_unknown_answer": ":6: tests[0].expect: expected 'allowed', 'needs_approval' or "
    "'denied', not \"refused\"",
    "test_with_an_unknown_fact": ":7: tests[0].request.target.labls: there is no such key",
    "three_people": ":9: custom[0].people: expected a number less than or equal to 2, not 3",
    "too_deep": ":4: more than 20 levels deep",
    "two_custom_rules_of_one_name": ":8: custom[1].name: there are two rules named night",
    "two_tests_of_one_name": ":7: tests[1].name: there are two tests named one",
    "two_documents": ":4: not YAML: but found another document",
    "unclosed_bracket": ":5: not YAML: expected ',' or '}'",
    "unknown_action": ":7: rules.autonomy.grants[0].actions[0]: there is no action restart-pot; "
    "did you mean restart-pod?",
    "unknown_effect": ":8: custom[0].effect: expected 'deny', 'ask' or 'allow', not \"permit\"",
    "unknown_level": ":6: rules.risk.high: expected 'observe', 'suggest', 'approve' or "
    "'auto', not \"always\"",
    "unknown_rule": ":5: rules.cooldwn: there is no such rule; did you mean cooldown?",
    "unknown_section": ":4: verificaton: there is no such key",
    "unknown_setting": ":6: rules.cooldown.minutes: there is no such key",
    "unknown_source": ":6: rules.evidence-present.one_of[0]: expected 'alertmanager', 'history'",
    "when_with_unknown_path": ':8: custom[0].when: `alert.label.team == "web"`: there is no fact '
    "alert.label.team; did you mean alert.labels.*?",
    "zero_rate": ":6: rules.launch-rate.limit: expected a number greater than or equal to 1",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_one_sentence_with_file_line_key_and_what_was_expected(fault: str) -> None:
    with pytest.raises(PolicyUnreadableError) as caught:
        load(BAD / f"{fault}.yaml", actions=ACTIONS)
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].startswith(f"{fault}.yaml{FAULTS[fault]}")
    assert "\n" not in caught.value.problems[0]


def test_every_bad_file_is_tried() -> None:
    assert {file.stem for file in BAD.glob("*.yaml")} == set(FAULTS)


def test_all_faults_are_told_at_once_in_order() -> None:
    text = "format: x\nrules:\n  cooldown: {seconds: -1}\n  nope: {}\ncustom: [{}]\n"
    with pytest.raises(PolicyUnreadableError) as caught:
        parse(text, "p.yaml")
    lines = [int(problem.split(":")[1]) for problem in caught.value.problems]
    assert lines == sorted(lines)
    told = "\n".join(caught.value.problems)
    assert str(caught.value) == told
    for key in ("format", "name", "version", "rules.cooldown.seconds", "rules.nope", "custom[0]"):
        assert f" {key}" in told


def test_a_file_that_is_missing_or_too_large_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(PolicyUnreadableError, match=r"nope\.yaml: cannot be read: No such file"):
        load(tmp_path / "nope.yaml")
    with pytest.raises(PolicyUnreadableError, match="cannot be read: Is a directory"):
        load(tmp_path)
    large = tmp_path / "large.yaml"
    large.write_text(HEAD + "#" * strict_yaml.MAX_BYTES)
    with pytest.raises(PolicyUnreadableError, match=r"large\.yaml: at most 1048576 bytes"):
        load(large)
    with pytest.raises(PolicyUnreadableError, match="at most 1048576"):
        parse(HEAD + "#" * strict_yaml.MAX_BYTES, "large.yaml")


def test_what_is_written_is_read() -> None:
    policy = parse(
        HEAD
        + """
rules:
  cooldown: {seconds: 60}
  breaker:
  autonomy:
    grants:
      - {actions: [restart-pod], namespaces: [no, 2026-01-01], level: approve}
custom:
  - {name: night, expression: now.hour > 6, message: not at night, effect: ask}
verification: {hold_seconds: 5}
approval: {expiry_seconds: 60}
deadlines: {critical_seconds: 10}
attempts: {per_incident: 2}
""",
        "p.yaml",
        actions=ACTIONS,
    )
    assert policy.rule(Cooldown).seconds == 60
    grant = policy.rule(Autonomy).grants[0]
    assert grant.namespaces == ("no", "2026-01-01"), "plain words stay words"
    assert grant.level is Level.APPROVE
    assert rules_of(policy)[-1].title == "custom/night"
    assert policy.verification.hold_seconds == 5
    assert policy.approval.expiry_seconds == 60
    assert policy.deadlines.of(Severity.CRITICAL).total_seconds() == 10
    assert policy.deadlines.of(Severity.WARNING).total_seconds() == 1800
    assert policy.attempts.per_incident == 2


def test_its_identity_names_the_very_text() -> None:
    one, other = parse(HEAD, "a.yaml"), parse(HEAD + "# changed\n", "a.yaml")
    assert re.fullmatch(r"ours 7 sha256:[0-9a-f]{64}", one.identity)
    assert one.identity == parse(HEAD, "b.yaml").identity
    assert one.identity != other.identity


def test_the_default_policy_only_suggests_and_spells_out_every_default() -> None:
    policy, unset = built_in(), Policy()
    assert rules_of(policy) == rules_of(unset)
    for section in ("custom", "verification", "approval", "deadlines", "attempts"):
        assert getattr(policy, section) == getattr(unset, section)
    assert policy.rule(Autonomy).level("restart-pod", "anywhere") is Level.SUGGEST
    written = read_yaml((ROOT.parent / "policies" / "default.yaml").read_text()).value
    assert isinstance(written, dict)
    rules = written["rules"]
    assert isinstance(rules, dict)
    for kind in RULES:
        documented = rules[kind.name]
        assert isinstance(documented, dict)
        assert set(documented) == {setting.name for setting in fields(kind)}, kind.name


def test_the_demo_policy_acts_alone_only_in_its_two_namespaces() -> None:
    autonomy = built_in("demo").rule(Autonomy)
    for action in ACTIONS:
        assert autonomy.level(action, "shop") is Level.AUTO
        assert autonomy.level(action, "research") is Level.AUTO
        assert autonomy.level(action, "default") is Level.SUGGEST
    assert autonomy.level("cordon-drain-node", "shop") is Level.SUGGEST
    assert built_in("demo").verification.hold_seconds == 2


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"),
        ("on", "on"),
        ("010", "010"),
        ("1_000", "1_000"),
        ("0x10", "0x10"),
        ("12:30", "12:30"),
        ("true", True),
        ("True", "True"),
        ("~", None),
        ("-3", -3),
        ("1.5e3", 1500.0),
        ("'1'", "1"),
        ("9" * 30, 1e30),
        ("", None),
    ],
)
def test_only_what_json_knows_is_anything_but_text(text: str, value: object) -> None:
    assert read_yaml(text).value == value
    assert type(read_yaml(text).value) is type(value)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="abc:-[]{}&*!|>'\"#%@` \n\t?,01~\x00\x85é", max_size=40))
def test_no_text_gets_past_the_two_errors(text: str) -> None:
    with contextlib.suppress(YamlUnreadableError):
        read_yaml(text)
    with contextlib.suppress(PolicyUnreadableError):
        parse(HEAD + text, "p.yaml")
