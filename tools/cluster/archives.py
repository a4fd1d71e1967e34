"""Image archives made without any image tool: a file system as one layer, byte for byte repeatable.

The format is the one of `docker save`, which containerd imports and buildah reads.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_EPOCH = 0


@dataclass(frozen=True)
class Scratch:
    """What an image from nothing holds: files by their path inside, and what runs."""

    reference: str
    files: Mapping[str, Path]
    entrypoint: tuple[str, ...] = ()
    user: str = ""
    directories: tuple[str, ...] = field(default=("tmp",))


def _entry(name: str, mode: int, kind: bytes, size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.mode, info.type, info.size, info.mtime = mode, kind, size, _EPOCH
    return info


def layer_of(image: Scratch, path: Path) -> None:
    """Write the image's only layer."""
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as layer:
        parents = {str(p) for name in image.files for p in Path(name).parents} - {".", "/"}
        for name in sorted(parents):
            layer.addfile(_entry(name, 0o755, tarfile.DIRTYPE))
        for name in image.directories:
            layer.addfile(_entry(name, 0o1777, tarfile.DIRTYPE))
        for name, source in sorted(image.files.items()):
            with source.open("rb") as content:
                layer.addfile(_entry(name, 0o755, tarfile.REGTYPE, source.stat().st_size), content)


def pack(layer: Path, reference: str, config: Mapping[str, Any], target: Path) -> None:
    """Write an archive of one layer; complete or absent."""
    digest = hashlib.sha256()
    with layer.open("rb") as content:
        while block := content.read(1 << 20):
            digest.update(block)
    description = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": dict(config),
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest.hexdigest()}"]},
            "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "tools.cluster"}],
        }
    ).encode()
    name = f"{hashlib.sha256(description).hexdigest()}.json"
    manifest = [{"Config": name, "RepoTags": [reference], "Layers": ["layer.tar"]}]
    partial = target.with_suffix(".partial")
    with tarfile.open(partial, "w", format=tarfile.GNU_FORMAT) as archive:
        for entry, content in (
            (name, description),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            archive.addfile(
                _entry(entry, 0o644, tarfile.REGTYPE, len(content)), io.BytesIO(content)
            )
        with layer.open("rb") as content:
            size = layer.stat().st_size
            archive.addfile(_entry("layer.tar", 0o644, tarfile.REGTYPE, size), content)
    partial.rename(target)


def pack_scratch(image: Scratch, target: Path) -> None:
    """Write the archive of an image from nothing."""
    target.parent.mkdir(parents=True, exist_ok=True)
    layer = target.with_suffix(".layer")
    try:
        layer_of(image, layer)
        config = {
            "Entrypoint": list(image.entrypoint),
            "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"],
            "User": image.user,
            "WorkingDir": "/",
        }
        pack(layer, image.reference, config, target)
    finally:
        layer.unlink(missing_ok=True)
