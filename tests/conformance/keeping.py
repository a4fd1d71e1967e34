"""Workflows as real Argo left them, kept so that a unit test can read them without a cluster.

`TIPHYS_GOLDEN=write` with a real cluster writes tests/data/argo/workflows anew. Nothing of the
cluster they came from stays in them: no names, uids, plans or templates.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

from tiphys.service.conform.wire import Json
from tiphys.service.outcomes import outcome, view

FOLDER = Path(__file__).parents[1] / "data" / "argo" / "workflows"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SPACE = re.compile(r"conformance-[0-9a-f]{8}")
_DIGEST = re.compile(r"tiphys-[a-z2-7]{40}")
_NO_UID = "00000000-0000-0000-0000-000000000000"
_STATUS = ("finishedAt", "message", "nodes", "outputs", "phase", "progress", "startedAt")
_LEFT_OUT = ("hostNodeName", "resourcesDuration", "templateScope")


def keep(workflow: Json, label: str) -> None:
    """Write a Workflow down under a name, with what the service makes of it."""
    if os.environ.get("TIPHYS_GOLDEN") != "write":
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    kept = _scrubbed(workflow)
    seen = view(kept)
    said = {
        "outcome": outcome(seen)[0] if seen.ended else None,
        "steps": {step.step: step.result for step in seen.steps},
        "workflow": kept,
    }
    (FOLDER / f"{label}.json").write_text(json.dumps(said, indent=1, sort_keys=True) + "\n")


def _scrubbed(workflow: Json) -> Json:
    status = {key: workflow["status"][key] for key in _STATUS if key in workflow["status"]}
    status["nodes"] = {
        key: {name: value for name, value in node.items() if name not in _LEFT_OUT}
        for key, node in (status.get("nodes") or {}).items()
    }
    spec = {key: value for key, value in workflow["spec"].items() if key != "arguments"}
    meta = {key: workflow["metadata"].get(key) for key in ("labels", "name", "namespace")}
    kept: dict[str, Any] = {"metadata": meta, "spec": spec, "status": status}
    text = json.dumps(kept).replace(workflow["metadata"]["namespace"], "tiphys-actions")
    text = _SPACE.sub("shop", _UUID.sub(_NO_UID, text))
    return json.loads(_DIGEST.sub(f"tiphys-{'a' * 40}", text))
