"""Deployments and pods whose fare is told by one variable, on either cluster.

On a real one the shell obeys `FARE`; the simulated kubelet reads it from the same container spec.
"""

from typing import Any

from tiphys.policies.model import Object
from tiphys.service.conform.wire import place_of
from tiphys.service.conform.worlds import World
from tiphys.workflow_templates.workloads import healthy

Json = dict[str, Any]
READY, CRASH, NOT_READY, NO_IMAGE = "ready", "crash", "not-ready", "no-image"
SUCCEEDS = "succeeds"
EXIT_CODE = 3
LINES = [f"line {number}" for number in range(1, 6)]
LAST_WORDS = "panic: no more"
_SCRIPT = """
for n in 1 2 3 4 5; do echo "line $n"; done
if [ "$FARE" = crash ]; then echo "panic: no more"; exit 3; fi
if [ "$FARE" = succeeds ]; then exit 0; fi
exec sleep 3600
"""
_PROBE = {"exec": {"command": ["false"]}, "periodSeconds": 1, "timeoutSeconds": 5}


def container(world: World, fare: str = READY, **variables: str) -> Json:
    """Give a container that fares so."""
    image = "localhost/no-such-image:1" if fare == NO_IMAGE else world.plain_image
    made: Json = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", _SCRIPT],
        "env": [{"name": k, "value": v} for k, v in {"FARE": fare, **variables}.items()],
    }
    return {**made, "readinessProbe": _PROBE} if fare == NOT_READY else made


def template(app: str, *containers: Json) -> Json:
    """Give a pod template."""
    spec = {"containers": [*containers], "terminationGracePeriodSeconds": 1}
    return {"metadata": {"labels": {"app": app}}, "spec": spec}


def deployment(namespace: str, pods: Json, replicas: int = 2, kind: str = "Deployment") -> Json:
    """Give a Deployment (or another kind) of such pods, named after their label."""
    labels = pods["metadata"]["labels"]
    count = {} if kind == "DaemonSet" else {"replicas": replicas}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": labels["app"], "namespace": namespace},
        "spec": {**count, "selector": {"matchLabels": labels}, "template": pods},
    }


def running(world: World, namespace: str, kind: str, pods: Json) -> Json:
    """Make a workload of two such pods, of a DaemonSet one on each node, and wait until it is well.

    Its kind stays with it, which a reading does not give.
    """
    made = world.wire.create(deployment(namespace, pods, kind=kind))
    return {**made, **settled(world, place_of(made))}


def settled(world: World, path: str) -> Json:
    """Wait until the workload is healthy, in the words of the step that will ask."""

    def well(found: Object) -> bool:
        return healthy(found).ok

    return world.until(f"{path} is healthy", lambda: world.wire.get(path), well)
