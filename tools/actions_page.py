"""docs/actions.md from what enforces it: `make golden` writes it, a test says when it is due.

What an action refuses is what the kit proves that it refuses; what admission lets it write is said
by the guards themselves; who heals with it, and where it would be wrong, by the scenarios.
"""

import ast
import inspect
import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tiphys.sandbox import scenario
from tiphys.sandbox.scenario import End
from tiphys.service.conform.every import every_property
from tiphys.service.conform.properties import Property
from tiphys.service.conform.trial import Trial
from tiphys.service.conform.trials import TRIALS, module_of
from tiphys.workflow_templates.action import Action, Parameters, Right, Scope
from tiphys.workflow_templates.catalogue import every, template_name
from tiphys.workflow_templates.fenced import LONGEST_HOLD
from tiphys.workflow_templates.identities import access

PAGE = Path(__file__).resolve().parent.parent / "docs" / "actions.md"
_REFUSES, _WITHOUT = "refuses: ", "fails cleanly without "
_HEAD = """\
# The actions

What is not here does not exist. Written by `make golden` from the catalogue, the guards, the trials
of the kit and the scenarios; a test says when it is due. [write-an-action.md](write-an-action.md)
adds one, [boundary.md](boundary.md) says what else the API server holds every action to, and
[conformance.md](conformance.md) what the kit does.

| action | works on | can be put back | proven |
|---|---|---|---|
"""
_EVERY = """
## Every action

- It has a ServiceAccount of its own, `act-<action>`, with the rights below and {events},
  by which a run claims its target, in namespaces that opted in. Rights in the whole cluster are
  granted only where the chart's `nodeActions.enabled` is set, which it is not out of the box.
- It acts only with a plan that the launcher signed, on the object of the plan's uid, until the
  plan's `notAfter`, and once: a step that runs again finds this run's mark or claim.
- Deadlines are seconds for the step itself. verify has the plan's settle and hold times beside its
  own; a rollback watches what it put back for as long as the plan's hold time, at most {hold} s.

The kit proves of each:

"""


def page() -> str:
    """Give the whole text."""
    actions = every()
    rows = "".join(_row(action) for action in actions)
    shared = _shared()
    proven = "".join(f"- {name}\n" for name in (*shared, f"{_killed(actions[0])}"))
    every_one = _EVERY.format(events=_events(actions[0]), hold=LONGEST_HOLD)
    parts = [f"{_HEAD}{rows}{every_one}{proven}"]
    return "\n".join([*parts, *(_section(action, shared) for action in actions)])


def _killed(action: Action) -> str:
    killings = [one for one in _proven(action) if one.kills]
    when = f"killed in {len(killings)} ways, before, in and after each step"
    return f"{when}, it ends verified or put back"


def _row(action: Action) -> str:
    kinds = ", ".join(kind for _, kind in action.kinds)
    back = "yes" if action.reversible else "no"
    return f"| [{action.name}](#{action.name}) | {kinds} | {back} | {len(_proven(action))} |\n"


def _section(action: Action, shared: Sequence[str]) -> str:
    kinds = ", ".join(f"{kind} (`{version}`)" for version, kind in action.kinds)
    module = Path(inspect.getfile(type(action))).name
    lines = [
        f"## {action.name}\n",
        f"{action.summary} `{template_name(action)}`, in `workflow_templates/{module}`.\n",
        f"- **Works on:** {kinds}.",
        f"- **Risk:** {_said(type(action).risk)}",
        f"- **Verify:** {_said(type(action).verify)}",
        f"- **{'Undone' if action.reversible else 'Irreversible'}:** {action.undo}",
        f"- **Deadlines:** {', '.join(f'{k} {v} s' for k, v in asdict(action.deadlines).items())}.",
        f"- **Rights:** {'; '.join(rights(action.rights))}.",
        *_scenarios(action),
    ]
    blocks = ("\n".join(lines), _parameters(action), _refusals(action), _admission(action))
    return "\n\n".join([*filter(None, blocks), _proof(action, shared)]) + "\n"


def _trial(action: Action) -> Trial:
    if action.name not in TRIALS:
        raise SystemExit(f"{action.name} has no trial yet: write {module_of(action.name)}")
    return TRIALS[action.name]


def _said(step: Any) -> str:
    return (inspect.getdoc(step) or "").partition("\n")[0]


def rights(of: Sequence[Right]) -> Iterator[str]:
    """Say each rule, and where it counts beyond the target's namespace."""
    for right in of:
        where = "/".join(filter(None, (right.api_group, right.resource)))
        wide = " in the whole cluster" if right.scope is Scope.CLUSTER else ""
        yield f"{', '.join(right.verbs)} `{where}`{wide}"


def _events(action: Action) -> str:
    """Give what the Role of each action has beside the rights that the action declares."""
    role: dict[str, Any] = next(one for one in access(action, "a", "b") if one["kind"] == "Role")
    granted = (Right(*r["apiGroups"], *r["resources"], verbs=(*r["verbs"],)) for r in role["rules"])
    return "; ".join(rights([right for right in granted if right not in action.rights]))


# --- parameters -----------------------------------------------------------------------------------


def _parameters(action: Action) -> str:
    schema = action.parameters.model_json_schema()
    if not (fields := schema.get("properties", {})):
        return "It takes no parameters: the target says it all."
    told = words(action.parameters)
    rows = ["| parameter | takes | default | |", "|---|---|---|---|"]
    for name, found in fields.items():
        default = f"`{json.dumps(found['default'])}`" if "default" in found else "none: required"
        rows.append(f"| `{name}` | {taken(found)} | {default} | {told.get(name, '')} |")
    return "\n".join(rows)


_BOUNDS = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "exclusiveMinimum": "more than {}",
    "exclusiveMaximum": "less than {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "pattern": "as `{}`",
    "enum": "one of {}",
    "const": "{}",
}


def taken(schema: dict[str, Any]) -> str:
    """Say in words what a JSON schema lets in; what these words do not cover comes as it is."""
    left = {k: v for k, v in schema.items() if k not in {"title", "default", "description"}}
    parts = [str(left.pop("type"))] if "type" in left else []
    for key in sorted(left.keys() & _BOUNDS, key=[*_BOUNDS].index):
        value = left.pop(key)
        told = ", ".join(map(str, value)) if isinstance(value, list) else value
        parts.append(_BOUNDS[key].format(told))
    parts += [f"`{json.dumps(left)}`"] if left else []
    return ", ".join(parts).replace("|", "\\|")


def words(parameters: type[Parameters]) -> dict[str, str]:
    """Give the sentence below each field in the source."""
    (found,) = ast.parse(textwrap.dedent(inspect.getsource(parameters))).body
    assert isinstance(found, ast.ClassDef)
    told: dict[str, str] = {}
    for field, below in zip(found.body, found.body[1:], strict=False):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            told[field.target.id] = " ".join(str(below.value.value).split())
    return told


# --- what keeps it in bounds ----------------------------------------------------------------------


def _refusals(action: Action) -> str:
    trial = _trial(action)
    found = "\n".join(f"- {name}" for name in trial.violations)
    told = (
        f"It looks first, and does nothing, with a reason, where since the plan was made\n\n{found}"
    )
    if not trial.unplannable:
        return told
    never = "\n".join(f"- {name}" for name in trial.unplannable)
    return f"{told}\n\nIt is not even planned where\n\n{never}"


def _admission(action: Action) -> str:
    """Give the guards' own messages, those of equal resources together."""
    resources: dict[str, list[str]] = {}
    for guard in action.guards:
        resources.setdefault(guard.resource.removeprefix("/"), []).append(guard.message)
    together: dict[tuple[str, ...], list[str]] = {}
    for resource, messages in resources.items():
        together.setdefault(tuple(messages), []).append(f"`{resource}`")
    lines = [
        f"The API server refuses every write of {' or '.join(names)} unless\n\n"
        + "\n".join(f"- {message}" for message in messages)
        for messages, names in together.items()
    ]
    return "\n\n".join(lines)


# --- where it is shown, and what is proven --------------------------------------------------------

_ENDS = {
    End.HEALED: "heals",
    End.ROLLED_BACK: "does not help and is put back in",
    End.FROZEN: "does not help and cannot be put back in",
    End.AWAITING_APPROVAL: "waits for a person in",
}


def _scenarios(action: Action) -> Iterator[str]:
    found = [scenario.find(name) for name in scenario.names()]
    told = [
        f"{verb} {', '.join(names)}"
        for end, verb in _ENDS.items()
        if (
            names := [
                f"`{one.name}`"
                for one in found
                if (one.expect.action, one.expect.end) == (action.name, end)
            ]
        )
    ]
    if told:
        yield f"- **In the scenarios:** it {'; it '.join(told)}."
    if wrong := [f"`{one.name}`" for one in found if action.name in one.expect.harmful]:
        yield f"- **It would be wrong in:** {', '.join(wrong)}."


def _proven(action: Action) -> Sequence[Property]:
    return [*every_property(_trial(action))]


def _shared() -> Sequence[str]:
    """Give what is proven of every action, in the table's order, without its killings."""
    every_one = [[one.name for one in _proven(action)] for action in every()]
    first = [one.name for one in _proven(every()[0]) if not one.kills]
    return [name for name in first if all(name in names for names in every_one)]


def _proof(action: Action, shared: Sequence[str]) -> str:
    found = _proven(action)
    names = [one.name for one in found if not one.kills and one.name not in shared]
    own = "".join(f" {name};" for name in names if not name.startswith((_REFUSES, _WITHOUT)))
    verbs = sum(name.startswith(_WITHOUT) for name in names)
    return (
        f"`tiphys conform {action.name}` proves {len(found)} properties: those of every action;"
        f"{own} each of these refusals; that it fails cleanly without each of its {verbs} verbs."
    )


def main() -> None:
    """Write the page."""
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
