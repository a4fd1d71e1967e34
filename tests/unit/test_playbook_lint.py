"""The linter: each finding with its file, line, key and level; ours have nothing to find."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from tiphys.agents.playbook_lint import Level, lint
from tiphys.agents.playbooks import BUILT_IN
from tiphys.service.main import app

SOUND = """
name: mine
version: "1"
match: {alerts: [Mine]}
gather: [{name: waiting, query: "max(queue{namespace={namespace}})"}]
answers:
  - when: "!has(workload.kind)"
    escalate: "{resolution.missing} is gone"
  - when: has(gathered.waiting) && gathered.waiting > 9.0 && pods.failing == 0
    act: {action: scale-workload, target: workload, parameters: {replicas: 3},
          reason: "{gathered.waiting} wait"}
  - when: workload.replicas > 9
    nothing: "{workload.name} is large"
  - escalate: nobody knows
"""


def written(folder: Path, text: str = SOUND, name: str = "mine.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_what_is_sound_has_no_findings(tmp_path: Path) -> None:
    assert lint([written(tmp_path)]) == []


def test_ours_have_no_mistakes_and_only_hints_go_without_evidence() -> None:
    found = lint([BUILT_IN])
    assert [str(one) for one in found if one.level is Level.ERROR] == []
    doubted = [one.words for one in found]
    assert [one for one in doubted if "no fact beyond the alert" not in one] == []


FINDINGS = {
    "after one that always holds": (
        ("  - escalate: nobody knows", "  - escalate: nobody knows\n  - nothing: never"),
        Level.ERROR, 15, "answers.4", "never reached: answer 4"),
    "the same condition twice": (
        ("when: workload.replicas > 9", 'when: "! has( workload.kind )"'),
        Level.ERROR, 12, "answers.2", "never reached: answer 1"),
    "nothing for the unforeseen": (
        ("  - escalate: nobody knows\n", ""), Level.ERROR, 12, "answers.2", "a last answer"),
    "a group that may be empty": (
        ("has(gathered.waiting) && gathered", "gathered"),
        Level.WARNING, 9, "answers.1.when", "ask has(gathered.…) first"),
    "a group whose absence was not taken": (
        ('"!has(workload.kind)"', "resolution.ambiguous"),
        Level.WARNING, 9, "answers.1.when", "the group pods may be empty"),
    "a role of another kind": (
        ("target: workload", "target: node"),
        Level.ERROR, 10, "answers.1.act.target", "works on Deployment, StatefulSet"),
    "a parameter that is missing": (
        ("parameters: {replicas: 3},", ""),
        Level.ERROR, 10, "answers.1.act", "needs the parameter replicas"),
    "a parameter out of bounds": (
        ("replicas: 3}", "replicas: 3000}"),
        Level.ERROR, 10, "answers.1.act.parameters", "less than or equal to 100"),
    "a fact misspelt without a dot": (
        ("{workload.name} is large", "{workload} is large"),
        Level.ERROR, 12, "answers.2", "{workload} is no fact"),
    "a fact misspelt with a blank": (
        ("{workload.name} is large", "{workload. name} is large"),
        Level.ERROR, 12, "answers.2", "did you mean {workload.name}?"),
    "what cannot be read": (
        ("target: workload", "target: world"),
        Level.ERROR, 10, "answers.1.act.target", "Input should be"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "level", "line", "key", "told"), FINDINGS.values(), ids=[*FINDINGS]
)
def test_a_finding_has_its_line_key_and_level(
    change: tuple[str, str], level: Level, line: int, key: str, told: str, tmp_path: Path
) -> None:
    path = written(tmp_path, SOUND.replace(*change, 1))
    found = [one for one in lint([path]) if told in one.words]
    assert [(one.level, one.path, one.line, one.key) for one in found] == [
        (level, str(path), line, key)
    ], lint([path])


def test_a_place_that_nothing_names_is_told_with_what_was_meant(tmp_path: Path) -> None:
    text = SOUND.replace("queue{namespace={namespace}}", "queue{namespace={namespce}}")
    (found,) = lint([written(tmp_path, text)])
    assert (found.level, found.line, found.key) == (Level.ERROR, 5, "gather.0.query")
    assert found.words == "{namespce} names nothing; did you mean {namespace}?"


def test_nothing_done_without_evidence_is_doubted(tmp_path: Path) -> None:
    only = 'name: quiet\nversion: "1"\nmatch: {alerts: [Quiet]}\nanswers:\n  - nothing: all well\n'
    (found,) = lint([written(tmp_path, only)])
    assert (found.level, found.key) == (Level.WARNING, "answers.0.nothing")


@pytest.mark.parametrize(
    ("name", "match", "told"),
    [
        ("mine", "{alerts: [Other]}", "mine is already in"),
        ("other", "{alerts: [Other, Mine]}", "Mine is covered by mine"),
        ("other", "{pattern: M.*}", "Mine is covered by mine"),
        ("other", "{alerts: [Mine], labels: {team: a}}", ""),
        ("other", "{alerts: [Other]}", ""),
    ],
    ids=["one name", "one alert", "a pattern", "other labels", "other alerts"],
)
def test_two_playbooks_of_a_folder_do_not_cover_one_alert(
    name: str, match: str, told: str, tmp_path: Path
) -> None:
    written(tmp_path)
    other = SOUND.replace("name: mine", f"name: {name}").replace("{alerts: [Mine]}", match)
    written(tmp_path, other, "other.yaml")
    found = lint([tmp_path])
    assert [one.level for one in found] == ([Level.ERROR] if told else [])
    assert all(told in one.words for one in found)


def test_the_command_tells_errors_by_its_exit_status(tmp_path: Path) -> None:
    good = CliRunner().invoke(app, ["playbook", "lint", str(written(tmp_path))])
    assert (good.exit_code, good.output) == (0, "0 errors, 0 warnings\n")
    doubtful = SOUND.replace("has(gathered.waiting) && gathered", "gathered")
    path = str(written(tmp_path, doubtful))
    assert CliRunner().invoke(app, ["playbook", "lint", path]).exit_code == 0
    assert CliRunner().invoke(app, ["playbook", "lint", "--strict", path]).exit_code == 1
    bad = SOUND.replace("  - escalate: nobody knows\n", "")
    answer = CliRunner().invoke(app, ["playbook", "lint", str(written(tmp_path, bad))])
    assert answer.exit_code == 1
    assert "mine.yaml:12: answers.2: error: a last answer" in answer.output
    empty = tmp_path / "empty"
    empty.mkdir()
    assert CliRunner().invoke(app, ["playbook", "lint", str(empty)]).exit_code == 1
