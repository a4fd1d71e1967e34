"""`tiphys eval --reasoner model`: a model at an endpoint, recorded and played again."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent))

from scripted_model import scripted_model

from tiphys.service.errors import BadInputError, UsageError
from tiphys.service.main import app

ROOT = Path(__file__).parents[2]
CASES = str(ROOT / "tests" / "data" / "decisions" / "runbook_cases.yaml")
RELEASE = str(ROOT / "sandbox" / "scenarios" / "bad-release.yaml")
OUTSIDE = str(ROOT / "sandbox" / "scenarios" / "outside-catalogue.yaml")


def run(*arguments: str) -> list[Any]:
    result = CliRunner().invoke(app, ["eval", *arguments, "--json"])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return json.loads(result.output)["decisions"]


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[Any], int]:
    """Have the model decide the cases: its exchanges, the verdicts, how often it was asked."""
    kept = tmp_path / "exchanges.jsonl"
    with scripted_model() as endpoint:
        monkeypatch.setenv("TIPHYS_MODEL_BASE_URL", endpoint.url)
        monkeypatch.setenv("TIPHYS_MODEL", "scripted")
        monkeypatch.setenv("TIPHYS_MODEL_RECORD", str(kept))
        verdicts = run(CASES, "--reasoner", "model")
        asked = len(endpoint.requests)
    for name in ("TIPHYS_MODEL_BASE_URL", "TIPHYS_MODEL", "TIPHYS_MODEL_RECORD"):
        monkeypatch.delenv(name)
    return kept, verdicts, asked


def test_a_model_is_asked_once_for_each_case_and_replayed_without_it(
    recorded: tuple[Path, list[Any], int],
) -> None:
    kept, verdicts, asked = recorded
    (one,) = verdicts
    assert (one["cases_run"], asked, one["harmful"]) == (21, 21, 0)
    disagreed = [c for c in one["cases"] if "the model disagree" in c["why"]]
    assert disagreed
    assert {c["decided"] for c in disagreed} == {"escalate"}
    assert run(CASES, "--reasoner", "model", "--replay", str(kept)) == verdicts


def test_a_prompt_that_was_not_recorded_is_an_error_and_no_verdict(
    recorded: tuple[Path, list[Any], int], tmp_path: Path
) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(Path(CASES).read_text().replace("in Error", "in CrashLoopBackOff"))
    with pytest.raises(BadInputError, match=r"no answer to this prompt|not what was asked"):
        run(str(other), "--reasoner", "model", "--replay", str(recorded[0]))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["--reasoner", "model"], "TIPHYS_MODEL_BASE_URL", id="no-endpoint"),
        pytest.param(["--reasoner", "oracle"], "one of playbooks, model", id="unknown"),
        pytest.param(["--replay", "x.jsonl"], "--replay is for --reasoner model", id="replay"),
    ],
)
def test_who_decides_must_be_clear(arguments: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        run(CASES, *arguments)


def test_scenarios_are_decided_in_a_world_of_their_own() -> None:
    (verdicts,) = run(RELEASE, OUTSIDE)
    assert {c["case"]: (c["decided"], c["mark"]) for c in verdicts["cases"]} == {
        "bad-release": ("rollout-undo", "exact"),
        "outside-catalogue": ("escalate", "exact"),
    }


def test_a_scenario_is_read_by_the_model_through_the_same_readers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with scripted_model() as endpoint:
        monkeypatch.setenv("TIPHYS_MODEL_BASE_URL", endpoint.url)
        monkeypatch.setenv("TIPHYS_MODEL", "scripted")
        (verdicts,) = run(RELEASE, "--reasoner", "model")
        last = endpoint.requests[-1]["messages"]
    assert [c["mark"] for c in verdicts["cases"]] == ["exact"]
    assert len(last) > 2, "it had something read before it answered"
