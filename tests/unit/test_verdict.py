"""How a scenario ended, told from the API's view of its incidents alone."""

from typing import Any

import pytest

from tiphys.sandbox.scenario import End, Expectation
from tiphys.service.verdict import Ended, complaints, end_of, judge

Json = dict[str, Any]


def view(state: str, outcome: str | None = None, *, paged: bool = False, **more: Any) -> Json:
    """An incident as the API shows it; `events` and `attempts` as given."""
    events = [*more.get("events", []), *(["paged"] if paged else [])]
    return {
        "incident": {
            "state": state,
            "outcome": outcome,
            "paged_at": "2026-03-04T03:00:00Z" if paged else None,
            "reason": more.get("reason", f"it is {state}"),
        },
        "attempts": more.get("attempts", []),
        "timeline": [{"event": event} for event in events],
    }


def attempt(action: str, outcome: str | None = None, *, ran: bool = True) -> Json:
    run = {"action": f"{action}-v1", "created": ran, "outcome": outcome}
    decision = {"answer": "proposal", "action": action}
    return {"decision": decision, "run": run if ran or outcome else None}


NOTHING = {"decision": {"answer": "no_action"}, "run": None}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (view("open"), None),
        (view("investigating"), None),
        (view("proposed"), None),
        (view("launching"), None),
        (view("running"), None),
        (view("monitoring"), End.NO_ACTION),
        (view("suspended"), End.NO_ACTION),
        (view("monitoring", "verified"), None),
        (view("closed", "verified"), End.HEALED),
        (view("closed"), End.NO_ACTION),
        (view("closed", paged=True), End.ESCALATED),
        (view("awaiting_approval"), None),
        (view("awaiting_approval", paged=True), End.AWAITING_APPROVAL),
        (view("escalated"), None),
        (view("escalated", paged=True), End.ESCALATED),
        (view("escalated", paged=True, events=["target_frozen"]), End.FROZEN),
        (view("closed", "unknown", paged=True, events=["target_frozen"]), End.FROZEN),
        (
            view("escalated", paged=True, attempts=[attempt("rollout-undo", "rolled_back")]),
            End.ROLLED_BACK,
        ),
        (
            view("closed", "rolled_back", paged=True, attempts=[attempt("x", "rolled_back")]),
            End.ROLLED_BACK,
        ),
    ],
)
def test_the_end_of_one_incident(given: Json, expected: End | None) -> None:
    assert end_of(given) is expected


def test_nothing_has_ended_while_one_incident_goes_on() -> None:
    assert judge([]).end is None
    assert judge([view("closed", "verified"), view("running")]).end is None


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (view("closed", "verified"), view("closed"), End.HEALED),
        (view("closed", "verified"), view("escalated", paged=True), End.ESCALATED),
        (
            view("escalated", paged=True, events=["target_frozen"]),
            view("awaiting_approval", paged=True),
            End.FROZEN,
        ),
    ],
)
def test_the_gravest_end_counts_and_gives_the_reason(
    first: Json, second: Json, expected: End
) -> None:
    for views in ([first, second], [second, first]):
        ended = judge(views)
        assert ended.end is expected
        gravest = next(v for v in views if end_of(v) is expected)
        assert ended.reason == gravest["incident"]["reason"]


def test_only_what_was_created_counts_as_launched() -> None:
    tried = [attempt("rollout-undo", "rolled_back"), attempt("restart-pod", ran=False), NOTHING]
    ended = judge([view("escalated", paged=True, attempts=tried)])
    assert ended.launched == ("rollout-undo",)
    assert ended.proposed == ("rollout-undo", "restart-pod")
    never = {"decision": {"answer": "escalate"}, "run": {"action": "x-v1", "created": False}}
    assert judge([view("monitoring", attempts=[never])]).launched == ()


HEALED = Expectation(end=End.HEALED, action="rollout-undo", harmful=["restart-pod"])
NONE = Expectation(end=End.NO_ACTION, reason_contains="Flapping")
ASKED = Expectation(end=End.AWAITING_APPROVAL, action="restart-pod")


def ended(end: End | None, *launched: str, proposed: tuple[str, ...] = ()) -> Ended:
    return Ended(end, launched, proposed or launched, "")


@pytest.mark.parametrize(
    ("given", "expected", "told", "words"),
    [
        (ended(End.HEALED, "rollout-undo"), HEALED, "", []),
        (ended(None), HEALED, "", ["was not at rest in time, not healed", "was not chosen"]),
        (ended(End.ESCALATED, "rollout-undo"), HEALED, "", ["ended escalated, not healed"]),
        (ended(End.HEALED, "restart-pod", "rollout-undo"), HEALED, "", ["which harms here"]),
        (
            ended(End.HEALED, "rollout-undo", "scale-workload"),
            HEALED,
            "",
            ["not among the acceptable"],
        ),
        (ended(End.NO_ACTION), NONE, "it is flapping", []),
        (ended(End.NO_ACTION), NONE, "it is over", ["no reason says 'Flapping'"]),
        (ended(End.NO_ACTION, "restart-pod"), NONE, "flapping", ["nothing should have been"]),
        (ended(End.AWAITING_APPROVAL, proposed=("restart-pod",)), ASKED, "", []),
        (ended(End.AWAITING_APPROVAL, "restart-pod"), ASKED, "", ["without approval"]),
        (ended(End.AWAITING_APPROVAL), ASKED, "", ["restart-pod was not chosen"]),
    ],
)
def test_what_is_complained_about(
    given: Ended, expected: Expectation, told: str, words: list[str]
) -> None:
    found = complaints(given, expected, told)
    assert len(found) == len(words), found
    assert all(any(word in one for one in found) for word in words), found


def test_what_an_expert_would_not_object_to_is_no_complaint() -> None:
    lenient = HEALED.model_copy(update={"acceptable": ["scale-workload"]})
    assert complaints(ended(End.HEALED, "scale-workload"), lenient, "") == []
