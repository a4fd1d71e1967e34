"""docs/policies.md: its policies can be used, its tests pass, its tables say what the code says."""

import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

sys.path.append(str(Path(__file__).resolve().parents[2]))

from tiphys.policies.approval import Level
from tiphys.policies.custom import CustomEntry
from tiphys.policies.gate import RULES
from tiphys.policies.parse import MAX_COST, MAX_CUSTOM, read
from tiphys.policies.policy_cases import CaseEntry, RequestEntry
from tiphys.service.main import app
from tiphys.workflow_templates.catalogue import every
from tools import policies_page

TEXT = policies_page.PAGE.read_text()
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
COMMANDS = re.findall(r"^```console\n\$ tiphys (.*?)\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
HEAD = "format: tiphys/policy/v1\nname: example\nversion: 1\n"


def whole(example: str) -> str:
    return example if example.startswith("format:") else HEAD + example


def test_the_tables_are_current() -> None:
    assert policies_page.page(TEXT) == TEXT, "reviewed? then: make golden"


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_is_a_policy_that_passes_its_tests(example: str) -> None:
    file = read(whole(example), "example.yaml", actions=[action.name for action in every()])
    for result in file.results():
        assert result.passed, (result.name, result.faults)
    assert file.cases or "tests:" not in example


def test_there_are_examples_of_each_kind() -> None:
    assert len(EXAMPLES) >= 4
    assert sum(len(read(whole(one), "p.yaml").cases) for one in EXAMPLES) >= 10


@pytest.mark.parametrize(("command", "printed"), COMMANDS)
def test_a_command_prints_what_the_page_shows(
    command: str, printed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("policy.yaml").write_text(EXAMPLES[0])
    answer = CliRunner().invoke(app, command.split())
    assert answer.stdout == printed
    assert answer.exit_code == 0


def test_every_key_and_level_is_explained() -> None:
    keys = {*CustomEntry.model_fields, *CaseEntry.model_fields, *RequestEntry.model_fields}
    for word in (*keys, *Level):
        assert f"| `{word}` |" in TEXT, word
    for number in (MAX_CUSTOM, MAX_COST):
        assert f"{number:,}" in TEXT


def test_every_built_in_rule_is_in_the_table() -> None:
    table = TEXT.split("<!-- begin: rules -->")[1]
    assert re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE) == [kind.name for kind in RULES]
