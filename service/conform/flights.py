"""Workflows on their way in a world: published, submitted, looked at, disturbed."""

import secrets
from collections.abc import Sequence
from typing import Any

from tiphys.service.argo import INSTANCE
from tiphys.service.conform.wire import Json, UnexpectedAnswerError, place
from tiphys.service.conform.worlds import World

GROUP = "argoproj.io/v1alpha1"
WORKFLOW = (GROUP, "Workflow")
POD = ("v1", "Pod")
ENDED = {"Succeeded", "Failed", "Error"}
WORKFLOW_LABEL = "workflows.argoproj.io/workflow"
NODE_NAME = "workflows.argoproj.io/node-name"


def publish(world: World, *made: Json) -> None:
    """Create templates, and wait until Argo's controller knows of the last.

    A Workflow that comes sooner ends in an error: the controller looks into its own cache alone.
    """
    world.install(*made)
    world.until("Argo knows of its template", lambda: _is_known(world, made[-1]))


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
        if not found:
            raise LookupError(f"no node {shown}: {self.brief()}")
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

        def look() -> list[Json]:
            return list(filter(speaks, self.pods()))

        return self.world.until(f"{self.name}: {step} runs", look)[0]

    def delete_pod(self, pod: Json, *, force: bool) -> None:
        """Delete a pod of ours, gracefully or by force."""
        meta = pod["metadata"]
        path = place(*POD, meta["namespace"], meta["name"])
        answer = self.world.wire.delete(path, force=force)
        if answer.status != 200:
            raise UnexpectedAnswerError(f"DELETE {path}: {answer.status} {answer.message}")

    def stop(self, how: str = "Stop") -> None:
        """Set `spec.shutdown`."""
        self.world.wire.patch(self.path, {"spec": {"shutdown": how}})

    def ended(self) -> Json:
        """Wait for the end; gives the Workflow's status."""

        def over(_: object) -> bool:
            return self.workflow().get("status", {}).get("phase") in ENDED

        self.world.until(f"{self.name} has ended", self.brief, over)
        return self.workflow()["status"]
