"""scale-gpu-pool, tried on a pool whose machines are full while another pod waits for GPUs."""

from tiphys.service.conform import pool_readings as read
from tiphys.service.conform import pools, readings
from tiphys.service.conform.trial import Elsewhere, Stage, Trial
from tiphys.service.conform.wire import Json, place, place_of

_SIZED_BY = "cluster.x-k8s.io/replicas-managed-by"
_AUTOSCALED = "cluster.x-k8s.io/cluster-api-autoscaler-node-group-max-size"


def _build(stage: Stage) -> Json:
    """Two machines, each full; a third job finds no room. Their pods are a controller's.

    A machine that comes lacks a label that somebody has put on the others by hand, so it stays
    empty: one with a job is not taken away again, see `tests/conformance`.
    """
    world = stage.world
    pool = pools.made(world, pools.gpu_pool(stage.namespace, 2))
    pools.label(world, pools.nodes(world, pool))
    jobs = stage.wire.create(pools.gpu_job(world, pool, gpus=pools.GPUS, pods=3))
    path = place("v1", "Pod", stage.namespace)

    def told(found: list[Json]) -> bool:
        placed = [pod for pod in found if pod["spec"].get("nodeName")]
        refused = [c for pod in found for c in pod["status"].get("conditions") or []]
        short = [c for c in refused if "Insufficient nvidia.com/gpu" in c.get("message", "")]
        return len(placed) == 2 and bool(short)

    world.until(f"{jobs['metadata']['name']} waits", lambda: stage.wire.items(path), told)
    return pools.settled(world, place_of(pool))


def _idle(stage: Stage) -> Json:
    """Three machines, on one of which nothing runs."""
    world = stage.world
    pool = pools.made(world, pools.gpu_pool(stage.namespace, 3))
    for machine in pools.machines(world, pool)[:2]:
        pools.gpu_pod(world, pool, node=machine["metadata"]["name"])
    return pools.settled(world, place_of(pool))


def _note(stage: Stage, target: Json, key: str, value: str) -> None:
    stage.wire.patch(place_of(target), {"metadata": {"annotations": {key: value}}})


def _scaled_by_hand(stage: Stage, target: Json) -> None:
    path = f"{place_of(target)}/scale"
    stage.wire.patch(path, {"spec": {"replicas": 4}}, fieldManager="kubectl-scale")


def _autoscaled(stage: Stage, target: Json) -> None:
    _note(stage, target, _AUTOSCALED, "9")


def _paused(stage: Stage, target: Json) -> None:
    _note(stage, target, "cluster.x-k8s.io/paused", "")


def _at_its_limit(stage: Stage, target: Json) -> None:
    _note(stage, target, "tiphys.io/pool-max-size", "2")


def _without_limits(stage: Stage, target: Json) -> None:
    _note(stage, target, "tiphys.io/pool-max-size", "")


def _rolling_out(stage: Stage, target: Json) -> None:
    pools.exhausted(stage.world, target, 0)
    stage.wire.patch(place_of(target), {"spec": {"template": {"spec": {"version": "v1.35.5"}}}})


def _nobody_waits(stage: Stage, target: Json) -> None:
    space = target["metadata"]["namespace"]
    path = place("apps/v1", "Deployment", space, "train")
    stage.wire.patch(path, {"spec": {"replicas": 2}})
    pods = place("v1", "Pod", space)

    def all_placed(found: list[Json]) -> bool:
        return all(pod["spec"].get("nodeName") for pod in found)

    stage.world.until("nobody waits", lambda: stage.wire.items(pods), all_placed)


def _counted_out(stage: Stage, target: Json) -> None:
    meta = {"name": "machines", "namespace": target["metadata"]["namespace"]}
    hard = {"count/machines.cluster.x-k8s.io": "2"}
    quota: Json = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta}
    stage.wire.create({**quota, "spec": {"hard": hard}})


def _machine_lost(stage: Stage, target: Json) -> None:
    pools.exhausted(stage.world, target, 1)
    stage.wire.delete(place_of(pools.machines(stage.world, target)[0]))
    path = place_of(target)

    def less(found: Json) -> bool:
        return found["status"]["readyReplicas"] < 2

    stage.world.until("a machine is lost", lambda: stage.wire.get(path), less)


def _no_more(stage: Stage, target: Json) -> None:
    pools.exhausted(stage.world, target, 2)


TRIAL = Trial(
    action="scale-gpu-pool",
    build=_build,
    parameters={"replicas": 3},
    also={"a machine is empty, and goes": Elsewhere(_idle, {"replicas": 2})},
    violations={
        "somebody scaled it": _scaled_by_hand,
        "cluster-autoscaler owns it": _autoscaled,
        "it is paused": _paused,
        "it is at its limit": _at_its_limit,
        "nobody has said how large it may be": _without_limits,
        "a rollout is under way": _rolling_out,
        "nobody waits for GPUs any more": _nobody_waits,
        "a quota counts it out": _counted_out,
        "one of its machines is lost": _machine_lost,
    },
    spoil=_no_more,
    meddle=_scaled_by_hand,
    unplannable={
        "it is being deleted": readings.going,
        "something else sets its size": read.noted(_SIZED_BY, "karpenter"),
        "its Cluster's topology sets its size": read.topology,
        "the API server has lost who set its size": read.ownerless,
        "its controller has not seen the newest change": readings.unseen,
        "not every machine is up to date": readings.status(upToDateReplicas=1),
        "a machine's node is not in this cluster": read.far_node,
        "a node is another machine's": read.anothers_node,
        "a machine has no node yet": read.starting,
        "a node has not opted in": read.not_opted_in,
        "no node is ready": read.unready,
        "it has that size already": read.sized(3, idle=0, waits=True),
        "it is too much at a time": read.TOO_MANY,
        "those that wait need fewer machines": read.sized(1, idle=0, waits=True),
        "there is room for those that wait": read.room,
        "those that wait are about to end": read.ending_waiters,
        "others make room for those that wait": read.nominated,
        "as many machines are there as a quota allows": read.COUNTED_OUT,
        "somebody has marked a machine to go first": read.chosen_by_hand,
        "it shall be smaller, and no machine is empty": read.ALL_BUSY,
        "it shall be smaller, and somebody waits for its GPUs": read.EMPTY_AND_WANTED,
    },
    plannable={
        "a quota counts something else": read.quota({"pods": "9"}, {"pods": "3"}),
        "it shall be smaller, and a machine is empty": read.EMPTY,
    },
)
