"""How often the search for causes must be right on recorded faults, and silent without one.

Small copies of the sets are in tests/data/rca; docs/evaluation.md has the figures on the whole.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest

from tiphys.service.evaluation.measure import Figures, measured, sets_under
from tiphys.service.evaluation.nezha import NezhaDay

DATA = Path(__file__).resolve().parents[1] / "data" / "rca"


@pytest.fixture(scope="module")
def nezha() -> Figures:
    (found,) = sets_under(DATA / "nezha")
    return measured(found)


@pytest.fixture(scope="module")
def petshop() -> Figures:
    (found,) = sets_under(DATA / "petshop")
    return measured(found)


def test_faults_under_load_are_found(nezha: Figures) -> None:
    assert len(nezha.outcomes) == 24
    assert (nezha.at(1) or 0) >= 0.60
    assert (nezha.at(3) or 0) >= 0.85
    assert (nezha.average or 0) >= 0.78


def test_issues_of_few_rows_are_found(petshop: Figures) -> None:
    assert len(petshop.outcomes) == 8
    assert (petshop.at(1) or 0) > 0.67
    assert (petshop.at(3) or 0) > 0.86


def test_nothing_is_said_where_nothing_happened(nezha: Figures, petshop: Figures) -> None:
    for figures, stretches in ((nezha, 16), (petshop, 58)):
        assert figures.quiet == stretches
        assert (figures.silent or 0) >= 0.90, figures.alarms


def test_shifted_stamps_are_told_by_the_time_written_beside_them(tmp_path: Path) -> None:
    day = tmp_path / "day"
    shutil.copytree(DATA / "nezha/2022-08-22", day)
    plain = [o.place for o in measured(NezhaDay(day), with_quiet=False).outcomes]
    for i, path in enumerate(sorted((day / "metric").glob("*_metric.csv"))):
        lines = path.read_text().splitlines()
        cells = [line.split(",") for line in lines[1:]]
        for j, row in enumerate(cells):
            # A moment that a row's stamp never had, another one for every pod.
            row[1] = str(int(row[1]) + 10**8 * (i + 1) + 700 * (j % 3))
        path.write_text("\n".join([lines[0], *(",".join(row) for row in cells)]) + "\n")
    assert [o.place for o in measured(NezhaDay(day), with_quiet=False).outcomes] == plain


def test_no_case_sees_what_came_after_it() -> None:
    for fault in NezhaDay(DATA / "nezha/2022-08-22").faults():
        for signal in fault.scene.signals:
            times = np.asarray(signal.points)[:, 0]
            assert not len(times) or times.max() < fault.scene.window.end


def test_without_its_call_graph_and_without_a_pod_it_still_answers(tmp_path: Path) -> None:
    day = tmp_path / "day"
    shutil.copytree(DATA / "nezha/2022-08-22", day)
    (day / "metric" / "dependency.csv").unlink()
    alone = measured(NezhaDay(day), with_quiet=False).at(3)
    # Half of the faults are ranked by what a component itself shows.
    assert alone is not None
    assert alone >= 0.5
    next((day / "metric").glob("emailservice*")).unlink()
    gone = measured(NezhaDay(day), with_quiet=False)
    assert all(o.place == 0 for o in gone.outcomes if o.answer.startswith("emailservice"))
