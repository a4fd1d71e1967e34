"""The images that the cluster runs: made here, kept in the cache, imported into containerd.

Invariant: an archive's name holds the hash of what it was made from, so an unchanged tree builds
nothing and a changed one never runs yesterday's image.
"""

import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from tools.cluster.archives import Scratch, pack, pack_scratch
from tools.cluster.node import PAUSE_IMAGE, ctr
from tools.cluster.paths import ARGO, Cache
from tools.cluster.processes import run
from tools.cluster.report import Trouble, step

ARGO_EXECUTOR = f"docker.io/tiphys/argoexec:{ARGO}"
ARGO_CONTROLLER = f"docker.io/tiphys/workflow-controller:{ARGO}"
TEST_BASE = "docker.io/tiphys/test-base:dev"
# Argo's own user; see its Dockerfile.
_ARGO_USER = "8737"
_SUITE = "bookworm"
_INCLUDE = "python3,ca-certificates"
_UNNEEDED = (
    "var/cache/apt",
    "var/lib/apt/lists",
    "var/log",
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/info",
)


def _short(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
        digest.update(b"\0")
    return digest.hexdigest()[:12]


def scratch_images(cache: Cache, bins: Mapping[str, Path]) -> dict[str, Path]:
    """Make pause, Argo's executor and its controller from their binaries; reference -> archive."""
    wanted = (
        Scratch(PAUSE_IMAGE, {"pause": bins["pause"]}, ("/pause",), "65535", ()),
        Scratch(ARGO_EXECUTOR, {"bin/argoexec": bins["argoexec"]}, ("argoexec",), _ARGO_USER),
        Scratch(
            ARGO_CONTROLLER,
            {"bin/workflow-controller": bins["workflow-controller"]},
            ("workflow-controller",),
            _ARGO_USER,
        ),
    )
    made: dict[str, Path] = {}
    for image in wanted:
        # A binary's folder is named after everything it was built from.
        sources = "".join(sorted(path.parent.name for path in image.files.values()))
        name = image.reference.rpartition("/")[2].replace(":", "-")
        archive = cache.images / f"{name}-{_short(repr(image.entrypoint), image.user, sources)}.tar"
        if not archive.exists():
            with step(f"made image {image.reference}"):
                pack_scratch(image, archive)
        made[image.reference] = archive
    return made


def test_base(cache: Cache) -> Path:
    """Debian with Python, by debootstrap: what the project's images are built on here."""
    archive = cache.images / f"test-base-{_short(_SUITE, _INCLUDE, *_UNNEEDED)}.tar"
    if archive.exists():
        return archive
    archive.parent.mkdir(parents=True, exist_ok=True)
    with (
        step(f"made image {TEST_BASE} with debootstrap"),
        tempfile.TemporaryDirectory(dir=cache.root, prefix=".base-") as scratch,
    ):
        root = Path(scratch) / "root"
        command = ["debootstrap", "--variant=minbase", f"--include={_INCLUDE}", _SUITE, root]
        run(command, seconds=900)
        for name in _UNNEEDED:
            shutil.rmtree(root / name, ignore_errors=True)
            (root / name).mkdir(parents=True, exist_ok=True)
        layer = Path(scratch) / "layer.tar"
        run(
            [
                *("tar", "--create", "--file", layer, "--directory", root, "--numeric-owner"),
                *("--sort=name", "--mtime=@0", "--one-file-system", "."),
            ]
        )
        config = {
            "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "Cmd": ["python3"],
            "WorkingDir": "/",
        }
        pack(layer, TEST_BASE, config, archive)
    return archive


def import_all(cache: Cache, archives: Iterable[Path]) -> None:
    """Give containerd the images; the kubelet finds them at once."""
    for archive in archives:
        run(ctr(cache, "images", "import", archive), seconds=300)


def import_one(cache: Cache, archive: Path) -> None:
    """Give the running cluster one image."""
    with step(f"imported {archive.name}"):
        import_all(cache, [archive])


def is_answering(cache: Cache) -> bool:
    """Tell whether containerd runs."""
    asked = subprocess.run(ctr(cache, "version"), check=False, capture_output=True, timeout=10)
    return asked.returncode == 0


def reference_of(archive: Path) -> str:
    """Return the reference under which an archive was packed."""
    with tarfile.open(archive) as packed:
        manifest = packed.extractfile("manifest.json")
        if manifest is None:
            raise Trouble(f"{archive} is not an image archive")
        return json.load(manifest)[0]["RepoTags"][0]
