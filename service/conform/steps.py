"""One step at a time, as the action's own identity and without Argo.

So a step can be run twice, at once, much later, or without one of its rights; which Argo cannot be
asked for. It is the same program with the same environment as in its pod, in a process here.
"""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tiphys.policies.model import Plan
from tiphys.policies.plan import digest, encode, workflow_name
from tiphys.service.conform.runs import settings
from tiphys.service.conform.worlds import World
from tiphys.service.database import stamp
from tiphys.service.errors import WorldRefusedError
from tiphys.workflow_templates.action import Result, StepName
from tiphys.workflow_templates.catalogue import find, template_name
from tiphys.workflow_templates.identities import account_name
from tiphys.workflow_templates.render import RenderSettings, manifests
from tiphys.workflow_templates.signature import sign

_PROGRAM = (sys.executable, "-m", "tiphys.workflow_templates.run_step")


class SilentStepError(WorldRefusedError):
    """A step ended without a report."""


@dataclass(frozen=True)
class Said:
    """A step's report."""

    result: Result
    message: str
    observed: Mapping[str, Any]


@dataclass(frozen=True)
class Steps:
    """The steps of one plan in one world."""

    world: World
    plan: Plan
    seconds: float = 600
    """Until `notAfter`; less than 0: it has passed."""
    share: float = 1.0
    """Of verify's deadline."""
    account: str = ""
    """Whose ServiceAccount runs them; empty: the action's."""
    key: Ed25519PrivateKey | None = None
    """Whose signature; None: the launcher's."""
    url: str = ""
    """Where the steps find the API server; empty: where it is."""
    other: Mapping[str, str] = field(default_factory=dict[str, str])
    """Variables that are otherwise than the template gives them."""
    folder: Path = field(init=False)

    def __post_init__(self) -> None:
        folder = self.world.folder / f"step-{secrets.token_hex(6)}"
        folder.mkdir(mode=0o700)
        object.__setattr__(self, "folder", folder)
        account = self.account or account_name(find(self.plan.action))
        (folder / "token").write_text(self.world.token(self.world.actions, account))
        if ca := self.world.wire.ca_file:
            (folder / "ca.crt").write_bytes(Path(ca).read_bytes())

    def run(self, step: StepName) -> Said:
        """Run one step to its end."""
        return self.at_once(step)[0]

    def at_once(self, *steps: StepName) -> list[Said]:
        """Run several at the same time; gives what each said."""
        environment = self._environment()
        begun = [
            subprocess.Popen(  # noqa: S603  our own program, in an environment made here
                [*_PROGRAM, step],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for step in steps
        ]
        limit = self.world.step_seconds
        return [_said(step, one, limit) for step, one in zip(steps, begun, strict=True)]

    def _environment(self) -> dict[str, str]:
        moment = datetime.now(UTC) + timedelta(seconds=self.seconds)
        not_after = stamp(moment)  # As the launcher writes it.
        given = {
            "{{workflow.name}}": workflow_name(self.plan),
            "{{workflow.parameters.plan}}": encode(self.plan),
            "{{workflow.parameters.notAfter}}": not_after,
            "{{workflow.parameters.signature}}": sign(
                self.key or self.world.key, digest(self.plan), not_after
            ),
            "{{workflow.parameters.target}}": self.plan.target.uid,
            "{{workflow.parameters.node}}": self.plan.target.name,
        }
        chosen = settings(self.world, self.share).model_dump_json()
        return {
            **{k: v for k, v in os.environ.items() if k == "PATH" or k.startswith("PYTHON")},
            **{k: given.get(v, v) for k, v in _variables(chosen, self.plan.action)},
            "TIPHYS_KUBERNETES_URL": self.url or self.world.wire.url,
            "TIPHYS_SERVICE_ACCOUNT_DIR": str(self.folder),
            "TIPHYS_OUTCOME_FILE": str(self.folder / "outcome"),
            "TIPHYS_TERMINATION_LOG": str(self.folder / "termination"),
            **self.other,
        }


@cache
def _variables(chosen: str, action: str) -> Sequence[tuple[str, str]]:
    """Read from the rendered template what its containers are given."""
    wanted = template_name(find(action))
    every = cast("list[dict[str, Any]]", manifests(RenderSettings.model_validate_json(chosen)))
    [made] = [
        one
        for one in every
        if one["kind"] == "WorkflowTemplate" and one["metadata"]["name"] == wanted
    ]
    [back] = [t for t in made["spec"]["templates"] if t["name"] == "rollback"]
    return [(item["name"], item["value"]) for item in back["container"]["env"]]


def _said(step: StepName, process: "subprocess.Popen[str]", limit: float) -> Said:
    try:
        out, err = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired as late:
        process.kill()
        process.communicate()
        raise SilentStepError(f"{step} did not end within {limit:g} s") from late
    try:
        report = json.loads(out)
        return Said(Result(report["result"]), report["message"], report["observed"])
    except (ValueError, KeyError) as error:
        raise SilentStepError(f"{step} exited with {process.returncode}: {err[-500:]}") from error
