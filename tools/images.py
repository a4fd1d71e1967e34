"""`make images`: put together what the two images are made from, and have them built.

Everything from the network is fetched here, by pip with the configuration of whoever builds, and
checked against the locked hashes; the build itself then needs no network and no credentials.
Invariant: equal sources and locks give equal images (docs/images.md says with which builders).
"""

import argparse
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONTEXT = ROOT / "build" / "images"
LOCKS = {"service": ROOT / "requirements-run.lock", "step": ROOT / "requirements-step.lock"}
PIP_LOCK = ROOT / "images" / "pip.lock"
MANYLINUX = ("manylinux2014", "manylinux2010", "manylinux1", "linux")
OLDEST_GLIBC, NEWEST_GLIBC = 5, 36
"""2.36 is Debian bookworm's; a wheel that needs a newer one would not load there."""
EPOCH_OF_ZIP = 315_532_800
"""1980: no wheel can hold an earlier time."""


@dataclass(frozen=True)
class Aim:
    """The interpreter that the base image brings."""

    python: str
    machine: str

    def pip_options(self) -> list[str]:
        """Name every wheel that it can load, and no source distribution."""
        minors = range(NEWEST_GLIBC, OLDEST_GLIBC - 1, -1)
        tags = [f"manylinux_2_{minor}" for minor in minors] + list(MANYLINUX)
        platforms = [word for tag in tags for word in ("--platform", f"{tag}_{self.machine}")]
        version = ["--python-version", self.python, "--implementation", "cp"]
        return ["--only-binary=:all:", *version, *platforms]


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the images named, or both; 1 when something that is needed is missing."""
    given = _parser().parse_args(arguments)
    if not given.prepare_only and not shutil.which(given.builder):
        sys.stderr.write(f"make images: {given.builder} is not installed; BUILDER names another\n")
        return 1
    aim = Aim(given.python, given.machine)
    CONTEXT.mkdir(parents=True, exist_ok=True)
    try:
        with (CONTEXT / ".lock").open("w") as alone:
            fcntl.flock(alone, fcntl.LOCK_EX)  # two builds at once would share the folder
            wheel = project_wheel(CONTEXT / "project")
            for name in given.images or LOCKS:
                prepare(name, aim, wheel)
                if not given.prepare_only:
                    build(name, given)
    except subprocess.CalledProcessError as error:
        sys.stderr.write(f"make images: failed: {' '.join(error.cmd[:4])} ...\n")
        return 1
    return 0


def project_wheel(folder: Path) -> Path:
    """Build the project's wheel from a copy: a leftover of an earlier build cannot slip in."""
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory() as copy:
        for name in _sources():
            _copy(ROOT / name, Path(copy) / name)
        words = ["wheel", "-q", "--no-deps", "--no-build-isolation", "--no-cache-dir"]
        _pip([*words, "-w", str(folder), copy])
    (wheel,) = folder.glob("tiphys-*.whl")
    return wheel


def prepare(name: str, aim: Aim, wheel: Path) -> None:
    """Fill build/images/<name> with all that images/<name>/Dockerfile copies."""
    folder = CONTEXT / name
    _fetch(LOCKS[name], folder / "wheels", aim)
    _fetch(PIP_LOCK, folder / "pip", aim)
    shutil.rmtree(folder / "project", ignore_errors=True)
    _copy(wheel, folder / "project" / wheel.name)
    _copy(LOCKS[name], folder / "requirements.lock")
    _copy(ROOT / "images" / "install.sh", folder / "install.sh")


def build(name: str, given: argparse.Namespace) -> None:
    """Have one image built, its times those of the commit."""
    began = time.monotonic()
    tag = f"{given.prefix}/{name}:{given.tag}"
    epoch = str(_epoch())
    command = [given.builder, "build", "--build-arg", f"BASE={given.base}", "--tag", tag]
    if given.builder == "buildah":
        command += ["--layers=false"]
    if given.builder != "docker":
        command += ["--timestamp", epoch]
    command += ["--file", str(ROOT / "images" / name / "Dockerfile"), str(ROOT)]
    subprocess.run(command, check=True, env={**os.environ, "SOURCE_DATE_EPOCH": epoch})
    print(f"built {tag} in {time.monotonic() - began:.0f} s", flush=True)
    if given.archives:
        _save(given.builder, tag, Path(given.archives) / f"{name}.tar")


def _save(builder: str, tag: str, archive: Path) -> None:
    """Write what `ctr images import`, `kind load image-archive` and `docker load` read."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    archive.unlink(missing_ok=True)  # neither builder writes over one
    buildah = ["buildah", "push", "--quiet", tag, f"docker-archive:{archive}:{tag}"]
    others = [builder, "save", "--output", str(archive), tag]
    subprocess.run(buildah if builder == "buildah" else others, check=True)


def _sources() -> list[str]:
    packaging = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    return [*packaging["package-dir"].values(), "pyproject.toml", "README.md", "LICENSE"]


def _fetch(lock: Path, folder: Path, aim: Aim) -> None:
    """Download a lock's wheels, unless the folder holds just these already."""
    key = hashlib.sha256(repr((lock.read_bytes(), aim)).encode()).hexdigest()
    done = folder / ".complete"
    if done.exists() and done.read_text() == key:
        return
    shutil.rmtree(folder, ignore_errors=True)
    print(f"fetching the wheels of {lock.name} ...", flush=True)
    words = ["download", "-q", "--no-deps", "--require-hashes", "-r", str(lock), "-d", str(folder)]
    _pip([*words, *aim.pip_options()])
    done.write_text(key)


def _pip(words: Sequence[str]) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *words]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH_OF_ZIP)}
    subprocess.run(command, check=True, env=environment, umask=0o022)


def _copy(source: Path, target: Path) -> None:
    """Copy contents and nothing else: no mode, no owner, no bytecode, no link."""
    if source.is_dir():
        for child in sorted(source.iterdir()):
            if child.name != "__pycache__":
                _copy(child, target / child.name)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o644)


def _epoch() -> int:
    """Give the time that everything in the image bears: SOURCE_DATE_EPOCH, else the commit's.

    https://reproducible-builds.org/specs/source-date-epoch/
    """
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    asked = subprocess.run(
        ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"],
        capture_output=True,
        text=True,
        check=False,
    )
    return int(asked.stdout) if asked.returncode == 0 and asked.stdout else EPOCH_OF_ZIP


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.images", description=__doc__)
    parser.add_argument("images", nargs="*", choices=[*LOCKS, []], help="default: both")
    parser.add_argument("--base", default="docker.io/library/python:3.11-slim")
    parser.add_argument("--builder", default="docker", choices=["docker", "podman", "buildah"])
    parser.add_argument("--python", default="3.11", help="the base image's Python version")
    parser.add_argument("--machine", default=_machine(), help="x86_64 or aarch64")
    parser.add_argument("--prefix", default="docker.io/tiphys", help="before /service and /step")
    parser.add_argument("--tag", default="dev")
    parser.add_argument("--archives", metavar="FOLDER", help="save FOLDER/<image>.tar as well")
    parser.add_argument("--prepare-only", action="store_true", help="fill build/images, no more")
    return parser


def _machine() -> str:
    return {"arm64": "aarch64"}.get(platform.machine(), platform.machine())


if __name__ == "__main__":
    sys.exit(main())
