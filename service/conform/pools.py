"""Pools of GPU machines on either cluster, with a stand-in for Cluster API's controllers.

Its kinds are the real ones; what a provider does with them is `sandbox.machine_provider`.
"""

import secrets
import threading
from datetime import UTC, datetime
from typing import Any

from urllib3.exceptions import HTTPError

from tiphys.sandbox.machine_nodes import GPU, GPU_COUNT, TAINT
from tiphys.sandbox.machine_provider import MOST, VERSION, Ask, MachineProvider, ProviderError
from tiphys.service.conform.wire import Json, UnexpectedAnswerError, Wire, place, place_of
from tiphys.service.conform.worlds import World

POOL, SET, MACHINE = ((VERSION, f"Machine{rest}") for rest in ("Deployment", "Set", ""))
GPUS = 4
"""Of each machine here."""
TOLERATED: Json = {"key": TAINT["key"], "operator": "Exists", "effect": TAINT["effect"]}
"""What a pod says that may run on a node with GPUs."""
POOL_LABEL = "node.cluster.x-k8s.io/pool"
_BY_HAND = {"rack": "a"}
_PAUSE = 0.25
_SYNCED = {"tiphys.io/heal": "enabled"}
"""Reaches the nodes, as with Cluster API's `--additional-sync-machine-labels`."""
_TEMPLATE = {"apiGroup": "infrastructure.cluster.x-k8s.io", "kind": "StandInMachineTemplate"}
_BOOTSTRAP = {"dataSecretName": "none"}
_running: dict[int, MachineProvider] = {}


def provider(world: World) -> MachineProvider:
    """Have the one provider of a world, which ends with it."""
    with world.lock:
        if id(world) not in _running:
            _running[id(world)] = _started(world)
        return _running[id(world)]


def _started(world: World) -> MachineProvider:
    served = world.wire.ask("GET", place(*POOL))
    if served.status != 200:
        raise UnexpectedAnswerError(f"the cluster does not serve Cluster API's kinds: {VERSION}")
    made = MachineProvider(
        asking(Wire(world.wire.kubeconfig)), lambda space: space in world.spaces, _PAUSE
    )
    over = threading.Event()
    thread = threading.Thread(target=made.run, args=(over,), name="machines", daemon=True)

    def end() -> None:
        _running.pop(id(world), None)
        over.set()
        thread.join(10)
        made.close()

    world.open.callback(end)
    thread.start()
    return made


def asking(wire: Wire) -> Ask:
    """Give what asks for the provider; where no answer comes, its next look asks again."""

    def ask(method: str, path: str, body: Any, media: str) -> tuple[int, Any]:
        try:
            answer = wire.ask(method, path, body, media)
        except HTTPError as error:
            raise ProviderError(f"{method} {path}: {type(error).__name__}") from error
        return answer.status, answer.body

    return ask


def gpu_pool(namespace: str, replicas: int, **annotations: str) -> Json:
    """Give a pool, whose limits are 1 and 6 machines unless the annotations say otherwise."""
    name = f"gpus-{secrets.token_hex(3)}"
    labels = {"cluster.x-k8s.io/cluster-name": "here", "pool": name}
    notes = {
        GPU_COUNT: str(GPUS),
        "tiphys.io/pool-min-size": "1",
        "tiphys.io/pool-max-size": "6",
        **annotations,
    }
    spec: Json = {
        "clusterName": "here",
        "version": "v1.35.4",
        "bootstrap": _BOOTSTRAP,
        "infrastructureRef": {**_TEMPLATE, "name": name},
    }
    return {
        "apiVersion": VERSION,
        "kind": "MachineDeployment",
        "metadata": {"name": name, "namespace": namespace, "annotations": notes},
        "spec": {
            "clusterName": "here",
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": {**labels, **_SYNCED, POOL_LABEL: name}},
                "spec": spec,
            },
        },
    }


def made(world: World, pool: Json) -> Json:
    """Create a pool and wait until its machines run, made before any claim to come.

    The API server's times are whole seconds; no real machine runs in the second that made it.
    """
    provider(world)
    found = settled(world, place_of(world.wire.create(pool)))

    def earlier(machines: list[Json]) -> bool:
        made = [m["metadata"]["creationTimestamp"] for m in machines]
        return max(made, default="") < datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    world.until("its machines are a second old", lambda: machines(world, found), earlier)
    return found


def settled(world: World, path: str) -> Json:
    """Wait until every machine that a pool wants runs, and no other."""

    def well(found: Json) -> bool:
        status, wanted = found.get("status", {}), found["spec"]["replicas"]
        seen = status.get("observedGeneration") == found["metadata"]["generation"]
        return seen and status["readyReplicas"] == status["replicas"] == wanted

    return world.until(f"{path} is whole", lambda: world.wire.get(path), well)


def machines(world: World, pool: Json) -> list[Json]:
    """List a pool's machines, by name."""
    meta = pool["metadata"]
    path = place(*MACHINE, meta["namespace"])
    selector = f"cluster.x-k8s.io/deployment-name={meta['name']}"
    found = world.wire.items(path, labelSelector=selector)
    return [{"apiVersion": VERSION, "kind": "Machine", **one} for one in found]


def nodes(world: World, pool: Json) -> list[Json]:
    """List a pool's nodes, by name."""
    selector = f"{POOL_LABEL}={pool['metadata']['name']}"
    found = world.wire.items(place("v1", "Node"), labelSelector=selector)
    return [{"apiVersion": "v1", "kind": "Node", **one} for one in found]


def exhausted(world: World, pool: Json, most: int) -> None:
    """Let the cloud have no more than so many machines for a pool."""
    world.wire.patch(place_of(pool), {"metadata": {"annotations": {MOST: str(most)}}})


def label(world: World, nodes: list[Json]) -> None:
    """Put a label on nodes by hand, which no machine that comes later has; see `gpu_job`."""
    for node in nodes:
        world.wire.patch(place_of(node), {"metadata": {"labels": _BY_HAND}})


def gpu_pod(world: World, pool: Json, *, gpus: int = 1, name: str = "", node: str = "") -> Json:
    """Create a pod that asks for GPUs of a pool; on a node of it, or wherever there is room."""
    spec = {**_pod(world, pool, gpus), **({"nodeName": node} if node else {})}
    meta = {"name": name or f"train-{secrets.token_hex(3)}"}
    meta["namespace"] = pool["metadata"]["namespace"]
    return world.wire.create({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})


def gpu_job(world: World, pool: Json, *, gpus: int, pods: int) -> Json:
    """Give a Deployment, `train`, whose pods each ask for so many GPUs of labelled nodes."""
    labels, wanted = {"app": "train"}, _pod(world, pool, gpus)
    wanted["nodeSelector"] |= _BY_HAND
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "train", "namespace": pool["metadata"]["namespace"]},
        "spec": {
            "replicas": pods,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": wanted},
        },
    }


def _pod(world: World, pool: Json, gpus: int) -> Json:
    limits = {"limits": {GPU: str(gpus)}} if gpus else {}
    return {
        "containers": [{"name": "main", "image": world.plain_image, "resources": limits}],
        "tolerations": [TOLERATED],
        "nodeSelector": {POOL_LABEL: pool["metadata"]["name"]},
        "terminationGracePeriodSeconds": 1,
    }
