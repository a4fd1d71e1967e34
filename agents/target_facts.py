"""Reads the target of one action as the gate judges it: what would change, and whose it is.

Read by the agents when they propose and again just before each launch; it raises
`UnansweredError` where the cluster does not answer, and the gate then denies.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from tiphys.agents.objects import (
    instant,
    is_controlled_by,
    items,
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
from tiphys.policies.model import Change, Json, Object, Owner, Target, TargetFacts
from tiphys.workflow_templates.action import Action, Parameters
from tiphys.workflow_templates.mark import Trace, may_be_under_way, unfinished
from tiphys.workflow_templates.scheduled_runs import CRON_JOB, end_of

OURS: Final = "tiphys.io/"
LONG_RUNNING: Final = "tiphys.io/long-running"
BUILT_IN: Final = {
    "CronJob", "DaemonSet", "Deployment", "Job", "Node", "ReplicaSet", "ReplicationController",
    "StatefulSet",
}  # fmt: skip
JOB_KINDS: Final = re.compile(
    r"(Cron)?Job|Workflow|CronWorkflow|AppWrapper|RayCluster|Notebook|TrainJob|\w+Job|JobSet"
    r"|PodGroup|LeaderWorkerSet"
)
_MANAGERS: Final = re.compile(
    r"argocd.*|argo-?cd.*|flux.*|kustomize-controller|helm-controller|.*-operator|.*-controller"
)
_OWN_CONTROLLERS: Final = {"kube-controller-manager", "deployment-controller"}
_GITOPS_MARKS: Final = (
    ("annotations", "argocd.argoproj.io/tracking-id", "Argo CD"),
    ("labels", "argocd.argoproj.io/instance", "Argo CD"),
    ("labels", "kustomize.toolkit.fluxcd.io/name", "Flux"),
    ("labels", "helm.toolkit.fluxcd.io/name", "Flux"),
)


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
    links, above = await resolver.chain(Link(target.api_version, target.kind, thing))
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
    """List a workload's pods: by its selector, or where it has none by who controls them."""
    if workload.kind == "Pod":
        return [workload.thing]
    if not namespace:
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


def field_owner(thing: Object, owners: Sequence[Owner], changes: Sequence[Change]) -> str | None:
    """Name the GitOps controller or operator that would put one of these fields back, or None.

    Source: metadata.managedFields (Kubernetes, "Server-Side Apply"); Argo CD's and Flux' tracking
    marks; owner references to custom resources.
    """
    foreign = next((o for o in owners[:1] if o.kind not in BUILT_IN), None)
    if foreign is not None:
        return f"{foreign.kind} {foreign.name} (its operator)"
    fields = [change.path for change in changes if change.of is None and change.path]
    if not fields:
        return None
    if owners and owners[-1].kind not in BUILT_IN:
        return f"{owners[-1].kind} {owners[-1].name} (its operator)"
    managers = _managers(thing)
    for manager, owned in managers:
        if any(_owns(owned, field) for field in fields):
            return manager
    for place, key, who in _GITOPS_MARKS:
        marked = text(thing, "metadata", place, key)
        # The mark of a controller whose own fields cannot be told apart covers all of them.
        if marked and not managers:
            return f"{who} ({marked})"
    return None


def _managers(thing: Object) -> list[tuple[str, Object]]:
    """Give the controllers that manage fields, with their fields."""
    found: list[tuple[str, Object]] = []
    for entry in items(thing, "metadata", "managedFields"):
        manager = text(entry, "manager")
        known = _MANAGERS.fullmatch(manager) and manager not in _OWN_CONTROLLERS
        if known and text(entry, "subresource") != "status":
            found.append((manager, mapping(entry, "fieldsV1")))
    return found


def _owns(fields: Object, pointer: str) -> bool:
    """Tell whether a field set covers a JSON pointer; a list's items count as one."""
    here: Json = dict(fields)
    for raw in pointer.split("/")[1:]:
        segment = raw.replace("~1", "/").replace("~0", "~")
        if not isinstance(here, dict):
            return False
        if f"f:{segment}" in here:
            here = here[f"f:{segment}"]
            continue
        return any(key.startswith(("k:", "v:", "i:")) for key in here)
    return True


def ended_pods(sight: Sight, changes: Sequence[Change]) -> Sequence[Object]:
    """Give the pods that the changes would end; a gang of a job is one."""
    if all(_only_adds(c) or _deletes_pod(c) for c in changes):
        named = {change.of.uid for change in changes if change.of}
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
    use: tuple[Action, Parameters],
    managed: bool,
    now: datetime,
) -> TargetFacts:
    """Fill the facts for one use of an action; raises `NotApplicableError`, `UnansweredError`."""
    action, parameters = use
    related = {
        r.kind: await cluster.list(r.api_version, r.kind, r.place(sight.target.namespace))
        for r in action.reads
    }
    changes = action.changes(sight.thing, related, parameters)
    workload = sight.workload
    history = revisions(workload.thing, sight.replicasets)
    newest = uid_of(history[0]) if history else ""
    moves = workload.kind in {"Deployment", "StatefulSet", "DaemonSet"} and rollout_moves(
        workload.thing, workload.kind
    )
    scaler = autoscaler_of(workload, sight.autoscalers)
    ours: dict[str, str] = {}
    for annotations in reversed(sight.owner_annotations):
        ours |= {k: v for k, v in annotations.items() if k.startswith(OURS)}
    return TargetFacts(
        target=sight.target,
        changes=changes,
        managed_cluster=managed,
        namespace_labels=strings(sight.namespace, "metadata", "labels"),
        labels=strings(sight.thing, "metadata", "labels"),
        annotations=ours,
        owners=tuple(sight.owners),
        field_owner=field_owner(sight.thing, sight.owners, changes),
        autoscaler=f"HorizontalPodAutoscaler {name_of(scaler)}" if scaler else None,
        rollout_in_progress=moves and not rollout_is_stuck(workload.thing, newest, sight.pods, now),
        ends_long_job=long_job(sight, changes),
        gpu_hours_at_stake=gpu_hours(ended_pods(sight, changes), now),
        open_mark=await open_mark(cluster, sight.thing, now),
        read_at=now,
    )


async def open_mark(cluster: ClusterReader, thing: Object, now: datetime) -> str | None:
    """Give the mark of a run that acted on the target and was not seen to end well, or None.

    Where only `/scale` was written the mark cannot say how its run ended: the run's Events can.
    """
    digest = unfinished(thing)
    if digest is None:
        return None
    namespace = text(thing, "metadata", "namespace")
    kept, claim = [
        await cluster.get("v1", "Event", namespace, f"tiphys-{digest}.{trace}")
        for trace in (Trace.KEPT, Trace.ACT)
    ]
    if kept or not may_be_under_way(thing, digest, claim, now):
        return None
    return f"{digest}.{Trace.ACT}"
