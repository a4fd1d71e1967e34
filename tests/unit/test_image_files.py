"""What the images are made from: whole, unprivileged by default, and naming nobody's machine."""

import re
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2]))

from tiphys.workflow_templates.render import RenderSettings
from tools.images import project_wheel

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILES = sorted(ROOT.glob("images/*/Dockerfile"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return project_wheel(tmp_path_factory.mktemp("wheel"))


def test_the_wheel_holds_every_file_of_every_package(wheel: Path) -> None:
    folders = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    sources = {
        f"tiphys/{path.relative_to(ROOT)}"
        for folder in folders["package-dir"].values()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as packed:
        held = {name for name in packed.namelist() if ".dist-info/" not in name}
        times = {entry.date_time for entry in packed.infolist()}
    assert {"tiphys/policies/default.yaml", "tiphys/policies/xid.csv"} <= held
    assert held == sources
    assert times == {(1980, 1, 1, 0, 0, 0)}, "the moment of building must not change the image"


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.parent.name)
def test_an_image_runs_as_the_steps_user_without_a_shell(path: Path) -> None:
    text = path.read_text()
    user = RenderSettings.model_fields["user"].default
    assert re.findall(r"^FROM .*", text, re.MULTILINE) == ["FROM ${BASE} AS build", "FROM ${BASE}"]
    assert re.findall(r"^USER (.*)", text, re.MULTILINE) == [f"{user}:{user}"]
    assert re.findall(r"^ENTRYPOINT (.)", text, re.MULTILINE) == ["["]


def test_there_are_two_images() -> None:
    assert [path.parent.name for path in DOCKERFILES] == ["service", "step"]


def test_nothing_names_a_package_index_or_a_secret() -> None:
    named = re.compile(r"https?://|index-url|trusted-host|_TOKEN|_KEY|PASSWORD", re.IGNORECASE)
    files = [
        *(ROOT / "images").rglob("*"),
        *ROOT.glob("requirements*.lock"),
        ROOT / ".dockerignore",
    ]
    assert [str(p) for p in files if p.is_file() and named.search(p.read_text())] == []
