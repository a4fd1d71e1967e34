"""`tiphys eval` on runbook cases: what a comparison says, and what is said of a broken file."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tiphys.service.errors import UsageError
from tiphys.service.evaluation.runbooks import runbooks_in
from tiphys.service.main import app

CASE = """\
sources: {}
cases:
- id: Q1
  alert: AgentSilent
  labels: {severity: warning, node: n-1}
  evidence:
  - {kind: kubectl, q: get pods, a: the agent pod on n-1 is in Error; every other one is Running}
  - {kind: kubectl, q: get node n-1, a: Ready}
  action: restart_pod
  never: [rollout_undo]
"""


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["eval", *arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_a_comparison_says_which_decisions_moved(tmp_path: Path) -> None:
    cases = tmp_path / "cases.yaml"
    cases.write_text(CASE)
    told = json.loads(run(str(cases), "--json"))
    earlier = tmp_path / "earlier.json"
    earlier.write_text(json.dumps(told))
    assert "cases.yaml: the same figures" in run(str(cases), "--compare", str(earlier))
    (one,) = told["decisions"]
    assert (one["exact"], one["cases"][0]["decided"]) == (1, "restart_pod")
    one.update(exact=0, abstained=1)
    one["cases"][0].update(decided="escalate", mark="abstained")
    earlier.write_text(json.dumps(told))
    text = run(str(cases), "--compare", str(earlier))
    assert "exact 0 -> 1, abstained 1 -> 0" in text
    assert "Q1: escalate (abstained) -> restart_pod (exact)" in text


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        pytest.param("action: restart_pod", "action: reboot", r":9: cases\.0\.action: ", id="word"),
        pytest.param("  alert: AgentSilent\n", "", r":3: cases\.0\.alert: ", id="missing"),
        pytest.param("[rollout_undo]", "[rollout_undo", r":1\d: ", id="not-yaml"),
        pytest.param("kind: kubectl, q: get node n-1, ", "", r":8: cases\.0\.evidence\.1\.q: ",
                     id="no-question"),
    ],
)  # fmt: skip
def test_a_broken_file_is_told_with_its_line_and_key(
    tmp_path: Path, before: str, after: str, said: str
) -> None:
    cases = tmp_path / "cases.yaml"
    assert before in CASE
    cases.write_text(CASE.replace(before, after))
    with pytest.raises(UsageError, match=r"cases\.yaml" + said):
        run(str(cases))


def test_a_file_without_cases_is_no_set_of_cases(tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("rules: []\n")
    assert runbooks_in(other) is None
