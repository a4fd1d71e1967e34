"""From a Workflow's status to what its steps said and how the run ended; pure.

Source: Argo Workflows, `WorkflowStatus.nodes`, as 4.0.2 was seen to write it (tests/data/argo). A
containerSet's outputs and exit code stand on its pod's node and come from its container named
`main`, which is therefore our verify step; the nodes of its containers carry a message alone.
"""

import json
import re
from collections.abc import Mapping
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
_MESSAGE = re.compile(
    r"(?:[\w-]+: )?Error \(exit code (?P<code>\d+)\)(?:: (?P<words>.*))?", re.DOTALL
)
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
    # A rollback that failed was tried again: its last attempt is the one that counts.
    in_time = sorted(nodes.values(), key=lambda n: (str(n.get("startedAt")), str(n.get("name"))))
    reports = dict(filter(None, map(_report, in_time)))
    steps: dict[StepName, StepView] = {}
    for node in in_time:
        if step := _step(node):
            own = dict(filter(None, [_report(node)])) if step is StepName.ROLLBACK else reports
            steps[step] = _view(step, node, own)
    return RunView(
        phase=str(status.get("phase") or "Pending"),
        message=str(status.get("message") or ""),
        steps=tuple(steps[step] for step in StepName if step in steps),
    )


def _step(node: Mapping[str, Any]) -> StepName | None:
    if node.get("type") == "Container":
        return _CONTAINERS.get(str(node.get("displayName")))
    back = node.get("type") == "Pod" and node.get("templateName") == "rollback"
    return StepName.ROLLBACK if back else None


def _view(
    step: StepName, node: Mapping[str, Any], reports: Mapping[str, Mapping[str, Any]]
) -> StepView:
    report, told = reports.get(step, {}), _told(str(node.get("message") or ""))
    return StepView(
        step=step,
        phase=str(node.get("phase") or ""),
        result=_result(step, node, report, told),
        message=str(report.get("message") or told.words),
        started_at=node.get("startedAt"),
        finished_at=node.get("finishedAt"),
    )


def _report(node: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """Give the report that a pod's outputs hold, and whose it is.

    The steps of one pod write to one file, so it is the last one's: verify's, or that of the step
    after which no other came.
    """
    if node.get("type") != "Pod":
        return None
    outputs = node.get("outputs") or {}
    for parameter in outputs.get("parameters") or []:
        if parameter.get("name") == "outcome":
            try:
                found: Any = json.loads(parameter.get("value") or "{}")
            except ValueError:
                return None
            if not isinstance(found, dict):
                return None
            report = cast("dict[str, Any]", found)
            step = str(report.get("step"))
            # A pod speaks for its own steps alone.
            ours = (step == StepName.ROLLBACK) is (node.get("templateName") == "rollback")
            return (step, report) if ours else None
    return None


@dataclass(frozen=True)
class _Told:
    """What Argo's message about a container says."""

    code: str
    result: str
    words: str


def _told(message: str) -> _Told:
    """Read `act: Error (exit code 3): refused: why`, which ends in the step's termination message.

    A container that succeeds has no message; other messages are Argo's own.
    """
    match = _MESSAGE.match(message)
    if match is None:
        return _Told("", "", message)
    result, _, words = (match["words"] or "").partition(": ")
    if result not in set(Result):
        return _Told(match["code"], "", match["words"] or message)
    return _Told(match["code"], result, words)


def _result(
    step: StepName, node: Mapping[str, Any], report: Mapping[str, Any], told: _Told
) -> Result | None:
    for said in (report.get("result"), told.result):
        if said in set(Result):
            return Result(said)
    code = told.code or str((node.get("outputs") or {}).get("exitCode") or "")
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
        refusals = [s.message for s in run.steps if s.result is Result.REFUSED and s.message]
        return Outcome.REFUSED, next(iter(refusals), "nothing was changed")
    if rollback is Result.NOTHING_TO_RESTORE:
        return Outcome.INEFFECTIVE, "it did not help, and such an act has nothing to put back"
    if rollback in {Result.NOT_OURS, Result.NOT_UNDONE}:
        words = [s.message for s in run.steps if s.step is StepName.ROLLBACK and s.message]
        return Outcome.ROLLBACK_FAILED, next(iter(words), "rollback did not hold")
    return Outcome.UNKNOWN, f"the run ended {run.phase} ({run.message}) and its rollback is silent"


def _of_success(verified: Result | None) -> tuple[Outcome, str]:
    if verified is Result.VERIFIED:
        return Outcome.VERIFIED, "it is well, and stayed so for the hold time"
    if verified is Result.UNKNOWABLE:
        return Outcome.UNKNOWN, "whether it helped cannot be told; the change is kept"
    return Outcome.UNKNOWN, "the run succeeded but verify did not say so"
