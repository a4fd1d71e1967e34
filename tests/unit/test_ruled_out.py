"""What a playbook rules out and warns of: read strictly, told with facts, kept in the record."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tiphys.agents.deciding import Decider
from tiphys.agents.notebook import Notebook
from tiphys.agents.playbook_file import PlaybookFile, PlaybookInvalidError
from tiphys.agents.playbooks import Playbooks
from tiphys.agents.ports import Answer, Case, Choice, Findings
from tiphys.agents.state import State, case_to_json
from tiphys.policies.model import Alert, DecidedBy, Escalate, NoAction, Proposal, RuledOut, Target

NOW = datetime(2030, 1, 2, 12, tzinfo=UTC)
BY = DecidedBy(reasoner="playbooks", playbook="mine", playbook_version="1")
BOOK = """
name: mine
version: "1"
match: {alerts: [Mine]}
answers:
  - when: workload.replicas > 9
    escalate: too large
    rules_out:
      - {action: scale-workload, because: "{workload.replicas} replicas are there already"}
      - {action: cordon-drain-node, because: no node is at fault}
  - act: {action: scale-workload, target: workload, parameters: {replicas: 3}, reason: small}
    rules_out: [{action: rollout-restart, because: the pods are well}]
    risks: "{workload.name} may need more connections"
"""


def alert() -> Alert:
    given: dict[str, Any] = {"id": "a", "cluster": "c", "fingerprint": "f", "status": "firing",
                             "starts_at": NOW, "received_at": NOW}  # fmt: skip
    return Alert.model_validate({**given, "labels": {"alertname": "Mine"}})


def a_target(version: str, kind: str) -> Target:
    return Target(
        cluster="c", api_version=version, kind=kind, namespace="shop", name="cart", uid="u"
    )


CART = a_target("apps/v1", "Deployment")


def findings(replicas: int, targets: dict[str, Target]) -> Findings:
    case = Case("i", 1, "c", True, "s", [alert()])
    return Findings(case, {"workload": {"name": "cart", "replicas": replicas}}, targets, [])


async def chosen(folder: Path, replicas: int, **targets: Target) -> Choice:
    (folder / "mine.yaml").write_text(BOOK)
    return await Playbooks.load(folder).decide(findings(replicas, targets))


async def test_an_answer_says_what_it_rules_out_of_what_could_be_done(tmp_path: Path) -> None:
    choice = await chosen(tmp_path, 10, workload=CART)
    assert [(one.action, one.because) for one in choice.ruled_out] == [
        ("scale-workload", "10 replicas are there already")
    ], "no node was resolved, so nobody would drain one"
    everything = (await chosen(tmp_path, 10)).ruled_out
    assert [one.action for one in everything] == ["scale-workload", "cordon-drain-node"]


async def test_an_answer_that_acts_says_what_could_go_wrong(tmp_path: Path) -> None:
    choice = await chosen(tmp_path, 2, workload=CART)
    assert choice.answer is Answer.ACT
    assert choice.risks == "cart may need more connections"
    assert [one.action for one in choice.ruled_out] == ["rollout-restart"]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        pytest.param("action: rollout-restart,", "action: reboot,",
                     r"rules_out\.0\.action: an action of the catalogue", id="unknown-action"),
        pytest.param("action: rollout-restart,", "action: scale-workload,",
                     "scale-workload is what the answer does", id="what-it-does"),
        pytest.param("the pods are well", "'{pods.wel} are'",
                     r"because: the reason names pods\.wel", id="unknown-fact"),
        pytest.param("{workload.name} may", "{workload.nome} may",
                     r"risks: the reason names workload\.nome", id="unknown-fact-in-risks"),
        pytest.param("    escalate: too large", "    escalate: too large\n    risks: none",
                     "`risks` is for an answer that acts", id="risks-without-an-act"),
        pytest.param("because: the pods are well", "why: x", "rules_out", id="misspelt"),
    ],
)  # fmt: skip
def test_a_mistake_in_it_is_told_with_its_place(
    tmp_path: Path, old: str, new: str, expected: str
) -> None:
    assert old in BOOK
    file = tmp_path / "mine.yaml"
    file.write_text(BOOK.replace(old, new))
    with pytest.raises(PlaybookInvalidError, match=expected):
        PlaybookFile(file).read()


class Reasons:
    """A reasoner that gives what it was given."""

    def __init__(self, choice: Choice) -> None:
        self.choice = choice

    async def decide(self, _findings: Findings) -> Choice:
        return self.choice


@pytest.mark.parametrize("answer", [Answer.NOTHING, Answer.ESCALATE])
async def test_the_decision_carries_it(answer: Answer) -> None:
    ruled = (RuledOut(action="restart-pod", because="it would come back"),)
    choice = Choice(answer, "so", [], BY, ruled_out=ruled)
    decision = await decided(choice)
    assert isinstance(decision, NoAction | Escalate)
    assert decision.ruled_out == ruled


async def test_what_cannot_be_done_is_ruled_out_by_what_stands_against_it() -> None:
    decision = await decided(Choice(Answer.ACT, "so", [], BY, "restart-pod", "pod"))
    assert isinstance(decision, Escalate)
    [one] = decision.ruled_out
    assert one.action == "restart-pod"
    assert "no single pod could be resolved" in one.because
    nothing = await decided(Choice(Answer.ACT, "so", [], BY, "reboot-everything", "pod"))
    assert isinstance(nothing, Escalate)
    assert nothing.ruled_out == ()


async def decided(choice: Choice) -> Any:
    decider = Decider(object(), Reasons(choice), lambda: NOW, 30)  # type: ignore[arg-type]
    case = Case("i", 1, "c", True, "s", [alert()])
    found, _ = await decider._ask(State(case=case_to_json(case)), Notebook(lambda: NOW))
    return found


def test_records_from_before_are_read_without_it() -> None:
    old = {"answer": "escalate", "reason": "r", "decided_by": BY.model_dump()}
    assert Escalate.model_validate(old).ruled_out == ()
    assert Proposal.model_fields["risks"].default == ""


def test_the_built_in_playbooks_warn_where_they_act_and_rule_out_what_is_tempting() -> None:
    answers = [a for p in Playbooks.load().all.values() for a in p.book.answers]
    acting = [answer for answer in answers if answer.act is not None]
    warned = [answer for answer in acting if answer.risks]
    assert len(warned) >= len(acting) / 2
    assert sum(bool(answer.rules_out) for answer in answers) > 50
    for answer in answers:
        actions = [one.action for one in answer.rules_out]
        assert len(actions) == len(set(actions)), answer.words
