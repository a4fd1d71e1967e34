"""Writes what the chart ships rendered: `make chart` runs it, a test says when it is due.

Argo's `{{ }}` and Helm's collide, so the templates, identities, rights and admission policies go
into `helm/tiphys/files` as plain YAML with `@@NAME@@` where an installation decides; the chart
reads them with `.Files.Get` and only replaces those. A placeholder that stands alone as a value
may become any JSON; one inside a text becomes text.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tiphys.workflow_templates.boundary import BoundarySettings, boundary
from tiphys.workflow_templates.catalogue import every
from tiphys.workflow_templates.identities import access
from tiphys.workflow_templates.render import RenderSettings, cluster_role_bindings, manifests

FILES = Path(__file__).resolve().parent.parent / "helm" / "tiphys" / "files"
TEMPLATES = "templates"
"""A folder with one file for each: what left the catalogue stays there for a release, because a
Workflow that still runs fails when its template goes."""
NAMESPACE = "@@NAMESPACE@@"
"""A namespace that opted in; the file is filled in once for each."""
# Not validated: the placeholders are no key and no image, and the chart's schema checks the values.
SETTINGS = RenderSettings.model_construct(
    image="@@STEP_IMAGE@@",
    public_key="@@PUBLIC_KEY@@",
    namespace="@@ACTIONS_NAMESPACE@@",
    catalogue_namespace="@@SYSTEM_NAMESPACE@@",
    name_prefix="@@RELEASE@@",
    prometheus_url="@@PROMETHEUS_URL@@",
    image_pull_policy="@@PULL_POLICY@@",
    priority_class="@@PRIORITY_CLASS@@",
)
# Lists are CEL literals: the chart writes them so.
_USER = "system:serviceaccount:@@ARGO_NAMESPACE@@:@@ARGO_ACCOUNT@@"
BOUNDARY = BoundarySettings(
    images=("@@STEP_IMAGE@@", "@@EXECUTOR_IMAGE@@"),
    publisher_users="@@PUBLISHER_USERS@@",
    publisher_groups="@@PUBLISHER_GROUPS@@",
    launcher="@@LAUNCHER@@",
    gateway="@@GATEWAY@@",
    agents="@@AGENTS@@",
    controller=_USER,
    system_namespace=SETTINGS.catalogue_namespace,
    actions_namespace=SETTINGS.namespace,
    stop_namespace="@@STOP_NAMESPACE@@",
    argo_namespace="@@ARGO_NAMESPACE@@",
    name_prefix="@@RELEASE@@",
    node_actions="@@NODE_ACTIONS@@",
)
_HEADER = "# Rendered by `make chart`; do not edit.\n"

Manifest = dict[str, Any]


def files() -> Mapping[str, str]:
    """Give every file's name and text."""
    own = [_ours(one) for one in manifests(SETTINGS)]
    opted_in = [
        _ours(one) for action in every() for one in access(action, NAMESPACE, SETTINGS.namespace)
    ]
    found: dict[str, list[Manifest]] = {
        "access.yaml": opted_in,
        "boundary.yaml": [_ours(one) for one in boundary(BOUNDARY)],
        "cluster-access.yaml": _wide(nodes=False),
        "node-access.yaml": _wide(nodes=True),
    }
    for one in own:
        found.setdefault(_file(one), []).append(one)
    return {name: _text(objects) for name, objects in found.items()}


def _wide(*, nodes: bool) -> list[Manifest]:
    return [_ours(one) for one in cluster_role_bindings(SETTINGS, nodes=nodes)]


def _file(manifest: Manifest) -> str:
    if manifest["kind"] == "WorkflowTemplate":
        return f"{TEMPLATES}/{manifest['metadata']['name']}.yaml"
    return "catalogue.yaml" if manifest["kind"] == "ConfigMap" else "identities.yaml"


def _ours(manifest: Any) -> Manifest:
    """Mark as ours; leave to the values what they decide."""
    labels = {"app.kubernetes.io/part-of": "tiphys", **manifest["metadata"].get("labels", {})}
    found: Manifest = {**manifest, "metadata": {**manifest["metadata"], "labels": labels}}
    if found["kind"] == "ServiceAccount":
        found["imagePullSecrets"] = "@@PULL_SECRETS@@"
    if found["kind"] == "WorkflowTemplate":
        found["spec"] = {**found["spec"], "tolerations": "@@TOLERATIONS@@"}
    return found


class _Dumper(yaml.SafeDumper):
    """Writes an expression around a placeholder as a block, where lists may stand unescaped."""


def _string(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "@@" in text and " " in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _string)


def _text(objects: list[Manifest]) -> str:
    """Write the objects; a string that is nothing but a placeholder comes out in quotes."""
    return _HEADER + yaml.dump_all(
        objects, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True
    )


def main() -> int:
    """Write the files that changed and name them."""
    for name, text in files().items():
        path = FILES / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            sys.stdout.write(f"wrote {name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
