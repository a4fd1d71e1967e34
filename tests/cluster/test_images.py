"""The images in a real cluster: fast, small, unprivileged, with nothing that is not needed."""

import json
import re
import secrets
import statistics
from collections.abc import Generator
from pathlib import Path

import pytest
from packaging.markers import Marker

from tools import step_trial
from tools.cluster.target import Target

ROOT = Path(__file__).resolve().parents[2]
SLOWER = 1.5
"""A step's container against one that does the same reads with the plain kubernetes client."""
MEMORY_MIB = 100
ROUNDS = 5
LOOK_AROUND = """
import importlib.util, json, os, platform, sys
from importlib import metadata

def refused(path):
    try:
        open(path, "w").close()
    except OSError as error:
        return error.strerror

json.dump({
    "ids": [os.getuid(), os.getgid()],
    "python": platform.python_version(),
    "writable": [p for p in ("/x", "/opt/tiphys/x", "/tmp/x", "/usr/x") if not refused(p)],
    "packages": {d.metadata["Name"]: d.version for d in metadata.distributions()},
    "ours": [m for m in ("agents", "policies", "sandbox", "service", "workflow_templates")
             if importlib.util.find_spec("tiphys." + m)],
    "programs": sorted(os.listdir("/opt/tiphys/bin")),
}, sys.stdout)
"""
COMPILED = """
import json, sys
compiled = []
# https://docs.python.org/3/library/audit_events.html
sys.addaudithook(lambda event, given: event == "compile" and compiled.append(str(given[1])))
sys.argv[1:] = ["precheck"]
from tiphys.workflow_templates.run_step import main
code = main()
print(json.dumps([code, sorted({name for name in compiled if name.endswith(".py")})]))
"""
"""Names every source file that had to be compiled since its bytecode was missing or stale."""


@pytest.fixture(scope="module")
def trial(cluster: Target) -> Generator[step_trial.Trial]:
    """One namespace for the module: nothing here changes what another test looks at."""
    name = f"images-{secrets.token_hex(4)}"
    cluster.kubectl("create", "namespace", name)
    try:
        yield step_trial.Trial(cluster, name)
    finally:
        cluster.kubectl("delete", "namespace", name, "--wait=false")


def pins(lock: str, python: str) -> dict[str, str]:
    """Give what a lock installs on such a Python here, by normalised name."""
    lines = (ROOT / lock).read_text()
    found = re.findall(r"^([a-z0-9-]+)==([^ ]+)(?: ;([^\\]*))?", lines, re.MULTILINE)
    short = ".".join(python.split(".")[:2])
    there = {"python_full_version": python, "python_version": short}
    return {
        name: version
        for name, version, marker in found
        if not marker or Marker(marker.strip()).evaluate(there)
    }


def installed(seen: dict[str, str]) -> dict[str, str]:
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in seen.items()}


@pytest.mark.timeout(1500)
def test_a_step_is_as_fast_as_the_plain_client_and_needs_little_memory(
    trial: step_trial.Trial,
) -> None:
    """The step's pod may have 100 MiB: beyond that the kernel would end it."""
    twin = trial.measured_in_pod("plain", ROUNDS)
    step = trial.measured_in_pod("step", ROUNDS)
    assert 0 < step.peak_mib <= MEMORY_MIB
    assert statistics.median(step.seconds) <= SLOWER * statistics.median(twin.seconds)
    assert step.cpu <= SLOWER * twin.cpu


@pytest.mark.timeout(1500)
def test_a_step_s_container_takes_no_longer_from_start_to_exit(
    cluster: Target, trial: step_trial.Trial
) -> None:
    if not cluster.own:
        pytest.skip("needs containerd itself")
    took = trial.container_seconds(3)
    assert statistics.median(took["step"]) <= SLOWER * statistics.median(took["plain"])


@pytest.mark.timeout(900)
def test_the_step_s_image_compiles_nothing_at_run_time(trial: step_trial.Trial) -> None:
    command = [step_trial.PYTHON, "-I", "-c", COMPILED]
    said = trial.in_pod("compiled", trial.cluster.images["step"], command).splitlines()
    assert json.loads(said[0])["result"] == "as_planned"
    assert json.loads(said[1]) == [0, []]


@pytest.mark.timeout(900)
def test_the_step_s_image_holds_only_what_steps_need(trial: step_trial.Trial) -> None:
    command = [step_trial.PYTHON, "-I", "-c", LOOK_AROUND]
    seen = json.loads(trial.in_pod("look", trial.cluster.images["step"], command))
    assert seen["ids"] == [65532, 65532]
    assert seen["writable"] == []
    packages = installed(seen["packages"])
    assert packages.pop("tiphys")
    assert packages == pins("requirements-step.lock", seen["python"])
    assert seen["ours"] == ["policies", "workflow_templates"]
    assert [p for p in seen["programs"] if not p.startswith("python")] == ["tiphys-step"]


@pytest.mark.timeout(900)
def test_the_step_s_image_needs_no_shell(cluster: Target, trial: step_trial.Trial) -> None:
    """An empty file lies over the shell, and the image's own entry point is run."""
    space = trial.namespace
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "nothing", "namespace": space},
            "data": {"empty": ""},
        }
    )
    made = step_trial.pod(
        "no-shell",
        cluster.images["step"],
        [],
        automountServiceAccountToken=False,
        volumes=[{"name": "nothing", "configMap": {"name": "nothing"}}],
        container={
            "args": ["precheck"],
            "volumeMounts": [{"name": "nothing", "mountPath": "/bin/sh", "subPath": "empty"}],
        },
    )
    code, log = step_trial.run_pod(cluster, space, made)
    assert (code, json.loads(log)["message"]) == (3, "TIPHYS_PLAN is not set")


@pytest.mark.timeout(900)
def test_the_service_runs_unprivileged_on_a_read_only_root(
    cluster: Target, trial: step_trial.Trial
) -> None:
    """Nothing but /data is writable; the embedded broker and database work there."""
    space = trial.namespace
    made = step_trial.pod(
        "service",
        cluster.images["service"],
        [],
        automountServiceAccountToken=False,
        securityContext={"runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532},
        volumes=[{"name": "data", "emptyDir": {}}],
        container={
            "env": [
                {"name": "TIPHYS_WEBHOOK_TOKEN", "value": "w"},
                {"name": "TIPHYS_API_TOKEN", "value": "a"},
            ],
            "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            "readinessProbe": {"httpGet": {"path": "/readyz", "port": 8080}},
        },
    )
    cluster.apply({**made, "metadata": {"name": "service", "namespace": space}})
    in_it = ("-n", space, "exec", "service", "--", step_trial.PYTHON, "-I", "-c")
    cluster.kubectl(
        "-n", space, "wait", "pod/service", "--for=condition=Ready", "--timeout=600s", seconds=610
    )
    seen = json.loads(cluster.kubectl(*in_it, LOOK_AROUND))
    assert seen["ids"] == [65532, 65532]
    assert seen["writable"] == []
    packages = installed(seen["packages"])
    assert packages.pop("tiphys")
    assert packages == pins("requirements-run.lock", seen["python"])
    kept = cluster.kubectl(*in_it, "import os; print(sorted(os.listdir('/data')))")
    assert "nats" in kept
    cluster.kubectl("-n", space, "delete", "pod", "service", "--wait=false")
