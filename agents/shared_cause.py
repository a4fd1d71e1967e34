"""Whether what hurts is only what follows from something else: an ill node, no DNS, a full quota.

Invariant: something explains an incident only if it explains all of it. One pod that does not serve
for another reason, and the incident is looked at for itself.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tiphys.agents.notebook import Notebook
from tiphys.agents.objects import (
    condition,
    instant,
    items,
    name_of,
    strings,
    text,
    whole,
)
from tiphys.agents.pod_facts import Trouble, is_ready, minutes_between
from tiphys.agents.ports import ClusterReader, Metrics
from tiphys.agents.promql import any_of, selector, what_it_reads
from tiphys.agents.resolver import Resolver
from tiphys.policies.correlation import workload_of
from tiphys.policies.model import Alert, Cause, Json, Object, Source

MAX_NODES: Final = 5
"""More nodes than that are no node's trouble."""
MAX_TARGETS: Final = 50
DNS: Final = ("kube-system", "k8s-app", "kube-dns")
"""Where the cluster's DNS is, by the label that CoreDNS' and kube-dns' manifests share."""
_ON_THEIR_WAY = {Trouble.UNSCHEDULABLE.value, Trouble.STARTING.value}
_WITHOUT_NAMES = {Trouble.UNREADY.value, Trouble.CRASH.value}
_OF_A_TARGET = ("job", "namespace", "service", "instance", "node", "pod")


@dataclass(frozen=True)
class Ill:
    """A node that does not serve, and for how many minutes; -1 where that is unknown."""

    words: str
    minutes: float


class SharedCause:
    """Reads nodes, the DNS' pods and scrape targets; raises `UnansweredError`."""

    def __init__(self, cluster: ClusterReader, metrics: Metrics | None, book: Notebook) -> None:
        self._cluster = cluster
        self._metrics = metrics
        self._book = book
        self._resolver = Resolver(cluster, book)

    async def of_pods(self, where: Mapping[str, Json]) -> Cause | None:
        """Give what explains every pod of a workload that does not serve."""
        groups = items(where, "groups")
        if not groups and where.get("quota"):
            return _quota(text(where, "namespace"))
        ill = await self._ill({text(g, "node") for g in groups if text(g, "node")})
        hurt = [g for g in groups if not _only_leaves(g, ill)]
        there = [g for g in hurt if text(g, "node") in ill]
        if there and all(g in there or _replaces(g, there, ill) for g in hurt):
            return _nodes({text(g, "node") for g in there}, ill)
        troubles = {text(g, "trouble") for g in hurt}
        if where.get("quota") and troubles <= _ON_THEIR_WAY:
            return _quota(text(where, "namespace"))
        if hurt and troubles <= _WITHOUT_NAMES and text(where, "namespace") != DNS[0]:
            return await self._dns()
        return None

    async def of_targets(self, alerts: Sequence[Alert], expression: str) -> Cause | None:
        """Give the nodes on which every target is that an alert about scraping is about."""
        reads, jobs = what_it_reads(expression)
        if self._metrics is None or reads != {"up"}:
            return None
        down: list[Mapping[str, str]] = []
        for alert in alerts[:MAX_NODES]:
            wanted = {k: v for k, v in alert.labels.items() if k in _OF_A_TARGET}
            query = f"{selector('up', wanted)} == 0"
            if not wanted:
                query = f"up{{job=~{any_of(jobs)}}} == 0"
            samples = await self._book.ask(
                Source.PROMETHEUS,
                query,
                self._metrics.instant(query),
                lambda found: ([dict(s.labels) for s in found[:20]], f"{len(found)} are down"),
            )
            if not samples or len(samples) > MAX_TARGETS:
                return None
            down += [sample.labels for sample in samples]
        homes = await self._homes(down)
        if homes is None or len(homes) > MAX_NODES:
            return None
        ill = await self._ill(homes)
        return _nodes(homes, ill) if homes and homes == set(ill) else None

    async def _homes(self, down: Sequence[Mapping[str, str]]) -> set[str] | None:
        """Give the nodes of targets that are down; None where that of one cannot be told."""
        found: set[str] = set()
        nodes: Sequence[Object] | None = None
        for target in down:
            if target.get("node"):
                found.add(target["node"])
                continue
            if target.get("pod") and target.get("namespace"):
                pod = await self._resolver.get("v1", "Pod", target["namespace"], target["pod"])
                if pod is None or not text(pod, "spec", "nodeName"):
                    return None
                found.add(text(pod, "spec", "nodeName"))
                continue
            if nodes is None:
                nodes = await self._book.ask(
                    Source.KUBERNETES,
                    "list nodes",
                    self._cluster.list("v1", "Node", ""),
                    lambda listed: (len(listed), f"{len(listed)} nodes"),
                )
            host = target.get("instance", "").rsplit(":", 1)[0]
            home = [name_of(n) for n in nodes if host and host in _addresses(n)]
            if len(home) != 1:
                return None
            found.add(home[0])
        return found

    async def _ill(self, names: Collection[str]) -> dict[str, Ill]:
        """Give those of the nodes that are not ready or gone; none of too many."""
        if len(names) > MAX_NODES:
            return {}
        found: dict[str, Ill] = {}
        for name in sorted(names):
            node = await self._resolver.get("v1", "Node", "", name)
            if node is None:
                found[name] = Ill(f"node {name} no longer exists", -1.0)
            elif text(condition(node, "Ready"), "status") != "True":
                since = instant(condition(node, "Ready"), "lastTransitionTime")
                why = text(condition(node, "Ready"), "reason") or "it does not say why"
                found[name] = Ill(
                    f"node {name} is not ready ({why})", minutes_between(since, self._book.now())
                )
        return found

    async def _dns(self) -> Cause | None:
        namespace, label, value = DNS
        found = await self._book.ask(
            Source.KUBERNETES,
            "list pods of the cluster's DNS",
            self._cluster.list("v1", "Pod", namespace, label_selector=f"{label}={value}"),
            lambda pods: (
                [name_of(pod) for pod in pods[:20]],
                f"{sum(map(is_ready, pods))} of {len(pods)} are ready",
            ),
        )
        pods = [
            pod
            for pod in found
            if text(pod, "metadata", "namespace") == namespace
            and strings(pod, "metadata", "labels").get(label) == value
        ]
        if not pods or any(is_ready(pod) for pod in pods):
            return None
        about = workload_of(namespace, name_of(pods[0]))
        return Cause(
            subjects=(about,),
            words=f"none of the {len(pods)} pods of the cluster's DNS is ready",
        )


def _only_leaves(group: Object, ill: Mapping[str, Ill]) -> bool:
    """Tell of pods that end in good order: on an ill node they cannot."""
    return text(group, "trouble") == Trouble.TERMINATING.value and text(group, "node") not in ill


def _replaces(group: Object, there: Sequence[Object], ill: Mapping[str, Ill]) -> bool:
    """Tell of pods that were made since the nodes fell ill and are on their way."""
    minutes = group.get("minutes")
    since = [ill[text(g, "node")].minutes for g in there]
    if text(group, "trouble") not in _ON_THEIR_WAY or not isinstance(minutes, int | float):
        return False
    lost = sum(whole(g, "count") for g in there)
    return min(since) >= 0 and minutes <= max(since) and whole(group, "count") <= lost


def _nodes(names: Collection[str], ill: Mapping[str, Ill]) -> Cause:
    shown = sorted(names)
    return Cause(
        subjects=tuple(f"node {name}" for name in shown),
        words="; ".join(ill[name].words for name in shown),
    )


def _quota(namespace: str) -> Cause:
    return Cause(
        subjects=(f"namespace {namespace}",),
        words=f"the quota of namespace {namespace} lets no more pods be made",
    )


def _addresses(node: Object) -> set[str]:
    return {name_of(node), *(text(one, "address") for one in items(node, "status", "addresses"))}
