"""One precheck tried for real: a plan, its environment, its twin in the plain kubernetes client.

bench/step.py measures with it and tests/cluster/test_images.py holds the images to it. The twin
makes the same four reads as a precheck that finds everything as planned, and nothing else.
"""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tiphys.policies.model import Check, DecidedBy, Plan, Target
from tiphys.policies.plan import digest, encode, short_digest, workflow_name
from tiphys.workflow_templates.catalogue import find, template_name
from tiphys.workflow_templates.identities import access, account_name
from tiphys.workflow_templates.signature import public_hex, sign
from tools.cluster import target as clusters
from tools.cluster.node import ctr
from tools.cluster.paths import Cache

ACTION = find("scale-workload")
NAME = "cart"
NOT_AFTER = "2999-01-01T00:00:00Z"
PYTHON = "/opt/tiphys/bin/python"
STEP = ("tiphys-step", "precheck")
ACCOUNT_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"
POD_SECONDS = 600
"""A busy machine of two processors may be twenty times slower than an idle one."""
STEP_MEMORY = "100Mi"
PLAIN = """
import os, sys
from kubernetes import client, config

if url := os.environ.get("TIPHYS_KUBERNETES_URL"):
    settings = client.Configuration(host=url)
    with open(os.environ["TIPHYS_SERVICE_ACCOUNT_DIR"] + "/token") as token:
        settings.api_key = {"BearerToken": "Bearer " + token.read()}
    client.Configuration.set_default(settings)
else:
    config.load_incluster_config()
space, name, digest = sys.argv[1:]
core, apps, scaling = client.CoreV1Api(), client.AppsV1Api(), client.AutoscalingV2Api()
deployment = apps.read_namespaced_deployment(name, space)
for trace in ("act", "undone"):
    try:
        core.read_namespaced_event(f"tiphys-{digest}.{trace}", space)
    except client.ApiException as error:
        assert error.status == 404, error
scalers = scaling.list_namespaced_horizontal_pod_autoscaler(space)
assert deployment.spec.replicas == 1 and not scalers.items
print("as_planned")
"""
MEASURE = """
import json, resource, subprocess, sys, time
rounds, command = int(sys.argv[1]), sys.argv[2:]
seconds = []
for _ in range(rounds):
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    seconds.append(time.perf_counter() - began)
    if done.returncode or "as_planned" not in done.stdout:
        sys.exit(done.stdout + done.stderr)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
cpu = (used.ru_utime + used.ru_stime) / rounds
print(json.dumps({"seconds": seconds, "cpu": cpu, "peak_mib": used.ru_maxrss / 1024}))
"""
"""Runs a command again and again. A child's peak counts its parent's size at the fork, so the
parent that measures is small."""


@dataclass(frozen=True)
class Measured:
    """Every round's seconds from start to exit, and the highest resident memory of any."""

    seconds: tuple[float, ...]
    cpu: float
    """Seconds of processor time of one round: hardly anything else on the machine moves it."""
    peak_mib: float

    @staticmethod
    def read(line: str) -> "Measured":
        """Read what `MEASURE` printed."""
        found = json.loads(line)
        return Measured(tuple(found["seconds"]), found["cpu"], found["peak_mib"])


def plan_for(deployment: Mapping[str, Any]) -> Plan:
    """Plan one replica more."""
    parameters: dict[str, Any] = {"replicas": 2}
    meta = deployment["metadata"]
    typed = ACTION.parameters.model_validate(parameters)
    return Plan(
        incident="inc-trial",
        attempt=1,
        action=ACTION.name,
        version=ACTION.version,
        target=Target(
            cluster="trial",
            api_version="apps/v1",
            kind="Deployment",
            namespace=meta["namespace"],
            name=meta["name"],
            uid=meta["uid"],
        ),
        parameters=parameters,
        changes=ACTION.changes(deployment, {}, typed),
        check=Check(),
        policy="trial",
        evidence_hash="0" * 64,
        decided_by=DecidedBy(reasoner="human"),
    )


def environment_for(plan: Plan) -> dict[str, str]:
    """Sign the plan and give what its template would set."""
    key = Ed25519PrivateKey.generate()
    return {
        "TIPHYS_ACTION": template_name(ACTION),
        "TIPHYS_PUBLIC_KEY": public_hex(key),
        "TIPHYS_WORKFLOW": workflow_name(plan),
        "TIPHYS_PLAN": encode(plan),
        "TIPHYS_NOT_AFTER": NOT_AFTER,
        "TIPHYS_SIGNATURE": sign(key, digest(plan), NOT_AFTER),
        "TIPHYS_TARGET": plan.target.uid,
    }


def plain(plan: Plan, python: str = PYTHON) -> list[str]:
    """Give the command that makes the same reads with the plain client."""
    target = plan.target
    return [python, "-I", "-c", PLAIN, target.namespace, target.name, short_digest(plan)]


def deployment(namespace: str, image: str) -> dict[str, Any]:
    """Give a workload of one pod that does nothing."""
    labels = {"app": NAME}
    container = {"name": "main", "image": image, "imagePullPolicy": "IfNotPresent"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": NAME, "namespace": namespace},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


def pod(name: str, image: str, command: Sequence[str], **spec: Any) -> dict[str, Any]:
    """Give a pod as restricted as the steps' own; `spec` adds to it, `container` to its one."""
    locked = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    container = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "securityContext": locked,
        **({"command": [*command]} if command else {}),
        **spec.pop("container", {}),
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"restartPolicy": "Never", "containers": [container], **spec},
    }


class Trial:
    """A namespace with a workload, a plan for it, and the action's own rights there."""

    def __init__(self, cluster: clusters.Target, namespace: str) -> None:
        """Apply everything and wait until the workload's controller has seen it."""
        cluster.kubectl("-n", namespace, "wait", "--for=create", "serviceaccount/default")
        self.cluster, self.namespace = cluster, namespace
        rights: list[Mapping[str, Any]] = [*access(ACTION, namespace, namespace)]
        account = {"name": account_name(ACTION), "namespace": namespace}
        cluster.apply(
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account},
            *rights,
            deployment(namespace, cluster.images["pause"]),
        )
        cluster.kubectl(
            *("-n", namespace, "wait", f"deployment/{NAME}", "--timeout=300s"),
            "--for=jsonpath={.status.updatedReplicas}=1",
            seconds=310,
        )
        found = cluster.kubectl("-n", namespace, "get", "deployment", NAME, "-o", "json")
        self.plan = plan_for(json.loads(found))
        self.environment = environment_for(self.plan)

    def in_pod(self, name: str, image: str, command: Sequence[str], memory: str = "1Gi") -> str:
        """Run a command in a pod with the action's rights, and give what it said at its end."""
        given = [{"name": key, "value": value} for key, value in self.environment.items()]
        made = pod(
            name,
            image,
            command,
            serviceAccountName=account_name(ACTION),
            container={"env": given, "resources": {"limits": {"memory": memory}}},
        )
        code, log = run_pod(self.cluster, self.namespace, made)
        assert code == 0, log[-2000:]
        return log

    def measured_in_pod(self, name: str, rounds: int) -> Measured:
        """Measure `step`, under the memory it may have, or `plain`, inside a pod."""
        is_step = name == "step"
        image = self.cluster.images["step" if is_step else "service"]
        command = [*STEP] if is_step else plain(self.plan)
        wrapped = [PYTHON, "-I", "-c", MEASURE, str(rounds), *command]
        memory = STEP_MEMORY if is_step else "1Gi"
        return Measured.read(self.in_pod(f"{name}-measured", image, wrapped, memory))

    def container_seconds(self, rounds: int) -> dict[str, list[float]]:
        """Measure whole containers, from `ctr run` to its end, turn by turn. Own cluster only."""
        commands = {"step": ("step", [*STEP]), "plain": ("service", plain(self.plan))}
        took: dict[str, list[float]] = {name: [] for name in commands}
        with tempfile.TemporaryDirectory() as folder:
            options = self._as_in_a_pod(Path(folder))
            for number in range(rounds):
                for name, (image, command) in commands.items():
                    reference = self.cluster.images[image]
                    call = [*options, reference, f"{self.namespace}-{name}-{number}", *command]
                    began = time.monotonic()
                    done = subprocess.run(
                        ctr(Cache.default(), "run", "--rm", "--read-only", *call),
                        capture_output=True,
                        text=True,
                        check=False,
                        timeout=POD_SECONDS,
                    )
                    took[name].append(time.monotonic() - began)
                    assert "as_planned" in done.stdout, (done.stdout, done.stderr)
        return took

    def _as_in_a_pod(self, folder: Path) -> list[str]:
        """Give a container what the kubelet would: the account's files and the API's address."""
        folder.chmod(0o755)
        view = ("config", "view", "--raw", "--minify", "--flatten", "-o", "json")
        server = json.loads(self.cluster.kubectl(*view))["clusters"][0]["cluster"]
        host, _, port = server["server"].removeprefix("https://").rpartition(":")
        ca = self.cluster.kubectl(
            *("-n", self.namespace, "get", "configmap", "kube-root-ca.crt"),
            *("-o", r"jsonpath={.data.ca\.crt}"),
        )
        token = self.cluster.token(self.namespace, account_name(ACTION))
        for name, text in (("ca.crt", ca), ("token", token), ("namespace", self.namespace)):
            (folder / name).write_text(text)
            (folder / name).chmod(0o644)
        account = f"type=bind,src={folder},dst={ACCOUNT_FOLDER},options=rbind:ro"
        address = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
        given = [f"{key}={value}" for key, value in {**self.environment, **address}.items()]
        return ["--net-host", "--mount", account, *(w for one in given for w in ("--env", one))]


def run_pod(cluster: clusters.Target, namespace: str, made: Mapping[str, Any]) -> tuple[int, str]:
    """Run a pod of one container to its end; give its exit code and its log."""
    name = made["metadata"]["name"]
    cluster.apply({**made, "metadata": {"name": name, "namespace": namespace}})
    ended: dict[str, Any] = {}

    def over() -> bool:
        found = cluster.kubectl("-n", namespace, "get", "pod", name, "-o", "json")
        for one in json.loads(found)["status"].get("containerStatuses", []):
            ended.update(one["state"].get("terminated", {}))
        return bool(ended)

    clusters.wait_until(f"the end of pod {name}", over, POD_SECONDS)
    return ended["exitCode"], cluster.kubectl("-n", namespace, "logs", name)


def measured_here(command: Sequence[str], environment: Mapping[str, str], rounds: int) -> Measured:
    """Measure a process of this machine."""
    words = ["python3", "-I", "-c", MEASURE, str(rounds), *command]
    done = subprocess.run(
        words, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return Measured.read(done.stdout)
