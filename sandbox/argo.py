"""An Argo Workflows controller for exactly the shapes that our templates use.

Watches Workflows in `tiphys-actions`, resolves their WorkflowTemplate once (one that is deleted
later does not matter, as with `templateReferencing: Strict`), serialises by mutex and writes status
as Argo 4.0 does. What it must do, and what a real one was seen to do: docs/scenarios.md.
Cancelling `run` is a controller killed; the pods go on, and a new `run` continues from status but
has forgotten who held which mutex, as was seen live.
"""

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tiphys.sandbox.argo_terms import COMPLETED, TemplateError, parameters, stamp, substitute
from tiphys.sandbox.argo_workflow import CONTROLLER, MANAGER, WorkflowPass
from tiphys.sandbox.rbac import Tokens
from tiphys.sandbox.step_pods import WORKFLOW_LABEL, StepPods
from tiphys.sandbox.store import Store

NAMESPACE = "tiphys-actions"
STEP_MODULE = "tiphys.workflow_templates.run_step"
PHASE_LABEL = "workflows.argoproj.io/phase"
COMPLETED_LABEL = "workflows.argoproj.io/completed"

Json = dict[str, Any]


class Argo:
    """The controller and, in `pods`, the node that its pods run on."""

    def __init__(
        self,
        store: Store,
        tokens: Tokens,
        api_url: str,
        python_command: Sequence[str] = (sys.executable, "-m", STEP_MODULE),
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
    ) -> None:
        """`environment` is added to every step's; pods live in a new folder of `directory`."""
        self._store = store
        given = environment or {}
        self.pods = StepPods(store, tokens, api_url, python_command, given, directory)
        self._due: set[str] = set()
        self._wake = asyncio.Event()
        self._timers: dict[str, datetime] = {}
        self._locks: dict[str, str] = {}
        self._deleted: set[str] = set()

    async def run(self) -> None:
        """Control until cancelled."""
        self._locks, self._timers, self._deleted = {}, {}, set()
        self._due = {wf["metadata"]["name"] for wf in self._store.list("Workflow", NAMESPACE)}
        self._wake.set()
        unsubscribe = self._store.subscribe(self._note)
        try:
            while True:
                await self._next()
                due, self._due = self._due, set()
                for name in sorted(due):
                    self._reconcile(name)
        finally:
            unsubscribe()

    async def close(self) -> None:
        """Kill the step processes; call it after `run` was cancelled."""
        await self.pods.close()

    def _note(self, _event: str, obj: Json) -> None:
        meta = obj["metadata"]
        if meta.get("namespace") != NAMESPACE:
            return
        if obj["kind"] == "Workflow":
            self._due.add(meta["name"])
        elif obj["kind"] == "Pod" and WORKFLOW_LABEL in meta.get("labels", {}):
            if meta.get("deletionTimestamp"):
                self._deleted.add(meta["uid"])
            self._due.add(meta["labels"][WORKFLOW_LABEL])
        else:
            return
        self._wake.set()

    async def _next(self) -> None:
        soonest = min(self._timers.values(), default=None)
        wait = None
        if soonest is not None:
            wait = max(0.05, (soonest - datetime.now(UTC)).total_seconds())
        try:
            async with asyncio.timeout(wait):
                await self._wake.wait()
        except TimeoutError:
            now = datetime.now(UTC)
            self._due |= {name for name, at in self._timers.items() if at <= now}
        self._wake.clear()

    def _reconcile(self, name: str) -> None:
        self._timers.pop(name, None)
        workflow = self._store.find("Workflow", NAMESPACE, name)
        if workflow is None:
            self._release(name)
            return
        status = workflow.setdefault("status", {})
        if status.get("phase") in COMPLETED:
            return
        before = json.dumps(workflow)
        try:
            self._advance(name, workflow)
        except TemplateError as error:
            status |= {"phase": "Error", "message": str(error), "finishedAt": stamp()}
        ended = status.get("phase") in COMPLETED
        if status.get("phase"):
            labels = workflow["metadata"].setdefault("labels", {})
            labels |= {PHASE_LABEL: status["phase"], COMPLETED_LABEL: str(ended).lower()}
        if json.dumps(workflow) != before:
            self._store.update(workflow, manager=MANAGER, user=CONTROLLER)
        self._collect(workflow, ended)
        if ended:
            self._release(name)

    def _advance(self, name: str, workflow: Json) -> None:
        status = workflow["status"]
        if "storedWorkflowTemplateSpec" not in status:
            status["storedWorkflowTemplateSpec"] = self._resolve(workflow)
        spec = {**status["storedWorkflowTemplateSpec"]}
        if workflow["spec"].get("shutdown"):
            spec["shutdown"] = workflow["spec"]["shutdown"]
        if status.get("phase", "Pending") == "Pending":
            waiting = self._acquire(name, spec)
            if waiting:
                status |= {"phase": "Pending", "message": waiting}
                return
            status.pop("message", None)
            status |= {"phase": "Running", "startedAt": stamp()}
        if workflow["spec"].get("suspend"):
            return
        look = WorkflowPass(self._store, self.pods, workflow, spec, self._deleted)
        look.advance()
        if look.wake_at is not None:
            self._timers[name] = look.wake_at

    def _resolve(self, workflow: Json) -> Json:
        """Join the template's spec with the Workflow's own; raises `TemplateError`."""
        wanted = workflow["spec"].get("workflowTemplateRef", {}).get("name", "")
        template = self._store.find("WorkflowTemplate", NAMESPACE, wanted)
        if template is None:
            raise TemplateError(f'workflowtemplates.argoproj.io "{wanted}" not found')
        spec: Json = template["spec"]
        declared = spec.get("arguments", {}).get("parameters", [])
        given = workflow["spec"].get("arguments", {}).get("parameters", [])
        bound = parameters(declared, given, "spec.arguments")
        spec["arguments"] = {"parameters": [{"name": k, "value": v} for k, v in bound.items()]}
        return spec

    # --- mutexes --------------------------------------------------------------------------------

    def _acquire(self, name: str, spec: Json) -> str:
        """Take all mutexes or none; gives the reason to wait, or an empty string."""
        scope = {
            f"workflow.parameters.{item['name']}": item["value"]
            for item in spec["arguments"]["parameters"]
        }
        wanted = [
            str(substitute(mutex["name"], scope))
            for mutex in spec.get("synchronization", {}).get("mutexes", [])
        ]
        for mutex in wanted:
            holder = self._locks.get(mutex, name)
            if holder != name:
                key = f"{NAMESPACE}/Mutex/{mutex}"
                return f"Waiting for {key} lock. Lock status: 0/1"
        self._locks |= dict.fromkeys(wanted, name)
        return ""

    def _release(self, name: str) -> None:
        held = [mutex for mutex, holder in self._locks.items() if holder == name]
        for mutex in held:
            del self._locks[mutex]
        if held:
            self._due |= {wf["metadata"]["name"] for wf in self._store.list("Workflow", NAMESPACE)}
            self._wake.set()

    # --- pods that have ended -------------------------------------------------------------------

    def _collect(self, workflow: Json, ended: bool) -> None:
        """Delete pods as podGC says; their tokens die with them."""
        spec = workflow["status"].get("storedWorkflowTemplateSpec", {})
        strategy = spec.get("podGC", {}).get("strategy", "")
        name = workflow["metadata"]["name"]
        completed = {
            node.get("podUID")
            for node in workflow["status"].get("nodes", {}).values()
            if node["phase"] in COMPLETED
        }
        for pod in self._store.list("Pod", NAMESPACE, f"{WORKFLOW_LABEL}={name}"):
            over = pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
            seen = over and pod["metadata"]["uid"] in completed
            due = seen if strategy.startswith("OnPod") else ended and bool(strategy)
            if due and not pod["metadata"].get("deletionTimestamp"):
                self._store.delete("Pod", NAMESPACE, pod["metadata"]["name"])
