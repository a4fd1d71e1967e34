"""Playbooks: coverage, mistakes in a file, and what a condition without an answer does."""

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from tiphys.agents.fact_list import FACTS
from tiphys.agents.playbook_file import PlaybookInvalidError
from tiphys.agents.playbooks import Playbooks
from tiphys.agents.ports import (
    Answer,
    Attempt,
    Case,
    Choice,
    Findings,
    ReasonerFailedError,
)
from tiphys.agents.two_opinions import TwoOpinions
from tiphys.policies.model import Alert, Json, Outcome, Target

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
OURS = """
name: mine
version: 1
match: {alerts: [Mine]}
answers:
  - when: workload.replicas > 2
    act: {action: scale-workload, target: workload,
          parameters: {replicas: {cel: workload.replicas + 1}},
          reason: "{workload.name} is small ({workload.replicas}, {pod.name})"}
  - when: workload.replicas == 0
    nothing: asleep
  - escalate: nobody knows
"""


def alert(name: str, **labels: str) -> Alert:
    return Alert.model_validate(
        {
            "id": "a",
            "cluster": "c",
            "fingerprint": "f",
            "status": "firing",
            "starts_at": NOW,
            "labels": {"alertname": name, **labels},
            "received_at": NOW,
        }
    )


def findings(facts: dict[str, Json], *attempts: Attempt, name: str = "Mine") -> Findings:
    case = Case("i", 1, "c", True, "s", [alert(name)], attempts)
    return Findings(case, facts, {}, [])


def workload(**facts: Json) -> dict[str, Json]:
    return {"workload": {"name": "cart", **facts}}


def load(folder: Path, text: str = OURS) -> Playbooks:
    (folder / "mine.yaml").write_text(text)
    return Playbooks.load(folder)


def test_every_alert_of_the_mixin_has_a_playbook() -> None:
    rules = yaml.safe_load((ROOT / "tests/data/rules/prometheus_alerts.yaml").read_text())
    alerts = {rule["alert"] for group in rules["groups"] for rule in group["rules"]}
    books = Playbooks.load()
    assert len(alerts) > 50
    assert [name for name in sorted(alerts) if books.covering(alert(name)) is None] == []


def test_the_documentation_names_every_fact_and_every_playbook() -> None:
    text = (ROOT / "docs/playbooks.md").read_text()
    assert [fact for fact in FACTS if f"`{fact}`" not in text] == []
    assert [name for name in Playbooks.load().all if f"`{name}`" not in text] == []


async def test_the_first_answer_that_holds_is_the_choice(tmp_path: Path) -> None:
    books = load(tmp_path)
    choice = await books.decide(findings(workload(replicas=3)))
    assert (choice.answer, choice.action, choice.target) == (
        Answer.ACT,
        "scale-workload",
        "workload",
    )
    assert choice.parameters == {"replicas": 4}
    assert choice.reason == "cart is small (3, (unknown))"
    assert (await books.decide(findings(workload(replicas=0)))).answer is Answer.NOTHING
    assert (await books.decide(findings(workload(replicas=1)))).answer is Answer.ESCALATE


async def test_a_condition_without_an_answer_ends_with_a_human(tmp_path: Path) -> None:
    choice = await load(tmp_path).decide(findings({"workload": {}}))
    assert choice.answer is Answer.ESCALATE
    assert "could not be followed" in choice.reason
    assert "workload.replicas > 2" in choice.reason


async def test_no_playbook_means_a_human(tmp_path: Path) -> None:
    choice = await load(tmp_path).decide(findings({}, name="Unheard"))
    assert (choice.answer, choice.reason) == (Answer.ESCALATE, "no playbook for alert Unheard")


async def test_after_an_attempt_only_what_is_marked_next_follows(tmp_path: Path) -> None:
    target = Target(
        cluster="c", api_version="apps/v1", kind="Deployment", namespace="n", name="cart", uid="u"
    )
    tried = Attempt(1, "rollout-undo", target, Outcome.ROLLED_BACK, "still slow")
    facts = findings(workload(replicas=3), tried)
    choice = await load(tmp_path).decide(facts)
    assert choice.answer is Answer.ESCALATE
    assert "rollout-undo on Deployment n/cart was rolled back (still slow)" in choice.reason
    again = OURS.replace("act: {", "act: {next: true, ")
    assert (await load(tmp_path, again).decide(facts)).answer is Answer.ACT


def about_a_pod(**pod: Json) -> dict[str, Json]:
    """One pod that is not ready, with nothing above it."""
    about: dict[str, Json] = {"name": "run-1", "trouble": "unready", "running": False, **pod}
    groups = ("workload", "rollout", "node", "garbage")
    counts = dict.fromkeys(("image", "unschedulable", "config", "out_of_memory", "crash"), 0)
    return {
        **{group: {} for group in groups},
        "resolution": {"ambiguous": False},
        "pods": {**counts, "total": 1, "ready": 0, "failing": 1, "unready": 1},
        "pod": about,
    }


@pytest.mark.parametrize(
    ("pod", "answer"),
    [
        ({"controlled_by": "Workflow"}, Answer.NOTHING),
        ({"controlled_by": "Workflow", "trouble": "starting"}, Answer.ESCALATE),
        ({"controlled_by": "SomethingElse"}, Answer.ESCALATE),
        ({"controlled_by": ""}, Answer.ESCALATE),
    ],
)
async def test_a_workflows_pod_that_works_is_not_called_broken(
    pod: dict[str, Json], answer: Answer
) -> None:
    case = findings(about_a_pod(**pod), name="KubePodNotReady")
    choice = await Playbooks.load().decide(case)
    assert choice.answer is answer
    assert "could not be followed" not in choice.reason


def test_a_team_overrides_by_name_and_adds_by_file(tmp_path: Path) -> None:
    books = load(
        tmp_path,
        OURS.replace("name: mine", "name: quotas").replace("[Mine]", "[Mine, KubeQuotaExceeded]"),
    )
    assert books.covering(alert("KubeQuotaExceeded")) is books.covering(alert("Mine"))
    assert books.covering(alert("KubeQuotaAlmostFull")) is None
    assert books.covering(alert("KubeNodeNotReady")) is not None


def test_labels_narrow_a_match(tmp_path: Path) -> None:
    text = OURS.replace("{alerts: [Mine]}", "{pattern: Mi.*, labels: {team: 'a|b'}}")
    books = load(tmp_path, text)
    assert books.covering(alert("Mine", team="b")) is not None
    assert books.covering(alert("Mine", team="bc")) is None
    assert books.covering(alert("NotMine", team="a")) is None


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("scale-workload", "reboot-world", r":7: answers\.0\.act\.action: .*catalogue"),
        ("{replicas: {", "{size: {", r":8: answers\.0\.act\.parameters\.size: .*has replicas"),
        ("workload.replicas > 2", "workload.replics > 2", r":6: answers\.0\.when: .*did you mean"),
        ("workload.replicas > 2", "workload.replicas >", r":6: answers\.0\.when: .*no CEL"),
        ("nothing: asleep", "nothing: asleep\n    escalate: x", r":10: answers\.1: exactly one of"),
        ("target: workload", "target: cluster", r":7: answers\.0\.act\.target: Input should be"),
        ("{pod.name}", "{pod.nickname}", r":6: answers\.0: .*pod\.nickname, which is no fact"),
        ("version: 1", "version: 1\nversion: 2", r":4: .*version stands here twice"),
        ("answers:", "answer:", r":5: answer: Extra inputs"),
        ("match: {alerts: [Mine]}", "match: {}", r":4: match: either `alerts` or `pattern`"),
        ("match: {alerts: [Mine]}", "match: [", r":\d+: not YAML"),
        ("match:", "gather: [{name: x, query: 'up{'}]\nmatch:", r":4: gather\.0\.query: PromQL"),
        ("match:", "asked: last\ngather: [{name: x, query: up}]\nmatch:", r".*has no `gather`"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_file_line_and_key(
    tmp_path: Path, old: str, new: str, told: str
) -> None:
    with pytest.raises(PlaybookInvalidError) as caught:
        load(tmp_path, OURS.replace(old, new, 1))
    assert re.search(r"mine\.yaml" + told, str(caught.value)), str(caught.value)


def test_lines_are_right_in_a_second_document(tmp_path: Path) -> None:
    second = OURS.replace("name: mine", "name: other").replace("> 2", ">")
    with pytest.raises(PlaybookInvalidError, match=r"mine\.yaml:17: answers\.0\.when"):
        load(tmp_path, OURS.lstrip() + "---" + second)


def test_a_missing_folder_and_a_double_name_are_told(tmp_path: Path) -> None:
    with pytest.raises(PlaybookInvalidError, match="folder of playbooks was expected"):
        Playbooks.load(tmp_path / "nowhere")
    (tmp_path / "also.yaml").write_text(OURS)
    with pytest.raises(PlaybookInvalidError, match=r"mine is already in .*also\.yaml"):
        load(tmp_path)


class _Broken:
    async def decide(self, findings: Findings) -> Choice:
        del findings
        raise ReasonerFailedError("the model took too long")


async def test_the_playbooks_answer_when_the_first_reasoner_fails(tmp_path: Path) -> None:
    choice = await TwoOpinions(load(tmp_path), _Broken()).decide(findings(workload(replicas=0)))
    assert choice.answer is Answer.NOTHING
    assert choice.decided_by.reasoner == "playbooks"
    assert "the model took too long" in choice.decided_by.note
