"""Reads the metrics and the recent changes of a service and of those around it.

Every question is asked once for a whole namespace. The namespaces are the affected service's own
and those of what it calls.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from tiphys.agents.around import calls, happenings, readings, standard
from tiphys.agents.around.happenings import Happening
from tiphys.agents.around.place import Names, Place
from tiphys.agents.asking import Asking
from tiphys.agents.causes.signals import Signal, Window
from tiphys.agents.objects import name_of, text
from tiphys.agents.ports import Series
from tiphys.agents.promql import any_of
from tiphys.policies.model import Object

STEP: Final = 60.0
"""Seconds of one bin: most metrics are scraped every 15 to 60 s."""
BEFORE: Final = timedelta(minutes=25)
"""How long before an alert trouble may have begun: its `for`, the range it looks at, some calm."""
AFTER: Final = timedelta(minutes=15)
"""How long after its start trouble is still looked at; what changed later came of it."""
MAX_SIGNALS: Final = 4_000
MAX_NEIGHBOURS: Final = 60
MAX_NAMESPACES: Final = 4
MAX_LENGTH: Final = 6_000
"""Letters of all names that one query is narrowed to."""
_OWN: Final = (standard.CPU, standard.MEMORY, standard.RESTARTS)


@dataclass
class Neighbourhood:
    """What was read."""

    affected: str = ""
    """The component that the alert is about; empty where nothing tells."""
    calls: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """Who calls whom, where metrics tell."""
    signals: list[Signal] = field(default_factory=list[Signal])
    happenings: list[Happening] = field(default_factory=list[Happening])
    changes_read: bool = False
    """Whatever tells of releases was read."""
    unseen: list[str] = field(default_factory=list[str])


def window_around(began: datetime, now: datetime) -> Window:
    """Give the time in which the trouble may have begun that raised an alert at `began`."""
    began = min(began, now)  # another clock may be ahead of ours
    end = min(now, began + AFTER).timestamp()
    bins = round((end - (began - BEFORE).timestamp()) / STEP)
    return Window(end - bins * STEP, end, STEP)


async def read_around(ask: Asking, labels: Mapping[str, str]) -> Neighbourhood:
    """Read what can be read in time around what an alert's labels name."""
    reader = _Reader(ask, labels.get("namespace", ""))
    await ask.in_time(reader.read(labels))
    found = reader.found
    found.unseen = [f"{what}: {why}" for what, why in ask.missing.items()] + ask.left_out
    _bound(found)
    return found


class _Reader:
    def __init__(self, ask: Asking, namespace: str) -> None:
        self._ask = ask
        self._names = Names(Place((namespace,)), {})
        self._deployments: list[Object] = []
        self._replicasets: list[Object] = []
        self.found = Neighbourhood()

    @property
    def _place(self) -> Place:
        return self._names.place

    async def read(self, labels: Mapping[str, str]) -> None:
        """Find the affected workload and its calls, then everything about all of them."""
        await self._workloads(self._place.namespaces)
        found = self.found
        found.affected = self._names.of_alert(labels)
        self._ask.nearest = (found.affected,) if found.affected else ()
        told = await asyncio.gather(*(self._edges(mesh) for mesh in calls.MESHES))
        edges = [e for mesh, every in told for e in readings.edges(mesh, every, self._names)]
        found.calls = calls.graph_of(edges)
        near = [found.affected, *calls.near(found.affected, found.calls)][:MAX_NEIGHBOURS]
        self._ask.nearest = _fitting(name.rpartition("/")[2] for name in near if name)
        await self._widen(edges)
        await asyncio.gather(
            *(self._signals(a, self._names.of_owner) for a in _OWN),
            self._signals(standard.AVAILABLE, self._names.of_labels),
            self._http(),
            self._recorded(),
            self._changes(),
            self._nodes(),
            *(self._called(mesh, every) for mesh, every in told if every),
        )

    async def _workloads(self, namespaces: Sequence[str]) -> None:
        """List Deployments and ReplicaSets: two reads a namespace."""
        for namespace in namespaces:
            made, owned = await asyncio.gather(
                self._ask.listed("Deployment", namespace), self._ask.listed("ReplicaSet", namespace)
            )
            self._deployments += made
            self._replicasets += owned
        owners = happenings.owners_of(self._deployments, self._replicasets)
        self._names = Names(self._place, owners)

    async def _widen(self, edges: Sequence[calls.Edge]) -> None:
        """Take in the namespaces of what the affected service calls."""
        found = self.found
        around = {found.affected, *calls.below(found.affected, found.calls)}
        others = [n for e in edges if e.caller in around for n in sorted(e.namespaces)]
        spaces = tuple(dict.fromkeys([self._place.home, *others]))
        if left := spaces[MAX_NAMESPACES:]:
            self._ask.left_out.append(f"what is called in namespaces {', '.join(left[:5])}")
        self._names = Names(Place(spaces[:MAX_NAMESPACES]), {})
        await self._workloads(self._place.namespaces[1:])

    async def _get(self, asked: standard.Asked) -> Sequence[Series] | None:
        return await self._ask.nearest_of(asked.words, asked.write, self._place)

    async def _signals(self, asked: standard.Asked, name: readings.Name) -> None:
        every = await self._get(asked) or ()
        self.found.signals += await asyncio.to_thread(readings.signals, asked, every, name)

    async def _http(self) -> None:
        owner = self._names.of_owner
        total, failed, _ = await asyncio.gather(
            self._get(standard.REQUESTS),
            self._get(standard.FAILED),
            self._signals(standard.LATENCY, owner),
        )
        self.found.signals += await asyncio.to_thread(readings.of_http, total, failed, owner)

    async def _recorded(self) -> None:
        every = await self._get(standard.RECORDED)
        names = self._names
        self.found.signals += await asyncio.to_thread(readings.recorded, every or (), names)

    async def _edges(self, mesh: calls.Mesh) -> tuple[calls.Mesh, Sequence[Series]]:
        words = f"calls ({mesh.name})"
        every = await self._ask.nearest_of(words, _of(calls.requests, mesh), self._place)
        return mesh, every or ()

    async def _called(self, mesh: calls.Mesh, made: Sequence[Series]) -> None:
        place = self._place
        failed, latency = await asyncio.gather(
            self._ask.nearest_of(f"failed calls ({mesh.name})", _of(calls.failures, mesh), place),
            self._ask.nearest_of(f"slow calls ({mesh.name})", _of(calls.latencies, mesh), place),
        )
        told = (made, failed, latency)
        self.found.signals += await asyncio.to_thread(readings.of_calls, mesh, place, *told)

    async def _changes(self) -> None:
        wanted, generations, versions = await asyncio.gather(
            self._get(standard.WANTED),
            self._get(standard.GENERATIONS),
            self._get(standard.VERSIONS),
        )
        names, since = self._names, self._ask.window.start
        released = happenings.releases(self._deployments, self._replicasets, names, since)
        scaled = happenings.scalings(wanted or (), names)
        listed = frozenset(
            names.place.component(text(d, "metadata", "namespace"), name_of(d))
            for d in self._deployments
        )
        edited = happenings.edits(generations or (), scaled, listed, names)
        readers = happenings.configured_by(self._deployments)
        changed = happenings.reconfigurations(versions or (), readers, names)
        found = self.found
        found.happenings += [h for h in (*released, *scaled, *edited, *changed) if h.at >= since]
        # Releases of Deployments are listed; those of other kinds show in their generations.
        home = (f"{kind}s of {names.place.home}" for kind in ("Deployment", "ReplicaSet"))
        answered = not any(words in self._ask.missing for words in home)
        found.changes_read = answered and (found.affected in listed or bool(generations))

    async def _nodes(self) -> None:
        """Read what happened to the nodes that bear pods of the affected and what it calls."""
        found = self.found
        pods = await self._ask.instant("nodes of the pods", standard.tenants(self._place))
        depends = {found.affected, *calls.below(found.affected, found.calls)}
        tenants: dict[str, list[str]] = {}
        for sample in pods:
            made_by = {k.replace("created_by", "owner"): v for k, v in sample.labels.items()}
            one, node = self._names.of_owner(made_by), sample.labels.get("node", "")
            if one and one in depends and node and one not in tenants.setdefault(node, []):
                tenants[node].append(one)
        chosen = _fitting(node for node, bears in tenants.items() if bears)
        if not chosen:
            return
        where = f"node=~{any_of(chosen)}"
        status = f'kube_node_status_condition{{condition="Ready",status="true",{where}}}'
        ready, cordoned = await asyncio.gather(
            self._ask.range("readiness of nodes", f"max by (node) ({status})"),
            self._ask.range(
                "cordons of nodes", f"max by (node) (kube_node_spec_unschedulable{{{where}}})"
            ),
        )
        happened = happenings.of_nodes(ready or (), cordoned or (), tenants)
        found.happenings += [h for h in happened if h.at >= self._ask.window.start]


def _of(write: Callable[[calls.Mesh, Place], str], mesh: calls.Mesh) -> Callable[[Place], str]:
    return lambda place: write(mesh, place)


def _fitting(names: Iterable[str]) -> list[str]:
    """Give the first names that fit into one query."""
    kept: list[str] = []
    length = 0
    for name in names:
        length += len(name) + 1
        if length > MAX_LENGTH:
            break
        kept.append(name)
    return kept


def _bound(found: Neighbourhood) -> None:
    """Keep the nearest where there are too many signals, and say how many are left out."""
    left = len(found.signals) - MAX_SIGNALS
    if left <= 0:
        return
    order = [found.affected, *calls.near(found.affected, found.calls)]
    place = {name: i for i, name in enumerate(order)}
    found.signals.sort(key=lambda s: place.get(s.component, len(place)))
    found.signals = found.signals[:MAX_SIGNALS]
    found.unseen.append(f"{left} series of what is farthest away: left out, too many")
