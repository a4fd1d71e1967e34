"""Cluster API's own kinds, as its Go module brings them: what pools of machines are made of.

Its controllers are not built: a stand-in does what they and a cloud do, see
`sandbox.machine_provider`.
The kinds are served without their conversion webhook, in the stored version alone.
"""

from pathlib import Path
from typing import Any

import yaml

from tools.cluster.builds import module_folder
from tools.cluster.control_plane import Api

MODULE = "sigs.k8s.io/cluster-api"
GROUP, VERSION = "cluster.x-k8s.io", "v1beta2"
_KINDS = ("machinedeployments", "machinesets", "machines")


def manifests() -> list[dict[str, Any]]:
    """Give the CustomResourceDefinitions, each with its one version that is stored."""
    folder = module_folder("cluster-api", MODULE) / "config/crd/bases"
    return [_stored(folder / f"{GROUP}_{kind}.yaml") for kind in _KINDS]


def is_served(api: Api) -> bool:
    """Tell whether every CRD is established."""
    found = api.read(f"/apis/{GROUP}/{VERSION}")
    return bool(found) and {*_KINDS} <= {one["name"] for one in found["resources"]}


def _stored(path: Path) -> dict[str, Any]:
    made = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
    made["spec"]["versions"] = [one for one in made["spec"]["versions"] if one["storage"]]
    return made
