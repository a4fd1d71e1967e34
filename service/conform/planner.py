"""Plans an action in a process of its own, with the code that its steps run.

`python -m tiphys.service.conform.planner` reads worlds as JSON and says of each what is planned.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tiphys.service.errors import WorldRefusedError
from tiphys.workflow_templates.action import NotApplicableError
from tiphys.workflow_templates.catalogue import find

Json = dict[str, Any]
Related = dict[str, list[Json]]
Edit = Callable[[Json, Related], None]
"""Changes what was read of a target, and of the kinds that planning reads beside it."""
_SECONDS = 120


class PlannerError(WorldRefusedError):
    """The planner did not answer."""


def ask(action: str, parameters: Mapping[str, Any], worlds: Sequence[Json]) -> Sequence[str]:
    """Say of each world why it is not planned there, or an empty string where it is."""
    given = {"action": action, "parameters": dict(parameters), "worlds": [*worlds]}
    done = subprocess.run(
        [sys.executable, "-m", "tiphys.service.conform.planner"],
        env={k: v for k, v in os.environ.items() if k == "PATH" or k.startswith("PYTHON")},
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=False,
        timeout=_SECONDS,
    )
    if done.returncode:
        raise PlannerError(f"the planner ended: {done.stderr[-500:]}")
    return json.loads(done.stdout)


def main() -> int:
    """Read from stdin, answer on stdout."""
    given: Json = json.load(sys.stdin)
    action = find(given["action"])
    typed = action.parameters.model_validate(given["parameters"])
    said: list[str] = []
    for world in given["worlds"]:
        try:
            action.changes(world["target"], world["related"], typed)
        except NotApplicableError as error:
            said.append(str(error))
        else:
            said.append("")
    sys.stdout.write(json.dumps(said))
    return 0


if __name__ == "__main__":
    sys.exit(main())
