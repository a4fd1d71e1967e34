"""Reads what a model asks for, through the agents' read-only ports, each answer as evidence.

Invariants: what a read names is looked up among the resolved objects and nowhere else; a source
that does not answer is evidence too, and never taken for healthy.
"""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from tiphys.agents.described import described
from tiphys.agents.metric_history import MEASURED, history_told, query_of, step_of
from tiphys.agents.notebook import Notebook
from tiphys.agents.objects import items, name_of, text, uid_of, whole
from tiphys.agents.pod_facts import is_ready
from tiphys.agents.pod_words import LOG_LINES, events_told, log_told
from tiphys.agents.ports import ClusterReader, Findings, Metrics, UnansweredError
from tiphys.agents.reads import Describe, Events, History, Log, Neighbours, Offer, Read
from tiphys.agents.resolver import WORKLOADS, Link, Resolver
from tiphys.agents.target_facts import pods_of
from tiphys.policies.model import Evidence, Json, Object, Source, Target

_WITH_PODS: Final = {*WORKLOADS.values(), ("v1", "ReplicationController")}
_COUNTED: Final = (
    ("Deployment", ("spec", "replicas"), ("status", "availableReplicas")),
    ("StatefulSet", ("spec", "replicas"), ("status", "readyReplicas")),
    ("DaemonSet", ("status", "desiredNumberScheduled"), ("status", "numberAvailable")),
)
MAX_PODS: Final = 5
MAX_CONTAINERS: Final = 12
MAX_NEIGHBOURS: Final = 40


@dataclass(frozen=True)
class Place:
    """A container that the model may name."""

    namespace: str
    pod: str
    container: str
    words: str


class Reading:
    """What can be read around one incident's resolved objects; made by `begin`."""

    def __init__(
        self, cluster: ClusterReader, metrics: Metrics | None, findings: Findings, book: Notebook
    ) -> None:
        self._cluster = cluster
        self._metrics = metrics
        self._targets = findings.targets
        self._book = book
        self.places: Mapping[str, Place] = {}

    async def begin(self) -> None:
        """Find the containers whose logs can be read; without an answer there are none."""
        try:
            pods = await self._pods()
        except UnansweredError as error:
            self._book.note(f"whose logs could be read was not answered: {error}")
            return
        found = [place for pod in pods for place in _places(pod)][:MAX_CONTAINERS]
        self.places = {f"container-{number}": one for number, one in enumerate(found, 1)}

    @property
    def offer(self) -> Offer:
        """What a model may ask for."""
        roles = tuple(sorted(self._targets))
        measured = tuple(role for role in roles if self._targets[role].kind in MEASURED)
        return Offer(
            containers=tuple(self.places),
            roles=roles,
            measured=measured if self._metrics else (),
            neighbours=bool(self._namespace),
        )

    async def read(self, read: Read) -> Sequence[Evidence]:
        """Read, and give what was written down about it."""
        before = len(self._book.evidence)
        with contextlib.suppress(UnansweredError):  # it is written down as not `ok`
            await self._read(read)
        return self._book.evidence[before:]

    @property
    def _namespace(self) -> str:
        return next((t.namespace for t in self._targets.values() if t.namespace), "")

    async def _pods(self) -> Sequence[Object]:
        """Give the pod in question, then the workload's: first those that are not ready."""
        resolver = Resolver(self._cluster, self._book)
        found: list[Object] = []
        if pod := self._targets.get("pod"):
            thing = await resolver.get("v1", "Pod", pod.namespace, pod.name)
            found += [thing] if thing else []
        workload = self._targets.get("workload")
        if workload and (workload.api_version, workload.kind) in _WITH_PODS:
            kind = (workload.api_version, workload.kind)
            thing = await resolver.get(*kind, workload.namespace, workload.name)
            if thing:
                every = await pods_of(self._cluster, workload.namespace, Link(*kind, thing))
                known = {uid_of(one) for one in found}
                others = [one for one in every if uid_of(one) not in known]
                found += sorted(others, key=lambda one: (is_ready(one), name_of(one)))
        return found[:MAX_PODS]

    async def _read(self, read: Read) -> None:
        match read:
            case Log():
                await self._log(self.places[str(read.of.value)], previous=read.previous)
            case Events():
                await self._events(self._targets[str(read.of.value)])
            case Describe():
                await self._describe(self._targets[str(read.of.value)])
            case History():
                await self._history(self._targets[str(read.of.value)], read)
            case Neighbours():
                await self._neighbours()
            case _:
                raise TypeError(f"{type(read).__name__} is not read by anything")

    async def _log(self, place: Place, *, previous: bool) -> None:
        await self._book.ask(
            Source.LOGS,
            f"logs {place.namespace}/{place.pod} -c {place.container} --tail={LOG_LINES}"
            + (" --previous" if previous else ""),
            self._cluster.logs(
                place.namespace,
                place.pod,
                place.container,
                previous=previous,
                tail_lines=LOG_LINES,
            ),
            log_told,
        )

    async def _events(self, target: Target) -> None:
        # What a kubelet says of its node bears the node's name as its uid.
        node = f"involvedObject.kind=Node,involvedObject.name={target.name}"
        about = node if target.kind == "Node" else f"involvedObject.uid={target.uid}"
        await self._book.ask(
            Source.KUBERNETES,
            f"events of {target}",
            self._cluster.list("v1", "Event", target.namespace, field_selector=about),
            events_told,
        )

    async def _describe(self, target: Target) -> None:
        place = (target.api_version, target.kind, target.namespace, target.name)
        await self._book.ask(
            Source.KUBERNETES, f"describe {target}", self._cluster.get(*place), described
        )

    async def _history(self, target: Target, read: History) -> None:
        query = query_of(read.metric, target)
        if query is None or self._metrics is None:
            self._book.refuse(
                f"{read.metric.value} of {target}", f"a {target.kind} has no such metric here"
            )
            return
        end = self._book.now()
        start = end - timedelta(minutes=read.minutes)
        await self._book.ask(
            Source.PROMETHEUS,
            f"{query} over the last {read.minutes} min",
            self._metrics.range(query, start, end, step_of(read.minutes)),
            lambda found: history_told(read.metric, found, start.timestamp()),
        )

    async def _neighbours(self) -> None:
        async def listed() -> Sequence[Sequence[Object]]:
            return await asyncio.gather(
                *(self._cluster.list("apps/v1", kind, self._namespace) for kind, _, _ in _COUNTED)
            )

        await self._book.ask(
            Source.KUBERNETES, f"list workloads in {self._namespace}", listed(), _standing
        )


def _places(pod: Object) -> list[Place]:
    namespace, name = text(pod, "metadata", "namespace"), name_of(pod)
    state = "ready" if is_ready(pod) else "not ready"
    containers = [*items(pod, "spec", "containers"), *items(pod, "spec", "initContainers")]
    names = [text(one, "name") for one in containers]
    return [
        Place(namespace, name, one, f"container {one} of pod {name}, which is {state}")
        for one in names
        if one
    ]


def _standing(found: Sequence[Sequence[Object]]) -> tuple[Json, str]:
    told: list[tuple[bool, Json]] = []
    for (kind, wanted, there), things in zip(_COUNTED, found, strict=True):
        for thing in things:
            want, have = whole(thing, *wanted), whole(thing, *there)
            told.append(
                (have >= want, {"kind": kind, "name": name_of(thing), "wants": want, "has": have})
            )
    told.sort(key=lambda one: one[0])
    lacking = sum(1 for whole_, _ in told if not whole_)
    return [one for _, one in told[:MAX_NEIGHBOURS]], (
        f"{lacking} of {len(told)} workloads here have fewer replicas than they want"
    )
