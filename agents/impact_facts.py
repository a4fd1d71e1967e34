"""Facts about how much an action takes at once: of a workload's pods, a namespace, the nodes."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from tiphys.agents.objects import name_of, text, uid_of, whole
from tiphys.agents.ports import ClusterReader
from tiphys.policies.blast_radius import WORKLOADS, fewer, takes_nodes
from tiphys.policies.model import Change, Impact, Object, Target
from tiphys.workflow_templates.gpu_demand import has_gpus
from tiphys.workflow_templates.nodes import labels_of, open_for_pods
from tiphys.workflow_templates.rollouts import pods_of, turnover

_OWN_ROLLOUT: Final = {"DaemonSet", "Deployment", "StatefulSet"}
_PRODUCT: Final = "nvidia.com/gpu.product"
"""NVIDIA's GPU feature discovery writes it on a node."""


@dataclass(frozen=True)
class Around:
    """What is known of a target by then."""

    target: Target
    thing: Object
    workload: Object
    """The target itself, or the workload above it."""
    pods: Sequence[Object]


async def impact_of(cluster: ClusterReader, around: Around, changes: Sequence[Change]) -> Impact:
    """Give it for one plan; raises `UnansweredError`."""
    target = around.target
    if takes_nodes(target, changes):
        return _of_nodes(around, await cluster.list("v1", "Node", ""))
    if target.kind not in WORKLOADS:
        return Impact()
    lists = await asyncio.gather(
        *(cluster.list("apps/v1", kind, target.namespace) for kind in sorted(_OWN_ROLLOUT))
    )
    return Impact(
        pods=_wanted(around.workload),
        pods_taken=_taken(around, changes),
        rolling=_is_rollout(target, changes),
        workloads=sum(len(found) for found in lists),
    )


def _wanted(workload: Object) -> int:
    kind = workload.get("kind")
    if kind in _OWN_ROLLOUT:
        return pods_of(workload)
    return whole(workload, "spec", "replicas", default=1) if kind == "ReplicaSet" else 0


def _is_rollout(target: Target, changes: Sequence[Change]) -> bool:
    return target.kind in _OWN_ROLLOUT and any(
        change.of is None and change.path.startswith("/spec/template") for change in changes
    )


def _taken(around: Around, changes: Sequence[Change]) -> int:
    """Count the pods that may be away at one moment; one that has ended is away already."""
    if _is_rollout(around.target, changes):
        return turnover(around.workload).missing
    deleted = {
        change.of.uid if change.of else around.target.uid
        for change in changes
        if change.path == "" and change.intended is None
        and (change.of.kind if change.of else around.target.kind) == "Pod"
    }  # fmt: skip
    known = {uid_of(pod): pod for pod in (*around.pods, around.thing)}
    going = [uid for uid in deleted if uid not in known or not _has_ended(known[uid])]
    return len(going) + fewer(changes)


def _has_ended(pod: Object) -> bool:
    return text(pod, "status", "phase") in {"Failed", "Succeeded"}


def _of_nodes(around: Around, nodes: Sequence[Object]) -> Impact:
    own = around.target.name if around.target.kind == "Node" else ""
    others = [node for node in nodes if name_of(node) != own]
    if own:
        pool = _like(around.thing, nodes)
        size, missing = len(pool), [n for n in pool if name_of(n) != own and not open_for_pods(n)]
        away = len(missing)
    else:
        size = whole(around.thing, "spec", "replicas")
        away = max(0, size - whole(around.thing, "status", "readyReplicas"))
    return Impact(
        nodes=len(nodes),
        nodes_away=sum(not open_for_pods(node) for node in others),
        pool=size,
        pool_away=away,
    )


def _like(node: Object, nodes: Sequence[Object]) -> list[Object]:
    """Give the nodes with GPUs of the same product; none for a node without."""
    product = labels_of(node).get(_PRODUCT, "")
    if not product and not has_gpus(node):
        return []
    return [
        one
        for one in nodes
        if labels_of(one).get(_PRODUCT, "") == product
        and (product or has_gpus(one) or name_of(one) == name_of(node))
    ]
