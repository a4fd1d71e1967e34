"""How long the loop takes: from `tiphys demo` to the healed incident, and from webhook to decision.

Prints absolute seconds for orientation and ratios against baselines of the same run: the start of
a bare Python that imports the same libraries, and one read of the simulated Kubernetes API.
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx2

from tiphys.sandbox.scenario import parse
from tiphys.service.rehearsal import Rehearsal

ROUNDS = 3
ALERTS = 40
SCENARIO = """
name: bench-decision
title: Many deployments
story: Each has one alert, one after the other.
objects:
  - apiVersion: v1
    kind: Namespace
    metadata: {{name: shop, labels: {{tiphys.io/heal: enabled}}}}
{deployments}
rules: []
fault: []
expect: {{end: no_action}}
"""
DEPLOYMENT = """
  - apiVersion: apps/v1
    kind: Deployment
    metadata: {{name: svc{number}, namespace: shop}}
    spec:
      replicas: 1
      selector: {{matchLabels: {{app: svc{number}}}}}
      template:
        metadata: {{labels: {{app: svc{number}}}}}
        spec: {{containers: [{{name: app, image: "registry.example/svc:1"}}]}}
"""


def seconds(command: list[str]) -> tuple[float, list[dict[str, Any]]]:
    """Run a command; give its seconds and the JSON lines it printed, each with its time."""
    began = time.perf_counter()
    lines: list[dict[str, Any]] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            at = time.perf_counter() - began
            lines += [{**json.loads(line), "seen": at}] if line.startswith("{") else []
    return time.perf_counter() - began, lines


def demo() -> None:
    """`tiphys demo` to the verified run, and to its own end."""
    imports = "import tiphys.service.app, tiphys.sandbox.world"
    bare = statistics.median(seconds([sys.executable, "-c", imports])[0] for _ in range(ROUNDS))
    healed: list[float] = []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "tiphys.service.main", "demo", "--json", "--once"]
            _whole, lines = seconds([*command, "--data-dir", folder])
        told = [x for x in lines if x["type"] == "record"]
        ends = [x["seen"] for x in told if x["record"]["event"] == "run_ended"]
        healed += ends[:1]
    middle = statistics.median(healed)
    print(f"demo to healed: {middle:.1f} s, {middle / bare:.1f} x importing the same libraries")
    print(f"  (bare import {bare:.1f} s; aim: 20 s)")


async def decision() -> None:
    """Webhook accepted to decision committed, playbook path, one alert at a time."""
    deployments = "".join(DEPLOYMENT.format(number=n) for n in range(ALERTS))
    scenario = parse(SCENARIO.format(deployments=deployments), "bench")
    with tempfile.TemporaryDirectory() as folder:
        async with Rehearsal(scenario, Path(folder)) as stage:
            waits = [await one_decision(stage, number) for number in range(ALERTS)]
            read = await api_read(stage)
            memory = resident(stage)
    waits.sort()
    p50, p99 = waits[len(waits) // 2], waits[-1]
    print(f"webhook to decision: p50 {1000 * p50:.0f} ms, worst of {ALERTS} {1000 * p99:.0f} ms")
    print(f"  = {p50 / read:.0f} and {p99 / read:.0f} reads of one object ({1000 * read:.1f} ms)")
    print(f"resident memory of serve: {memory / 1024:.0f} MiB after {ALERTS} incidents")


async def one_decision(stage: Rehearsal, number: int) -> float:
    """Post one alert and wait for its decision; seconds."""
    labels = {"alertname": "KubeDeploymentReplicasMismatch", "namespace": "shop"}
    labels |= {"deployment": f"svc{number}", "severity": "warning"}
    began = time.perf_counter()
    await stage.post_alert(labels)
    while True:
        found = await stage.get("/api/incidents", limit=1)
        if found and found[0]["subject"].endswith(f"/svc{number}") and found[0]["decision"]:
            return time.perf_counter() - began
        await asyncio.sleep(0.005)


async def api_read(stage: Rehearsal) -> float:
    """The median seconds of one authenticated GET of the simulated Kubernetes API."""
    token = stage.world.tokens.service_account("tiphys-system", "tiphys-agents")
    headers = {"Authorization": f"Bearer {token}"}
    url = f"{stage.world.kubernetes_url}/apis/apps/v1/namespaces/shop/deployments/svc0"
    taken: list[float] = []
    async with httpx2.AsyncClient(headers=headers, trust_env=False) as http:
        for _ in range(100):
            began = time.perf_counter()
            (await http.get(url)).raise_for_status()
            taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def resident(stage: Rehearsal) -> int:
    """The service's resident memory in KiB, its broker not counted."""
    status = Path(f"/proc/{stage.service_pid}/status").read_text()
    return int(next(x for x in status.splitlines() if x.startswith("VmRSS")).split()[1])


if __name__ == "__main__":
    os.environ.pop("TIPHYS_URL", None)
    demo()
    asyncio.run(decision())
