"""WorkflowTemplates of the shape that ours have, with steps that do as a variable tells them."""

import secrets
from collections.abc import Sequence
from typing import Any

from wire import Json, place
from worlds import World, rule

from tiphys.service.argo import INSTANCE

GROUP = "argoproj.io/v1alpha1"
WORKFLOW, TEMPLATE = (GROUP, "Workflow"), (GROUP, "WorkflowTemplate")
POD = ("v1", "Pod")
ACCOUNT = "act-probe"
ENDED = {"Succeeded", "Failed", "Error"}
WORKFLOW_LABEL = "workflows.argoproj.io/workflow"
NODE_NAME = "workflows.argoproj.io/node-name"
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


def publish(world: World, *made: Json) -> None:
    """Create templates, and wait until Argo's controller knows of the last.

    A Workflow that comes sooner ends in an error: the controller looks into its own cache alone.
    """
    world.install(*made)
    known = world.until("Argo knows of its template", lambda: _is_known(world, made[-1]))
    assert known


def _is_known(world: World, made: Json) -> bool:
    """Ask with a Workflow that runs nothing."""
    given = made["spec"].get("arguments", {}).get("parameters") or []
    flight = submit(world, made["metadata"]["name"], suspend=True, names=[p["name"] for p in given])
    phase = world.until(
        f"{flight.name} was looked at",
        lambda: flight.workflow().get("status", {}).get("phase"),
    )
    world.wire.delete(flight.path)
    return phase != "Error"


def launch(world: World, made: Json, target: str = "") -> "Flight":
    """Publish a template and create a Workflow of it."""
    reports = rule("argoproj.io", "workflowtaskresults", "create", "patch")
    world.identity(world.actions, ACCOUNT, reports)
    publish(world, made)
    return submit(world, made["metadata"]["name"], target)


def submit(
    world: World,
    template_name: str,
    target: str = "",
    *,
    names: Sequence[str] = ("plan", "target"),
    **spec: Any,
) -> "Flight":
    """Create a Workflow of a published template; what it is given means nothing."""
    name = f"probe-{secrets.token_hex(5)}"
    values = {**dict.fromkeys(names, "cGxhbg"), "target": target or name}
    meta = {"name": name, "namespace": world.actions, "labels": {INSTANCE: "tiphys"}}
    world.wire.create(
        {
            "apiVersion": GROUP,
            "kind": "Workflow",
            "metadata": meta,
            "spec": {
                "workflowTemplateRef": {"name": template_name},
                "arguments": {"parameters": [{"name": k, "value": v} for k, v in values.items()]},
                **spec,
            },
        }
    )
    return Flight(world, name)


class Flight:
    """One Workflow on its way."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.path = place(*WORKFLOW, world.actions, name)

    def workflow(self) -> Json:
        return self.world.wire.get(self.path)

    def nodes(self) -> list[Json]:
        return list((self.workflow().get("status", {}).get("nodes") or {}).values())

    def brief(self) -> list[tuple[str, str, str]]:
        """Give each node's type, name and phase: what is said when a wait was in vain."""
        return [(n["type"], n["displayName"], n["phase"]) for n in self.nodes()]

    def node(self, shown: str, *kinds: str) -> Json:
        """Give the node of that name; of those types, where several bear it."""
        found = [
            n
            for n in self.nodes()
            if n["displayName"] == shown and n["type"] in (kinds or {n["type"]})
        ]
        assert found, f"no node {shown}: {self.brief()}"
        return found[-1]

    def pods(self) -> list[Json]:
        wire = self.world.wire
        selector = f"{WORKFLOW_LABEL}={self.name}"
        return wire.items(place(*POD, self.world.actions), labelSelector=selector)

    def until_running(self, step: str) -> Json:
        """Wait until a step really runs; gives its pod.

        Before that, a real container is up and waits in Argo's executor for its dependencies.
        """
        container = "main" if step in {"verify", "rollback"} else step

        def speaks(pod: Json) -> bool:
            meta = pod["metadata"]
            of_rollback = "rollback" in meta["annotations"][NODE_NAME]
            if of_rollback is not (step == "rollback") or "deletionTimestamp" in meta:
                return False
            path = place(*POD, meta["namespace"], meta["name"]) + "/log"
            answer = self.world.wire.ask("GET", path, container=container)
            return answer.status == 200 and "begins" in answer.body

        def look() -> Json | None:
            return next(filter(speaks, self.pods()), None)

        found = self.world.until(f"{self.name}: {step} runs", look)
        assert found is not None
        return found

    def delete_pod(self, pod: Json, *, force: bool) -> None:
        """Delete a pod of ours, gracefully or by force."""
        meta = pod["metadata"]
        path = place(*POD, meta["namespace"], meta["name"])
        answer = self.world.wire.delete(path, force=force)
        assert answer.status == 200, answer

    def stop(self, how: str = "Stop") -> None:
        """Set `spec.shutdown`."""
        self.world.wire.patch(self.path, {"spec": {"shutdown": how}})

    def ended(self) -> Json:
        """Wait for the end; gives the Workflow's status."""

        def over(_: object) -> bool:
            return self.workflow().get("status", {}).get("phase") in ENDED

        self.world.until(f"{self.name} has ended", self.brief, over)
        return self.workflow()["status"]


def outcome_of(node: Json) -> str | None:
    """Read a node's output parameter."""
    listed = (node.get("outputs") or {}).get("parameters") or []
    return next((p.get("value") for p in listed if p["name"] == "outcome"), None)
