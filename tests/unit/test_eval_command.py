"""`tiphys eval`: what it prints, what it compares, and what it says of folders it cannot read."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tiphys.service.errors import UsageError
from tiphys.service.main import app

DATA = Path(__file__).resolve().parents[1] / "data" / "rca"
PETSHOP = DATA / "petshop"


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["eval", *arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of two issues and a short quiet stretch."""
    copy = tmp_path_factory.mktemp("eval") / "small"
    shutil.copytree(PETSHOP / "low_traffic", copy)
    for issue in copy.glob("train/issue_[2-9]"):
        shutil.rmtree(issue)
    quiet = copy / "noissue" / "metrics.csv"
    quiet.write_text("\n".join(quiet.read_text().splitlines()[:54]) + "\n")
    return copy


def test_it_prints_the_figures_and_json_has_every_case(folder: Path) -> None:
    text = run(str(folder))
    assert "small: 2 faults, 10 quiet stretches" in text
    assert "AC@1" in text
    told = json.loads(run(str(folder), "--json"))
    (one,) = told["root_causes"]
    assert (one["set"], one["faults"], one["quiet_stretches"]) == ("small", 2, 10)
    assert [c["case"] for c in one["cases"]] == ["train/issue_0", "train/issue_1"]
    assert all(c["said"] for c in one["cases"])


def test_a_comparison_says_which_cases_moved(folder: Path, tmp_path: Path) -> None:
    old = json.loads(run(str(folder), "--json"))
    earlier = tmp_path / "earlier.json"
    earlier.write_text(json.dumps(old))
    assert "small: the same figures" in run(str(folder), "--compare", str(earlier))
    old["root_causes"][0]["cases"][0]["place"] = 7
    old["root_causes"][0]["ac_at_1"] = 0.5
    earlier.write_text(json.dumps(old))
    text = run(str(folder), "--compare", str(earlier))
    assert "AC@1 0.500 -> " in text
    assert "train/issue_0: place 7 -> " in text


def broken(tmp_path: Path, file: str, text: str) -> Path:
    copy = tmp_path / "broken"
    shutil.copytree(PETSHOP / "low_traffic", copy)
    (copy / file).write_text(text)
    return copy


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        pytest.param("train/issue_0/target.json", "{}", "not a target", id="target"),
        pytest.param("train/issue_0/metrics.csv", "a,b\n", "not three rows of names", id="metrics"),
        pytest.param("noissue/metrics.csv", "", "not three rows of names", id="normal"),
        pytest.param("graph.csv", "", "not a matrix", id="graph"),
    ],
)
def test_a_broken_set_is_one_sentence_that_names_the_file(
    tmp_path: Path, file: str, text: str, said: str
) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        run(str(broken(tmp_path, file, text)))
    assert file in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("[1]", "not what `tiphys eval --json` wrote", id="other-json"),
        pytest.param("{", "not what `tiphys eval --json` wrote", id="no-json"),
        pytest.param(None, "No such file", id="absent"),
    ],
)
def test_an_earlier_run_that_cannot_be_read_is_refused(
    folder: Path, tmp_path: Path, text: Any, said: str
) -> None:
    earlier = tmp_path / "earlier.json"
    if text is not None:
        earlier.write_text(text)
    with pytest.raises(UsageError, match=said):
        run(str(folder), "--compare", str(earlier))


def test_a_folder_without_a_set_and_a_path_that_is_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no recorded set"):
        run(str(tmp_path))
    with pytest.raises(UsageError, match="there is no such"):
        run(str(tmp_path / "absent"))


def test_the_service_does_not_load_the_mathematics_before_it_is_used() -> None:
    code = "import sys, tiphys.service.main, tiphys.agents.graph; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
