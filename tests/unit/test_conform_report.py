"""A report of the kit: what stays of an earlier one, and what it says of what was not proven."""

import json
from pathlib import Path

from tiphys.service.conform.kit import Finding, Report, write


def found(action: str, *, proven: bool = True) -> Finding:
    return Finding(action, "acts once", proven, "" if proven else "it acted twice", 1.0)


def proven_in(folder: Path) -> dict[str, bool]:
    whole = json.loads((folder / "conform.json").read_text())
    assert whole["proven"] is all(one["proven"] for one in whole["findings"])
    return {one["action"]: one["proven"] for one in whole["findings"]}


def test_actions_that_were_not_asked_again_stay(tmp_path: Path) -> None:
    write(Report("here", [found("restart-pod", proven=False), found("rollout-undo")]), tmp_path)
    assert proven_in(tmp_path) == {"restart-pod": False, "rollout-undo": True}
    assert "restart-pod: acts once: it acted twice" in (tmp_path / "README.md").read_text()
    write(Report("here", [found("restart-pod")]), tmp_path)
    assert proven_in(tmp_path) == {"restart-pod": True, "rollout-undo": True}
    assert "it acted twice" not in (tmp_path / "README.md").read_text()


def test_another_cluster_s_report_begins_anew(tmp_path: Path) -> None:
    write(Report("there", [found("restart-pod")]), tmp_path)
    write(Report("here", [found("rollout-undo")]), tmp_path)
    assert proven_in(tmp_path) == {"rollout-undo": True}


def test_an_action_that_is_no_longer_there_goes(tmp_path: Path) -> None:
    write(Report("here", [found("no-such-action")]), tmp_path)
    write(Report("here", [found("rollout-undo")]), tmp_path)
    assert proven_in(tmp_path) == {"rollout-undo": True}
