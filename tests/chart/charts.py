"""What the chart's tests share: where it is, how its values are written, how objects are found."""

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

CHART = Path(__file__).parents[2] / "helm" / "tiphys"
MODES = ("split", "single", "full")
"""The files in the chart's `ci` folder."""

Objects = Sequence[dict[str, Any]]
Helm = Callable[..., subprocess.CompletedProcess[str]]
Render = Callable[..., Objects]


def values(mode: str, changes: Mapping[str, Any] | None = None) -> list[str]:
    """Name the values' files; what is changed comes on standard input."""
    files = ["-f", str(CHART / "ci" / f"{mode}-values.yaml")]
    return [*files, "-f", "-"] if changes else files


def as_values(changes: Mapping[str, Any] | None) -> str:
    """Write `a.b.c` as nested values; JSON is YAML."""
    found: dict[str, Any] = {}
    for path, value in (changes or {}).items():
        *parents, last = path.split(".")
        place = found
        for name in parents:
            place = place.setdefault(name, {})
        place[last] = value
    return json.dumps(found)


def one(objects: Objects, kind: str, name: str, namespace: str | None = None) -> dict[str, Any]:
    """Give the only object of that kind and name."""
    found = [
        thing
        for thing in objects
        if thing["kind"] == kind
        and thing["metadata"]["name"] == name
        and namespace in {None, thing["metadata"].get("namespace")}
    ]
    assert len(found) == 1, f"{len(found)} {kind} {name}"
    return found[0]


def pods(objects: Objects) -> dict[str, dict[str, Any]]:
    """Give every pod's spec that the chart starts, by the name of what starts it."""
    return {
        thing["metadata"]["name"]: thing["spec"]
        if thing["kind"] == "Pod"
        else thing["spec"]["template"]["spec"]
        for thing in objects
        if thing["kind"] in {"Deployment", "StatefulSet", "Job", "Pod"}
    }
