"""The built-in playbooks on recorded evidence, and the files of such cases themselves."""

from collections import Counter
from pathlib import Path

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

from tiphys.agents.fact_list import FACTS
from tiphys.agents.playbook_cases import CasesFile, CasesInvalidError, CasesReader, Prepared, run
from tiphys.agents.playbook_file import Playbook
from tiphys.agents.playbooks import BUILT_IN, Playbooks
from tiphys.agents.ports import Answer
from tiphys.agents.untouched_facts import untouched
from tiphys.service.main import app

FOLDER = Path(__file__).resolve().parents[1] / "data" / "playbooks"
FILES = sorted(FOLDER.glob("*.yaml"))
BOOKS = Playbooks.load()
CASES = {f"{file.stem}/{case.name}": case for file in FILES for case in CasesReader(file).read()}
TEAM = """
name: ours
version: "1"
match: {alerts: [KubeQuotaExceeded, Ours]}
answers:
  - when: has(workload.kind) && workload.replicas < 3
    act: {action: scale-workload, target: workload, parameters: {replicas: 3},
          reason: "{workload.name} is small"}
  - nothing: it is large
"""
OURS = """
format: tiphys/playbook-cases/v1
shared:
  alert: {alertname: Ours, namespace: shop, deployment: cart}
  facts: {workload: {name: cart, replicas: 2}}
cases:
  - name: small
    expect: {answer: act, action: scale-workload, target: workload,
             parameters: {replicas: 3}, says: [cart], by: 1, playbook: ours}
  - name: large
    facts: {workload: {replicas: 4}}
    expect: {answer: nothing, by: 2}
"""


@pytest.mark.parametrize("case", CASES.values(), ids=[*CASES])
def test_a_recorded_case_is_answered_as_it_should_be(case: Prepared) -> None:
    result = run(case, BOOKS)
    assert result.passed, (result.faults, result)


@pytest.mark.parametrize("name", sorted(BOOKS.all))
def test_each_answer_of_a_playbook_has_a_case_for_itself(name: str) -> None:
    """A last answer that nothing reaches, or one that another hides, shows here."""
    reached = Counter(
        result.number
        for case in CASES.values()
        if (result := run(case, BOOKS)).playbook == name and result.passed
    )
    answers = range(1, len(BOOKS.all[name].book.answers) + 1)
    assert [number for number in answers if not reached[number]] == [], f"cases of {name}"


@pytest.mark.parametrize("name", sorted(BOOKS.all))
def test_each_act_is_seen_to_act(name: str) -> None:
    acts = {n for n, a in enumerate(BOOKS.all[name].book.answers, start=1) if a.act}
    acted = {
        result.number
        for case in CASES.values()
        if (result := run(case, BOOKS)).playbook == name and result.answer is Answer.ACT
    }
    assert acts <= acted


def test_what_a_group_is_filled_up_with_are_facts_that_exist() -> None:
    for group, inside in untouched().items():
        assert [name for name in inside if f"{group}.{name}" not in FACTS] == []


def written(folder: Path, text: str = OURS) -> Path:
    (folder / "team").mkdir(exist_ok=True)
    (folder / "team" / "ours.yaml").write_text(TEAM)
    path = folder / "cases.yaml"
    path.write_text(text)
    return path


def test_a_team_s_playbook_overrides_ours_and_is_tested_without_touching_it(tmp_path: Path) -> None:
    path, team = written(tmp_path), str(tmp_path / "team")
    answer = CliRunner().invoke(app, ["playbook", "test", str(path), "--playbooks", team])
    assert answer.exit_code == 0, answer.output
    assert "passed small: act scale-workload on the workload (replicas: 3), answer 1 of ours" in (
        answer.output
    )
    assert "2 cases, 0 failed" in answer.output
    exceeded = OURS.replace("alertname: Ours", "alertname: KubeQuotaExceeded")
    path = written(tmp_path, exceeded)
    answer = CliRunner().invoke(app, ["playbook", "test", str(path), "--playbooks", team])
    assert answer.exit_code == 0, answer.output
    answer = CliRunner().invoke(app, ["playbook", "test", str(path)])
    assert answer.exit_code == 1
    assert "of quotas" in answer.output


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("{replicas: 3}, says", "{replicas: 5}, says", "parameters {'replicas': 5} were expected"),
        ("says: [cart]", "says: [basket]", "the reason does not say 'basket'"),
        ("by: 1,", "by: 2,", "answer 2 was expected to hold, it was 1"),
        ("answer: nothing", "answer: escalate", "answer escalate was expected, it is nothing"),
        ("playbook: ours", "playbook: theirs", "playbook theirs was expected, it is ours"),
    ],
    ids=["parameters", "words", "number", "answer", "playbook"],
)
def test_a_case_that_fails_says_what_was_chosen_instead(
    old: str, new: str, told: str, tmp_path: Path
) -> None:
    path = written(tmp_path, OURS.replace(old, new))
    command = ["playbook", "test", str(path), "--playbooks", str(tmp_path / "team")]
    answer = CliRunner().invoke(app, command)
    assert answer.exit_code == 1
    assert told in answer.output


def test_a_case_goes_before_what_every_choice_goes_before(tmp_path: Path) -> None:
    """Otherwise a case would pass that is refused in earnest."""
    harmful = OURS.replace("replicas: 2}", "replicas: 2}, pods: {image: 1}")
    again = OURS.replace(
        "  - name: small\n",
        "  - name: small\n    attempts: [{action: scale-workload, target: workload}]\n",
    )
    nowhere = OURS.replace("  - name: small\n", "  - name: small\n    targets: {}\n")
    for text, told in (
        (harmful, "would do harm"),
        (again, "still there after what was tried"),
        (nowhere, "no single workload could be resolved"),
    ):
        (tmp_path / "team").mkdir(exist_ok=True)
        case = CasesReader(written(tmp_path, text)).read()[0]
        result = run(case, Playbooks.load(tmp_path / "team"))
        assert (result.answer, result.passed) == (Answer.ESCALATE, False)
        assert told in result.reason


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("replicas: 2}", "replics: 2}", r":5: shared.facts.workload.replics: there is no fact"),
        ("{workload: {name", "{workloads: {name", r":5: shared.facts.workloads: there is no group"),
        ("name: large", "name: small", r":10: cases.1.name: there is a case small already"),
        ("answer: nothing", "answer: shrug", r":12: cases.1.expect.answer: Input should be"),
        ("by: 2}", "by: 2, because: x}", r":12: cases.1.expect.because: Extra inputs"),
        ("alertname: Ours, ", "", r":7: cases.0.alert: the label alertname was expected"),
        ("cases/v1", "cases/v9", r":2: format: Input should be"),
        ("cases:", "cases: [", r": not YAML"),
    ],
    ids=["fact", "group", "twice", "answer", "key", "alert", "format", "yaml"],
)
def test_a_mistake_in_a_file_is_told_with_line_and_key(
    old: str, new: str, told: str, tmp_path: Path
) -> None:
    path = written(tmp_path, OURS.replace(old, new, 1))
    with pytest.raises(CasesInvalidError, match=told):
        CasesReader(path).read()
    answer = CliRunner().invoke(app, ["playbook", "test", str(path)])
    assert answer.exit_code != 0


def test_the_schemas_let_in_what_we_ship_and_no_unknown_key() -> None:
    playbook = jsonschema.Draft202012Validator(Playbook.model_json_schema())
    for path in sorted(BUILT_IN.glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            playbook.validate(document)
            assert not playbook.is_valid({**document, "answerz": []})
    cases = jsonschema.Draft202012Validator(CasesFile.model_json_schema())
    for path in FILES:
        document = yaml.safe_load(path.read_text())
        cases.validate(document)
        assert not cases.is_valid({**document, "casez": []})
    printed = CliRunner().invoke(app, ["playbook", "schema"])
    assert '"$schema"' in printed.output
    assert "A regular expression" in printed.output or "regular expression" in printed.output
