"""Judgements in the terminal: nothing from outside acts there, and who is missing is counted."""

from typing import Any

import pytest
from rich.console import Console

from tiphys.service.policy_rendering import explanation, missing_approvals

EVIL = "[bold]x[/bold] \x1b[31mred\x1b[0m \x07\u202e\r\n\x9b2J [link=http://evil]y[/link]"


def needs(people: int = 1, by: tuple[str, ...] = (), reason: str = "high risk") -> Any:
    verdict = {"verdict": "needs_approval", "reason": reason, "people": people, "by": [*by]}
    return {"rule": "risk", "verdict": verdict}


def view(*verdicts: Any, given: tuple[tuple[str, str], ...] = (), **more: Any) -> Any:
    attempt = {"attempt": 1, "plan_digest": "d1"}
    attempt["judgement"] = {"policy": "p", "at": "2026-03-04T12:00:00Z", "verdicts": verdicts}
    timeline = [{"event": "approval_given", "body": {"by": by, "digest": d}} for by, d in given]
    incident = {"id": "inc-1", "state": "awaiting_approval", **more}
    return {"incident": incident, "timeline": timeline, "attempts": [attempt]}


def told(page: Any) -> str:
    console = Console(width=200, force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(explanation(page, page["attempts"][0]))
    return capture.get()


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ((), 2),
        ((("ada", "d1"),), 1),
        ((("ada", "d1"), ("ada", "d1")), 1),
        ((("ada", "d1"), ("bo", "d1")), 0),
        ((("ada", "another plan"), ("bo", "d1")), 1),
    ],
)
def test_only_different_people_who_agreed_to_this_plan_count(given: Any, missing: int) -> None:
    page = view(needs(), needs(people=2), given=given)
    assert missing_approvals(page, page["attempts"][0]) == missing


def test_where_nothing_waits_nothing_is_missing() -> None:
    page = view(needs(people=2), state="escalated")
    assert missing_approvals(page, page["attempts"][0]) == 0
    assert "needs approval, and waits no longer" in told(page)


def test_text_from_outside_stays_text() -> None:
    page = view(needs(by=(EVIL,), reason=EVIL))
    page["attempts"][0]["judgement"] |= {"policy": EVIL, "approved_by": EVIL}
    for state in ("awaiting_approval", "running"):
        page["incident"]["state"] = state
        said = told(page)
        assert not set(said) & set("\x1b\x07\u202e\r\x9b")
        assert "[bold]x[/bold]" in said
