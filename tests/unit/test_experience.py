"""What was tried before: counted fairly, told with its sample size, only ever making careful."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tiphys.agents.deciding import Decider
from tiphys.agents.experience import (
    Aftermath,
    End,
    Experience,
    Trial,
    end_of,
    fair,
    futile,
    tallied,
    wilson,
)
from tiphys.agents.notebook import Notebook
from tiphys.agents.playbook_file import PlaybookFile, PlaybookInvalidError
from tiphys.agents.ports import Answer, Case, Choice, Findings, UnansweredError
from tiphys.agents.question import NO_VIEW, question
from tiphys.agents.remembering import remembered
from tiphys.agents.state import State, case_from_json, case_to_json
from tiphys.policies.expressions import Scope, compile_expression
from tiphys.policies.model import DecidedBy, Escalate, Outcome, Target

NOW = datetime(2030, 1, 2, 12, tzinfo=UTC)
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
POD = Target(cluster="c", api_version="v1", kind="Pod", namespace="shop", name="cart-1", uid="p1")
CART = Target(
    cluster="c", api_version="apps/v1", kind="Deployment", namespace="shop", name="cart", uid="d1"
)


def trial(hours: float, end: End, **given: Any) -> Trial:
    one = Trial("restart-pod", "Pod", "shop", "p0", "d1", NOW - hours * HOUR, end)
    return replace(one, **given)


def findings(*near: Trial, kinds: Any = ()) -> Findings:
    known = Experience(["KubePodCrashLooping"], near, kinds)
    case = Case("i", 1, "c", True, "pod shop/cart-1", [], now=NOW, experience=known)
    return Findings(case, {}, {"pod": POD, "workload": CART}, [])


def after(outcome: Outcome = Outcome.VERIFIED, **given: Any) -> Aftermath:
    ended = NOW - 3 * HOUR
    one = Aftermath(outcome, ended, ended + MINUTE, superseded=False, again_at=None, undone=False)
    return replace(one, **given)


@pytest.mark.parametrize(
    ("followed", "end"),
    [
        pytest.param(after(), End.HELPED, id="went-and-stayed-away"),
        pytest.param(after(again_at=NOW - 3 * HOUR + 50 * MINUTE), End.CAME_BACK, id="came-back"),
        pytest.param(after(again_at=NOW - HOUR), End.HELPED, id="back-after-hours-is-another"),
        pytest.param(after(closed_at=None), End.CAME_BACK, id="never-went"),
        pytest.param(after(closed_at=NOW - HOUR), End.CAME_BACK, id="went-much-later"),
        pytest.param(after(closed_at=None, superseded=True), End.CAME_BACK, id="more-was-needed"),
        pytest.param(after(undone=True), End.UNDONE, id="a-person-had-it-undone"),
        pytest.param(after(Outcome.ROLLED_BACK), End.ROLLED_BACK, id="rolled-back"),
        pytest.param(after(Outcome.INEFFECTIVE), End.NO_EFFECT, id="no-effect"),
        pytest.param(after(Outcome.ROLLBACK_FAILED), End.MADE_WORSE, id="rollback-failed"),
        pytest.param(after(Outcome.UNKNOWN), End.MADE_WORSE, id="nobody-can-say"),
        pytest.param(
            after(ended_at=NOW - 9 * MINUTE, closed_at=NOW - 8 * MINUTE), End.TOO_EARLY, id="early"
        ),
        pytest.param(
            after(ended_at=NOW - 9 * MINUTE, closed_at=None), End.TOO_EARLY, id="not-gone-yet"
        ),
        pytest.param(
            after(ended_at=NOW - 9 * MINUTE, closed_at=NOW - 8 * MINUTE, again_at=NOW - MINUTE),
            End.CAME_BACK,
            id="back-at-once",
        ),
    ],
)
def test_a_run_has_helped_only_where_the_alert_went_and_stayed_away(
    followed: Aftermath, end: End
) -> None:
    assert end_of(followed, NOW) is end


def test_one_of_one_is_not_always() -> None:
    """The figures are scipy's, of `binomtest(...).proportion_ci(method="wilson")`."""
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(1, 1) == pytest.approx((0.2065, 1.0), abs=1e-3)
    assert wilson(0, 3) == pytest.approx((0.0, 0.5615), abs=1e-3)
    assert wilson(17, 20) == pytest.approx((0.6396, 0.9476), abs=1e-3)


def test_one_place_does_not_speak_for_the_cluster() -> None:
    loud = [trial(i / 10, End.HELPED) for i in range(50)]
    crowd = [trial(9 + i, End.HELPED, owner_uid=f"x{i}", namespace="mine") for i in range(50)]
    quiet = [trial(90 + i, End.NO_EFFECT, owner_uid=f"d{i + 2}", namespace=f"n{i}") for i in (0, 1)]
    nodes = [trial(99 + i, End.HELPED, owner_uid=f"m{i}", namespace="") for i in range(20)]
    [tally] = tallied(fair([*loud, *crowd, *quiet, *nodes]))
    assert tally.ends == {End.HELPED: 3 + 10 + 20, End.NO_EFFECT: 2}, "nodes are in no namespace"


def test_what_people_asked_for_counts_apart() -> None:
    by_hand = [trial(i, End.HELPED, by_hand=True) for i in range(1, 9)]
    [tally] = tallied([trial(1, End.NO_EFFECT), *by_hand])
    facts = tally.as_facts(NOW)
    assert (facts["tried"], facts["helped"], facts["by_hand"]) == (1, 0, 8)
    assert facts["helps_at_most"] == pytest.approx(wilson(0, 1)[1], abs=1e-3)


def test_conditions_read_it_whether_anything_was_tried_or_not() -> None:
    book = Notebook(lambda: NOW)
    kinds = tallied([trial(30, End.HELPED, owner_uid="d2"), trial(2, End.ROLLED_BACK)])
    other = tallied([trial(1, End.HELPED, kind="Node", action="cordon-drain-node")])
    found = remembered(findings(trial(2, End.ROLLED_BACK), kinds=(*kinds, *other)), book)
    scope = Scope(found.facts)
    for told in (
        "experience.here.restart_pod.tried == 1",
        "experience.here.restart_pod.rolled_back == 1",
        "experience.here.restart_pod.minutes == 120.0",
        "experience.kind.restart_pod.helped == 1 && experience.kind.restart_pod.tried == 2",
        "experience.kind.restart_pod.helps_at_most < 0.95",
        "experience.here.rollout_undo.tried == 0",
        "experience.here.rollout_undo.helps_at_most == 1.0",
        "experience.kind.cordon_drain_node.tried == 0",  # no node is in question
    ):
        assert compile_expression(told, where="here").holds(scope), told


def test_it_is_evidence_that_a_decision_can_cite() -> None:
    book = Notebook(lambda: NOW)
    found = remembered(findings(trial(2, End.HELPED), trial(1, End.CAME_BACK)), book)
    [piece] = book.evidence
    assert [piece.id] == [e.id for e in found.evidence]
    assert (piece.source, piece.ok) == ("history", True)
    assert piece.summary == (
        "tried before for KubePodCrashLooping: restart-pod helped 1 of 2 times (so 9 to 91 % of "
        "the time, came back 1x) on this very object"
    )


@pytest.mark.parametrize(
    "near",
    [
        pytest.param((), id="nothing-was-tried"),
        pytest.param((trial(1, End.HELPED, owner_uid="other"),), id="elsewhere"),
    ],
)
def test_where_nothing_was_tried_nothing_is_said(near: tuple[Trial, ...]) -> None:
    book = Notebook(lambda: NOW)
    assert remembered(findings(*near), book).evidence == []
    assert book.evidence == []


def test_the_models_question_shows_what_was_tried_and_no_more() -> None:
    told = question(
        remembered(findings(trial(2, End.HELPED)), Notebook(lambda: NOW)), [], {}, NO_VIEW
    )
    data = json.loads(told.splitlines()[-2])
    assert list(data["facts"]["experience"]["here"]) == ["restart_pod"]
    assert data["facts"]["experience"]["here"]["restart_pod"]["helps_at_least"] == 0.207
    assert data["facts"]["experience"]["kind"] == {}


BACK, UNDONE, FUTILE = End.CAME_BACK, End.UNDONE, End.NO_EFFECT


@pytest.mark.parametrize(
    ("near", "refused"),
    [
        pytest.param((trial(1, BACK), trial(2, BACK)), True, id="came-back-twice"),
        pytest.param((trial(1, UNDONE), trial(2, FUTILE)), True, id="undone-then-no-effect"),
        pytest.param((trial(1, BACK),), False, id="once-is-not-enough"),
        pytest.param((trial(1, FUTILE), trial(2, FUTILE)), False, id="the-gate-counts-those"),
        pytest.param((trial(1, BACK), trial(2, End.HELPED)), False, id="it-has-helped"),
        pytest.param((trial(1, BACK), trial(25, BACK)), False, id="more-than-a-day-ago"),
        pytest.param(
            (trial(1, BACK), trial(2, BACK, action="rollout-undo")), False, id="another-action"
        ),
        pytest.param((trial(1, BACK), trial(2, BACK, owner_uid="d2")), False, id="another-object"),
        pytest.param(
            (trial(1, BACK, by_hand=True), trial(2, BACK, by_hand=True)), False, id="by-hand"
        ),
        pytest.param(
            (trial(0.1, End.TOO_EARLY), trial(1, BACK), trial(2, BACK)),
            True,
            id="early-says-nothing",
        ),
    ],
)
def test_what_did_not_last_twice_is_not_proposed_again(
    near: tuple[Trial, ...], refused: bool
) -> None:
    known = Experience(["A"], near)
    why = futile(known, "restart-pod", POD, {"p1", "d1"}, NOW)
    assert (why is not None) == refused
    assert why is None or "restart-pod was done 2 times for this alert on Pod shop/cart-1" in why
    assert futile(None, "restart-pod", POD, {"p1"}, NOW) is None


def test_a_case_carries_it_and_an_older_one_has_none() -> None:
    case = findings(trial(2, End.UNDONE), kinds=tallied([trial(2, End.UNDONE)])).case
    plain = json.loads(json.dumps(case_to_json(case)))
    back = case_from_json(plain)
    assert case_to_json(back) == plain
    assert back.experience is not None
    assert back.experience.near == [trial(2, End.UNDONE)]
    assert back.experience.kinds[0].ends == {End.UNDONE: 1}
    del plain["experience"]
    assert case_from_json(plain).experience is None


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param("experience.sort.restart_pod.tried", id="scope"),
        pytest.param("experience.kind.restart_pods.tried", id="action"),
        pytest.param("experience.kind.restart_pod.tries", id="number"),
    ],
)
def test_what_is_misspelt_is_told_when_the_playbook_is_read(tmp_path: Path, wrong: str) -> None:
    text = (
        "name: mine\nversion: '1'\nmatch: {alerts: [A]}\nanswers:\n"
        '  - when: FACT > 1\n    nothing: "tried {experience.here.restart_pod.tried} times"\n'
    )
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(text.replace("FACT", "experience.kind.restart_pod.tried"))
    bad.write_text(text.replace("FACT", wrong))
    PlaybookFile(good).read()
    with pytest.raises(PlaybookInvalidError, match=f"there is no fact {re.escape(wrong)}"):
        PlaybookFile(bad).read()


class Restarts:
    """A reasoner that wants a pod restarted, whatever was tried."""

    async def decide(self, found: Findings) -> Choice:
        seen = [one.id for one in found.evidence]
        return Choice(
            Answer.ACT, "it hangs", seen, DecidedBy(reasoner="model"), "restart-pod", "pod"
        )


@pytest.mark.parametrize("times", [1, 2])
async def test_a_third_try_goes_to_a_human_with_these_words(times: int) -> None:
    """Whoever chooses, and before the cluster is asked: here there is none that could be."""
    case = findings(*(trial(hours, BACK) for hours in range(1, times + 1))).case
    targets = {"pod": POD.model_dump(mode="json"), "workload": CART.model_dump(mode="json")}
    decider = Decider(Away(), Restarts(), lambda: NOW, 30)
    book = Notebook(lambda: NOW)
    decision, _ = await decider._ask(State(case=case_to_json(case), targets=targets), book)
    assert isinstance(decision, Escalate)
    assert ("restart-pod was done 2 times for this alert" in decision.reason) is (times == 2)
    assert ("the cluster is away" in decision.reason) is (times == 1)
    assert decision.evidence == (book.evidence[0].id,), "what was tried is cited"


class Away:
    """A cluster that does not answer."""

    async def get(self, *_: Any) -> Any:
        raise UnansweredError("the cluster is away")

    list = logs = get
