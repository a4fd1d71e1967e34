"""From a Workflow's status to what its steps said and how the run ended; pure.

Source: Argo Workflows, `WorkflowStatus.nodes`. A containerSet's outputs stand on its pod's node and
come from its container named `main`, which is therefore our verify step.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

from tiphys.policies.model import Json, Object, Outcome
from tiphys.workflow_templates.action import EXIT_CODES, Result, StepName

_CONTAINERS = {
    "precheck": StepName.PRECHECK,
    "act": StepName.ACT,
    "main": StepName.VERIFY,
    "rollback": StepName.ROLLBACK,
}
_ENDED = {"Succeeded", "Failed", "Error"}
_BY_EXIT = {code: result for result, code in EXIT_CODES.items() if code}


@dataclass(frozen=True)
class StepView:
    """One step as Argo shows it."""

    step: StepName
    phase: str
    result: Result | None
    """What the step said of itself, where it could."""
    message: str
    started_at: str | None
    finished_at: str | None

    def as_json(self) -> Json:
        """Give it for the record."""
        return cast(Json, asdict(self))


@dataclass(frozen=True)
class RunView:
    """A Workflow as far as it has come."""

    phase: str
    message: str
    steps: tuple[StepView, ...]

    @property
    def ended(self) -> bool:
        """Whether Argo is done with it, exit handler included."""
        return self.phase in _ENDED

    def result(self, step: StepName) -> Result | None:
        """What a step said, None if it did not run or could not say."""
        return next((s.result for s in self.steps if s.step is step), None)

    def ran(self, step: StepName) -> bool:
        """Whether a step was started."""
        return any(s.step is step and s.started_at for s in self.steps)


def view(workflow: Object) -> RunView:
    """Read a Workflow object; one that is not shaped as Argo's has not ended, for all we know."""
    try:
        return _read(workflow)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return RunView("unreadable", f"{type(error).__name__}: {error}", ())


def _read(workflow: Object) -> RunView:
    status = cast("dict[str, Any]", workflow.get("status") or {})
    nodes = cast("dict[str, dict[str, Any]]", status.get("nodes") or {})
    verified = _verified(nodes.values())
    steps = [_step(node, verified) for node in nodes.values() if _is_step(node)]
    order = list(StepName)
    return RunView(
        phase=str(status.get("phase") or "Pending"),
        message=str(status.get("message") or ""),
        steps=tuple(sorted(steps, key=lambda s: order.index(s.step))),
    )


def _is_step(node: Mapping[str, Any]) -> bool:
    name = node.get("displayName")
    if node.get("type") == "Container":
        return name in _CONTAINERS
    return node.get("type") == "Pod" and node.get("templateName") == "rollback"


def _verified(nodes: Iterable[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Give what verify reported, from the node of the pod that it ran in."""
    pods = (n for n in nodes if n.get("type") == "Pod" and n.get("templateName") != "rollback")
    return next((report for pod in pods if (report := _report(pod))), {})


def _step(node: Mapping[str, Any], verified: Mapping[str, Any]) -> StepView:
    container = node.get("type") == "Container"
    name = str(node["displayName"]) if container else "rollback"
    report = verified if name == "main" else {} if container else _report(node)
    message = str(report.get("message") or node.get("message") or "")
    return StepView(
        step=_CONTAINERS[name],
        phase=str(node.get("phase") or ""),
        result=_result(_CONTAINERS[name], node, report),
        message=message,
        started_at=node.get("startedAt"),
        finished_at=node.get("finishedAt"),
    )


def _report(node: Mapping[str, Any]) -> dict[str, Any]:
    outputs = node.get("outputs") or {}
    for parameter in outputs.get("parameters") or []:
        if parameter.get("name") == "outcome":
            try:
                found = json.loads(parameter.get("value") or "{}")
            except ValueError:
                return {}
            return cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    return {}


def _result(step: StepName, node: Mapping[str, Any], report: Mapping[str, Any]) -> Result | None:
    said = report.get("result")
    if said in set(Result):
        return Result(said)
    code = str((node.get("outputs") or {}).get("exitCode") or "")
    if code.isdigit() and int(code) in _BY_EXIT:
        return _BY_EXIT[int(code)]
    if node.get("phase") == "Succeeded" and step is StepName.PRECHECK:
        return Result.AS_PLANNED
    if node.get("phase") == "Succeeded" and step is StepName.ACT:
        return Result.ACTED
    return None


def outcome(run: RunView) -> tuple[Outcome, str]:
    """Judge an ended run; what cannot be told for certain is UNKNOWN."""
    rollback = run.result(StepName.ROLLBACK)
    if run.phase == "Succeeded":
        return _of_success(run.result(StepName.VERIFY))
    if rollback is Result.UNDONE:
        return Outcome.ROLLED_BACK, "verifying failed; the plan's values are back and hold"
    if rollback is Result.NOTHING_CHANGED:
        return Outcome.REFUSED, _words(run, StepName.PRECHECK, "nothing was changed")
    if rollback is Result.NOTHING_TO_RESTORE:
        return Outcome.INEFFECTIVE, "it did not help, and such an act has nothing to put back"
    if rollback in {Result.NOT_OURS, Result.NOT_UNDONE}:
        return Outcome.ROLLBACK_FAILED, _words(run, StepName.ROLLBACK, "rollback did not hold")
    return Outcome.UNKNOWN, f"the run ended {run.phase} ({run.message}) and its rollback is silent"


def _of_success(verified: Result | None) -> tuple[Outcome, str]:
    if verified is Result.VERIFIED:
        return Outcome.VERIFIED, "the alert's expression stayed false for the hold time"
    if verified is Result.UNKNOWABLE:
        return Outcome.UNKNOWN, "whether it helped cannot be told; the change is kept"
    return Outcome.UNKNOWN, "the run succeeded but verify did not say so"


def _words(run: RunView, step: StepName, default: str) -> str:
    return next((s.message for s in run.steps if s.step is step and s.message), default)
