"""What somebody or something changed lately: releases, scaling, configuration, nodes; exact times.

Nothing here is statistics: a revision was made, a number of replicas was set, a node stopped being
ready, and each says when.
"""

import enum
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from tiphys.agents.around.place import Names
from tiphys.agents.objects import items, mapping, name_of, text, uid_of
from tiphys.agents.ports import Series
from tiphys.agents.workload_facts import differences, revision_of, revisions, rollout_at
from tiphys.policies.model import Object

RESTLESS: Final = 4
"""Changes within the time looked at from which on a ConfigMap is a lock or a heartbeat."""
SAME_ACT: Final = 30.0
"""Seconds within which a new generation and new replicas are one edit."""


class What(enum.Enum):
    """What kind of change it was."""

    RELEASE = "release"
    SCALING = "scaling"
    CONFIGURATION = "configuration"
    NODE = "node"


@dataclass(frozen=True)
class Happening:
    """One change of one component."""

    component: str
    what: What
    at: float
    """Unix seconds."""
    words: str
    """Without the component's name and the time."""
    blunt: float = 0.0
    """Seconds by which it may have been earlier: the metrics' step; 0 where the cluster says."""

    @property
    def told(self) -> str:
        """Say it in one line."""
        return f"{self.component}: {self.words} at {clock(self.at)}"


def clock(at: float) -> str:
    """Write a time of the day."""
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S")


def releases(
    deployments: Sequence[Object], replicasets: Sequence[Object], names: Names, since: float
) -> list[Happening]:
    """Give the rollouts since a time, each with the fields of the template that it changed."""
    found: list[Happening] = []
    for deployment in deployments:
        history = revisions(deployment, replicasets)
        began = rollout_at(deployment, history)
        # The first revision of all is no change of what was there.
        if began is None or len(history) < 2 or began.timestamp() < since:
            continue
        fields = ", ".join(differences(history)) or "nothing in its template"
        namespace = text(deployment, "metadata", "namespace")
        found.append(
            Happening(
                names.place.component(namespace, name_of(deployment)),
                What.RELEASE,
                began.timestamp(),
                f"revision {revision_of(history[0])} was rolled out and changed {fields}",
            )
        )
    return found


def owners_of(
    deployments: Sequence[Object], replicasets: Sequence[Object]
) -> dict[tuple[str, str], str]:
    """Give the Deployment of each ReplicaSet, by namespace and name."""
    made_by = {uid_of(d): name_of(d) for d in deployments}
    found: dict[tuple[str, str], str] = {}
    for one in replicasets:
        for reference in items(one, "metadata", "ownerReferences"):
            name = made_by.get(text(reference, "uid")) or text(reference, "name")
            if text(reference, "kind") == "Deployment" and name:
                found[text(one, "metadata", "namespace"), name_of(one)] = name
    return found


def configured_by(workloads: Iterable[Object]) -> dict[tuple[str, str], list[str]]:
    """Give the workloads whose pods read a ConfigMap, by its namespace and name."""
    found: dict[tuple[str, str], list[str]] = {}
    for one in workloads:
        namespace = text(one, "metadata", "namespace")
        for configmap in _configmaps(mapping(one, "spec", "template", "spec")):
            found.setdefault((namespace, configmap), []).append(name_of(one))
    return found


def scalings(wanted: Sequence[Series], names: Names) -> list[Happening]:
    """Give the changes of the replicas wanted."""
    found: list[Happening] = []
    for series in wanted:
        component = names.of_labels(series.labels)
        for earlier, at, before, after in steps(series) if component else ():
            words = f"scaled from {before:.0f} to {after:.0f} replicas"
            found.append(Happening(str(component), What.SCALING, at, words, at - earlier))
    return found


def edits(
    generations: Sequence[Series], scaled: Sequence[Happening], known: frozenset[str], names: Names
) -> list[Happening]:
    """Give the edits of specs that were no scaling; `known`: components whose releases are read."""
    when: dict[str, list[float]] = {}
    for one in scaled:
        when.setdefault(one.component, []).append(one.at)
    found: list[Happening] = []
    for series in generations:
        component = names.of_labels(series.labels)
        if component is None or component in known:
            continue
        for earlier, at, _, _ in steps(series):
            if all(abs(at - other) > SAME_ACT for other in when.get(component, ())):
                words = "its spec was edited"
                found.append(Happening(component, What.RELEASE, at, words, at - earlier))
    return found


def reconfigurations(
    versions: Sequence[Series], readers: Mapping[tuple[str, str], Sequence[str]], names: Names
) -> list[Happening]:
    """Give the changes of the ConfigMaps that pods read; those that change all the time are not."""
    found: list[Happening] = []
    for series in versions:
        namespace, name = (series.labels.get(k, "") for k in ("namespace", "configmap"))
        changed = list(steps(series))
        if len(changed) >= RESTLESS:
            continue
        for workload in readers.get((namespace, name), ()):
            component = names.place.component(namespace, workload)
            found += [
                Happening(component, What.CONFIGURATION, at,
                          f"its ConfigMap {name} was changed", at - earlier)
                for earlier, at, _, _ in changed
            ]  # fmt: skip
    return found


def of_nodes(
    ready: Sequence[Series], cordoned: Sequence[Series], tenants: Mapping[str, Sequence[str]]
) -> list[Happening]:
    """Give what happened to the nodes that bear pods; `tenants`: the components on each."""
    told = ((ready, 0.0, "is no longer ready"), (cordoned, 1.0, "was cordoned"))
    return [
        Happening(component, What.NODE, at, f"node {node}, which bears its pods, {words}",
                  at - earlier)
        for every, bad, words in told
        for series in every
        if (node := series.labels.get("node", ""))
        for earlier, at, _, after in steps(series)
        if after == bad
        for component in tenants.get(node, ())
    ]  # fmt: skip


def steps(series: Series) -> Iterable[tuple[float, float, float, float]]:
    """Give each change of a series of whole numbers: the time before, the time, both values."""
    last: tuple[float, float] | None = None
    for at, value in sorted(series.points):
        if not math.isfinite(value):
            continue
        if last is not None and value != last[1]:
            yield last[0], at, last[1], value
        last = (at, value)


def _configmaps(pod: Object) -> set[str]:
    found = {text(v, "configMap", "name") for v in items(pod, "volumes")}
    for volume in items(pod, "volumes"):
        sources = items(volume, "projected", "sources")
        found |= {text(source, "configMap", "name") for source in sources}
    for container in (*items(pod, "containers"), *items(pod, "initContainers")):
        found |= {text(e, "configMapRef", "name") for e in items(container, "envFrom")}
        found |= {text(e, "valueFrom", "configMapKeyRef", "name") for e in items(container, "env")}
    return found - {""}
