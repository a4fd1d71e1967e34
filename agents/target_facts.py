"""Reads the target of one action as the gate judges it: what would change, and whose it is.

Read by the agents when they propose and again just before each launch; it raises
`UnansweredError` where the cluster does not answer, and the gate then denies.
"""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from tiphys.agents.beside_facts import changed_beside, notes_beside, owner_beside, read_related
from tiphys.agents.drained_pods import evicted, job_above
from tiphys.agents.field_owner import field_owner
from tiphys.agents.impact_facts import Around, impact_of
from tiphys.agents.objects import (
    instant,
    is_controlled_by,
    mapping,
    name_of,
    selector_of,
    strings,
    text,
    uid_of,
)
from tiphys.agents.pod_facts import gpus_of
from tiphys.agents.ports import ClusterReader, UnansweredError
from tiphys.agents.resolver import Link, Resolver
from tiphys.agents.workload_facts import revisions, rollout_is_stuck, rollout_moves
from tiphys.policies.model import Change, Object, Owner, Target, TargetFacts
from tiphys.workflow_templates.action import Action, Parameters
from tiphys.workflow_templates.claims import CLAIM
from tiphys.workflow_templates.mark import EVENTS_OF_NODES, Trace, may_be_under_way, unfinished
from tiphys.workflow_templates.scheduled_runs import CRON_JOB, end_of

OURS: Final = "tiphys.io/"
LONG_RUNNING: Final = "tiphys.io/long-running"
JOB_KINDS: Final = re.compile(
    r"(Cron)?Job|Workflow|CronWorkflow|AppWrapper|RayCluster|Notebook|TrainJob|\w+Job|JobSet"
    r"|PodGroup|LeaderWorkerSet"
)


Planner = Callable[[Object, Mapping[str, Sequence[Object]]], tuple[Change, ...]]
"""Plans one use of an action on the live target and what the action reads; or raises
`NotApplicableError`."""


@dataclass(frozen=True)
class Use:
    """One use of an action, to be planned on its target."""

    action: Action
    parameters: Parameters
    planner: Planner


class TargetGoneError(Exception):
    """The target no longer exists, or another object bears its name."""


@dataclass(frozen=True)
class Sight:
    """The target with everything around it that the facts are made from."""

    target: Target
    thing: Object
    owners: Sequence[Owner]
    owner_annotations: Sequence[Mapping[str, str]]
    """Nearest first."""
    workload: Link
    """The target itself, or the workload above it."""
    namespace: Object
    pods: Sequence[Object]
    """The pods of the workload."""
    replicasets: Sequence[Object]
    autoscalers: Sequence[Object]


async def see(cluster: ClusterReader, resolver: Resolver, target: Target) -> Sight:
    """Read the target; raises `TargetGoneError` and `UnansweredError`."""
    thing = await resolver.get(target.api_version, target.kind, target.namespace, target.name)
    if thing is None or uid_of(thing) != target.uid:
        raise TargetGoneError(f"{target} is no longer the object that was diagnosed")
    start = Link(target.api_version, target.kind, thing)
    is_claim = (target.api_version, target.kind) == CLAIM
    links, above = await (resolver.around_claim if is_claim else resolver.chain)(start)
    workload = links[-1]
    place = target.namespace
    namespace, pods, replicasets, autoscalers = await asyncio.gather(
        cluster.get("v1", "Namespace", "", place) if place else _nothing(),
        pods_of(cluster, place, workload),
        _if(place, cluster, ("apps/v1", "ReplicaSet"), place),
        _if(place, cluster, ("autoscaling/v2", "HorizontalPodAutoscaler"), place),
    )
    if place and namespace is None:
        raise UnansweredError(f"Kubernetes has no namespace {place}")
    return Sight(
        target=target,
        thing=thing,
        owners=[*(_as_owner(link) for link in links[1:]), *above],
        owner_annotations=[
            *(strings(link.thing, "metadata", "annotations") for link in links),
            await _of_cron_job(resolver, place, above),
        ],
        workload=workload,
        namespace=namespace or {},
        pods=pods,
        replicasets=replicasets,
        autoscalers=autoscalers,
    )


async def _of_cron_job(
    resolver: Resolver, namespace: str, above: Sequence[Owner]
) -> Mapping[str, str]:
    """Read the annotations of the CronJob above a Job: what people write there counts for it."""
    for owner in above[:1]:
        if (owner.api_version, owner.kind) == CRON_JOB:
            made = await resolver.get(*CRON_JOB, namespace, owner.name)
            return strings(made or {}, "metadata", "annotations")
    return {}


def _as_owner(link: Link) -> Owner:
    return Owner(
        api_version=link.api_version,
        kind=link.kind,
        name=name_of(link.thing),
        uid=uid_of(link.thing),
    )


async def _nothing() -> Object | None:
    return None


async def _if(
    wanted: str, cluster: ClusterReader, kind: tuple[str, str], namespace: str
) -> Sequence[Object]:
    return await cluster.list(*kind, namespace) if wanted else ()


async def pods_of(cluster: ClusterReader, namespace: str, workload: Link) -> Sequence[Object]:
    """List a workload's pods: by its selector, or where it has none by who controls them.

    A node's are those that run there.
    """
    if workload.kind == "Pod":
        return [workload.thing]
    if workload.kind == "Node":
        here = f"spec.nodeName={name_of(workload.thing)}"
        return await cluster.list("v1", "Pod", "", field_selector=here)
    if not namespace or workload.kind == CLAIM[1]:
        return ()
    selector = selector_of(workload.thing)
    if selector:
        return await cluster.list("v1", "Pod", namespace, selector)
    every = await cluster.list("v1", "Pod", namespace)
    return [pod for pod in every if is_controlled_by(pod, uid_of(workload.thing))]


def autoscaler_of(workload: Link, autoscalers: Sequence[Object]) -> Object | None:
    """Give the HorizontalPodAutoscaler that owns the workload's replicas."""
    for one in autoscalers:
        reference = mapping(one, "spec", "scaleTargetRef")
        same = text(reference, "kind") == workload.kind
        if same and text(reference, "name") == name_of(workload.thing):
            return one
    return None


def ended_pods(sight: Sight, changes: Sequence[Change]) -> Sequence[Object]:
    """Give the pods that the changes would end; a gang of a job is one.

    Raises `UnansweredError` for a planned pod that was not read: nobody knows what it runs.
    """
    if sight.target.kind == CLAIM[1]:
        return ()
    if sight.target.kind == "Node":
        return evicted(sight.pods, changes)
    if all(_only_adds(c) or _deletes_pod(c) for c in changes):
        named = {change.of.uid: change.of for change in changes if change.of}
        unread = named.keys() - {uid_of(pod) for pod in sight.pods}
        if unread:
            which = ", ".join(sorted(str(named[uid]) for uid in unread))
            raise UnansweredError(f"nobody has read what {which} runs")
        return [pod for pod in sight.pods if uid_of(pod) in named and not has_ended(pod)]
    if sight.target.kind == "Job" and end_of(sight.thing):
        return [pod for pod in sight.pods if not has_ended(pod)]
    job = next((o for o in sight.owners if JOB_KINDS.fullmatch(o.kind)), None)
    if sight.target.kind == "Pod" and job is None:
        return [sight.thing]
    return sight.pods or [sight.thing]


def has_ended(pod: Object) -> bool:
    """Whether nothing of a pod runs any more, or ever will."""
    return text(pod, "status", "phase") in {"Failed", "Succeeded"}


def _deletes_pod(change: Change) -> bool:
    return change.of is not None and change.of.kind == "Pod" and change.path == ""


def _only_adds(change: Change) -> bool:
    present, intended = change.present, change.intended
    return (
        change.of is None
        and change.path == "/spec/replicas"
        and isinstance(present, int)
        and isinstance(intended, int)
        and intended >= present
    )


def long_job(sight: Sight, changes: Sequence[Change]) -> str | None:
    """Say why the changes would end a long job, or None."""
    ended = ended_pods(sight, changes)
    if not ended:
        return None
    gpus = sum(gpus_of(pod) for pod in ended)
    if gpus:
        return f"{len(ended)} pods with {gpus} GPUs would end"
    itself = Owner(api_version="", kind=sight.target.kind, name=sight.target.name, uid="")
    for owner in (itself, *sight.owners):
        if JOB_KINDS.fullmatch(owner.kind):
            return f"it belongs to {owner.kind} {owner.name}"
    marked = (*sight.owner_annotations, *(strings(p, "metadata", "annotations") for p in ended),
              strings(sight.namespace, "metadata", "annotations"))  # fmt: skip
    if any(_set(annotations.get(LONG_RUNNING)) for annotations in marked):
        return f"it is annotated {LONG_RUNNING}"
    return None


def _job_on_node(
    sight: Sight, changes: Sequence[Change], related: Mapping[str, Sequence[Object]]
) -> str | None:
    if sight.target.kind != "Node":
        return None
    return job_above(ended_pods(sight, changes), related, JOB_KINDS, LONG_RUNNING)


def _set(value: str | None) -> bool:
    return value is not None and value.lower() not in {"false", "no", "0"}


def gpu_hours(pods: Sequence[Object], now: datetime) -> float:
    """Give GPUs times hours run by these pods so far: what ending them would throw away."""
    total = 0.0
    for pod in pods:
        began = instant(pod, "status", "startTime") or instant(pod, "metadata", "creationTimestamp")
        if began is not None:
            total += gpus_of(pod) * max(0.0, (now - began).total_seconds()) / 3600
    return round(total, 2)


async def target_facts(
    cluster: ClusterReader,
    sight: Sight,
    use: Use,
    managed: bool,
    now: datetime,
) -> TargetFacts:
    """Fill the facts for one use of an action; raises `NotApplicableError`, `UnansweredError`."""
    action, parameters, planner = use.action, use.parameters, use.planner
    related = await read_related(cluster, action, parameters, sight.target.namespace)
    changes = planner(sight.thing, related)
    beside = changed_beside(related, changes)
    workload = sight.workload
    history = revisions(workload.thing, sight.replicasets)
    newest = uid_of(history[0]) if history else ""
    moves = workload.kind in {"Deployment", "StatefulSet", "DaemonSet"} and rollout_moves(
        workload.thing, workload.kind
    )
    scaler = autoscaler_of(workload, sight.autoscalers)
    ours: dict[str, str] = {}
    for annotations in (*notes_beside(beside), *reversed(sight.owner_annotations)):
        ours |= {k: v for k, v in annotations.items() if k.startswith(OURS)}
    marked = [sight.thing, *(one.thing for one in beside)]
    marks = [await open_mark(cluster, thing, now) for thing in marked]
    return TargetFacts(
        target=sight.target,
        changes=changes,
        managed_cluster=managed,
        namespace_labels=strings(sight.namespace, "metadata", "labels"),
        labels=strings(sight.thing, "metadata", "labels"),
        annotations=ours,
        owners=tuple(sight.owners),
        field_owner=field_owner(sight.thing, sight.owners, changes) or owner_beside(beside),
        autoscaler=f"HorizontalPodAutoscaler {name_of(scaler)}" if scaler else None,
        rollout_in_progress=moves and not rollout_is_stuck(workload.thing, newest, sight.pods, now),
        ends_long_job=long_job(sight, changes) or _job_on_node(sight, changes, related),
        gpu_hours_at_stake=gpu_hours(ended_pods(sight, changes), now),
        open_mark=next(filter(None, marks), None),
        impact=await impact_of(
            cluster, Around(sight.target, sight.thing, workload.thing, sight.pods), changes
        ),
        read_at=now,
    )


async def open_mark(cluster: ClusterReader, thing: Object, now: datetime) -> str | None:
    """Give the mark of a run that acted on it and was not seen to end well, or None.

    Where only `/scale` was written the mark cannot say how its run ended: the run's Events can.
    """
    digest = unfinished(thing)
    if digest is None:
        return None
    namespace = text(thing, "metadata", "namespace") or EVENTS_OF_NODES
    kept, claim = [
        await cluster.get("v1", "Event", namespace, f"tiphys-{digest}.{trace}")
        for trace in (Trace.KEPT, Trace.ACT)
    ]
    if kept or not may_be_under_way(thing, digest, claim, now):
        return None
    return f"{digest}.{Trace.ACT}"
