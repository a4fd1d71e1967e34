"""The node under the Workflows' pods: runs every step as a real process with only its own token.

It outlives the Argo controller, as a kubelet does. Invariants: a step sees nothing of our
environment but PATH and PYTHON*; a token dies with its pod; no process outlives its pod or `close`.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tiphys.sandbox.argo_terms import stamp
from tiphys.sandbox.logs import Logs
from tiphys.sandbox.rbac import Tokens
from tiphys.sandbox.scheduler import choose
from tiphys.sandbox.store import ApiError, Store

WORKFLOW_LABEL = "workflows.argoproj.io/workflow"
TEMPLATE_ANNOTATION = "workflows.argoproj.io/template"
SIGNAL_ANNOTATION = "workflows.argoproj.io/execution"
"""Set by the controller on a pod whose processes are to end."""
OUTPUT_FOLDER = "/tmp/tiphys"  # noqa: S108  a path inside the step's image, not of this machine
STEP_COMMAND = "tiphys-step"
DEADLINE = "DeadlineExceeded"
GRACE_SECONDS = 2.0
_NODE = "node"
"""Where pods run in a cluster that has no Node objects."""
MAX_MESSAGE = 4096
"""Bytes of a termination message, as the kubelet cuts it."""

Json = dict[str, Any]


@dataclass
class _Box:
    """One pod on this node."""

    pod: Json
    place: Path
    token: str
    statuses: dict[str, Json] = field(default_factory=dict[str, Json])
    codes: dict[str, "asyncio.Future[int]"] = field(
        default_factory=dict[str, "asyncio.Future[int]"]
    )
    processes: dict[str, asyncio.subprocess.Process] = field(
        default_factory=dict[str, asyncio.subprocess.Process]
    )
    task: "asyncio.Task[None] | None" = None

    def folder(self, container: Json) -> Path:
        """Give the container's output folder: its own, unless a volume is mounted there."""
        mounted = [mount["mountPath"] for mount in container.get("volumeMounts") or []]
        return self.place / ("out" if OUTPUT_FOLDER in mounted else f"out-{container['name']}")


class StepPods:
    """All pods that bear a Workflow's label."""

    def __init__(
        self,
        store: Store,
        tokens: Tokens,
        api_url: str,
        python_command: Sequence[str],
        environment: Mapping[str, str],
        directory: Path | None = None,
    ) -> None:
        self._store = store
        self._tokens = tokens
        self._api_url = api_url
        self._python_command = list(python_command)
        self._environment = dict(environment)
        self._directory = Path(tempfile.mkdtemp(prefix="pods-", dir=directory))
        self.logs: Logs | None = None
        """Where the steps' output goes; None: nowhere."""
        self._room = asyncio.Event()
        """Set when a pod that no node took may be tried again."""
        self._boxes: dict[str, _Box] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._unsubscribe: Callable[[], None] | None = store.subscribe(self._note)

    def pids(self, workflow: str) -> list[int]:
        """List the living step processes of a Workflow."""
        return [
            process.pid
            for box in self._boxes.values()
            if box.pod["metadata"]["labels"][WORKFLOW_LABEL] == workflow
            for process in box.processes.values()
            if process.returncode is None
        ]

    def outcome(self, pod_uid: str, path: str) -> str | None:
        """Read an output file of the pod's `main` by its path in the image; None: not written."""
        box = self._boxes.get(pod_uid)
        main = [c for c in box.pod["spec"]["containers"] if c["name"] == "main"] if box else []
        if box is None or not main:
            return None
        file = Path(path.replace(OUTPUT_FOLDER, str(box.folder(main[0]))))
        return file.read_text() if file.is_file() else None

    def force_delete(self, workflow: str) -> None:
        """Delete the Workflow's pod objects without grace, as `kubectl delete --force` does."""
        for box in list(self._boxes.values()):
            meta = box.pod["metadata"]
            pod = self._store.find("Pod", meta["namespace"], meta["name"])
            if pod is None or meta["labels"][WORKFLOW_LABEL] != workflow:
                continue
            self._store.delete("Pod", meta["namespace"], meta["name"], grace=0)

    def kill(self, pod_uid: str, container: str) -> None:
        """Kill what runs in a container, as if the node had run out of memory."""
        box = self._boxes.get(pod_uid)
        process = box.processes.get(container) if box else None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    async def close(self) -> None:
        """Kill every process, wait for each, and leave no file behind; may be repeated."""
        if self._unsubscribe is None:
            return
        self._unsubscribe()
        self._unsubscribe = None
        boxes = list(self._boxes.values())
        for box in boxes:
            self._signal(box, signal.SIGKILL)
        tasks = [box.task for box in boxes if box.task is not None] + list(self._ending)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        shutil.rmtree(self._directory, ignore_errors=True)

    # --- what happens to pod objects ------------------------------------------------------------

    def _note(self, event: str, obj: Json) -> None:
        if obj["kind"] == "Node" or (obj["kind"] == "Pod" and event == "DELETED"):
            self._room.set()
        if obj["kind"] != "Pod" or WORKFLOW_LABEL not in obj["metadata"].get("labels", {}):
            return
        uid = obj["metadata"]["uid"]
        box = self._boxes.get(uid)
        if event == "ADDED":
            self._boxes[uid] = box = self._accept(obj)
            box.task = asyncio.get_running_loop().create_task(self._run(box))
        elif box is not None and event == "DELETED":
            self._evict(box)
        elif box is not None and obj["metadata"].get("deletionTimestamp"):
            self._spawn(self._terminate(box, release=True))
        elif box is not None and obj["metadata"].get("annotations", {}).get(SIGNAL_ANNOTATION):
            self._spawn(self._terminate(box, release=False))

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    def _accept(self, pod: Json) -> _Box:
        meta, spec = pod["metadata"], pod["spec"]
        token = self._tokens.service_account(meta["namespace"], spec["serviceAccountName"])
        box = _Box(pod, self._directory / meta["uid"], token)
        account = box.place / "serviceaccount"
        account.mkdir(parents=True, mode=0o700)
        for container in spec["containers"]:
            box.folder(container).mkdir(exist_ok=True)
        (account / "token").write_text(token)
        (account / "namespace").write_text(meta["namespace"])
        return box

    def _evict(self, box: _Box) -> None:
        """Forget a pod whose object is gone: no grace, the token dies at once."""
        self._tokens.revoke(box.token)
        self._signal(box, signal.SIGKILL)
        if box.task is not None:
            box.task.cancel()
            self._spawn(self._clear(box))

    async def _clear(self, box: _Box) -> None:
        if box.task is not None:
            await asyncio.gather(box.task, return_exceptions=True)
        self._boxes.pop(box.pod["metadata"]["uid"], None)
        shutil.rmtree(box.place, ignore_errors=True)

    async def _terminate(self, box: _Box, *, release: bool) -> None:
        """End the processes as a kubelet does, then let the object go when it is being deleted."""
        self._signal(box, signal.SIGTERM)
        if box.task is not None:
            await asyncio.wait([box.task], timeout=GRACE_SECONDS)
        self._signal(box, signal.SIGKILL)
        if box.task is not None:
            await asyncio.wait([box.task])
        if not release:
            return
        meta = box.pod["metadata"]
        with contextlib.suppress(ApiError):  # it may be gone, or be another of that name
            self._store.delete("Pod", meta["namespace"], meta["name"], uid=meta["uid"], grace=0)

    @staticmethod
    def _signal(box: _Box, number: signal.Signals) -> None:
        for process in box.processes.values():
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)

    # --- running a pod --------------------------------------------------------------------------

    async def _bind(self, box: _Box) -> bool:
        """Wait for a node; False when the pod object went first."""
        meta = box.pod["metadata"]
        while True:
            self._room.clear()
            pod = self._store.find("Pod", meta["namespace"], meta["name"])
            if pod is None or pod["metadata"]["uid"] != meta["uid"]:
                return False
            node, why = choose(self._store, pod) if self._store.list("Node") else (_NODE, "")
            if node:
                pod["spec"]["nodeName"] = node
                self._store.update(pod, manager="kube-scheduler")
                return True
            refused = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
            pod["status"] = {"phase": "Pending", "conditions": [{**refused, "message": why}]}
            self._store.update(pod, manager="kube-scheduler", subresource="status")
            await self._room.wait()

    async def _run(self, box: _Box) -> None:
        if not await self._bind(box):
            return
        containers: list[Json] = box.pod["spec"]["containers"]
        needs = _dependencies(box.pod)
        loop = asyncio.get_running_loop()
        box.codes = {container["name"]: loop.create_future() for container in containers}
        work = [self._container(box, item, needs.get(item["name"], [])) for item in containers]
        limit = box.pod["spec"].get("activeDeadlineSeconds")
        reason: Json = {}
        try:
            async with asyncio.timeout(limit):
                await asyncio.gather(*work)
        except TimeoutError:
            reason = {
                "reason": DEADLINE,
                "message": "Pod was active on the node longer than the specified deadline",
            }
        finally:
            await self._reap(box)
        good = not reason and all(
            status["state"].get("terminated", {}).get("exitCode") == 0
            for status in box.statuses.values()
        )
        self._report(box, "Succeeded" if good else "Failed", reason)

    async def _reap(self, box: _Box) -> None:
        self._signal(box, signal.SIGKILL)
        for process in box.processes.values():
            await process.wait()

    async def _container(self, box: _Box, container: Json, needs: list[str]) -> None:
        name: str = container["name"]
        for other in needs:
            code = await box.codes[other]
            if code != 0:
                message = f'dependency "{other}" exited with non-zero code: {code}'
                self._ended(box, container, 64, message)
                return
        started = stamp()
        log = box.place / f"termination-{name}"
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command(container),
                env=self._step_environment(box, container, log),
                cwd=box.place,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            self._ended(box, container, 64, f"failed to start command: {error}")
            return
        box.processes[name] = process
        box.statuses[name] = {"name": name, "state": {"running": {"startedAt": started}}}
        self._report(box, "Running")
        reading = asyncio.create_task(self._follow(box, name, process))
        try:
            code = await process.wait()
        finally:
            # A grandchild may hold the pipe open for ever.
            await asyncio.wait([reading], timeout=0.2)
            reading.cancel()
        message = log.read_bytes()[:MAX_MESSAGE].decode("utf-8", "replace") if log.exists() else ""
        self._ended(box, container, 128 - code if code < 0 else code, message, started)

    async def _follow(self, box: _Box, container: str, process: asyncio.subprocess.Process) -> None:
        """Take what a step prints, line by line."""
        assert process.stdout is not None
        while line := await process.stdout.readline():
            if self.logs is not None:
                text = line.decode("utf-8", "replace").rstrip("\n")
                self.logs.append(box.pod["metadata"]["uid"], container, text)

    def _ended(
        self, box: _Box, container: Json, code: int, message: str, started: str = ""
    ) -> None:
        name = container["name"]
        terminated: Json = {
            "exitCode": code,
            "reason": "Completed" if code == 0 else "Error",
            "startedAt": started or stamp(),
            "finishedAt": stamp(),
        }
        if message:
            terminated["message"] = message
        box.statuses[name] = {"name": name, "state": {"terminated": terminated}}
        self._report(box, "Running")
        if not box.codes[name].done():
            box.codes[name].set_result(code)

    def _command(self, container: Json) -> list[str]:
        words = [*container.get("command", []), *container.get("args", [])]
        if words and words[0] == STEP_COMMAND:
            return [*self._python_command, *words[1:]]
        return words

    def _step_environment(self, box: _Box, container: Json, log: Path) -> dict[str, str]:
        ours = {k: v for k, v in os.environ.items() if k == "PATH" or k.startswith("PYTHON")}
        given = {item["name"]: str(item.get("value", "")) for item in container.get("env", [])}
        out = str(box.folder(container))
        return {
            **ours,
            "TIPHYS_KUBERNETES_URL": self._api_url,
            **self._environment,
            **{key: value.replace(OUTPUT_FOLDER, out) for key, value in given.items()},
            "HOME": str(box.place),
            "TIPHYS_SERVICE_ACCOUNT_DIR": str(box.place / "serviceaccount"),
            "TIPHYS_TERMINATION_LOG": str(log),
        }

    def _report(self, box: _Box, phase: str, reason: Json | None = None) -> None:
        """Write the pod's status; a pod whose object is gone has nobody to report to."""
        meta = box.pod["metadata"]
        pod = self._store.find("Pod", meta["namespace"], meta["name"])
        if pod is None or pod["metadata"]["uid"] != meta["uid"]:
            return
        pod["status"] = {
            **pod.get("status", {}),
            "phase": phase,
            "conditions": [{"type": "Ready", "status": str(phase == "Running")}],
            "containerStatuses": [box.statuses[name] for name in sorted(box.statuses)],
            **(reason or {}),
        }
        self._store.update(pod, manager="kubelet", subresource="status")


def _dependencies(pod: Json) -> dict[str, list[str]]:
    template = json.loads(pod["metadata"]["annotations"][TEMPLATE_ANNOTATION])
    graph = template.get("containerSet", {}).get("containers", [])
    return {item["name"]: item.get("dependencies", []) for item in graph}
