"""The simulated Argo does what the real controller was seen to do, with real step processes."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tiphys.sandbox import admission
from tiphys.sandbox.argo import Argo
from tiphys.sandbox.rbac import Tokens
from tiphys.sandbox.store import ApiError, Store

Json = dict[str, Any]
ACTIONS = "tiphys-actions"
DIGITS = "abcdefghijklmnopqrstuvwxyz234567"

STEP = """
import os, sys, time
name = os.environ["STEP"]
with open(os.environ["TIPHYS_OUTCOME_FILE"], "w") as out:
    out.write("said by " + name)
open(os.environ["TIPHYS_TERMINATION_LOG"], "w").write("words of " + name)
with open(os.environ["TRACE"], "a") as trace:  # last: who sees it knows that all else is said
    trace.write(name + "\\n")
wait_for = os.environ.get("WAIT_FOR", "")
while wait_for == name and not os.path.exists(os.environ["GATE"]):
    time.sleep(0.01)
sys.exit(4 if os.environ.get("FAIL", "") == name else 0)
"""


def container(name: str, env: Json, needs: list[str]) -> Json:
    pairs = {"STEP": name, "TIPHYS_OUTCOME_FILE": "/tmp/tiphys/outcome.json", **env}
    return {
        "name": name,
        "image": "tiphys-step:1",
        "command": ["tiphys-step"],
        "args": ["ignored"],
        "dependencies": needs,
        "env": [{"name": key, "value": value} for key, value in pairs.items()],
    }


def template(env: Json, **more: Any) -> Json:
    run = {
        "name": "run",
        "inputs": {"parameters": [{"name": "plan"}]},
        "containerSet": {
            "containers": [
                container("precheck", env, []),
                container("act", {**env, "PLAN": "{{inputs.parameters.plan}}"}, ["precheck"]),
                container("main", env, ["act"]),
            ]
        },
        "outputs": {
            "parameters": [{"name": "outcome", "valueFrom": {"path": "/tmp/tiphys/outcome.json"}}]
        },
    }
    rollback = container("rollback", env, [])
    del rollback["dependencies"]
    rollback["env"].append({"name": "STATUS", "value": "{{workflow.status}}"})
    given = [{"name": "plan", "value": "{{workflow.parameters.plan}}"}]
    spec = {
        "entrypoint": "entry",
        "onExit": "exit",
        "serviceAccountName": "act-test",
        "arguments": {"parameters": [{"name": "plan"}, {"name": "notAfter"}, {"name": "mutex"}]},
        "synchronization": {"mutexes": [{"name": "{{workflow.parameters.mutex}}"}]},
        "templates": [
            {
                "name": "entry",
                "steps": [[{"name": "run", "template": "run", "arguments": {"parameters": given}}]],
            },
            run,
            {
                "name": "exit",
                "steps": [
                    [
                        {
                            "name": "rollback",
                            "template": "rollback",
                            "when": "{{workflow.status}} != Succeeded",
                        }
                    ]
                ],
            },
            {"name": "rollback", "container": rollback},
        ],
        **more,
    }
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "WorkflowTemplate",
        "metadata": {"name": "test-v1", "namespace": ACTIONS},
        "spec": spec,
    }


class Bench:
    """A store, an Argo and a template whose steps leave a trace."""

    def __init__(self, directory: Any) -> None:
        self.directory = directory
        self.store, self.tokens = Store(), Tokens()
        for name in ("tiphys-system", ACTIONS, "tiphys-stop"):
            self.store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        self.argo = Argo(
            self.store,
            self.tokens,
            "http://127.0.0.1:1",
            [sys.executable, "-c", STEP],
            {"TRACE": str(directory / "trace"), "GATE": str(directory / "gate")},
        )
        self.task = asyncio.ensure_future(self.argo.run())

    def publish(self, env: Json | None = None, **more: Any) -> None:
        self.store.create(template(env or {}, **more))

    def launch(self, index: int = 0, mutex: str = "m", **how: Any) -> str:
        name = "tiphys-" + DIGITS[index] * 40
        self.store.create(workflow(name, mutex), **how)
        return name

    def trace(self) -> list[str]:
        file = self.directory / "trace"
        return file.read_text().split() if file.exists() else []

    def status(self, name: str) -> Json:
        return self.store.get("Workflow", ACTIONS, name).get("status", {})

    def node(self, name: str, shown: str) -> Json:
        return next(n for n in self.status(name)["nodes"].values() if n["displayName"] == shown)

    def pod(self, name: str) -> Json:
        return self.store.list("Pod", ACTIONS, f"workflows.argoproj.io/workflow={name}")[0]

    def open_gate(self) -> None:
        (self.directory / "gate").touch()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(8):
            while not condition():  # noqa: ASYNC110  the condition is in files and processes
                await asyncio.sleep(0.01)

    async def ended(self, name: str) -> Json:
        await self.until(lambda: "finishedAt" in self.status(name))
        return self.status(name)

    async def kill_controller(self) -> None:
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task

    async def close(self) -> None:
        await self.kill_controller()
        await self.argo.close()


def workflow(name: str, mutex: str = "m") -> Json:
    at = (datetime.now(UTC) + timedelta(minutes=5)).strftime("%Y-%m-%dT%H:%M:%SZ")
    values = {"plan": "cGxhbg", "notAfter": at, "mutex": mutex}
    given = [{"name": key, "value": value} for key, value in values.items()]
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"name": name, "namespace": ACTIONS},
        "spec": {"workflowTemplateRef": {"name": "test-v1"}, "arguments": {"parameters": given}},
    }


def environment_of(pid: int) -> dict[str, str]:
    pairs = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if pair)


@pytest.fixture
async def bench(tmp_path: Any) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    yield made
    await made.close()


async def test_a_good_run_succeeds_without_rollback(bench: Bench) -> None:
    bench.publish()
    name = bench.launch()
    status = await bench.ended(name)
    assert status["phase"] == "Succeeded"
    assert bench.trace() == ["precheck", "act", "main"]
    assert bench.node(name, "run")["outputs"]["parameters"][0]["value"] == "said by main"
    assert bench.node(name, "rollback")["type"] == "Skipped"
    labels = bench.store.get("Workflow", ACTIONS, name)["metadata"]["labels"]
    assert labels["workflows.argoproj.io/phase"] == "Succeeded"
    assert labels["workflows.argoproj.io/completed"] == "true"


async def test_a_failed_verify_rolls_back(bench: Bench) -> None:
    bench.publish({"FAIL": "main"})
    name = bench.launch()
    status = await bench.ended(name)
    assert status["phase"] == "Failed"
    assert bench.trace() == ["precheck", "act", "main", "rollback"]
    assert bench.node(name, "main")["message"] == "main: Error (exit code 4): words of main"
    assert bench.node(name, "run")["outputs"]["exitCode"] == "4"
    assert bench.node(name, "rollback")["phase"] == "Succeeded"


async def test_a_refused_precheck_keeps_act_from_running(bench: Bench) -> None:
    bench.publish({"FAIL": "precheck"})
    name = bench.launch()
    status = await bench.ended(name)
    assert bench.trace() == ["precheck", "rollback"]
    assert "precheck: Error (exit code 4)" in bench.node(name, "precheck")["message"]
    assert bench.node(name, "main")["phase"] == "Error"
    assert status["message"] == f"child '{bench.node(name, 'run')['id']}' failed"
    assert "parameters" not in bench.node(name, "run")["outputs"]


async def test_a_step_sees_only_its_own_environment(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIPHYS_SECRET_OF_THE_SERVICE", "x")
    bench.publish({"WAIT_FOR": "act"})
    name = bench.launch()
    await bench.until(lambda: bench.trace() == ["precheck", "act"])
    await bench.until(lambda: len(bench.argo.pods.pids(name)) == 1)
    [pid] = bench.argo.pods.pids(name)
    seen = environment_of(pid)
    assert "TIPHYS_SECRET_OF_THE_SERVICE" not in seen
    assert seen["PLAN"] == "cGxhbg"
    token = (Path(seen["TIPHYS_SERVICE_ACCOUNT_DIR"]) / "token").read_text()
    identity = bench.tokens.user_of(token)
    assert identity is not None
    assert identity.user == f"system:serviceaccount:{ACTIONS}:act-test"
    bench.open_gate()
    await bench.ended(name)
    bench.store.delete("Pod", ACTIONS, bench.pod(name)["metadata"]["name"])
    await bench.until(lambda: bench.tokens.user_of(token) is None)


@pytest.mark.parametrize(("strategy", "rolled_back"), [("Stop", True), ("Terminate", False)])
async def test_shutdown(bench: Bench, strategy: str, rolled_back: bool) -> None:
    bench.publish({"WAIT_FOR": "main"})
    name = bench.launch()
    await bench.until(lambda: bench.trace()[-1:] == ["main"])
    bench.store.patch("Workflow", ACTIONS, name, {"spec": {"shutdown": strategy}})
    status = await bench.ended(name)
    assert status["phase"] == "Failed"
    assert status["message"] == f"Stopped with strategy '{strategy}'"
    assert ("rollback" in bench.trace()) is rolled_back


async def test_the_deadline_rolls_back(bench: Bench) -> None:
    bench.publish({"WAIT_FOR": "act"}, activeDeadlineSeconds=1)
    name = bench.launch()
    status = await bench.ended(name)
    assert status["phase"] == "Failed"
    assert "deadline" in bench.node(name, "run")["message"]
    assert bench.trace()[-1] == "rollback"
    assert "main" not in bench.trace()


async def test_killed_processes_roll_back(bench: Bench) -> None:
    bench.publish({"WAIT_FOR": "main"})
    name = bench.launch()
    await bench.until(lambda: bench.trace()[-1:] == ["main"])
    for pid in bench.argo.pods.pids(name):
        os.kill(pid, signal.SIGKILL)
    await bench.ended(name)
    assert bench.node(name, "main")["message"] == "main: Error (exit code 137): words of main"
    assert bench.trace()[-1] == "rollback"


async def test_a_graceful_deletion_of_the_pod_rolls_back(bench: Bench) -> None:
    bench.publish({"WAIT_FOR": "act"})
    name = bench.launch()
    await bench.until(lambda: bench.trace()[-1:] == ["act"])
    bench.store.delete("Pod", ACTIONS, bench.pod(name)["metadata"]["name"])
    await bench.ended(name)
    assert bench.node(name, "run")["message"] == "pod deleted"
    assert bench.trace() == ["precheck", "act", "rollback"]


async def test_a_forced_deletion_after_act_runs_everything_again(bench: Bench) -> None:
    bench.publish({"WAIT_FOR": "main"})
    name = bench.launch()
    await bench.until(lambda: bench.trace()[-1:] == ["main"])
    bench.argo.pods.force_delete(name)
    bench.open_gate()
    status = await bench.ended(name)
    assert status["phase"] == "Succeeded"
    assert bench.trace() == ["precheck", "act", "main"] * 2


async def test_a_mutex_serialises_until_the_controller_forgets_it(bench: Bench) -> None:
    bench.publish({"WAIT_FOR": "act"})
    first, second = bench.launch(0), bench.launch(1)
    await bench.until(lambda: bench.status(second).get("phase") == "Pending")
    await bench.until(lambda: bench.trace() == ["precheck", "act"])
    assert f"{ACTIONS}/Mutex/m" in bench.status(second)["message"]
    await bench.kill_controller()
    bench.task = asyncio.ensure_future(bench.argo.run())
    await bench.until(lambda: bench.trace().count("act") == 2)
    bench.open_gate()
    for name in (first, second):
        assert (await bench.ended(name))["phase"] == "Succeeded"


async def test_a_mutex_is_released_at_the_end(bench: Bench) -> None:
    bench.publish({"WAIT_FOR": "act"})
    first, second = bench.launch(0), bench.launch(1)
    await bench.until(lambda: bench.trace() == ["precheck", "act"])
    bench.open_gate()
    await bench.ended(first)
    assert (await bench.ended(second))["phase"] == "Succeeded"


async def test_a_restarted_controller_goes_on_from_status(bench: Bench) -> None:
    bench.publish({"WAIT_FOR": "act", "FAIL": "main"})
    name = bench.launch()
    await bench.until(lambda: bench.trace() == ["precheck", "act"])
    await bench.kill_controller()
    bench.open_gate()
    await bench.until(lambda: bench.pod(name)["status"]["phase"] == "Failed")
    assert bench.status(name)["phase"] == "Running"
    bench.task = asyncio.ensure_future(bench.argo.run())
    await bench.ended(name)
    assert bench.trace() == ["precheck", "act", "main", "rollback"]


async def test_a_template_deleted_later_does_not_matter(bench: Bench) -> None:
    bench.publish({"WAIT_FOR": "act", "FAIL": "main"})
    name = bench.launch()
    await bench.until(lambda: bench.trace() == ["precheck", "act"])
    bench.store.delete("WorkflowTemplate", ACTIONS, "test-v1")
    bench.open_gate()
    await bench.ended(name)
    assert bench.trace()[-1] == "rollback"


async def test_a_missing_template_is_an_error(bench: Bench) -> None:
    name = bench.launch()
    status = await bench.ended(name)
    assert (status["phase"], "not found" in status["message"]) == ("Error", True)


async def test_pods_and_tokens_go_when_pod_gc_says_so(bench: Bench) -> None:
    bench.publish(podGC={"strategy": "OnPodCompletion"})
    name = bench.launch()
    await bench.ended(name)
    await bench.until(lambda: not bench.store.list("Pod", ACTIONS))


async def test_closing_leaves_no_process(bench: Bench) -> None:
    bench.publish({"WAIT_FOR": "act"})
    name = bench.launch()
    await bench.until(lambda: bench.trace() == ["precheck", "act"])
    # It may have written before whoever started it knows its number.
    await bench.until(lambda: bench.argo.pods.pids(name))
    pids = bench.argo.pods.pids(name)
    await bench.close()
    assert pids
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


# --- admission ----------------------------------------------------------------------------------


@pytest.fixture
def guarded() -> Store:
    store = Store()
    for name in ("tiphys-system", ACTIONS, "tiphys-stop"):
        store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    catalogue = {"name": "tiphys-catalogue", "namespace": "tiphys-system"}
    data = {"test-v1": "plan,notAfter,mutex"}
    store.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": catalogue, "data": data})
    admission.install(store)
    return store


def change(path: str, value: Any) -> Callable[[Json], None]:
    def apply(body: Json) -> None:
        *parents, last = path.split("/")
        here: Any = body
        for key in parents:
            here = here[int(key)] if key.isdigit() else here.setdefault(key, {})
        here[last] = value

    return apply


GOOD = "tiphys-" + "a" * 40


def test_the_launcher_may_start_what_is_in_the_catalogue(guarded: Store) -> None:
    guarded.create(workflow(GOOD), user=admission.LAUNCHER)


@pytest.mark.parametrize(
    "spoil",
    [
        change("metadata/name", "tiphys-short"),
        change("metadata/generateName", "tiphys-"),
        change("metadata/labels", {"workflows.argoproj.io/phase": "Succeeded"}),
        change("metadata/finalizers", ["x/y"]),
        change("spec/entrypoint", "rollback"),
        change("spec/shutdown", "Stop"),
        change("spec/workflowTemplateRef/name", "other-v1"),
        change("spec/workflowTemplateRef/clusterScope", True),
        change("spec/arguments/artifacts", []),
        change("spec/arguments/parameters/0/value", "{{workflow.name}}"),
        change("spec/arguments/parameters/0/valueFrom", {}),
        change("spec/arguments/parameters/0/name", "mutex"),
        change("spec/arguments/parameters/1/value", "2020-01-01T00:00:00Z"),
        change("spec/arguments/parameters/1/value", "2999-01-01T00:00:00Z"),
        change("spec/arguments/parameters/2/value", "a b"),
        change("status", {"phase": "Succeeded"}),
    ],
)
def test_admission_refuses_anything_else(guarded: Store, spoil: Callable[[Json], None]) -> None:
    body = workflow(GOOD)
    spoil(body)
    with pytest.raises(ApiError) as refusal:
        guarded.create(body, user=admission.LAUNCHER)
    assert refusal.value.code == 403


def test_only_the_launcher_creates(guarded: Store) -> None:
    with pytest.raises(ApiError, match="only the launcher"):
        guarded.create(workflow(GOOD), user="admin")


def test_a_stop_config_map_refuses_every_new_workflow(guarded: Store) -> None:
    meta = {"name": "halt", "namespace": "tiphys-stop", "labels": {"tiphys.io/stop": "true"}}
    stop = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"reason": "drill"}}
    guarded.create(stop)
    with pytest.raises(ApiError, match="stopped by ConfigMap halt: drill"):
        guarded.create(workflow(GOOD), user=admission.LAUNCHER)
    guarded.delete("ConfigMap", "tiphys-stop", "halt")
    guarded.create(workflow(GOOD), user=admission.LAUNCHER)


def test_the_launcher_may_only_stop(guarded: Store) -> None:
    guarded.create(workflow(GOOD), user=admission.LAUNCHER)
    for body in (
        {"spec": {"shutdown": "Terminate"}},
        {"spec": {"shutdown": "Stop"}, "metadata": {"labels": {"a": "b"}}},
        {"status": {"phase": "Succeeded"}},
    ):
        with pytest.raises(ApiError, match=r"the launcher may (only|not)|only Argo's controller"):
            guarded.patch("Workflow", ACTIONS, GOOD, body, user=admission.LAUNCHER)
    with pytest.raises(ApiError, match="only the launcher and Argo's controller"):
        guarded.patch("Workflow", ACTIONS, GOOD, {"spec": {"shutdown": "Stop"}}, user="admin")
    guarded.patch(
        "Workflow", ACTIONS, GOOD, {"spec": {"shutdown": "Stop"}}, user=admission.LAUNCHER
    )
    with pytest.raises(ApiError, match="kept"):
        guarded.delete("Workflow", ACTIONS, GOOD, user=admission.LAUNCHER)
