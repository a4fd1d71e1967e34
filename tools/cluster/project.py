"""The project's own images, service and step, rebuilt when what they are made from has changed."""

import hashlib
import subprocess
import sys
import tomllib
from pathlib import Path

from tools.cluster.dockerfiles import store
from tools.cluster.images import TEST_BASE, test_base
from tools.cluster.paths import CHECKOUT, Cache
from tools.cluster.report import Trouble, step

PREFIX = "docker.io/tiphys"
_PREPARE = "tools.images"


def names(checkout: Path = CHECKOUT) -> list[str]:
    """Return the images that the checkout has a Dockerfile for."""
    return sorted(path.parent.name for path in (checkout / "images").glob("*/Dockerfile"))


def sources(checkout: Path = CHECKOUT) -> list[Path]:
    """Return every file that may reach an image: packages, locks, Dockerfiles and their tool."""
    packaging = tomllib.loads((checkout / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = [*packaging["package-dir"].values(), "images"]
    found = [checkout / name for name in ("pyproject.toml", "README.md", "tools/images.py")]
    found += checkout.glob("requirements*.lock")
    for name in folders:
        found += (p for p in (checkout / name).rglob("*") if "__pycache__" not in p.parts)
    return sorted(path for path in found if path.is_file())


def key(base: Path, checkout: Path = CHECKOUT) -> str:
    """Return a hash of the base image and all sources."""
    digest = hashlib.sha256(base.name.encode())
    for path in sources(checkout):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(checkout)}\0{content}\0".encode())
    return digest.hexdigest()[:12]


def ensure(cache: Cache) -> dict[str, Path]:
    """Build what has changed; reference -> archive. Archives of earlier sources are removed."""
    wanted = names()
    if not wanted:
        return {}
    base = test_base(cache)
    current = key(base)
    archives = {name: cache.images / f"{name}-dev-{current}.tar" for name in wanted}
    if any(not path.exists() for path in archives.values()):
        with step("gathered what the project's images are made from"):
            _prepare()
        with store(cache) as builder:
            builder.load(base)
            for name, archive in archives.items():
                with step(f"built image {PREFIX}/{name}:dev"):
                    file = CHECKOUT / "images" / name / "Dockerfile"
                    builder.build(f"{PREFIX}/{name}:dev", CHECKOUT, file, TEST_BASE)
                    builder.export(f"{PREFIX}/{name}:dev", archive)
        for name, archive in archives.items():
            for old in cache.images.glob(f"{name}-dev-*.tar"):
                if old != archive:
                    old.unlink(missing_ok=True)
    return {f"{PREFIX}/{name}:dev": path for name, path in archives.items()}


def _prepare() -> None:
    """Fill build/images; the network is needed only when a lock has changed."""
    done = subprocess.run(
        [sys.executable, "-m", _PREPARE, "--prepare-only"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    if done.returncode:
        raise Trouble(f"python -m {_PREPARE} failed:\n{(done.stdout + done.stderr)[-3000:]}")
