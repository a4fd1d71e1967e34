"""The test cluster's builder and image archives: complete or absent, keyed by what they hold."""

import hashlib
import io
import json
import os
import re
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2]))

from tools.cluster import builds, project
from tools.cluster.archives import Scratch, pack_scratch
from tools.cluster.dockerfiles import copied
from tools.cluster.images import reference_of
from tools.cluster.paths import CHECKOUT, GO_MODULES, Cache
from tools.cluster.report import Trouble

HELM = builds.PROGRAMS["helm"]
GO = """#!/bin/sh
echo "$@" >> "$FAKE_GO_CALLS"
case "$1" in
  env) echo go1.99 ;;
  build)
    while [ $# -gt 0 ]; do [ "$1" = -o ] && out=$2; shift; done
    echo half > "$out"
    [ -z "$FAKE_GO_FAILS" ] || { echo "no space left" >&2; exit 1; }
    ;;
esac
"""


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Go tool that writes down how it is called."""
    tool = tmp_path / "bin" / "go"
    tool.parent.mkdir()
    tool.write_text(GO)
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_GO_CALLS", str(tmp_path / "calls"))
    return tmp_path / "calls"


def test_a_program_is_built_once(cache: Cache, calls: Path) -> None:
    first = builds.ensure(cache, ["helm"])
    again = builds.ensure(cache, ["helm"])
    assert first == again
    assert first["helm"].read_text() == "half\n"
    assert [line.split()[0] for line in calls.read_text().splitlines()].count("build") == 1


def test_a_build_that_fails_leaves_nothing_and_says_why(
    cache: Cache, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_GO_FAILS", "1")
    with pytest.raises(Trouble, match="no space left"):
        builds.ensure(cache, ["helm"])
    assert list(cache.bin.iterdir()) == []
    monkeypatch.delenv("FAKE_GO_FAILS")
    assert builds.ensure(cache, ["helm"])["helm"].exists()


def test_what_a_killed_build_left_is_removed(cache: Cache, calls: Path) -> None:
    left = cache.bin / ".building-x"
    (left / "out").mkdir(parents=True)
    (left / "out" / "helm").write_text("half")
    builds.ensure(cache, ["helm"])
    assert not left.exists()


def test_versions_flags_and_the_toolchain_each_give_a_binary_of_its_own(cache: Cache) -> None:
    places = {
        builds.place(cache, HELM, "go1.1"),
        builds.place(cache, HELM, "go1.2"),
        builds.place(cache, replace(HELM, link="-X a.b=c"), "go1.1"),
        builds.place(cache, replace(HELM, module="etcd"), "go1.1"),
    }
    assert len(places) == 4


def test_every_program_is_pinned_by_a_committed_module() -> None:
    for program in builds.PROGRAMS.values():
        module = (GO_MODULES / program.module / "go.mod").read_text()
        root = program.package.partition("/cmd/")[0].replace(
            "tiphys.test/coredns", "github.com/coredns/coredns"
        )
        if program.name != "pause":  # it needs nothing but Go
            assert re.search(rf"\s{re.escape(root)} {program.version}\s", module), program.name


def test_an_image_from_nothing_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    binary = tmp_path / "pause"
    binary.write_bytes(b"\x7fELF")
    image = Scratch("docker.io/tiphys/pause:dev", {"bin/pause": binary}, ("/pause",), "65535")
    pack_scratch(image, tmp_path / "a.tar")
    os.utime(binary, (1, 1))
    pack_scratch(image, tmp_path / "b.tar")
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    assert reference_of(tmp_path / "a.tar") == image.reference


def test_an_image_archive_names_its_layer_by_its_hash(tmp_path: Path) -> None:
    binary = tmp_path / "tool"
    binary.write_bytes(b"tool")
    pack_scratch(Scratch("docker.io/a/b:c", {"bin/tool": binary}, ("tool",)), tmp_path / "a.tar")
    with tarfile.open(tmp_path / "a.tar") as archive:
        manifest = json.load(archive.extractfile("manifest.json"))[0]
        config = json.load(archive.extractfile(manifest["Config"]))
        layer = archive.extractfile("layer.tar").read()
    digest = hashlib.sha256(layer).hexdigest()
    assert config["rootfs"]["diff_ids"] == [f"sha256:{digest}"]
    with tarfile.open(fileobj=io.BytesIO(layer)) as inner:
        kept = {entry.name: (entry.mode, entry.isdir(), entry.mtime) for entry in inner}
    assert kept == {
        "bin": (0o755, True, 0),
        "tmp": (0o1777, True, 0),
        "bin/tool": (0o755, False, 0),
    }


def test_copied_files_are_those_the_dockerfile_names(tmp_path: Path) -> None:
    for name in ("app/a.py", "app/deep/b.py", "docs/c.md", "one.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    dockerfile = tmp_path / "Dockerfile"
    dockerfile.write_text(
        "ARG BASE\nFROM ${BASE} AS build\nCOPY --chown=1:1 app \\\n  one.txt /app/\n"
        "FROM ${BASE}\nCOPY --from=build docs /docs\n"
    )
    found = {str(path.relative_to(tmp_path)) for path in copied(dockerfile, tmp_path)}
    assert found == {"app/a.py", "app/deep/b.py", "one.txt"}


def _checkout(folder: Path) -> Path:
    (folder / "images" / "step").mkdir(parents=True)
    (folder / "images" / "step" / "Dockerfile").write_text("ARG BASE\nFROM ${BASE}\n")
    (folder / "policies").mkdir()
    (folder / "policies" / "gate.py").write_text("1\n")
    (folder / "docs").mkdir()
    (folder / "docs" / "a.md").write_text("a\n")
    (folder / "requirements-step.lock").write_text("x==1\n")
    (folder / "README.md").write_text("r\n")
    (folder / "pyproject.toml").write_text(
        '[tool.setuptools]\n[tool.setuptools.package-dir]\n"tiphys.policies" = "policies"\n'
    )
    return folder


@pytest.mark.parametrize(
    "changed", ["policies/gate.py", "images/step/Dockerfile", "requirements-step.lock"]
)
def test_the_projects_images_follow_their_sources(tmp_path: Path, changed: str) -> None:
    checkout, base = _checkout(tmp_path), Path("test-base-1.tar")
    before = project.key(base, checkout)
    assert project.key(base, checkout) == before
    (checkout / changed).write_text("changed\n")
    assert project.key(base, checkout) != before
    assert project.key(Path("test-base-2.tar"), checkout) != project.key(base, checkout)


def test_documentation_and_bytecode_build_no_image_anew(tmp_path: Path) -> None:
    checkout, base = _checkout(tmp_path), Path("test-base-1.tar")
    before = project.key(base, checkout)
    (checkout / "docs" / "a.md").write_text("b\n")
    (checkout / "policies" / "__pycache__").mkdir()
    (checkout / "policies" / "__pycache__" / "gate.pyc").write_text("x")
    assert project.key(base, checkout) == before


def test_every_package_of_the_wheel_reaches_the_key() -> None:
    folders = {path.relative_to(CHECKOUT).parts[0] for path in project.sources()}
    assert {"agents", "policies", "sandbox", "service", "workflow_templates"} <= folders
