"""docs/install.md as something that can be run: its blocks of shell, section by section.

What differs between a reader's kind cluster and ours is replaced in the text, name by name, and
each replacement must find what it replaces: a page that changed is noticed.
"""

import json
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.cluster.target import Target

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "install.md"
ELSEWHERE = "<!-- elsewhere -->\n"
_BLOCK = re.compile(rf"({re.escape(ELSEWHERE)})?```sh\n(.*?)```", re.DOTALL)


def sections(page: str) -> dict[str, list[str]]:
    """Give the blocks that can be run here by their section's title, without its number."""
    found: dict[str, list[str]] = {}
    for part in page.split("\n## ")[1:]:
        title, _, text = part.partition("\n")
        blocks = [block for elsewhere, block in _BLOCK.findall(text) if not elsewhere]
        found[re.sub(r"^\d+\. ", "", title)] = blocks
    return found


@dataclass
class Walk:
    """One reader, who calls everything by names that nobody else uses."""

    name: str
    cluster: Target
    helm: str
    folder: Path
    replaced: Mapping[str, str]
    """Pattern to text, besides the names."""
    values: dict[str, Any] = field(default_factory=dict[str, Any])
    """What only this cluster needs."""

    def __post_init__(self) -> None:
        self._page = self._renamed(PAGE.read_text())
        bin_folder = self.folder / "bin"
        bin_folder.mkdir(parents=True)
        for name in ("helm", "docs"):
            (self.folder / name).symlink_to(ROOT / name)
        (bin_folder / "kubectl").symlink_to(self.cluster.bin["kubectl"])
        # Two cores and no disks: what is installed is small, and may take its time.
        (self.folder / "extra.json").write_text(json.dumps(self.values))
        script = bin_folder / "helm"
        script.write_text(
            "#!/bin/sh\n"
            'case "$1 $2" in "upgrade --install") set -- "$@" -f extra.json;; esac\n'
            'case "$1" in upgrade) set -- "$@" --timeout 420s;; esac\n'
            f'exec {self.helm} "$@"\n'
        )
        script.chmod(0o755)

    def _renamed(self, page: str) -> str:
        names = {
            r"\btiphys-(system|actions|stop|argo)\b": rf"{self.name}-\1",
            r"\bshop\b": f"{self.name}-shop",
            r"(helm (?:upgrade|upgrade --install|test|uninstall)) tiphys\b": rf"\1 {self.name}",
        }
        for pattern, text in {**names, **self.replaced}.items():
            page, count = re.subn(pattern, text, page)
            assert count, f"docs/install.md has no {pattern}"
        return page

    def run(self, title: str) -> str:
        """Run a section's blocks in one shell; fails with everything that was said."""
        blocks = sections(self._page)[title]
        assert blocks, title
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", "\n".join(blocks)],
            cwd=self.folder,
            env={
                "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
                "HOME": str(self.folder),
                "KUBECONFIG": str(self.cluster.kubeconfig),
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
        assert done.returncode == 0, f"{title}:\n{done.stdout}\n{done.stderr}"
        return done.stdout
