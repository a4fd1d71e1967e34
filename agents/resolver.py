"""From an alert's labels to the one object a change belongs to, through owner references.

Invariants: every target was read from the cluster and bears its uid; labels that lead to two
different workloads lead to none.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tiphys.agents.named_limits import LIMITS, covered_by, names_a_limit, scaled_by
from tiphys.agents.notebook import Notebook
from tiphys.agents.objects import (
    controller_of,
    name_of,
    target_of,
    text,
    uid_of,
)
from tiphys.agents.ports import ClusterReader, UnansweredError
from tiphys.agents.volume_facts import workload_pod
from tiphys.policies.model import Alert, Json, Object, Owner, Source, Target
from tiphys.workflow_templates.claims import CLAIM

WORKLOADS = {
    "deployment": ("apps/v1", "Deployment"),
    "statefulset": ("apps/v1", "StatefulSet"),
    "daemonset": ("apps/v1", "DaemonSet"),
    "job_name": ("batch/v1", "Job"),
}
"""Labels that name a workload. `job` is not one: it names what Prometheus scraped."""
_CLIMBED = {
    ("apps/v1", "ReplicaSet"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "StatefulSet"),
    ("apps/v1", "DaemonSet"),
    ("batch/v1", "Job"),
    ("batch/v1", "CronJob"),
    ("v1", "ReplicationController"),
}
CLAIM_LABEL = "persistentvolumeclaim"
MAX_CLIMB = 5
MAX_ALERTS = 10
_POD_OF_REPLICASET = re.compile(r"(.+)-[a-z0-9]{5}")


@dataclass(frozen=True)
class Link:
    """One object of an owner chain, with its kind, which lists leave out."""

    api_version: str
    kind: str
    thing: Object


@dataclass
class Subjects:
    """What the alerts are about, read from the cluster."""

    claim: Object | None = None
    """The PersistentVolumeClaim that the gravest alert names, if it exists."""
    limits: dict[str, Object] = field(default_factory=dict[str, Object])
    """The autoscaler and the disruption budget that alerts name, by their label."""
    pod: Object | None = None
    """The pod that the gravest alert names, if it still exists."""
    workload: Link | None = None
    pods: Sequence[Object] = ()
    """The workload's pods, once they have been read."""
    owners: list[Owner] = field(default_factory=list[Owner])
    """The workload's owners, nearest first; the last may be a custom resource."""
    nodes: set[str] = field(default_factory=set[str])
    named_pods: set[str] = field(default_factory=set[str])
    ambiguous: list[str] = field(default_factory=list[str])
    """The workloads among which the labels do not choose."""
    missing: list[str] = field(default_factory=list[str])
    """Objects that the labels name and the cluster does not have."""


def names_a_pod(labels: Mapping[str, Json]) -> bool:
    """Tell whether an alert is about a pod.

    Beside the label of a workload or a limit, or a node's condition or taint, `pod` is that of the
    exporter which told of it.
    """
    told = any(labels.get(label) for label in WORKLOADS) or _names_a_node(labels)
    told = told or bool(names_a_limit(labels))
    return bool(labels.get("pod")) and not told


def _names_a_node(labels: Mapping[str, Json]) -> bool:
    """Tell whether an alert is about a node; of pods, kube-state-metrics tells neither."""
    of_node = labels.get("condition") or (labels.get("key") and labels.get("effect"))
    return bool(labels.get("node") and of_node)


def _seen(what: str, thing: Object | None) -> tuple[Json, str]:
    if thing is None:
        return None, f"{what} does not exist"
    owner = controller_of(thing)
    belongs = f", controlled by {owner.kind} {owner.name}" if owner else ""
    return {"uid": uid_of(thing), "owner": belongs[2:]}, f"{what} exists{belongs}"


class Resolver:
    """Follows labels and owner references; raises `UnansweredError` where it cannot read."""

    def __init__(self, cluster: ClusterReader, book: Notebook) -> None:
        self._cluster = cluster
        self.book = book

    async def get(self, api_version: str, kind: str, namespace: str, name: str) -> Object | None:
        """Read one object and write that down."""
        what = f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"
        return await self.book.ask(
            Source.KUBERNETES,
            f"get {api_version} {what}",
            self._cluster.get(api_version, kind, namespace, name),
            lambda thing: _seen(what, thing),
        )

    async def resolve(self, alerts: Sequence[Alert]) -> Subjects:
        """Find what the alerts are about; the first one's pod is the pod."""
        found = Subjects()
        workloads: dict[str, tuple[Link, list[Owner]]] = {}
        for alert in alerts[:MAX_ALERTS]:
            top = await self._one(alert.labels, found)
            if top is not None:
                workloads[uid_of(top[0].thing)] = top
        if len(workloads) == 1:
            found.workload, found.owners = next(iter(workloads.values()))
        elif workloads:
            found.ambiguous = sorted(
                f"{link.kind} {text(link.thing, 'metadata', 'namespace')}/{name_of(link.thing)}"
                for link, _ in workloads.values()
            )
        return found

    async def _one(
        self, labels: dict[str, str], found: Subjects
    ) -> tuple[Link, list[Owner]] | None:
        namespace = labels.get("namespace", "")
        label = next((k for k in WORKLOADS if labels.get(k)), "")
        if namespace and label:
            api_version, kind = WORKLOADS[label]
            thing = await self.get(api_version, kind, namespace, labels[label])
            if thing is None:
                found.missing.append(f"{kind} {namespace}/{labels[label]}")
                return None
            return await self.climb(Link(api_version, kind, thing))
        if namespace and labels.get(CLAIM_LABEL):
            return await self._from_claim(namespace, labels[CLAIM_LABEL], found)
        if namespace and names_a_limit({**labels}):
            return await self._from_limit(namespace, labels, found)
        if namespace and names_a_pod({**labels}):
            return await self._from_pod(namespace, labels["pod"], found)
        if labels.get("node"):
            found.nodes.add(labels["node"])
        return None

    async def _from_pod(
        self, namespace: str, name: str, found: Subjects
    ) -> tuple[Link, list[Owner]] | None:
        found.named_pods.add(name)
        pod = await self.get("v1", "Pod", namespace, name)
        if pod is not None:
            found.pod = found.pod or pod
            return await self.climb(Link("v1", "Pod", pod))
        found.missing.append(f"Pod {namespace}/{name}")
        made = _POD_OF_REPLICASET.fullmatch(name)
        if made is None:
            return None
        replicaset = await self.get("apps/v1", "ReplicaSet", namespace, made[1])
        if replicaset is None:
            return None
        return await self.climb(Link("apps/v1", "ReplicaSet", replicaset))

    async def _from_claim(
        self, namespace: str, name: str, found: Subjects
    ) -> tuple[Link, list[Owner]] | None:
        claim = await self.get(*CLAIM, namespace, name)
        if claim is None:
            found.missing.append(f"{CLAIM[1]} {namespace}/{name}")
            return None
        found.claim = found.claim or claim
        links, above = await self.around_claim(Link(*CLAIM, claim))
        return (links[-1], above) if len(links) > 1 else None

    async def _from_limit(
        self, namespace: str, labels: Mapping[str, str], found: Subjects
    ) -> tuple[Link, list[Owner]] | None:
        """Follow an autoscaler or a budget; a budget over several workloads leads to none."""
        label = names_a_limit({**labels})
        kind = LIMITS[label]
        limit = await self.get(*kind, namespace, labels[label])
        if limit is None:
            found.missing.append(f"{kind[1]} {namespace}/{labels[label]}")
            return None
        found.limits.setdefault(label, limit)
        if label == "horizontalpodautoscaler":
            scaled = await scaled_by(self, limit)
            return await self.climb(Link(*scaled)) if scaled else None
        tops = [
            await self.climb(Link("v1", "Pod", pod))
            for pod in await covered_by(self._cluster, limit)
        ]
        one = {uid_of(link.thing): (link, owners) for link, owners in tops}
        return next(iter(one.values())) if len(one) == 1 else None

    async def around_claim(self, start: Link) -> tuple[list[Link], list[Owner]]:
        """Give a claim, and above it its own controller or the workload whose pods use it."""
        links, above = await self.chain(start)
        if above or len(links) > 1:
            return links, above
        pods = await self._cluster.list("v1", "Pod", text(start.thing, "metadata", "namespace"))
        pod = workload_pod(start.thing, pods)
        if pod is None:
            return links, above
        found, above = await self.chain(Link("v1", "Pod", pod))
        return [start, *found[1:]], above

    async def climb(self, start: Link) -> tuple[Link, list[Owner]]:
        """Give the highest built-in object above this one, and the owners above that one."""
        links, above = await self.chain(start)
        return links[-1], above

    async def chain(self, start: Link) -> tuple[list[Link], list[Owner]]:
        """Give the built-in objects from this one up, and the owners above the last.

        Raises `UnansweredError` also where the owners go on, as in a circle: there is no highest.
        """
        links, above = [start], list[Owner]()
        for _ in range(MAX_CLIMB):
            here = links[-1]
            owner = controller_of(here.thing)
            if owner is None:
                break
            if (owner.api_version, owner.kind) not in _CLIMBED or owner.kind == "CronJob":
                above.append(owner)
                break
            namespace = text(here.thing, "metadata", "namespace")
            thing = await self.get(owner.api_version, owner.kind, namespace, owner.name)
            if thing is None or uid_of(thing) != owner.uid:
                above.append(owner)
                break
            links.append(Link(owner.api_version, owner.kind, thing))
        else:
            raise UnansweredError(f"the owners of {start.kind} {name_of(start.thing)} have no end")
        return links, above


def targets(
    subjects: Subjects, failing: Sequence[Object], node: Object | None, cluster: str
) -> dict[str, Target]:
    """Give the targets by role; a pod is one only where the labels or the cluster leave no choice.

    `failing` are the workload's pods that are not ready.
    """
    found: dict[str, Target] = {}
    if subjects.ambiguous:
        return found
    link = subjects.workload
    if link is not None and link.kind != "Pod":
        found["workload"] = target_of(link.thing, cluster, link.api_version, link.kind)
    candidates = {name_of(pod): pod for pod in failing}
    if subjects.pod is not None and len(subjects.named_pods) == 1:
        candidates = {name_of(subjects.pod): subjects.pod}
    if len(candidates) == 1:
        (pod,) = candidates.values()
        found["pod"] = target_of(pod, cluster, "v1", "Pod")
    if subjects.claim is not None:
        found["claim"] = target_of(subjects.claim, cluster, *CLAIM)
    if node is not None:
        found["node"] = target_of(node, cluster, "v1", "Node")
    return found
