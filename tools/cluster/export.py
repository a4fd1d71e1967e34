"""What the tests need on another cluster (kind, k3d, any): images to load, Argo to apply."""

from pathlib import Path

import yaml

from tools.cluster import argo, cluster_api, machine, project
from tools.cluster.paths import Cache
from tools.cluster.report import say
from tools.cluster.up import prepare


def argo_manifest(cache: Cache) -> str:
    """Return Argo's CRDs and its controller as this project sets it up, as one YAML text.

    Cluster API's kinds are with them.
    """
    crds = [path.read_text() for path in argo.crd_files(cache)]
    return "\n---\n".join(
        [*crds, yaml.safe_dump_all([*cluster_api.manifests(), *argo.manifests()])]
    )


def export(cache: Cache, folder: Path) -> None:
    """Write `argo.yaml` and links to the image archives, and say what to do with them."""
    machine.check()
    _, archives = prepare(cache)
    folder.mkdir(parents=True, exist_ok=True)
    for reference, archive in (archives | project.ensure(cache)).items():
        link = folder / f"{reference.rpartition('/')[2].replace(':', '-')}.tar"
        link.unlink(missing_ok=True)
        link.symlink_to(archive)
    (folder / "argo.yaml").write_text(argo_manifest(cache))
    say(f"kind: for image in {folder}/*.tar; do kind load image-archive $image; done")
    say(f"then: kubectl apply --server-side -f {folder}/argo.yaml")
