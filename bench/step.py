"""How long a step takes and how much memory, against the same reads by the plain kubernetes client.

Always: as processes of this machine, reading the simulated API. With a test cluster (`make
cluster-up`, or TIPHYS_TEST_KUBECONFIG): inside pods of the real images, and on this machine's own
cluster also as whole containers, from `ctr run` to its end.
"""

import asyncio
import secrets
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from tiphys.sandbox.kube_api import kube_app
from tiphys.sandbox.logs import Logs
from tiphys.sandbox.loopback import serving
from tiphys.sandbox.rbac import MASTERS, Tokens
from tiphys.sandbox.store import Store
from tools import step_trial
from tools.cluster.report import Trouble
from tools.cluster.target import find

ROUNDS = 7
MODULE = "tiphys.workflow_templates.run_step"


def main() -> None:
    """Print every ratio that can be measured here."""
    report("processes, simulated API", asyncio.run(processes()))
    try:
        cluster = find()
    except Trouble as trouble:
        print(f"containers: not measured; {trouble}")
        return
    namespace = f"bench-step-{secrets.token_hex(3)}"
    cluster.kubectl("create", "namespace", namespace)
    try:
        trial = step_trial.Trial(cluster, namespace)
        report("pods", {n: trial.measured_in_pod(n, ROUNDS) for n in ("plain", "step")})
        if cluster.own:
            took = trial.container_seconds(ROUNDS)
            ratio = compare(took["step"], took["plain"])
            print(f"whole containers, ctr run to its end: {ratio} (bound: 1.5 x)")
    finally:
        cluster.kubectl("delete", "namespace", namespace, "--wait=false")


async def processes() -> dict[str, step_trial.Measured]:
    """Measure both as processes against the simulated API."""
    store, tokens = Store(), Tokens()
    store.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    made = store.create(step_trial.deployment("shop", "registry.example/cart:1"))
    counts = dict.fromkeys(("observedGeneration", "replicas", "updatedReplicas"), 1)
    store.update({**made, "status": counts}, subresource="status")
    plan = step_trial.plan_for(store.get("Deployment", "shop", step_trial.NAME))
    commands = {
        "plain": step_trial.plain(plan, sys.executable),
        "step": [sys.executable, "-I", "-m", MODULE, "precheck"],
    }
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "token").write_text(tokens.issue("bench", (MASTERS,)))
        async with serving(kube_app(store, tokens, Logs())) as url:
            environment = {
                **step_trial.environment_for(plan),
                "TIPHYS_KUBERNETES_URL": url,
                "TIPHYS_SERVICE_ACCOUNT_DIR": folder,
                "PYDANTIC_DISABLE_PLUGINS": "__all__",  # as in the image
            }
            return {
                name: await asyncio.to_thread(
                    step_trial.measured_here, command, environment, ROUNDS
                )
                for name, command in commands.items()
            }


def report(where: str, found: Mapping[str, step_trial.Measured]) -> None:
    """Print one comparison."""
    step, twin = found["step"], found["plain"]
    print(f"{where}: {compare(step.seconds, twin.seconds)} (bound: 1.5 x)")
    print(f"  processor time {step.cpu:.2f} s and {twin.cpu:.2f} s: {step.cpu / twin.cpu:.2f}")
    print(f"  memory {step.peak_mib:.0f} MiB (bound: 100), plain client {twin.peak_mib:.0f} MiB")


def compare(step: Sequence[float], twin: Sequence[float]) -> str:
    """Say both medians and their ratio."""
    ours, theirs = statistics.median(step), statistics.median(twin)
    return f"a step {ours:.2f} s, plain client {theirs:.2f} s, ratio {ours / theirs:.2f}"


if __name__ == "__main__":
    main()
