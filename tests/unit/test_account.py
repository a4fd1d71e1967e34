"""Whole incidents as `tiphys incidents show` tells them: recorded from the sandbox, kept as text.

`make golden` writes the texts anew; read them, as somebody at 03:00 would, before you commit them.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tiphys.service.rendering import print_page

GOLDEN = Path(__file__).parent / "golden" / "incidents"
DATA = Path(__file__).parent.parent / "data" / "incidents"
RECORDED = sorted(path.stem for path in DATA.glob("*.json"))


def told(name: str, width: int = 100, **more: Any) -> str:
    return said(json.loads((DATA / f"{name}.json").read_text()), width, **more)


def said(view: Any, width: int = 100, **more: Any) -> str:
    console = Console(width=width, color_system=None, highlight=False, markup=False)
    with console.capture() as capture:
        print_page(console, view, **more)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


@pytest.mark.parametrize("name", RECORDED)
def test_golden_incidents(name: str) -> None:
    file, text = GOLDEN / f"{name}.txt", told(name)
    if os.environ.get("TIPHYS_GOLDEN") == "write":
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    assert file.read_text() == text, "reviewed? then: make golden"


@pytest.mark.parametrize("name", RECORDED)
def test_an_account_fits_a_screen_and_its_lines(name: str) -> None:
    for width in (80, 100, 240):
        lines = told(name, width).splitlines()
        copied = ("kubectl ", "tiphys ")  # commands stay on one line, to be copied
        read = [line for line in lines if not line.startswith(copied)]
        assert max(len(line) for line in read) <= min(width, 100)
    assert len(told(name).splitlines()) <= 75, "who is woken reads no more than that"


@pytest.mark.parametrize("name", RECORDED)
def test_an_account_answers_what_an_engineer_asks(name: str) -> None:
    """In this order, after how it stands: seen, concluded, ruled out, proposed, risks, done."""
    view = json.loads((DATA / f"{name}.json").read_text())
    text = told(name)
    wanted = ["ALERTS", "WHAT WAS SEEN", "WHAT FOLLOWS", "RULED OUT"]
    if any(attempt["decision"]["answer"] == "proposal" for attempt in view["attempts"]):
        wanted += ["PROPOSED", "WHAT COULD GO WRONG", "WHAT THE RULES SAY"]
    places = [text.index(f"\n{heading}") for heading in (*wanted, "WHAT HAPPENED")]
    assert places == sorted(places)
    for attempt in view["attempts"]:
        said = " ".join(attempt["decision"]["reason"].split())
        assert " ".join(text.split()).count(said) == 1, "once, and whole"


def test_the_incidents_that_follow_are_named_before_what_was_seen() -> None:
    view = json.loads((DATA / "dependency-down.json").read_text())
    one = view["incident"]
    view["followers"] = [
        {**one, "id": f"inc-{n}", "title": f"Service s{n} fails"} for n in range(8)
    ]
    text = said(view)
    at = text.index("INCIDENTS THAT FOLLOW FROM IT AND STAND BY")
    assert at < text.index("Service s0 fails (inc-0)") < text.index("and 3 more")
    assert text.index("and 3 more") < text.index("WHAT WAS SEEN")
    assert "inc-5" not in text


def test_everything_is_there_for_who_wants_it_all() -> None:
    view = json.loads((DATA / "bad-release.json").read_text())
    text = told("bad-release", whole=True)
    assert all(item["id"] in text for item in view["evidence"])
    assert all(record["event"][:17] in text for record in view["timeline"])
