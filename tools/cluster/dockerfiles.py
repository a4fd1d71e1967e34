"""Builds images from Dockerfiles with buildah, in a store of its own that goes afterwards.

Invariant: after a build, whole or broken off, neither the store nor a mount of it is left.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tools.cluster.down import unmount
from tools.cluster.images import reference_of, test_base
from tools.cluster.paths import Cache
from tools.cluster.report import Trouble, step

_PREFIX = ".buildah-"


@dataclass(frozen=True)
class Store:
    """One buildah store; builds share the bases that were loaded into it."""

    folder: Path

    def _buildah(self, *argv: str | Path, seconds: float = 900) -> None:
        command = ["buildah", "--root", self.folder / "root", "--runroot", self.folder / "run"]
        # Inside a container or a small machine only `chroot` needs nothing from the kernel.
        environment = {**os.environ, "STORAGE_DRIVER": "overlay", "BUILDAH_ISOLATION": "chroot"}
        try:
            done = subprocess.run(
                [str(word) for word in (*command, *argv)],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=seconds,
            )
        except subprocess.TimeoutExpired as slow:
            raise Trouble(f"buildah {argv[0]} did not end within {seconds:.0f} s") from slow
        if done.returncode:
            raise Trouble(f"buildah {argv[0]} failed:\n{(done.stdout + done.stderr)[-3000:]}")

    def load(self, archive: Path) -> None:
        """Take an image from an archive, under the reference it was packed with."""
        self._buildah("pull", f"docker-archive:{archive}")

    def build(self, reference: str, context: Path, dockerfile: Path, base: str) -> None:
        """Build without asking any registry."""
        self._buildah(
            *("build", "--layers=false", "--pull-never", "--build-arg", f"BASE={base}"),
            *("--tag", reference, "--file", dockerfile, context),
        )

    def export(self, reference: str, archive: Path) -> None:
        """Write an image as an archive, whole or not at all."""
        partial = archive.with_suffix(".partial")
        partial.unlink(missing_ok=True)
        self._buildah("push", reference, f"docker-archive:{partial}:{reference}")
        partial.rename(archive)


@contextmanager
def store(cache: Cache) -> Generator[Store]:
    """A new store, and what an earlier killed one left removed."""
    for leftover in cache.root.glob(f"{_PREFIX}*"):
        _remove(leftover)
    folder = Path(tempfile.mkdtemp(dir=cache.root, prefix=_PREFIX))
    try:
        yield Store(folder)
    finally:
        _remove(folder)


def _remove(folder: Path) -> None:
    unmount(folder)
    shutil.rmtree(folder, ignore_errors=True)


def copied(dockerfile: Path, context: Path) -> list[Path]:
    """Return the files of the context that the Dockerfile's COPY and ADD lines name."""
    found: set[Path] = set()
    for line in dockerfile.read_text().replace("\\\n", " ").splitlines():
        words = line.split()
        if not words or words[0].upper() not in {"COPY", "ADD"} or "--from=" in line:
            continue
        names = [word for word in words[1:] if not word.startswith("--")][:-1]
        for name in names:
            for path in context.glob(name.strip("/") or "."):
                found |= {path} if path.is_file() else {p for p in path.rglob("*") if p.is_file()}
    return sorted(found)


def image(cache: Cache, reference: str, context: Path, dockerfile: Path, base: Path | None) -> Path:
    """Build one image unless an archive of the same sources is there; return the archive.

    The Dockerfile begins with `ARG BASE`; without an archive named it is the test base.
    """
    ground = base or test_base(cache)
    digest = hashlib.sha256(f"{reference}\0{ground.name}\0".encode() + dockerfile.read_bytes())
    for path in copied(dockerfile, context):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(context)}\0{path.stat().st_mode}\0{content}".encode())
    name = reference.rpartition("/")[2].replace(":", "-")
    archive = cache.images / f"{name}-{digest.hexdigest()[:12]}.tar"
    if not archive.exists():
        with step(f"built image {reference}"), store(cache) as builder:
            builder.load(ground)
            builder.build(reference, context, dockerfile, reference_of(ground))
            builder.export(reference, archive)
    return archive
