"""The tables of docs/playbooks.md from what they tell of: `make golden` writes, a test says when.

Facts come from `agents/fact_list.py`, playbooks from `agents/playbooks`, the alerts that must be
covered from the rule files that the tests keep.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from tiphys.agents.fact_list import FACTS
from tiphys.agents.playbook_file import Compiled
from tiphys.agents.playbooks import Playbooks
from tiphys.policies.model import Alert

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "playbooks.md"
RULES = ROOT / "tests" / "data" / "rules"
FILES = {
    "kubernetes-mixin": "prometheus_alerts.yaml",
    "GPU operator": "gpu_operator_node_status.yaml",
}


def page(text: str) -> str:
    """Give the page with its tables as they are due."""
    for name, table in (
        ("facts", _facts()),
        ("playbooks", _playbooks()),
        ("coverage", _coverage()),
    ):
        begin, end = f"<!-- begin: {name} -->\n", f"<!-- end: {name} -->"
        head, rest = text.split(begin)
        text = head + begin + table + end + rest.split(end)[1]
    return text


def alerts_of(file: str) -> list[str]:
    """Name the alerts of a rule file, or of a PrometheusRule."""
    found: dict[str, Any] = yaml.safe_load((RULES / file).read_text())
    groups = found.get("groups") or found["spec"]["groups"]
    return sorted({rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule})


def covering(name: str, playbooks: Playbooks) -> Compiled | None:
    """Give the playbook that answers an alert, whatever its other labels."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    plain = {"id": "a", "cluster": "c", "fingerprint": "f", "status": "firing",
             "starts_at": now, "received_at": now, "labels": {"alertname": name}}  # fmt: skip
    return playbooks.covering(Alert.model_validate(plain))


def _facts() -> str:
    rows = "".join(f"| `{path}` | {what} |\n" for path, what in FACTS.items())
    return "| fact | meaning |\n|---|---|\n" + rows


def _playbooks() -> str:
    rows = "".join(f"| `{name}` | {_alerts(one)} | {_acts(one)} |\n" for name, one in _sorted())
    return "| playbook | alerts | may act with |\n|---|---|---|\n" + rows


def _sorted() -> Iterator[tuple[str, Compiled]]:
    yield from sorted(Playbooks.load().all.items())


def _alerts(one: Compiled) -> str:
    match = one.book.match
    if one.book.asked == "last" and match.pattern == ".*":
        return "those that no other playbook is for"
    return f"names like `{match.pattern}`" if match.pattern else ", ".join(match.alerts)


def _acts(one: Compiled) -> str:
    actions = sorted({answer.act.action for answer in one.book.answers if answer.act})
    return ", ".join(actions) or "nothing: it explains"


def _coverage() -> str:
    books = Playbooks.load()
    rows = "| alert | of | playbook | may act with | may leave it alone |\n|---|---|---|---|---|\n"
    for origin, file in FILES.items():
        for name in alerts_of(file):
            one = covering(name, books)
            if one is None:
                rows += f"| {name} | {origin} | none | | |\n"
                continue
            quiet = sum(answer.nothing is not None for answer in one.book.answers)
            alone = "yes" if quiet else "never"
            rows += f"| {name} | {origin} | `{one.book.name}` | {_acts(one)} | {alone} |\n"
    return rows


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
