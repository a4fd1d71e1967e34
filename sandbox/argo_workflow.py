"""One look at one Workflow: from its status and its pods to its next status, as Argo's controller.

Restartable: everything it knows is in the Workflow and the pod objects. Invariants: the exit
handler runs after every end but `shutdown: Terminate`; a pod object that vanished without grace is
made again and runs from its beginning; one that is being deleted fails its node.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from tiphys.sandbox.argo_pods import failure, pod_of, told
from tiphys.sandbox.argo_terms import (
    COMPLETED,
    TemplateError,
    final_codes,
    holds,
    instant,
    node_id,
    parameters,
    pod_name,
    seconds,
    stamp,
    substitute,
)
from tiphys.sandbox.step_pods import (
    DEADLINE,
    SIGNAL_ANNOTATION,
    StepPods,
)
from tiphys.sandbox.store import ApiError, Store

CONTROLLER = "system:serviceaccount:tiphys-argo:argo"
MANAGER = "workflow-controller"
REQUEUE_SECONDS = 1.0
_TOO_LATE = "Step exceeded its deadline"
_PHASES = {0: "Succeeded", 64: "Error"}
"""A container's phase by its exit code; 64 is the executor's own."""

Json = dict[str, Any]


class WorkflowPass:
    """One reconciliation of `workflow`, which is changed in place; the caller writes it."""

    def __init__(
        self, store: Store, pods: StepPods, workflow: Json, spec: Json, deleted: set[str]
    ) -> None:
        self._store = store
        self._pods = pods
        self._wf = workflow
        self._spec = spec
        self._deleted = deleted
        """Uids of pods whose graceful deletion was seen."""
        self._name: str = workflow["metadata"]["name"]
        self._namespace: str = workflow["metadata"]["namespace"]
        self._status: Json = workflow["status"]
        self._nodes: Json = self._status.setdefault("nodes", {})
        self._stop_message: str | None = None
        self._deadline: datetime | None = None
        """When the running part of the Workflow must have ended."""
        self.wake_at: datetime | None = None
        """When time alone changes something."""

    def advance(self) -> bool:
        """Go as far as possible; True when the Workflow has ended. Raises `TemplateError`."""
        arguments = self._spec.get("arguments", {}).get("parameters")
        scope = {
            "workflow.name": self._name,
            "workflow.namespace": self._namespace,
            "workflow.uid": self._wf["metadata"]["uid"],
            "workflow.serviceAccountName": self._spec.get("serviceAccountName", "default"),
            **{
                f"workflow.parameters.{key}": value
                for key, value in parameters(arguments, None, "workflow.parameters").items()
            },
        }
        shutdown = self._spec.get("shutdown", "")
        self._stop_message = self._why_stop(shutdown)
        main = self._run(self._name, self._spec["entrypoint"], arguments, scope)
        if main["phase"] not in COMPLETED:
            return False
        final = main
        if self._spec.get("onExit") and shutdown != "Terminate":
            self._stop_message = self._deadline = None
            scope |= {"workflow.status": main["phase"], **self._global_outputs()}
            done = self._run(f"{self._name}.onExit", self._spec["onExit"], arguments, scope)
            if done["phase"] not in COMPLETED:
                return False
            final = done if done["phase"] in ("Failed", "Error") else main
        message = f"Stopped with strategy '{shutdown}'" if shutdown else final.get("message", "")
        self.finish(final["phase"], message)
        return True

    def finish(self, phase: str, message: str) -> None:
        """Write the Workflow's end."""
        self._status |= {"phase": phase, "finishedAt": stamp()}
        if message:
            self._status["message"] = message

    def _why_stop(self, shutdown: str) -> str | None:
        if shutdown:
            return f"workflow shutdown with strategy:  {shutdown}"
        limit = seconds(self._spec.get("activeDeadlineSeconds"))
        if limit is not None:
            self._deadline = instant(self._status["startedAt"]) + timedelta(seconds=limit)
        return _TOO_LATE if self._over(self._status["startedAt"], limit) else None

    def _over(self, started: str, limit: float | None) -> bool:
        """Say whether a time limit has passed; else remember when to look again."""
        if limit is None:
            return False
        end = instant(started) + timedelta(seconds=limit)
        if datetime.now(UTC) >= end:
            return True
        self.wake_at = min(self.wake_at or end, end)
        return False

    def _global_outputs(self) -> dict[str, str]:
        outputs = self._status.get("outputs", {}).get("parameters", [])
        return {f"workflow.outputs.parameters.{item['name']}": item["value"] for item in outputs}

    # --- templates ------------------------------------------------------------------------------

    def _run(self, name: str, template_name: str, given: Any, scope: dict[str, str]) -> Json:
        node = self._nodes.get(node_id(self._name, name))
        if node is not None and node["phase"] in COMPLETED:
            return node
        template = next((t for t in self._spec["templates"] if t["name"] == template_name), None)
        if template is None:
            raise TemplateError(f"template name '{template_name}' undefined")
        inputs = parameters(
            template.get("inputs", {}).get("parameters"), given, "inputs.parameters"
        )
        own = {**scope, **{f"inputs.parameters.{key}": value for key, value in inputs.items()}}
        if "steps" in template:
            return self._steps(name, template, own)
        if "containerSet" in template or "container" in template:
            made = substitute(template, own)
            return self._retry(name, made) if "retryStrategy" in made else self._pod(name, made)
        raise TemplateError(f"the sandbox cannot run template '{template_name}'")

    def _node(self, name: str, kind: str, template: str = "") -> Json:
        """Give the node of that name, made when it is new."""
        key = node_id(self._name, name)
        if key not in self._nodes:
            shown = name.rsplit(".", 1)[-1] if name != self._name else name
            shown = f"[{name.rsplit('[', 1)[1]}" if kind == "StepGroup" else shown
            shown = name if name == f"{self._name}.onExit" else shown
            self._nodes[key] = {
                "id": key,
                "name": name,
                "displayName": shown,
                "type": kind,
                "phase": "Pending" if kind in ("Pod", "Container") else "Running",
                "startedAt": stamp(),
            }
            if template:
                self._nodes[key]["templateName"] = template
        return self._nodes[key]

    @staticmethod
    def _end(node: Json, phase: str, message: str = "") -> Json:
        node |= {"phase": phase, "finishedAt": stamp()}
        if message:
            node["message"] = message
        return node

    def _steps(self, name: str, template: Json, scope: dict[str, str]) -> Json:
        node = self._node(name, "Steps", template["name"])
        node["children"] = []
        for index, group in enumerate(template["steps"]):
            members = self._group(f"{name}[{index}]", node, group, scope)
            if any(member["phase"] not in COMPLETED for member in members):
                return node
            bad = [member for member in members if member["phase"] in ("Failed", "Error")]
            if bad:
                why = f"child '{bad[0]['id']}' failed"
                self._end(self._node(f"{name}[{index}]", "StepGroup"), "Failed", why)
                return self._end(node, bad[0]["phase"], why)
            self._end(self._node(f"{name}[{index}]", "StepGroup"), "Succeeded")
        return self._end(node, "Succeeded")

    def _group(
        self, name: str, parent: Json, group: list[Json], scope: dict[str, str]
    ) -> list[Json]:
        node = self._node(name, "StepGroup")
        parent["children"].append(node["id"])
        members: list[Json] = []
        for step in group:
            child_name = f"{name}.{step['name']}"
            if not holds(step.get("when", ""), scope):
                child = self._node(child_name, "Skipped", step["template"])
                shown = substitute(step["when"], scope)
                child = self._end(child, "Skipped", f"when '{shown}' evaluated false")
            else:
                given = substitute(step.get("arguments", {}).get("parameters", []), scope)
                child = self._run(child_name, step["template"], given, scope)
            members.append(child)
            prefix = f"steps.{step['name']}"
            scope[f"{prefix}.status"] = child["phase"]
            for item in child.get("outputs", {}).get("parameters", []):
                scope[f"{prefix}.outputs.parameters.{item['name']}"] = item["value"]
        node["children"] = [member["id"] for member in members]
        return members

    # --- pods -----------------------------------------------------------------------------------

    def _retry(self, name: str, template: Json) -> Json:
        """Try a template until it succeeds, its exit code is final or no tries are left."""
        strategy, node = template["retryStrategy"], self._node(name, "Retry", template["name"])
        node["children"] = []
        for attempt in range(int(strategy["limit"]) + 1):
            if attempt and not self._waited(node, strategy.get("backoff", {}), attempt):
                return node
            known = self._nodes.get(node_id(self._name, f"{name}({attempt})"))
            if known is not None and known["phase"] in COMPLETED:
                child = known
            else:
                child = self._pod(f"{name}({attempt})", template)
            node["children"].append(child["id"])
            if child["phase"] not in COMPLETED:
                return node
            node["outputs"] = child.get("outputs", {})
            if child["phase"] == "Succeeded":
                return self._end(node, "Succeeded")
            if self._spec.get("shutdown"):
                return self._end(node, child["phase"], child.get("message", ""))
            code = int(node["outputs"].get("exitCode", -1))
            if code in final_codes(strategy.get("expression", "")):
                why = "retryStrategy.expression evaluated to false"
                return self._end(node, child["phase"], why)
        return self._end(node, "Failed", "No more retries left")

    def _waited(self, node: Json, backoff: Json, attempt: int) -> bool:
        """Say whether it is time for another attempt; else remember when."""
        before = self._nodes[node["children"][-1]]
        wait = (seconds(backoff.get("duration")) or 0.0) * int(backoff.get("factor", 1)) ** (
            attempt - 1
        )
        return self._over(before["finishedAt"], wait)

    def _pod(self, name: str, template: Json) -> Json:
        node = self._node(name, "Pod", template["name"])
        pod = self._find_pod(pod_name(self._name, template["name"], name))
        if pod is None and node.get("podUID") in self._deleted:
            return self._end_pod(node, template, "Failed", "pod deleted")
        if pod is None and self._stop_message:
            return self._end_pod(node, template, "Failed", self._stop_message)
        if pod is None:
            pod = self._create_pod(node, template)
        if pod is None:
            return node
        node["podUID"] = pod["metadata"]["uid"]
        if node["podUID"] in self._deleted or pod["metadata"].get("deletionTimestamp"):
            return self._end_pod(node, template, "Failed", "pod deleted")
        self._containers(node, template, pod)
        return self._judge(node, template, pod)

    def _judge(self, node: Json, template: Json, pod: Json) -> Json:
        phase = pod.get("status", {}).get("phase", "Pending")
        late = self._over(node["startedAt"], seconds(template.get("timeout")))
        stop = self._stop_message or (_TOO_LATE if late else None)
        if phase not in ("Succeeded", "Failed"):
            return self._await_end(node, template, pod, stop)
        if phase == "Succeeded":
            return self._end_pod(node, template, phase, "")
        message = pod["status"].get("message") or failure(pod) or stop or ""
        return self._end_pod(node, template, phase, message)

    def _await_end(self, node: Json, template: Json, pod: Json, stop: str | None) -> Json:
        """Note what a pod that has not ended is at, and end it when it is to be stopped."""
        node["phase"] = pod.get("status", {}).get("phase", "Pending")
        refused = [c for c in pod.get("status", {}).get("conditions") or [] if c.get("message")]
        node.pop("message", None)
        if node["phase"] == "Pending" and refused:
            node["message"] = f"{refused[0]['reason']}: {refused[0]['message']}"
        if stop and not pod["spec"].get("nodeName"):
            self._store.delete("Pod", self._namespace, pod["metadata"]["name"])
            return self._end_pod(node, template, "Failed", stop)
        if stop and not (stop == _TOO_LATE and pod["spec"].get("activeDeadlineSeconds")):
            self._annotate(pod, {SIGNAL_ANNOTATION: "terminate"})
        return node

    def _end_pod(self, node: Json, template: Json, phase: str, message: str) -> Json:
        """End a pod's node and those of its containers; outputs are read only now."""
        for key in node.get("children", []):
            child = self._nodes[key]
            if child["phase"] not in COMPLETED:
                self._end(child, "Failed", message)
        outputs: Json = dict(node.get("outputs", {}))
        found: list[Json] = []
        for item in template.get("outputs", {}).get("parameters", []):
            source = item.get("valueFrom", {})
            value = self._pods.outcome(node.get("podUID", ""), source.get("path", ""))
            value = source.get("default") if value is None else value.strip()
            if value is None:
                continue
            found.append({"name": item["name"], "value": value, "valueFrom": source})
            if item.get("globalName"):
                self._export(item["globalName"], value)
        if found:
            outputs["parameters"] = found
        if outputs:
            node["outputs"] = outputs
        return self._end(node, phase, message)

    def _export(self, name: str, value: str) -> None:
        listed = self._status.setdefault("outputs", {}).setdefault("parameters", [])
        listed[:] = [item for item in listed if item["name"] != name]
        listed.append({"name": name, "value": value})

    def _containers(self, node: Json, template: Json, pod: Json) -> None:
        """Give each container of a containerSet a node of its own."""
        reported: list[Json] = pod.get("status", {}).get("containerStatuses", [])
        statuses: Json = {status["name"]: status["state"] for status in reported}
        listed = template.get("containerSet", {}).get("containers", [])
        if state := statuses.get("main", {}).get("terminated"):
            # A pod has one exit code, of its `main`; the nodes of its containers have none.
            node["outputs"] = {"exitCode": str(state["exitCode"])}
        node["children"] = []
        for container in listed:
            name = container["name"]
            child = self._node(f"{node['name']}.{name}", "Container", template["name"])
            node["children"].append(child["id"])
            state = statuses.get(name, {})
            if "terminated" not in state:
                # A pod that was made again starts its containers from the beginning.
                child.pop("finishedAt", None)
                child["phase"] = "Running" if "running" in state else "Pending"
                continue
            ended = state["terminated"]
            child |= {"startedAt": ended["startedAt"], "finishedAt": ended["finishedAt"]}
            child["phase"] = _PHASES.get(ended["exitCode"], "Failed")
            if text := told(ended):
                child["message"] = f"{name}: {text}"
        if pod.get("status", {}).get("reason") == DEADLINE:
            # Nobody was there any more to tell how its containers had ended.
            for key in node["children"]:
                self._end(self._nodes[key], "Failed", "Pod Failed whilst container running")

    def _find_pod(self, name: str) -> Json | None:
        return self._store.find("Pod", self._namespace, name)

    def _annotate(self, pod: Json, annotations: dict[str, str]) -> None:
        if SIGNAL_ANNOTATION in pod["metadata"].get("annotations", {}):
            return
        pod["metadata"].setdefault("annotations", {}).update(annotations)
        self._store.update(pod, manager=MANAGER)

    def _create_pod(self, node: Json, template: Json) -> Json | None:
        pod = pod_of(self._wf, self._spec, template, node["name"], self._deadline)
        try:
            return self._store.create(pod, manager=MANAGER)
        except ApiError as error:
            # A full quota leaves the node Pending until there is room, whatever its deadline.
            node["message"] = error.message
            again = datetime.now(UTC) + timedelta(seconds=REQUEUE_SECONDS)
            self.wake_at = min(self.wake_at or again, again)
            return None
