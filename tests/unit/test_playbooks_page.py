"""docs/playbooks.md: every alert is covered on purpose, and the tables say what the code says."""

import re
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2]))

from tiphys.agents.fact_list import FACTS
from tiphys.agents.playbook_cases import CasesReader
from tiphys.agents.playbooks import Playbooks
from tools import playbooks_page

TEXT = playbooks_page.PAGE.read_text()
BOOKS = Playbooks.load()
ALERTS = [
    (origin, name)
    for origin, file in playbooks_page.FILES.items()
    for name in playbooks_page.alerts_of(file)
]
CASES = sorted((playbooks_page.ROOT / "tests/data/playbooks").glob("*.yaml"))


def test_the_tables_are_current() -> None:
    assert playbooks_page.page(TEXT) == TEXT, "reviewed? then: make golden"


def test_the_rule_files_are_whole() -> None:
    found = [origin for origin, _ in ALERTS]
    assert found.count("kubernetes-mixin") > 50
    assert found.count("GPU operator") == 4


@pytest.mark.parametrize(("origin", "name"), ALERTS, ids=[name for _, name in ALERTS])
def test_an_alert_is_named_by_a_playbook_and_stands_in_the_table(origin: str, name: str) -> None:
    """By its own name: a pattern that happens to fit would be no purpose."""
    book = playbooks_page.covering(name, BOOKS)
    assert book is not None
    assert name in book.book.match.alerts
    assert f"| {name} | {origin} | `{book.book.name}` |" in TEXT


def test_every_fact_is_in_the_table() -> None:
    table = TEXT.split("<!-- begin: facts -->")[1].split("<!-- end: facts -->")[0]
    assert re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE) == [*FACTS]


def test_the_example_of_a_case_is_one(tmp_path: Path) -> None:
    (example,) = re.findall(
        r"^```yaml\n(format: tiphys/playbook-cases.*?)^```", TEXT, re.DOTALL | re.MULTILINE
    )
    path = tmp_path / "cases.yaml"
    path.write_text(example)
    assert len(CasesReader(path).read()) == 2
