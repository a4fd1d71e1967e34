"""Entry point inside the pod: one step of one action, `tiphys-step precheck|act|verify|rollback`.

Invariants: everything comes from the environment; nothing is done for a plan that is not this
Workflow's, not signed by the launcher or not for this template's action; nothing begins after
`notAfter`; the output is one JSON line of the report and never holds a secret.
"""

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from tiphys.policies.model import Plan
from tiphys.policies.plan import PlanUnreadableError, decode, digest, short_digest, workflow_name
from tiphys.workflow_templates.action import EXIT_CODES, Action, Report, Result, Run, StepName
from tiphys.workflow_templates.catalogue import UnknownActionError, find, template_name
from tiphys.workflow_templates.cluster import Cluster, ClusterError, Connection
from tiphys.workflow_templates.metrics import Metrics
from tiphys.workflow_templates.signature import ForgedError, verify
from tiphys.workflow_templates.verification import LONGEST_WATCH

SENTENCE = 300
"""Characters of the termination message."""


class RefusedError(Exception):
    """This step may not run here; the message says why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the step named on the command line and exit by `EXIT_CODES`."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    environment = dict(os.environ)
    try:
        step = StepName(words[0]) if len(words) == 1 else None
    except ValueError:
        step = None
    if step is None:
        report = Report(Result.CRASHED, f"usage: tiphys-step {'|'.join(StepName)}", {})
    else:
        report = run(step, environment)
    _tell(report, step, environment)
    return EXIT_CODES[report.result]


def run(step: StepName, environment: Mapping[str, str]) -> Report:
    """Run one step; whatever goes wrong becomes a report."""
    try:
        action, given = _given(environment)
        return perform(step, action, given)
    except RefusedError as error:
        return Report(Result.REFUSED, str(error), {})
    except ClusterError as error:
        return Report(Result.CRASHED, f"{step}: {error}", {})
    except Exception as error:
        # The message of an unforeseen error may hold anything; its place does not.
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        return Report(Result.CRASHED, f"{step}: {type(error).__name__} at {where}", {})


def perform(step: StepName, action: Action, given: Run) -> Report:
    """Run one step; after `notAfter` nothing begins, but what this run did goes on to be verified.

    This wall stands before every action, careful or not.
    """
    if step in {StepName.PRECHECK, StepName.ACT} and given.now() >= given.not_after:
        seen = action.precheck(given)
        if seen.result in {Result.ALREADY_DONE, Result.REFUSED}:
            return seen
        return Report(Result.REFUSED, "notAfter has passed", {})
    return getattr(action, step.value)(given)


def _given(environment: Mapping[str, str]) -> tuple[Action, Run]:
    """Check the plan against everything that vouches for it; raises `RefusedError`."""

    def need(name: str) -> str:
        value = environment.get(name, "")
        if not value:
            raise RefusedError(f"{name} is not set")
        return value

    try:
        plan = decode(need("TIPHYS_PLAN"))
        verify(
            need("TIPHYS_PUBLIC_KEY"),
            digest(plan),
            need("TIPHYS_NOT_AFTER"),
            need("TIPHYS_SIGNATURE"),
        )
        action = find(plan.action)
        action.parameters.model_validate(plan.parameters)
        not_after = datetime.fromisoformat(need("TIPHYS_NOT_AFTER"))
    except (PlanUnreadableError, ForgedError, UnknownActionError) as error:
        raise RefusedError(str(error)) from error
    except ValidationError as error:
        raise RefusedError("the plan's parameters do not fit the action") from error
    except ValueError as error:
        raise RefusedError("notAfter is not a time") from error
    if not_after.tzinfo is None:
        raise RefusedError("notAfter has no time zone")
    _match(plan, action, need)
    prometheus = environment.get("TIPHYS_PROMETHEUS_URL", "")
    mark = short_digest(plan)
    return action, Run(
        plan=plan,
        digest=mark,
        not_after=not_after,
        cluster=Cluster(Connection.of_pod(environment), mark),
        metrics=Metrics(prometheus) if prometheus else None,
        now=lambda: datetime.now(UTC),
        sleep=time.sleep,
        verify_share=float(environment.get("TIPHYS_VERIFY_SHARE") or 1.0),
    )


def _match(plan: Plan, action: Action, need: Callable[[str], str]) -> None:
    target = plan.target
    if need("TIPHYS_WORKFLOW") != workflow_name(plan):
        raise RefusedError("this Workflow is not the plan's")
    if need("TIPHYS_TARGET") != target.uid:
        raise RefusedError("the mutex is not on the plan's target")
    if not need("TIPHYS_ACTION") == template_name(action) == f"{plan.action}-v{plan.version}":
        raise RefusedError("the plan is for another action or version than this template")
    on_node = (target.api_version, target.kind) == ("v1", "Node")
    if (target.api_version, target.kind) not in action.kinds or bool(target.namespace) is on_node:
        raise RefusedError(f"{action.name} does not work on a {target.kind}")
    if on_node and need("TIPHYS_NODE") != target.name:
        raise RefusedError("this pod is kept off another node than the plan's")
    if not plan.changes:
        raise RefusedError("the plan changes nothing")
    if plan.undoes and not action.reversible:
        raise RefusedError(f"{action.name} cannot be undone")
    if plan.check.settle_seconds + plan.check.hold_seconds > LONGEST_WATCH:
        raise RefusedError("the plan asks to watch for longer than this template allows")


def _tell(report: Report, step: StepName | None, environment: Mapping[str, str]) -> None:
    line = json.dumps(
        {
            "step": step,
            "result": report.result,
            "message": report.message,
            "observed": report.observed,
        },
        default=str,
    )
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
    for name, text in (
        ("TIPHYS_OUTCOME_FILE", line),
        ("TIPHYS_TERMINATION_LOG", f"{report.result}: {report.message}"[:SENTENCE]),
    ):
        if path := environment.get(name):
            try:
                Path(path).write_text(text)
            except OSError as error:
                sys.stderr.write(f"{name}: {error.strerror}\n")


if __name__ == "__main__":
    sys.exit(main())
