"""WorkflowTemplates of the shape that ours have, with steps that do as a variable tells them."""

from typing import Any

from tiphys.service.conform.flights import GROUP, Flight, publish, submit
from tiphys.service.conform.wire import Json
from tiphys.service.conform.worlds import World, rule

ACCOUNT = "act-probe"
LONG = "100"
"""Seconds: longer than a test waits for anything."""
_OUTCOME = "/tmp/tiphys/outcome"
_SCRIPT = """
said="said by $STEP"
if [ "$STEP" = rollback ]; then said="$said, told $STATUS and ($EXPORTED)"; fi
printf '%s' "$said" > "$TIPHYS_OUTCOME_FILE"
printf '%s' "words of $STEP" > "$TIPHYS_TERMINATION_LOG"
echo begins
if [ "$STEP" = "$SLOW" ]; then sleep "$LONG"; fi
if [ "$STEP" = "$KILLED" ]; then python3 -c 'import os; os.kill(os.getppid(), 9)'; sleep 9; fi
case " $FAILS " in *" $STEP "*) exit 4;; esac
"""


def _container(world: World, step: str, told: Json) -> Json:
    variables = {
        "STEP": step,
        "TIPHYS_OUTCOME_FILE": _OUTCOME,
        "TIPHYS_TERMINATION_LOG": "/dev/termination-log",
        "LONG": LONG,
        "SLOW": "none",
        "KILLED": "none",
        "FAILS": "none",
        **told,
    }
    return {
        "name": "main" if step == "verify" else step,
        "image": world.plain_image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c"],
        "args": [_SCRIPT],
        "env": [{"name": name, "value": value} for name, value in variables.items()],
    }


def template(world: World, name: str, rollback: Json | None = None, **told: Any) -> Json:
    """Give a template; capital letters go to the steps, the rest into its spec.

    `rollback`: what else the rollback's template says.
    """
    steps = {key: value for key, value in told.items() if key.isupper()}
    spec = {key: value for key, value in told.items() if not key.isupper()}
    outcome = {"name": "outcome", "valueFrom": {"path": _OUTCOME, "default": ""}}
    mounts = [{"name": "work", "mountPath": "/tmp/tiphys"}]
    volumes = [{"name": "work", "emptyDir": {}}]
    precheck, act, verify = (_container(world, s, steps) for s in ("precheck", "act", "verify"))
    act["dependencies"], verify["dependencies"] = ["precheck"], ["act"]
    status = {"STATUS": "{{workflow.status}}", "EXPORTED": "{{workflow.outputs.parameters.told}}"}
    back = _container(world, "rollback", {**steps, **status})
    del back["name"]
    unless_done = {
        "name": "rollback",
        "template": "rollback",
        "when": "{{workflow.status}} != Succeeded",
    }
    return {
        "apiVersion": GROUP,
        "kind": "WorkflowTemplate",
        "metadata": {"name": name, "namespace": world.actions},
        "spec": {
            "entrypoint": "steps",
            "onExit": "exit",
            "serviceAccountName": ACCOUNT,
            "automountServiceAccountToken": True,
            "arguments": {"parameters": [{"name": "plan"}, {"name": "target"}]},
            "podGC": {"strategy": "OnWorkflowCompletion"},
            "templates": [
                {"name": "steps", "steps": [[{"name": "run", "template": "run"}]]},
                {
                    "name": "run",
                    "containerSet": {
                        "containers": [precheck, act, verify],
                        "volumeMounts": mounts,
                    },
                    "outputs": {"parameters": [{**outcome, "globalName": "told"}]},
                    "volumes": volumes,
                },
                {"name": "exit", "steps": [[unless_done]]},
                {
                    "name": "rollback",
                    "container": {**back, "volumeMounts": mounts},
                    "outputs": {"parameters": [outcome]},
                    "volumes": volumes,
                    **(rollback or {}),
                },
            ],
            **spec,
        },
    }


def launch(world: World, made: Json, target: str = "") -> "Flight":
    """Publish a template and create a Workflow of it."""
    reports = rule("argoproj.io", "workflowtaskresults", "create", "patch")
    world.identity(world.actions, ACCOUNT, reports)
    publish(world, made)
    return submit(world, made["metadata"]["name"], target)


def outcome_of(node: Json) -> str | None:
    """Read a node's output parameter."""
    listed = (node.get("outputs") or {}).get("parameters") or []
    return next((p.get("value") for p in listed if p["name"] == "outcome"), None)
