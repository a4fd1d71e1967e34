"""The scenario format: those that ship load, and a wrong file is explained to its line."""

import re
from pathlib import Path

import pytest

from tiphys.sandbox import scenario
from tiphys.sandbox.scenario import End, ScenarioError
from tiphys.workflow_templates import catalogue

SMALL = """\
name: small
title: A small one
story: Nothing much.
objects:
  - apiVersion: v1
    kind: Namespace
    metadata: {name: shop}
rules:
  - alert: Up
    expr: up == 1
    for: 1500ms
fault:
  - after: 2m
    flag: {on: true}
expect: {end: no_action}
"""


def test_every_scenario_is_in_the_documents_table() -> None:
    text = (Path(__file__).parents[2] / "docs" / "scenarios.md").read_text()
    assert [name for name in scenario.names() if f"\n| `{name}` |" not in text] == []


@pytest.mark.parametrize("name", scenario.names())
def test_a_scenario_speaks_of_things_that_exist(name: str) -> None:
    story = scenario.find(name)
    actions = {action.name for action in catalogue.every()}
    launched = story.expect.end in {End.HEALED, End.AWAITING_APPROVAL, End.ROLLED_BACK, End.FROZEN}
    assert (story.expect.action in actions) is launched
    assert (story.expect.action is None) is not launched
    assert not {story.expect.action, *story.expect.acceptable} & set(story.expect.harmful)
    spaces = [o for o in story.objects if o["kind"] == "Namespace"]
    assert all(o["metadata"]["labels"]["tiphys.io/heal"] == "enabled" for o in spaces)
    assert story.rules


def test_durations_are_seconds() -> None:
    small = scenario.parse(SMALL, "small.yaml")
    assert (small.rules[0].hold, small.fault[0].after) == (1.5, 120.0)


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "expected"),
    [
        ("title: A small one", "titel: A small one", 2, "titel", "Extra inputs"),
        ("title: A small one\n", "", 1, "title", "required"),
        ("kind: Namespace", "kind: Namespac", 5, "objects.0", "apiVersion and kind"),
        ("{name: shop}", "{nam: shop}", 5, "objects.0", "metadata.name"),
        ("up == 1", "up ==", 10, "rules.0.expr", ""),
        ("1500ms", "soon", 11, "rules.0.for", "a duration such as"),
        ("flag: {on: true}", "told: nothing", 13, "fault.0", "exactly one of behave"),
        ("flag: {on: true}", "when: {object: pods}", 14, "fault.0.when.object", "Deployment shop"),
        ("{end: no_action}", "{end: happy}", 15, "expect.end", "'healed'"),
        ("name: small", "name: Not A Name", 1, "name", "match pattern"),
        ("fault:", "fault: [", 12, "", "not YAML"),
        ("story: Nothing much.", "title: Twice", 3, "", "twice"),
    ],
)
def test_a_wrong_file_is_explained(old: str, new: str, line: int, key: str, expected: str) -> None:
    with pytest.raises(ScenarioError) as complaint:
        scenario.parse(SMALL.replace(old, new, 1), "small.yaml")
    told = str(complaint.value)
    place = re.search(rf"^small\.yaml:(\d+): {re.escape(key)}", told, re.MULTILINE)
    assert place is not None, told
    assert expected in told
    if key or "twice" in expected:
        assert int(place[1]) == line, told


def test_an_unknown_scenario_is_answered_with_the_list() -> None:
    with pytest.raises(ScenarioError, match="there is no scenario 'nope'; there are already-res"):
        scenario.find("nope")


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match="cannot be read"):
        scenario.find(str(tmp_path / "mine.yaml"))


def test_a_file_of_ones_own_can_be_anywhere(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(SMALL)
    assert scenario.find(str(tmp_path / "mine.yaml")).name == "small"


def test_the_documented_example_is_a_scenario() -> None:
    text = (Path(__file__).parents[2] / "docs" / "scenarios.md").read_text()
    [example] = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert scenario.parse(example, "docs/scenarios.md").expect.action == "scale-workload"


def test_every_key_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "scenarios.md").read_text()
    parts = (scenario.Scenario, scenario.Series, scenario.Condition, scenario.Step)
    keys = {key for part in parts for key in part.model_fields}
    keys |= {*scenario.Post.model_fields, *scenario.Expectation.model_fields, *map(str, End)}
    assert {key for key in keys if not re.search(rf"\b{key}\b", text)} == set()
